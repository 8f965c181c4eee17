-- What steps have cost, by the append that records them, in millionths of the platform's currency. Day and month are UTC's; of earlier ones nothing
-- counts any more.

CREATE TABLE cost_counters (
    tenant       text   NOT NULL,
    workflow     text   NOT NULL,
    day          date   NOT NULL,
    day_micros   bigint NOT NULL,
    month        date   NOT NULL,
    month_micros bigint NOT NULL,
    PRIMARY KEY (tenant, workflow)
) WITH (fillfactor = 50);
COMMENT ON COLUMN cost_counters.month IS 'its first day';

-- Settings in the order in which they were changed, so that whoever knows them reads only what is new.
ALTER TABLE settings ADD COLUMN changed bigint NOT NULL DEFAULT 0;
CREATE INDEX settings_changed ON settings (name, changed);
CREATE SEQUENCE settings_changes AS bigint;
