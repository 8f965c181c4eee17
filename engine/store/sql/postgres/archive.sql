-- Ended runs that have aged out of the log.

-- name: archive_runs
SELECT run_id, events FROM archive_runs(:tenant, :runs, :month)

-- name: archived_run
SELECT tenant, month, dropped FROM archived_run(:tenant, :run)

-- name: dropped_runs
SELECT run_id FROM dropped_runs(:runs) AS d(run_id)

-- name: archive_months
SELECT month, runs, events, dropped FROM archive_months()

-- name: read_archive
SELECT * FROM read_archive(:month, :after, :limit)

-- name: drop_month
SELECT runs, events FROM drop_month(:month)
