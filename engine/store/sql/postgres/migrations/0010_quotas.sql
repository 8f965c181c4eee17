-- What quotas of starts count, written by the append that opens the runs. The day is UTC's; of an earlier one nothing counts any more.

CREATE TABLE run_counters (
    tenant   text NOT NULL,
    workflow text NOT NULL,
    day      date NOT NULL,
    started  bigint NOT NULL,
    opened   bigint NOT NULL,
    PRIMARY KEY (tenant, workflow)
) WITH (fillfactor = 50);
COMMENT ON COLUMN run_counters.started IS 'runs begun on that day';
COMMENT ON COLUMN run_counters.opened IS
    'runs opened since the open runs of the tenant were last counted; of workflow '''' what was counted then. Their sum is never less than what is open';

-- Open runs that hold no slot and wait for none: together with the indexes of those two, every open run of a tenant.
CREATE INDEX open_runs_resting ON open_runs (tenant) WHERE NOT slot AND NOT queued;
