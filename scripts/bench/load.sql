-- What the load generator reads of the log while it measures (scripts/bench/watch.py). :after is a position of lane 0.

-- name: head
SELECT coalesce(max(position), 0) AS position FROM log WHERE lane = 0

-- name: ended_since
SELECT count(*) AS ended, max(position) AS position FROM log WHERE lane = 0 AND position > :after AND topic = 'run.ended'

-- name: counted
SELECT count(*) AS events, count(DISTINCT stream) AS runs FROM log WHERE lane = 0 AND position > :after AND kind = 'run'

-- name: seconds_per_run
-- From the commit that admitted a run to the commit of its terminal event.
SELECT extract(epoch FROM ended.recorded_at - started.recorded_at)::float8 AS seconds
FROM log started JOIN log ended ON ended.stream = started.stream AND ended.topic = 'run.ended'
WHERE started.lane = 0 AND started.position > :after AND started.topic = 'run.started'
ORDER BY started.position

-- name: ended_by_event
-- When the run of each event ended, by the event's id.
SELECT split_part(s.start_key, '/', -1) AS event_id, extract(epoch FROM l.recorded_at)::float8 AS ended
FROM log l JOIN starts s ON s.tenant = l.tenant AND s.run_id = l.stream
WHERE l.lane = 0 AND l.position > :after AND l.topic = 'run.ended'

-- name: history_position
SELECT coalesce(max(position), 0) FROM checkpoints WHERE view = 'history' AND lane = 0

-- name: waiting_runs
SELECT count(*) FROM open_runs WHERE status = 'waiting'

-- name: make_due
-- Their time limits fall on one moment.
UPDATE timers SET due = now() + make_interval(secs => :seconds), available_at = now() + make_interval(secs => :seconds)
WHERE (run_id, key) IN (SELECT run_id, key FROM timers ORDER BY run_id LIMIT :runs)

-- name: owned_by
SELECT count(*) FROM open_runs o JOIN processes p ON p.epoch = o.owner WHERE p.name = :name

-- name: commits
SELECT xact_commit AS commits FROM pg_stat_database WHERE datname = current_database()

-- name: function_calls
-- And how often a projection moved a checkpoint, which is a statement of its own and not a function.
SELECT funcname AS name, calls FROM pg_stat_user_functions
UNION ALL SELECT 'checkpoint', n_tup_ins + n_tup_upd FROM pg_stat_user_tables WHERE relname = 'checkpoints'

-- name: create_database
CREATE DATABASE {name}

-- name: track_functions
-- Counts calls of the engine's functions, so that its transactions can be told apart.
ALTER DATABASE {name} SET track_functions = 'all'

-- name: drop_database
DROP DATABASE {name} WITH (FORCE)

-- name: drop_list_indexes
-- Made again by the next migration: row by row they take most of the time.
DROP INDEX views.history_runs_by_tenant, views.history_runs_of_workflow, views.history_runs_of_story,
    views.history_runs_by_trace, views.history_runs_by_status, views.history_runs_by_state, views.history_runs_parked

-- name: fill_runs
-- Runs as a busy installation has them: nearly all of one tenant, nearly all succeeded, a few of every other kind.
INSERT INTO views.history_runs (
    tenant, run_id, workflow, workflow_version, trigger_kind, trigger, initiator, correlation_id, trace_id, attributes,
    started_at, version, position, status, business_state, parked, steps, attempts, undone, cost_micros, updated_at,
    ended_at
)
SELECT
    CASE WHEN n % 10 = 0 THEN 'tenant-' || n % 1000 ELSE :tenant END,
    (lpad(to_hex(1700000000000 + n), 12, '0') || '7' || substr(digest, 1, 3) || '8' || substr(digest, 4, 15))::uuid,
    CASE WHEN n % 20011 = 1 THEN 'rare' ELSE 'workflow-' || n % 7 END, 1, 'event',
    '{"kind": "event", "id": "' || n || '", "type": "bench.OrderPlacedV1", "source": "/modules/bench"}',
    '/modules/bench', 'story-' || n / 2, digest, '{"order": "o-' || n || '", "plan": "pro"}',
    at, 12, 12 * n, status, CASE WHEN n % 13 = 0 THEN 'active' END,
    CASE WHEN status = 'parked' THEN 'step_failed: card declined' END, 5, 5, 0, 0, at,
    CASE WHEN status NOT IN ('waiting', 'parked') THEN at END
FROM (
    SELECT n, md5(n::text) AS digest, to_timestamp(1700000000 + n / 1000.0) AS at,
        CASE WHEN n % 50021 = 2 THEN 'compensation_failed' WHEN n % 30011 = 3 THEN 'parked' WHEN n % 1009 = 4 THEN 'waiting'
             WHEN n % 31 = 5 THEN 'failed' ELSE 'succeeded' END AS status
    FROM generate_series(1, (:runs)::bigint) AS n
) AS run

-- name: middle_run
SELECT run_id FROM views.history_runs ORDER BY run_id OFFSET :runs::bigint / 2 + 1 LIMIT 1

-- name: fill_attributes
-- Each run's own value, one of them under the hash that it is looked for by, and a value that all share.
INSERT INTO views.history_attributes (tenant, name, hash, run_id)
SELECT tenant, 'order', CASE WHEN run_id = :run THEN (:mine)::bytea ELSE sha256(run_id::text::bytea) END, run_id
FROM views.history_runs;
INSERT INTO views.history_attributes (tenant, name, hash, run_id)
SELECT tenant, 'plan', (:shared)::bytea, run_id FROM views.history_runs

-- name: settle
VACUUM ANALYZE views.{table}
