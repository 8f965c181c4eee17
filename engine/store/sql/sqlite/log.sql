-- Reading streams and lanes.

-- A stream is whole in the log or whole in the archive.
-- name: load
SELECT * FROM (
    SELECT originator_version AS version, topic, state AS body, recorded_at FROM log
    WHERE originator_id = :stream AND originator_version > :after AND tenant = :tenant
    UNION ALL
    SELECT originator_version, topic, state, recorded_at FROM archive
    WHERE originator_id = :stream AND originator_version > :after AND tenant = :tenant
) ORDER BY version

-- name: load_many
SELECT * FROM (
    SELECT l.originator_id AS stream, l.originator_version AS version, l.topic, l.state AS body, l.recorded_at
    FROM json_each(:streams) s JOIN json_each(:tenants) t ON t.key = s.key JOIN log l ON l.originator_id = s.value AND l.tenant = t.value
    UNION ALL
    SELECT a.originator_id, a.originator_version, a.topic, a.state, a.recorded_at
    FROM json_each(:streams) s JOIN json_each(:tenants) t ON t.key = s.key JOIN archive a ON a.originator_id = s.value AND a.tenant = t.value
) ORDER BY stream, version

-- name: snapshot
SELECT version, body FROM snapshots WHERE stream = :stream AND tenant = :tenant

-- name: snapshots_of
SELECT n.stream, n.version, n.body
FROM json_each(:streams) s JOIN json_each(:tenants) t ON t.key = s.key JOIN snapshots n ON n.stream = s.value AND n.tenant = t.value

-- name: read_log
-- Where to stop is found by lengths alone: a window over whole rows would carry their bodies through its sorters.
SELECT pos, tenant, stream, kind, version, topic, body, recorded_at FROM (
    SELECT rowid AS pos, lane, tenant, originator_id AS stream, kind, originator_version AS version, topic, state AS body, recorded_at
    FROM log
    UNION ALL
    SELECT position, lane, tenant, originator_id, kind, originator_version, topic, state, recorded_at FROM archive
)
WHERE lane = :lane AND pos > :after AND pos <= (
    SELECT max(pos) FROM (
        SELECT pos, sum(bytes) OVER (ORDER BY pos ROWS UNBOUNDED PRECEDING) - bytes AS bytes_before FROM (
            SELECT rowid AS pos, length(state) AS bytes FROM log WHERE lane = :lane AND rowid > :after
            UNION ALL
            SELECT position, length(state) FROM archive WHERE lane = :lane AND position > :after
            ORDER BY pos LIMIT :limit
        )
    ) WHERE bytes_before < :bytes
)
ORDER BY pos

-- name: head
SELECT coalesce((SELECT rowid FROM log WHERE lane = :lane ORDER BY rowid DESC LIMIT 1), 0) AS head

-- name: time
SELECT :now AS now

-- name: ping
SELECT 1 AS alive
