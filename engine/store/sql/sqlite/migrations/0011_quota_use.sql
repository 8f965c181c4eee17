-- What steps have cost, by the append that records them, in millionths of the platform's currency. Day and month are UTC's; of earlier ones nothing
-- counts any more.

CREATE TABLE cost_counters (
    tenant       TEXT    NOT NULL,
    workflow     TEXT    NOT NULL,
    day          TEXT    NOT NULL,
    day_micros   INTEGER NOT NULL,
    -- Its first day.
    month        TEXT    NOT NULL,
    month_micros INTEGER NOT NULL,
    PRIMARY KEY (tenant, workflow)
) WITHOUT ROWID;

-- Settings in the order in which they were changed, so that whoever knows them reads only what is new.
ALTER TABLE settings ADD COLUMN changed INTEGER NOT NULL DEFAULT 0;
CREATE TABLE setting_changes (id INTEGER PRIMARY KEY CHECK (id = 1), last INTEGER NOT NULL);
INSERT INTO setting_changes (id, last) VALUES (1, 0);
CREATE INDEX settings_changed ON settings (name, changed);
