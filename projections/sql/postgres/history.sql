-- Run history: one row per run, its timeline in blocks, its searchable attributes as HMACs.
-- Written by the projector only; rows follow from the log alone.

-- name: history_create
CREATE TABLE IF NOT EXISTS history_runs (
    tenant           text        NOT NULL,
    run_id           uuid        NOT NULL,
    workflow         text        NOT NULL,
    workflow_version integer     NOT NULL,
    trigger_kind     text        NOT NULL,
    trigger          text        NOT NULL,
    initiator        text        NOT NULL,
    correlation_id   text        NOT NULL,
    causation_id     text,
    trace_id         text,
    attributes       text        NOT NULL,
    started_at       timestamptz NOT NULL,
    deadline         timestamptz,
    version          integer     NOT NULL,
    position         bigint      NOT NULL,
    status           text        NOT NULL,
    business_state   text,
    parked           text,
    error_code       text,
    error_message    text,
    steps            integer     NOT NULL,
    attempts         integer     NOT NULL,
    undone           integer     NOT NULL,
    cost_micros      bigint      NOT NULL,
    updated_at       timestamptz NOT NULL,
    ended_at         timestamptz,
    PRIMARY KEY (run_id, tenant)
) WITH (fillfactor = 80);
-- Run ids are ordered by time, so both are in the order of the lists: the platform's and a tenant's.
CREATE INDEX IF NOT EXISTS history_runs_by_tenant ON history_runs (tenant, run_id);
-- What a workflow or a story is called comes first: the platform looks for either without a tenant.
CREATE INDEX IF NOT EXISTS history_runs_of_workflow ON history_runs (workflow, tenant, run_id);
CREATE INDEX IF NOT EXISTS history_runs_of_story ON history_runs (correlation_id, tenant, run_id);
DROP INDEX IF EXISTS history_runs_by_workflow, history_runs_by_correlation;
CREATE INDEX IF NOT EXISTS history_runs_by_trace ON history_runs (trace_id, run_id) WHERE trace_id IS NOT NULL;
-- Partial on what people look for among millions: an index over every status would be written twice per run.
CREATE INDEX IF NOT EXISTS history_runs_by_status ON history_runs (tenant, status, run_id) WHERE status <> 'succeeded';
CREATE INDEX IF NOT EXISTS history_runs_by_state ON history_runs (tenant, business_state, run_id)
    WHERE business_state IS NOT NULL;
CREATE INDEX IF NOT EXISTS history_runs_parked ON history_runs (run_id) WHERE parked IS NOT NULL;

CREATE TABLE IF NOT EXISTS history_timeline (
    tenant  text    NOT NULL,
    run_id  uuid    NOT NULL,
    block   integer NOT NULL,
    first   integer NOT NULL,
    last    integer NOT NULL,
    entries bytea   NOT NULL,
    PRIMARY KEY (run_id, tenant, block)
);
-- A server built without lz4 compresses with pglz, slower and as right.
DO $$ BEGIN ALTER TABLE history_timeline ALTER COLUMN entries SET COMPRESSION lz4; EXCEPTION
    WHEN feature_not_supported THEN NULL; END $$;

CREATE TABLE IF NOT EXISTS history_attributes (
    tenant text  NOT NULL,
    name   text  NOT NULL,
    hash   bytea NOT NULL,
    run_id uuid  NOT NULL,
    PRIMARY KEY (tenant, name, hash, run_id)
);
-- For what is let go with its run: an erasure, the archive. Run ids grow, so it is written at its end.
CREATE INDEX IF NOT EXISTS history_attributes_by_run ON history_attributes (run_id);

-- name: history_reset
TRUNCATE history_runs, history_timeline, history_attributes;

-- name: history_run_insert
-- Rides the primary key. A run that is there already was written by the same events: nothing changes.
INSERT INTO history_runs (
    tenant, run_id, workflow, workflow_version, trigger_kind, trigger, initiator, correlation_id, causation_id,
    trace_id, attributes, started_at, deadline, version, position, status, business_state, parked, error_code,
    error_message, steps, attempts, undone, cost_micros, updated_at, ended_at
)
SELECT
    given.tenant, given.run_id, given.workflow, given.workflow_version, given.trigger_kind, given.trigger,
    given.initiator, given.correlation_id, given.causation_id, given.trace_id, given.attributes,
    given.started_at::timestamptz, given.deadline::timestamptz, given.version, given.position, given.status,
    given.business_state, given.parked, given.error_code, given.error_message, given.steps, given.attempts,
    given.undone, given.cost_micros, given.updated_at::timestamptz, given.ended_at::timestamptz
FROM unnest(
    $1::text[], $2::uuid[], $3::text[], $4::integer[], $5::text[], $6::text[], $7::text[], $8::text[], $9::text[],
    $10::text[], $11::text[], $12::text[], $13::text[], $14::integer[], $15::bigint[], $16::text[], $17::text[],
    $18::text[], $19::text[], $20::text[], $21::integer[], $22::integer[], $23::integer[], $24::bigint[], $25::text[],
    $26::text[]
) AS given (
    tenant, run_id, workflow, workflow_version, trigger_kind, trigger, initiator, correlation_id, causation_id,
    trace_id, attributes, started_at, deadline, version, position, status, business_state, parked, error_code,
    error_message, steps, attempts, undone, cost_micros, updated_at, ended_at
)
ON CONFLICT (run_id, tenant) DO NOTHING;

-- name: history_run_update
-- Rides the primary key. Guarded by version, so that an older state never replaces a newer one.
-- Keys of other rows are compared as the engine's functions do (append.sql): whatever statistics say, no table is read from end to end.
UPDATE history_runs AS run
SET version = given.version, position = given.position, status = given.status, business_state = given.business_state,
    parked = given.parked, error_code = given.error_code, error_message = given.error_message, steps = given.steps,
    attempts = given.attempts, undone = given.undone, cost_micros = given.cost_micros,
    updated_at = given.updated_at::timestamptz, ended_at = given.ended_at::timestamptz
FROM unnest(
    $1::text[], $2::uuid[], $3::integer[], $4::bigint[], $5::text[], $6::text[], $7::text[], $8::text[], $9::text[],
    $10::integer[], $11::integer[], $12::integer[], $13::bigint[], $14::text[], $15::text[]
) AS given (
    tenant, run_id, version, position, status, business_state, parked, error_code, error_message, steps, attempts,
    undone, cost_micros, updated_at, ended_at
)
WHERE run.run_id = ANY (ARRAY[given.run_id]) AND run.tenant = ANY (ARRAY[given.tenant]) AND run.version < given.version;

-- name: history_timeline_append
-- A block grows at its end only; lines that it has already are not appended again.
INSERT INTO history_timeline AS block (tenant, run_id, block, first, last, entries)
SELECT given.tenant, given.run_id, given.block, given.first, given.last, given.entries
FROM unnest($1::text[], $2::uuid[], $3::integer[], $4::integer[], $5::integer[], $6::bytea[])
    AS given (tenant, run_id, block, first, last, entries)
ON CONFLICT (run_id, tenant, block) DO UPDATE
SET last = excluded.last, entries = block.entries || excluded.entries
WHERE excluded.first = block.last + 1;

-- name: history_attribute_insert
INSERT INTO history_attributes (tenant, name, hash, run_id)
SELECT given.tenant, given.name, given.hash, given.run_id
FROM unnest($1::text[], $2::text[], $3::bytea[], $4::uuid[]) AS given (tenant, name, hash, run_id)
ON CONFLICT DO NOTHING;

-- name: history_subject_erase
-- What a data subject's runs can be found by goes with the subject; what they show of it was never more than a mask.
DELETE FROM history_attributes AS gone
USING (
    SELECT DISTINCT found.tenant, found.run_id
    FROM unnest($1::text[], $2::bytea[]) AS erased (tenant, scope)
    JOIN history_attributes AS found
        ON found.tenant = ANY (ARRAY[erased.tenant]) AND found.name = '*subject' AND found.hash = erased.scope
) AS of_subject
WHERE gone.tenant = ANY (ARRAY[of_subject.tenant]) AND gone.run_id = ANY (ARRAY[of_subject.run_id]);

-- name: history_archive_attributes
-- Rides history_attributes_by_run.
DELETE FROM history_attributes AS gone
USING unnest($1::text[], $2::uuid[]) AS given (tenant, run_id)
WHERE gone.run_id = ANY (ARRAY[given.run_id]) AND gone.tenant = ANY (ARRAY[given.tenant]);

-- name: history_archive_timeline
DELETE FROM history_timeline AS gone
USING unnest($1::text[], $2::uuid[]) AS given (tenant, run_id)
WHERE gone.run_id = ANY (ARRAY[given.run_id]) AND gone.tenant = ANY (ARRAY[given.tenant]);

-- name: history_archive_run
DELETE FROM history_runs AS gone
USING unnest($1::text[], $2::uuid[]) AS given (tenant, run_id)
WHERE gone.run_id = ANY (ARRAY[given.run_id]) AND gone.tenant = ANY (ARRAY[given.tenant]);

-- name: history_ended_before
-- Rides the primary key: run ids are in the order of their starts, and what started after the moment has not ended before it.
SELECT tenant, run_id, ended_at FROM history_runs
WHERE run_id > CAST(:after AS uuid) AND run_id < CAST(:bound AS uuid) AND ended_at < CAST(CAST(:before AS text) AS timestamptz)
    AND (CAST(:tenant AS text) IS NULL OR tenant = :tenant)
ORDER BY run_id LIMIT :limit;

-- name: history_count_ended_before
SELECT count(*) AS runs FROM (
    SELECT 1 FROM history_runs
    WHERE run_id > CAST(:after AS uuid) AND run_id < CAST(:bound AS uuid) AND ended_at < CAST(CAST(:before AS text) AS timestamptz)
        AND (CAST(:tenant AS text) IS NULL OR tenant = :tenant)
    LIMIT :limit
) AS ended;

-- name: history_of_subject
-- Rides the primary key of history_attributes.
SELECT * FROM history_runs
WHERE tenant = :tenant
    AND run_id IN (
        SELECT found.run_id FROM history_attributes AS found
        WHERE found.tenant = :tenant AND found.name = '*subject' AND found.hash = CAST(:scope AS bytea)
    )
    AND (CAST(:after AS uuid) IS NULL OR run_id > CAST(:after AS uuid))
ORDER BY run_id
LIMIT CAST(:limit AS integer);

-- name: history_run
SELECT * FROM history_runs
WHERE run_id = CAST(:run_id AS uuid) AND (CAST(:tenant AS text) IS NULL OR tenant = :tenant);

-- name: history_list
-- Newest first; run ids are ordered by time, so the key is the cursor. Rides history_runs_by_tenant, the index of its
-- filter, or for the platform the primary key.
SELECT * FROM history_runs
WHERE (CAST(:tenant AS text) IS NULL OR tenant = :tenant)
    AND (CAST(:before AS uuid) IS NULL OR run_id < CAST(:before AS uuid))
    AND (CAST(:statuses AS text) IS NULL OR status = ANY (string_to_array(CAST(:statuses AS text), ',')))
    AND (CAST(:workflow AS text) IS NULL OR workflow = :workflow)
    AND (CAST(:correlation_id AS text) IS NULL OR correlation_id = :correlation_id)
    AND (CAST(:trace_id AS text) IS NULL OR trace_id = :trace_id)
    AND (CAST(:business_state AS text) IS NULL OR business_state = :business_state)
ORDER BY run_id DESC
LIMIT CAST(:limit AS integer);

-- name: history_list_by_statuses
-- The same of several statuses, none of them `succeeded`. The planner chooses between their index and the others.
SELECT * FROM history_runs
WHERE (CAST(:tenant AS text) IS NULL OR tenant = :tenant)
    AND status = ANY (string_to_array(CAST(:statuses AS text), ','))
    AND (CAST(:before AS uuid) IS NULL OR run_id < CAST(:before AS uuid))
    AND (CAST(:workflow AS text) IS NULL OR workflow = :workflow)
    AND (CAST(:correlation_id AS text) IS NULL OR correlation_id = :correlation_id)
    AND (CAST(:trace_id AS text) IS NULL OR trace_id = :trace_id)
    AND (CAST(:business_state AS text) IS NULL OR business_state = :business_state)
ORDER BY run_id DESC
LIMIT CAST(:limit AS integer);

-- name: history_list_by_attribute
-- Newest first, in the order of history_attributes' primary key, so that a value that a million runs share is read as far
-- as the page. Two hashes while the tenant's index key is being replaced; a run may then be known under both.
SELECT * FROM (
    SELECT run.* FROM history_attributes AS found
        JOIN history_runs AS run ON run.run_id = found.run_id AND run.tenant = found.tenant
        WHERE found.tenant = :tenant AND found.name = :attribute AND found.hash = CAST(:hash AS bytea)
            AND (CAST(:before AS uuid) IS NULL OR found.run_id < CAST(:before AS uuid))
            AND (CAST(:before AS uuid) IS NULL OR run.run_id < CAST(:before AS uuid))
            AND (CAST(:statuses AS text) IS NULL OR run.status = ANY (string_to_array(CAST(:statuses AS text), ',')))
            AND (CAST(:workflow AS text) IS NULL OR run.workflow = :workflow)
            AND (CAST(:correlation_id AS text) IS NULL OR run.correlation_id = :correlation_id)
            AND (CAST(:trace_id AS text) IS NULL OR run.trace_id = :trace_id)
            AND (CAST(:business_state AS text) IS NULL OR run.business_state = :business_state)
        ORDER BY found.run_id DESC
        LIMIT CAST(:limit AS integer)
) AS new
UNION
SELECT * FROM (
    SELECT run.* FROM history_attributes AS found
        JOIN history_runs AS run ON run.run_id = found.run_id AND run.tenant = found.tenant
        WHERE found.tenant = :tenant AND found.name = :attribute AND found.hash = CAST(:old_hash AS bytea) AND CAST(:old_hash AS bytea) <> CAST(:hash AS bytea)
            AND (CAST(:before AS uuid) IS NULL OR found.run_id < CAST(:before AS uuid))
            AND (CAST(:before AS uuid) IS NULL OR run.run_id < CAST(:before AS uuid))
            AND (CAST(:statuses AS text) IS NULL OR run.status = ANY (string_to_array(CAST(:statuses AS text), ',')))
            AND (CAST(:workflow AS text) IS NULL OR run.workflow = :workflow)
            AND (CAST(:correlation_id AS text) IS NULL OR run.correlation_id = :correlation_id)
            AND (CAST(:trace_id AS text) IS NULL OR run.trace_id = :trace_id)
            AND (CAST(:business_state AS text) IS NULL OR run.business_state = :business_state)
        ORDER BY found.run_id DESC
        LIMIT CAST(:limit AS integer)
) AS old
ORDER BY run_id DESC
LIMIT CAST(:limit AS integer);

-- name: history_caused
-- The runs of one story, oldest first. Rides history_runs_of_story.
SELECT * FROM history_runs
WHERE (CAST(:tenant AS text) IS NULL OR tenant = :tenant) AND correlation_id = :correlation_id
ORDER BY run_id
LIMIT CAST(:limit AS integer);

-- name: history_timeline
SELECT block, first, last, entries FROM history_timeline
WHERE run_id = CAST(:run_id AS uuid) AND (CAST(:tenant AS text) IS NULL OR tenant = :tenant)
    AND block >= CAST(:from_block AS integer)
ORDER BY block
LIMIT CAST(:limit AS integer);

-- name: history_counts
-- The statuses of runs that have not ended, so that history_runs_by_status answers it.
SELECT status, count(*) AS runs FROM history_runs
WHERE (CAST(:tenant AS text) IS NULL OR tenant = :tenant)
    AND status IN ('queued', 'running', 'waiting', 'parked', 'compensating') AND status <> 'succeeded'
GROUP BY status
ORDER BY status;

-- name: history_incidents
-- Runs that wait for an operator, by the reason of their oldest incident. Rides history_runs_parked.
SELECT split_part(parked, ':', 1) AS reason, count(*) AS runs FROM history_runs
WHERE parked IS NOT NULL AND (CAST(:tenant AS text) IS NULL OR tenant = :tenant)
GROUP BY reason
ORDER BY reason;

-- name: history_digest
-- One row per table, in one order whatever the plan: a sum over all rows that does not depend on theirs.
SELECT 'runs' AS part, count(*) AS n, sum(('x' || substr(md5(run::text), 1, 16))::bit(64)::bigint::numeric)::text AS sum
FROM history_runs AS run
UNION ALL
SELECT 'timeline', count(*), sum(('x' || substr(md5(block::text), 1, 16))::bit(64)::bigint::numeric)::text
FROM history_timeline AS block
UNION ALL
SELECT 'attributes', count(*), sum(('x' || substr(md5(found::text), 1, 16))::bit(64)::bigint::numeric)::text
FROM history_attributes AS found
ORDER BY part;
