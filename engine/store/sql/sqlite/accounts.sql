-- What each tenant has cost, per UTC day (`YYYY-MM-DD`).

-- name: account
INSERT INTO accounts AS a (tenant, day, decide_seconds, project_seconds, rows, sends, actions)
SELECT t.value, :day, d.value, p.value, r.value, s.value, c.value
FROM json_each(:tenants) t JOIN json_each(:decide) d ON d.key = t.key JOIN json_each(:project) p ON p.key = t.key
JOIN json_each(:rows) r ON r.key = t.key JOIN json_each(:sends) s ON s.key = t.key JOIN json_each(:actions) c ON c.key = t.key
WHERE true
ON CONFLICT (tenant, day) DO UPDATE
SET decide_seconds = a.decide_seconds + excluded.decide_seconds, project_seconds = a.project_seconds + excluded.project_seconds,
    rows = a.rows + excluded.rows, sends = a.sends + excluded.sends, actions = a.actions + excluded.actions

-- name: accounts
SELECT tenant, day, decide_seconds, project_seconds, rows, sends, actions FROM accounts
WHERE (:tenant IS NULL OR tenant = :tenant) AND day BETWEEN :first AND :last
ORDER BY day DESC, tenant LIMIT :limit

-- name: rows_counted
-- In brackets, so that it is known for what only reads (`Statement.reads`), and no commit waits for it.
SELECT * FROM (
    WITH portion AS (
        SELECT coalesce(max(position), :after) AS upto,
            count(*) < :most OR min(date(recorded_at / 1000000, 'unixepoch')) > :last AS whole
        FROM (
            SELECT * FROM (SELECT rowid AS position, recorded_at FROM log WHERE lane = :lane AND rowid > :after ORDER BY rowid LIMIT :most)
            UNION ALL
            SELECT * FROM (SELECT position, recorded_at FROM archive WHERE lane = :lane AND position > :after ORDER BY position LIMIT :most)
            ORDER BY position LIMIT :most
        )
    ), n AS (
        SELECT tenant, date(recorded_at / 1000000, 'unixepoch') AS on_day, count(*) AS rows
        FROM (
            SELECT tenant, kind, recorded_at FROM log WHERE lane = :lane AND rowid > :after AND rowid <= (SELECT upto FROM portion)
            UNION ALL
            SELECT tenant, kind, recorded_at FROM archive WHERE lane = :lane AND position > :after AND position <= (SELECT upto FROM portion)
        )
        WHERE kind = 'run' AND date(recorded_at / 1000000, 'unixepoch') BETWEEN :first AND :last GROUP BY tenant, on_day
    ), c AS (
        SELECT tenant, day, rows FROM accounts WHERE (SELECT whole FROM portion) AND day BETWEEN :first AND :last
    )
    SELECT p.upto, p.whole, w.tenant, w.day, w.rows, w.counted FROM portion p LEFT JOIN (
        SELECT tenant, day, sum(rows) AS rows, sum(counted) AS counted
        FROM (SELECT tenant, on_day AS day, rows, 0 AS counted FROM n UNION ALL SELECT tenant, day, 0, rows FROM c) GROUP BY tenant, day
    ) w ON true
)
