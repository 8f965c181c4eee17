-- Counters per workflow and day: starts, and ends by status and duration bucket.

-- name: stats_create
CREATE TABLE IF NOT EXISTS stats_started (
    tenant   text   NOT NULL,
    workflow text   NOT NULL,
    day      date   NOT NULL,
    runs     bigint NOT NULL,
    PRIMARY KEY (tenant, day, workflow)
);
CREATE TABLE IF NOT EXISTS stats_ended (
    tenant          text    NOT NULL,
    workflow        text    NOT NULL,
    day             date    NOT NULL,
    status          text    NOT NULL,
    bucket          integer NOT NULL,
    runs            bigint  NOT NULL,
    duration_micros bigint  NOT NULL,
    longest_micros  bigint  NOT NULL,
    cost_micros     bigint  NOT NULL,
    PRIMARY KEY (tenant, day, workflow, status, bucket)
);

-- name: stats_reset
TRUNCATE stats_started, stats_ended;

-- name: stats_started_add
INSERT INTO stats_started AS known (tenant, workflow, day, runs)
SELECT given.tenant, given.workflow, given.day::date, given.runs
FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[]) AS given (tenant, workflow, day, runs)
ON CONFLICT (tenant, day, workflow) DO UPDATE SET runs = known.runs + excluded.runs;

-- name: stats_ended_add
INSERT INTO stats_ended AS known (
    tenant, workflow, day, status, bucket, runs, duration_micros, longest_micros, cost_micros
)
SELECT
    given.tenant, given.workflow, given.day::date, given.status, given.bucket, given.runs, given.duration_micros,
    given.longest_micros, given.cost_micros
FROM unnest(
    $1::text[], $2::text[], $3::text[], $4::text[], $5::integer[], $6::bigint[], $7::bigint[], $8::bigint[], $9::bigint[]
) AS given (tenant, workflow, day, status, bucket, runs, duration_micros, longest_micros, cost_micros)
ON CONFLICT (tenant, day, workflow, status, bucket) DO UPDATE
SET runs = known.runs + excluded.runs, duration_micros = known.duration_micros + excluded.duration_micros,
    longest_micros = greatest(known.longest_micros, excluded.longest_micros),
    cost_micros = known.cost_micros + excluded.cost_micros;

-- name: stats_forget_started
DELETE FROM stats_started AS gone USING unnest($1::text[]) AS given (tenant) WHERE gone.tenant = given.tenant;

-- name: stats_forget_ended
DELETE FROM stats_ended AS gone USING unnest($1::text[]) AS given (tenant) WHERE gone.tenant = given.tenant;

-- name: stats_started
SELECT * FROM stats_started
WHERE (CAST(:tenant AS text) IS NULL OR tenant = :tenant)
    AND day >= CAST(CAST(:from_day AS text) AS date) AND day <= CAST(CAST(:to_day AS text) AS date)
    AND (CAST(:workflow AS text) IS NULL OR workflow = :workflow)
ORDER BY tenant, day, workflow;

-- name: stats_ended
SELECT * FROM stats_ended
WHERE (CAST(:tenant AS text) IS NULL OR tenant = :tenant)
    AND day >= CAST(CAST(:from_day AS text) AS date) AND day <= CAST(CAST(:to_day AS text) AS date)
    AND (CAST(:workflow AS text) IS NULL OR workflow = :workflow)
ORDER BY tenant, day, workflow, status, bucket;

-- name: stats_digest
SELECT 'started' AS part, count(*) AS n, sum(('x' || substr(md5(given::text), 1, 16))::bit(64)::bigint::numeric)::text AS sum
FROM stats_started AS given
UNION ALL
SELECT 'ended', count(*), sum(('x' || substr(md5(given::text), 1, 16))::bit(64)::bigint::numeric)::text
FROM stats_ended AS given
ORDER BY part;
