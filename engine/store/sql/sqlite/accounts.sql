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

-- name: recount_accounts
INSERT INTO accounts AS a (tenant, day, decide_seconds, project_seconds, rows, sends, actions)
SELECT tenant, date(recorded_at / 1000000, 'unixepoch') AS on_day, 0, 0, count(*), 0, 0
FROM (SELECT tenant, kind, recorded_at FROM log UNION ALL SELECT tenant, kind, recorded_at FROM archive)
WHERE kind = 'run' AND date(recorded_at / 1000000, 'unixepoch') BETWEEN :first AND :last
GROUP BY tenant, on_day
ON CONFLICT (tenant, day) DO UPDATE SET rows = excluded.rows WHERE a.rows <> excluded.rows
RETURNING 1 AS changed
