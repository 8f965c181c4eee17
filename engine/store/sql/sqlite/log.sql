-- Reading streams and lanes.

-- name: load
SELECT originator_version AS version, topic, state AS body, recorded_at FROM log
WHERE originator_id = :stream AND originator_version > :after AND tenant = :tenant ORDER BY originator_version

-- name: load_many
SELECT l.originator_id AS stream, l.originator_version AS version, l.topic, l.state AS body, l.recorded_at
FROM json_each(:streams) s JOIN json_each(:tenants) t ON t.key = s.key JOIN log l ON l.originator_id = s.value AND l.tenant = t.value
ORDER BY l.originator_id, l.originator_version

-- name: snapshot
SELECT version, body FROM snapshots WHERE stream = :stream AND tenant = :tenant

-- name: snapshots_of
SELECT n.stream, n.version, n.body
FROM json_each(:streams) s JOIN json_each(:tenants) t ON t.key = s.key JOIN snapshots n ON n.stream = s.value AND n.tenant = t.value

-- name: read_log
SELECT pos, tenant, stream, kind, version, topic, body, recorded_at FROM (
    SELECT
        rowid AS pos, tenant, originator_id AS stream, kind, originator_version AS version, topic, state AS body, recorded_at,
        sum(length(state)) OVER (ORDER BY rowid ROWS UNBOUNDED PRECEDING) - length(state) AS bytes_before
    FROM log WHERE lane = :lane AND rowid > :after ORDER BY rowid LIMIT :limit
) WHERE bytes_before < :bytes ORDER BY pos

-- name: head
SELECT coalesce((SELECT rowid FROM log WHERE lane = :lane ORDER BY rowid DESC LIMIT 1), 0) AS head

-- name: time
SELECT :now AS now

-- name: ping
SELECT 1 AS alive
