-- What each tenant has cost the installation, per UTC day: added to by every process every few seconds.

CREATE TABLE accounts (
    tenant          TEXT NOT NULL,
    day             TEXT NOT NULL,
    decide_seconds  REAL NOT NULL,
    project_seconds REAL NOT NULL,
    rows            INTEGER NOT NULL,
    sends           INTEGER NOT NULL,
    actions         INTEGER NOT NULL,
    PRIMARY KEY (tenant, day)
) WITHOUT ROWID;
CREATE INDEX accounts_day ON accounts (day);
