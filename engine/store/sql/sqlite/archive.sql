-- Ended runs that have aged out of the log. PostgreSQL does the same in its functions of these names; months are `YYYY-MM`.

-- name: archive_runs
INSERT INTO archive (position, month, originator_id, originator_version, topic, state, tenant, lane, kind, recorded_at, event_id, metadata)
SELECT rowid, :month, originator_id, originator_version, topic, state, tenant, lane, kind, recorded_at, event_id, metadata
FROM log WHERE originator_id IN (SELECT value FROM json_each(:runs)) AND tenant = :tenant AND kind = 'run'
    AND NOT EXISTS (SELECT 1 FROM open_runs o WHERE o.run_id = originator_id);
INSERT INTO archived_runs (run_id, tenant, month, events)
SELECT l.originator_id, l.tenant, :month, count(*) FROM log l JOIN archive a ON a.position = l.rowid
WHERE l.originator_id IN (SELECT value FROM json_each(:runs)) GROUP BY l.originator_id, l.tenant;
DELETE FROM log WHERE originator_id IN (SELECT value FROM json_each(:runs)) AND rowid IN (
    SELECT position FROM archive WHERE originator_id IN (SELECT value FROM json_each(:runs))
);
DELETE FROM snapshots WHERE stream IN (SELECT run_id FROM archived_runs WHERE run_id IN (SELECT value FROM json_each(:runs)));
DELETE FROM input_keys WHERE run_id IN (SELECT run_id FROM archived_runs WHERE run_id IN (SELECT value FROM json_each(:runs)));
SELECT run_id, events FROM archived_runs WHERE run_id IN (SELECT value FROM json_each(:runs)) AND tenant = :tenant ORDER BY run_id

-- name: archived_run
SELECT tenant, month, dropped FROM archived_runs WHERE run_id = :run AND (:tenant IS NULL OR tenant = :tenant)

-- name: dropped_runs
SELECT run_id FROM archived_runs WHERE run_id IN (SELECT value FROM json_each(:runs)) AND dropped

-- name: archive_months
SELECT month, count(*) AS runs, sum(events) AS events, min(dropped) AS dropped FROM archived_runs GROUP BY month ORDER BY month

-- name: read_archive
SELECT position AS pos, tenant, originator_id AS stream, kind, originator_version AS version, topic, state AS body, recorded_at
FROM archive WHERE month = :month AND position > :after ORDER BY position LIMIT :limit

-- name: drop_month
SELECT count(*) AS runs, coalesce(sum(events), 0) AS events FROM archived_runs WHERE month = :month AND NOT dropped;
UPDATE archived_runs SET dropped = 1 WHERE month = :month AND NOT dropped;
DELETE FROM archive WHERE month = :month
