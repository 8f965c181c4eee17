-- Quota usage per tenant and day, and per tenant now.

-- name: usage_create
CREATE TABLE IF NOT EXISTS usage_days (
    tenant       TEXT    NOT NULL,
    day          TEXT    NOT NULL,
    runs_started INTEGER NOT NULL,
    runs_ended   INTEGER NOT NULL,
    runs_failed  INTEGER NOT NULL,
    steps        INTEGER NOT NULL,
    attempts     INTEGER NOT NULL,
    undos        INTEGER NOT NULL,
    approvals    INTEGER NOT NULL,
    cost_micros  INTEGER NOT NULL,
    PRIMARY KEY (tenant, day)
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS usage_now (
    tenant     TEXT    NOT NULL PRIMARY KEY,
    open_runs  INTEGER NOT NULL,
    total_runs INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- name: usage_reset
DELETE FROM usage_days;
DELETE FROM usage_now;

-- name: usage_day_add
INSERT INTO usage_days AS known (
    tenant, day, runs_started, runs_ended, runs_failed, steps, attempts, undos, approvals, cost_micros
)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
ON CONFLICT (tenant, day) DO UPDATE
SET runs_started = known.runs_started + excluded.runs_started, runs_ended = known.runs_ended + excluded.runs_ended,
    runs_failed = known.runs_failed + excluded.runs_failed, steps = known.steps + excluded.steps,
    attempts = known.attempts + excluded.attempts, undos = known.undos + excluded.undos,
    approvals = known.approvals + excluded.approvals, cost_micros = known.cost_micros + excluded.cost_micros;

-- name: usage_now_add
INSERT INTO usage_now AS known (tenant, open_runs, total_runs) VALUES ($1, $2, $3)
ON CONFLICT (tenant) DO UPDATE
SET open_runs = known.open_runs + excluded.open_runs, total_runs = known.total_runs + excluded.total_runs;

-- name: usage_forget_days
DELETE FROM usage_days WHERE tenant = $1;

-- name: usage_forget_now
DELETE FROM usage_now WHERE tenant = $1;

-- name: usage_days
SELECT * FROM usage_days
WHERE (:tenant IS NULL OR tenant = :tenant) AND day >= :from_day AND day <= :to_day
ORDER BY day DESC, tenant
LIMIT :limit;

-- name: usage_now
SELECT * FROM usage_now
WHERE :tenant IS NULL OR tenant = :tenant
ORDER BY tenant;

-- name: usage_digest
SELECT 'days' AS part, count(*) AS n, row_sum(json_array(
    tenant, day, runs_started, runs_ended, runs_failed, steps, attempts, undos, approvals, cost_micros
)) AS sum
FROM usage_days
UNION ALL
SELECT 'now', count(*), row_sum(json_array(tenant, open_runs, total_runs)) FROM usage_now
ORDER BY part;
