-- Quota usage per tenant and day, and per tenant now.

-- name: usage_create
CREATE TABLE IF NOT EXISTS usage_days (
    tenant       text   NOT NULL,
    day          date   NOT NULL,
    runs_started bigint NOT NULL,
    runs_ended   bigint NOT NULL,
    runs_failed  bigint NOT NULL,
    steps        bigint NOT NULL,
    attempts     bigint NOT NULL,
    undos        bigint NOT NULL,
    approvals    bigint NOT NULL,
    cost_micros  bigint NOT NULL,
    PRIMARY KEY (tenant, day)
);
CREATE TABLE IF NOT EXISTS usage_now (
    tenant     text   NOT NULL PRIMARY KEY,
    open_runs  bigint NOT NULL,
    total_runs bigint NOT NULL
);

-- name: usage_reset
TRUNCATE usage_days, usage_now;

-- name: usage_day_add
INSERT INTO usage_days AS known (
    tenant, day, runs_started, runs_ended, runs_failed, steps, attempts, undos, approvals, cost_micros
)
SELECT
    given.tenant, given.day::date, given.runs_started, given.runs_ended, given.runs_failed, given.steps, given.attempts,
    given.undos, given.approvals, given.cost_micros
FROM unnest(
    $1::text[], $2::text[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[], $8::bigint[],
    $9::bigint[], $10::bigint[]
) AS given (tenant, day, runs_started, runs_ended, runs_failed, steps, attempts, undos, approvals, cost_micros)
ON CONFLICT (tenant, day) DO UPDATE
SET runs_started = known.runs_started + excluded.runs_started, runs_ended = known.runs_ended + excluded.runs_ended,
    runs_failed = known.runs_failed + excluded.runs_failed, steps = known.steps + excluded.steps,
    attempts = known.attempts + excluded.attempts, undos = known.undos + excluded.undos,
    approvals = known.approvals + excluded.approvals, cost_micros = known.cost_micros + excluded.cost_micros;

-- name: usage_now_add
INSERT INTO usage_now AS known (tenant, open_runs, total_runs)
SELECT given.tenant, given.open_runs, given.total_runs
FROM unnest($1::text[], $2::bigint[], $3::bigint[]) AS given (tenant, open_runs, total_runs)
ON CONFLICT (tenant) DO UPDATE
SET open_runs = known.open_runs + excluded.open_runs, total_runs = known.total_runs + excluded.total_runs;

-- name: usage_forget_days
DELETE FROM usage_days AS gone USING unnest($1::text[]) AS given (tenant) WHERE gone.tenant = given.tenant;

-- name: usage_forget_now
DELETE FROM usage_now AS gone USING unnest($1::text[]) AS given (tenant) WHERE gone.tenant = given.tenant;

-- name: usage_days
SELECT * FROM usage_days
WHERE (CAST(:tenant AS text) IS NULL OR tenant = :tenant)
    AND day >= CAST(CAST(:from_day AS text) AS date) AND day <= CAST(CAST(:to_day AS text) AS date)
ORDER BY day DESC, tenant
LIMIT CAST(:limit AS integer);

-- name: usage_now
SELECT * FROM usage_now
WHERE CAST(:tenant AS text) IS NULL OR tenant = :tenant
ORDER BY tenant;

-- name: usage_digest
SELECT 'days' AS part, count(*) AS n, sum(('x' || substr(md5(given::text), 1, 16))::bit(64)::bigint::numeric)::text AS sum
FROM usage_days AS given
UNION ALL
SELECT 'now', count(*), sum(('x' || substr(md5(given::text), 1, 16))::bit(64)::bigint::numeric)::text
FROM usage_now AS given
ORDER BY part;
