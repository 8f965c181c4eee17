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
