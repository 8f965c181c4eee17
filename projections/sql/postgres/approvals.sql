-- Approvals, open and decided.

-- name: approvals_create
CREATE TABLE IF NOT EXISTS approvals (
    tenant       text        NOT NULL,
    run_id       uuid        NOT NULL,
    name         text        NOT NULL,
    visit        integer     NOT NULL,
    workflow     text        NOT NULL,
    title        text        NOT NULL,
    role         text        NOT NULL,
    context      text        NOT NULL,
    requested_at timestamptz NOT NULL,
    due          timestamptz,
    state        text        NOT NULL DEFAULT 'open'
        CHECK (state IN ('open', 'approved', 'rejected', 'timed_out', 'closed')),
    decided_by   text        NOT NULL DEFAULT '',
    comment      text        NOT NULL DEFAULT '',
    decided_at   timestamptz,
    PRIMARY KEY (tenant, run_id, name, visit)
);
CREATE INDEX IF NOT EXISTS approvals_open ON approvals (tenant, run_id) WHERE state = 'open';

-- name: approvals_reset
TRUNCATE approvals;

-- name: approvals_insert
INSERT INTO approvals (tenant, run_id, name, visit, workflow, title, role, context, requested_at, due)
SELECT
    given.tenant, given.run_id, given.name, given.visit, given.workflow, given.title, given.role, given.context,
    given.requested_at::timestamptz, given.due::timestamptz
FROM unnest(
    $1::text[], $2::uuid[], $3::text[], $4::integer[], $5::text[], $6::text[], $7::text[], $8::text[], $9::text[],
    $10::text[]
) AS given (tenant, run_id, name, visit, workflow, title, role, context, requested_at, due)
ON CONFLICT DO NOTHING;

-- name: approvals_settle
UPDATE approvals AS asked
SET state = given.state, decided_by = given.decided_by, comment = given.comment, decided_at = given.decided_at::timestamptz
FROM unnest($1::text[], $2::uuid[], $3::text[], $4::integer[], $5::text[], $6::text[], $7::text[], $8::text[])
    AS given (tenant, run_id, name, visit, state, decided_by, comment, decided_at)
WHERE asked.tenant = ANY (ARRAY[given.tenant]) AND asked.run_id = given.run_id AND asked.name = given.name
    AND asked.visit = given.visit AND asked.state = 'open';

-- name: approvals_close
-- Rides approvals_open, which is small: most runs of a batch have no approval.
UPDATE approvals AS asked
SET state = 'closed', decided_at = given.closed_at::timestamptz
FROM unnest($1::text[], $2::uuid[], $3::text[]) AS given (tenant, run_id, closed_at)
WHERE asked.tenant = ANY (ARRAY[given.tenant]) AND asked.run_id = given.run_id AND asked.state = 'open';

-- name: approvals_archive
DELETE FROM approvals AS gone
USING unnest($1::text[], $2::uuid[]) AS given (tenant, run_id)
WHERE gone.tenant = ANY (ARRAY[given.tenant]) AND gone.run_id = given.run_id;

-- name: approvals_list
-- Newest first, the cursor is the whole key of the last one seen.
SELECT * FROM approvals
WHERE (CAST(:tenant AS text) IS NULL OR tenant = :tenant)
    AND (CAST(:state AS text) IS NULL OR state = :state)
    AND (CAST(:run_id AS uuid) IS NULL OR run_id = CAST(:run_id AS uuid))
    AND (
        CAST(:before_run AS uuid) IS NULL
        OR (run_id, name, visit) < (CAST(:before_run AS uuid), CAST(:before_name AS text), CAST(:before_visit AS integer))
    )
ORDER BY run_id DESC, name DESC, visit DESC
LIMIT CAST(:limit AS integer);

-- name: approvals_digest
SELECT 'approvals' AS part, count(*) AS n, sum(('x' || substr(md5(given::text), 1, 16))::bit(64)::bigint::numeric)::text AS sum
FROM approvals AS given;
