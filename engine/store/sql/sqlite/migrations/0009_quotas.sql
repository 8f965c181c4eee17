-- What quotas of starts count, written by the append that opens the runs. The day is UTC's; of an earlier one nothing counts any more.

CREATE TABLE run_counters (
    tenant   TEXT NOT NULL,
    workflow TEXT NOT NULL,
    day      TEXT NOT NULL,
    -- Runs begun on that day.
    started  INTEGER NOT NULL,
    -- Runs opened since the open runs of the tenant were last counted; of workflow '' what was counted then. Their sum is never less than what is
    -- open.
    opened   INTEGER NOT NULL,
    PRIMARY KEY (tenant, workflow)
) WITHOUT ROWID;

-- Open runs that hold no slot and wait for none: together with the indexes of those two, every open run of a tenant.
CREATE INDEX open_runs_resting ON open_runs (tenant) WHERE NOT slot AND NOT queued;
