-- Counters per workflow and day: starts, and ends by status and duration bucket.

-- name: stats_create
CREATE TABLE IF NOT EXISTS stats_started (
    tenant   TEXT    NOT NULL,
    workflow TEXT    NOT NULL,
    day      TEXT    NOT NULL,
    runs     INTEGER NOT NULL,
    PRIMARY KEY (tenant, day, workflow)
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS stats_ended (
    tenant          TEXT    NOT NULL,
    workflow        TEXT    NOT NULL,
    day             TEXT    NOT NULL,
    status          TEXT    NOT NULL,
    bucket          INTEGER NOT NULL,
    runs            INTEGER NOT NULL,
    duration_micros INTEGER NOT NULL,
    longest_micros  INTEGER NOT NULL,
    cost_micros     INTEGER NOT NULL,
    PRIMARY KEY (tenant, day, workflow, status, bucket)
) STRICT, WITHOUT ROWID;

-- name: stats_reset
DELETE FROM stats_started;
DELETE FROM stats_ended;

-- name: stats_started_add
INSERT INTO stats_started AS known (tenant, workflow, day, runs) VALUES ($1, $2, $3, $4)
ON CONFLICT (tenant, day, workflow) DO UPDATE SET runs = known.runs + excluded.runs;

-- name: stats_ended_add
INSERT INTO stats_ended AS known (
    tenant, workflow, day, status, bucket, runs, duration_micros, longest_micros, cost_micros
)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
ON CONFLICT (tenant, day, workflow, status, bucket) DO UPDATE
SET runs = known.runs + excluded.runs, duration_micros = known.duration_micros + excluded.duration_micros,
    longest_micros = max(known.longest_micros, excluded.longest_micros),
    cost_micros = known.cost_micros + excluded.cost_micros;

-- name: stats_forget_started
DELETE FROM stats_started WHERE tenant = $1;

-- name: stats_forget_ended
DELETE FROM stats_ended WHERE tenant = $1;

-- name: stats_started
SELECT * FROM stats_started
WHERE (:tenant IS NULL OR tenant = :tenant) AND day >= :from_day AND day <= :to_day
    AND (:workflow IS NULL OR workflow = :workflow)
ORDER BY tenant, day, workflow;

-- name: stats_ended
SELECT * FROM stats_ended
WHERE (:tenant IS NULL OR tenant = :tenant) AND day >= :from_day AND day <= :to_day
    AND (:workflow IS NULL OR workflow = :workflow)
ORDER BY tenant, day, workflow, status, bucket;

-- name: stats_digest
SELECT 'started' AS part, count(*) AS n, row_sum(json_array(tenant, workflow, day, runs)) AS sum FROM stats_started
UNION ALL
SELECT 'ended', count(*), row_sum(json_array(
    tenant, workflow, day, status, bucket, runs, duration_micros, longest_micros, cost_micros
))
FROM stats_ended
ORDER BY part;
