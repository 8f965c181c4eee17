-- Run history: one row per run, its timeline in blocks, its searchable attributes as HMACs.
-- Written by the projector only; rows follow from the log alone.

-- name: history_create
CREATE TABLE IF NOT EXISTS history_runs (
    tenant           TEXT    NOT NULL,
    run_id           TEXT    NOT NULL,
    workflow         TEXT    NOT NULL,
    workflow_version INTEGER NOT NULL,
    trigger_kind     TEXT    NOT NULL,
    trigger          TEXT    NOT NULL,
    initiator        TEXT    NOT NULL,
    correlation_id   TEXT    NOT NULL,
    causation_id     TEXT,
    trace_id         TEXT,
    attributes       TEXT    NOT NULL,
    started_at       TEXT    NOT NULL,
    deadline         TEXT,
    version          INTEGER NOT NULL,
    position         INTEGER NOT NULL,
    status           TEXT    NOT NULL,
    business_state   TEXT,
    parked           TEXT,
    error_code       TEXT,
    error_message    TEXT,
    steps            INTEGER NOT NULL,
    attempts         INTEGER NOT NULL,
    undone           INTEGER NOT NULL,
    cost_micros      INTEGER NOT NULL,
    updated_at       TEXT    NOT NULL,
    ended_at         TEXT,
    PRIMARY KEY (run_id, tenant)
) STRICT, WITHOUT ROWID;
-- Run ids are ordered by time, so both are in the order of the lists: the platform's and a tenant's.
CREATE INDEX IF NOT EXISTS history_runs_by_tenant ON history_runs (tenant, run_id);
CREATE INDEX IF NOT EXISTS history_runs_by_workflow ON history_runs (tenant, workflow, run_id);
-- The platform looks for a story or a trace without a tenant.
CREATE INDEX IF NOT EXISTS history_runs_of_story ON history_runs (correlation_id, tenant, run_id);
DROP INDEX IF EXISTS history_runs_by_correlation;
CREATE INDEX IF NOT EXISTS history_runs_by_trace ON history_runs (trace_id, run_id) WHERE trace_id IS NOT NULL;
CREATE INDEX IF NOT EXISTS history_runs_by_status ON history_runs (tenant, status, run_id) WHERE status <> 'succeeded';
CREATE INDEX IF NOT EXISTS history_runs_of_status ON history_runs (status, run_id) WHERE status <> 'succeeded';
CREATE INDEX IF NOT EXISTS history_runs_by_state ON history_runs (tenant, business_state, run_id)
    WHERE business_state IS NOT NULL;
CREATE INDEX IF NOT EXISTS history_runs_parked ON history_runs (run_id) WHERE parked IS NOT NULL;

CREATE TABLE IF NOT EXISTS history_timeline (
    tenant  TEXT    NOT NULL,
    run_id  TEXT    NOT NULL,
    block   INTEGER NOT NULL,
    first   INTEGER NOT NULL,
    last    INTEGER NOT NULL,
    entries BLOB    NOT NULL,
    PRIMARY KEY (run_id, tenant, block)
) STRICT;

CREATE TABLE IF NOT EXISTS history_attributes (
    tenant TEXT NOT NULL,
    name   TEXT NOT NULL,
    hash   BLOB NOT NULL,
    run_id TEXT NOT NULL,
    PRIMARY KEY (tenant, name, hash, run_id)
) STRICT, WITHOUT ROWID;
-- For what is let go with its run: an erasure, the archive. Run ids grow, so it is written at its end.
CREATE INDEX IF NOT EXISTS history_attributes_by_run ON history_attributes (run_id);

-- name: history_reset
DELETE FROM history_runs;
DELETE FROM history_timeline;
DELETE FROM history_attributes;

-- name: history_run_insert
INSERT INTO history_runs (
    tenant, run_id, workflow, workflow_version, trigger_kind, trigger, initiator, correlation_id, causation_id,
    trace_id, attributes, started_at, deadline, version, position, status, business_state, parked, error_code,
    error_message, steps, attempts, undone, cost_micros, updated_at, ended_at
)
VALUES (
    $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23, $24, $25, $26
)
ON CONFLICT (run_id, tenant) DO NOTHING;

-- name: history_run_update
-- Guarded by version, so that an older state never replaces a newer one.
UPDATE history_runs
SET version = $3, position = $4, status = $5, business_state = $6, parked = $7, error_code = $8, error_message = $9,
    steps = $10, attempts = $11, undone = $12, cost_micros = $13, updated_at = $14, ended_at = $15
WHERE tenant = $1 AND run_id = $2 AND version < $3;

-- name: history_timeline_append
-- A block grows at its end only; lines that it has already are not appended again.
INSERT INTO history_timeline AS known (tenant, run_id, block, first, last, entries)
VALUES ($1, $2, $3, $4, $5, $6)
ON CONFLICT (run_id, tenant, block) DO UPDATE
SET last = excluded.last, entries = CAST(known.entries || excluded.entries AS BLOB)
WHERE excluded.first = known.last + 1;

-- name: history_attribute_insert
INSERT INTO history_attributes (tenant, name, hash, run_id) VALUES ($1, $2, $3, $4)
ON CONFLICT DO NOTHING;

-- name: history_subject_erase
-- What a data subject's runs can be found by goes with the subject; what they show of it was never more than a mask.
DELETE FROM history_attributes
WHERE tenant = $1 AND run_id IN (
    SELECT found.run_id FROM history_attributes AS found
    WHERE found.tenant = $1 AND found.name = '*subject' AND found.hash = $2
);

-- name: history_archive_attributes
-- Rides history_attributes_by_run.
DELETE FROM history_attributes WHERE run_id = $2 AND tenant = $1;

-- name: history_archive_timeline
DELETE FROM history_timeline WHERE run_id = $2 AND tenant = $1;

-- name: history_archive_run
DELETE FROM history_runs WHERE run_id = $2 AND tenant = $1;

-- name: history_ended_before
-- Rides the primary key: run ids are in the order of their starts, and what started after the moment has not ended before it.
SELECT tenant, run_id, ended_at FROM history_runs
WHERE run_id > :after AND run_id < :bound AND ended_at < :before
    AND (:tenant IS NULL OR tenant = :tenant)
ORDER BY run_id LIMIT :limit;

-- name: history_count_ended_before
SELECT count(*) AS runs FROM (
    SELECT 1 FROM history_runs
    WHERE run_id > :after AND run_id < :bound AND ended_at < :before
        AND (:tenant IS NULL OR tenant = :tenant)
    LIMIT :limit
) AS ended;

-- name: history_of_subject
SELECT * FROM history_runs
WHERE tenant = :tenant
    AND run_id IN (
        SELECT found.run_id FROM history_attributes AS found
        WHERE found.tenant = :tenant AND found.name = '*subject' AND found.hash = :scope
    )
    AND (:after IS NULL OR run_id > :after)
ORDER BY run_id
LIMIT :limit;

-- name: history_run
SELECT * FROM history_runs
WHERE run_id = :run_id AND (:tenant IS NULL OR tenant = :tenant);

-- name: history_list
-- Newest first; run ids are ordered by time, so the key is the cursor. `status` is the only one of `statuses`, said so
-- that a partial index can be ridden.
SELECT * FROM history_runs
WHERE (:tenant IS NULL OR tenant = :tenant)
    AND (:before IS NULL OR run_id < :before)
    AND (:statuses IS NULL OR instr(',' || :statuses || ',', ',' || status || ',') > 0)
    AND (:status IS NULL OR status = :status AND status <> 'succeeded')
    AND (:workflow IS NULL OR workflow = :workflow)
    AND (:correlation_id IS NULL OR correlation_id = :correlation_id)
    AND (:trace_id IS NULL OR trace_id = :trace_id)
    AND (:business_state IS NULL OR business_state = :business_state)
ORDER BY run_id DESC
LIMIT :limit;

-- name: history_list_by_statuses
-- The same of several statuses, none of them `succeeded`. Rides history_runs_of_status, each status newest first and no
-- further than the page; the tenant's own index would be read to the end for what is rare.
SELECT * FROM history_runs
WHERE (:tenant IS NULL OR +tenant = :tenant)
    AND status IN (SELECT value FROM json_each('["' || replace(:statuses, ',', '","') || '"]')) AND status <> 'succeeded'
    AND (:before IS NULL OR run_id < :before)
    AND (:workflow IS NULL OR +workflow = :workflow)
    AND (:correlation_id IS NULL OR correlation_id = :correlation_id)
    AND (:trace_id IS NULL OR trace_id = :trace_id)
    AND (:business_state IS NULL OR +business_state = :business_state)
ORDER BY run_id DESC
LIMIT :limit;

-- name: history_list_by_attribute
-- Newest first, in the order of history_attributes' primary key, so that a value that a million runs share is read as far
-- as the page. Two hashes while the tenant's index key is being replaced; a run may then be known under both.
SELECT * FROM (
    SELECT run.* FROM history_attributes AS found
        JOIN history_runs AS run ON run.run_id = found.run_id AND run.tenant = found.tenant
        WHERE found.tenant = :tenant AND found.name = :attribute AND found.hash = :hash
            AND (:before IS NULL OR found.run_id < :before)
            AND (:statuses IS NULL OR instr(',' || :statuses || ',', ',' || run.status || ',') > 0)
            AND (:workflow IS NULL OR run.workflow = :workflow)
            AND (:correlation_id IS NULL OR run.correlation_id = :correlation_id)
            AND (:trace_id IS NULL OR run.trace_id = :trace_id)
            AND (:business_state IS NULL OR run.business_state = :business_state)
        ORDER BY found.run_id DESC
        LIMIT :limit
) AS new
UNION
SELECT * FROM (
    SELECT run.* FROM history_attributes AS found
        JOIN history_runs AS run ON run.run_id = found.run_id AND run.tenant = found.tenant
        WHERE found.tenant = :tenant AND found.name = :attribute AND found.hash = :old_hash AND :old_hash <> :hash
            AND (:before IS NULL OR found.run_id < :before)
            AND (:statuses IS NULL OR instr(',' || :statuses || ',', ',' || run.status || ',') > 0)
            AND (:workflow IS NULL OR run.workflow = :workflow)
            AND (:correlation_id IS NULL OR run.correlation_id = :correlation_id)
            AND (:trace_id IS NULL OR run.trace_id = :trace_id)
            AND (:business_state IS NULL OR run.business_state = :business_state)
        ORDER BY found.run_id DESC
        LIMIT :limit
) AS old
ORDER BY run_id DESC
LIMIT :limit;

-- name: history_caused
-- The runs of one story, oldest first.
SELECT * FROM history_runs
WHERE (:tenant IS NULL OR tenant = :tenant) AND correlation_id = :correlation_id
ORDER BY run_id
LIMIT :limit;

-- name: history_timeline
SELECT block, first, last, entries FROM history_timeline
WHERE run_id = :run_id AND (:tenant IS NULL OR tenant = :tenant) AND block >= :from_block
ORDER BY block
LIMIT :limit;

-- name: history_counts
-- The statuses of runs that have not ended, so that history_runs_by_status answers it.
SELECT status, count(*) AS runs FROM history_runs
WHERE (:tenant IS NULL OR tenant = :tenant)
    AND status IN ('queued', 'running', 'waiting', 'parked', 'compensating') AND status <> 'succeeded'
GROUP BY status
ORDER BY status;

-- name: history_incidents
-- Runs that wait for an operator, by the reason of their oldest incident. Rides history_runs_parked.
SELECT substr(parked, 1, instr(parked || ':', ':') - 1) AS reason, count(*) AS runs FROM history_runs
WHERE parked IS NOT NULL AND (:tenant IS NULL OR +tenant = :tenant)
GROUP BY reason
ORDER BY reason;

-- name: history_digest
-- One row per table: a sum over all rows that does not depend on their order.
SELECT 'runs' AS part, count(*) AS n, row_sum(json_array(
    tenant, run_id, workflow, workflow_version, trigger_kind, trigger, initiator, correlation_id, causation_id,
    trace_id, attributes, started_at, deadline, version, position, status, business_state, parked, error_code,
    error_message, steps, attempts, undone, cost_micros, updated_at, ended_at
)) AS sum
FROM history_runs
UNION ALL
SELECT 'timeline', count(*), row_sum(json_array(tenant, run_id, block, first, last, hex(entries))) FROM history_timeline
UNION ALL
SELECT 'attributes', count(*), row_sum(json_array(tenant, name, hex(hash), run_id)) FROM history_attributes
ORDER BY part;
