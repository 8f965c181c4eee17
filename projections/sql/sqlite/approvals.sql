-- Approvals, open and decided.

-- name: approvals_create
CREATE TABLE IF NOT EXISTS approvals (
    tenant       TEXT    NOT NULL,
    run_id       TEXT    NOT NULL,
    name         TEXT    NOT NULL,
    visit        INTEGER NOT NULL,
    workflow     TEXT    NOT NULL,
    title        TEXT    NOT NULL,
    role         TEXT    NOT NULL,
    context      TEXT    NOT NULL,
    requested_at TEXT    NOT NULL,
    due          TEXT,
    state        TEXT    NOT NULL DEFAULT 'open'
        CHECK (state IN ('open', 'approved', 'rejected', 'timed_out', 'closed')),
    decided_by   TEXT    NOT NULL DEFAULT '',
    comment      TEXT    NOT NULL DEFAULT '',
    decided_at   TEXT,
    PRIMARY KEY (tenant, run_id, name, visit)
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS approvals_open ON approvals (tenant, run_id) WHERE state = 'open';

-- name: approvals_reset
DELETE FROM approvals;

-- name: approvals_insert
INSERT INTO approvals (tenant, run_id, name, visit, workflow, title, role, context, requested_at, due)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
ON CONFLICT DO NOTHING;

-- name: approvals_settle
UPDATE approvals
SET state = $5, decided_by = $6, comment = $7, decided_at = $8
WHERE tenant = $1 AND run_id = $2 AND name = $3 AND visit = $4 AND state = 'open';

-- name: approvals_close
-- Rides approvals_open, which is small: most runs of a batch have no approval.
UPDATE approvals
SET state = 'closed', decided_at = $3
WHERE tenant = $1 AND run_id = $2 AND state = 'open';

-- name: approvals_archive
DELETE FROM approvals WHERE tenant = $1 AND run_id = $2;

-- name: approvals_list
-- Newest first, the cursor is the whole key of the last one seen.
SELECT * FROM approvals
WHERE (:tenant IS NULL OR tenant = :tenant)
    AND (:state IS NULL OR state = :state)
    AND (:run_id IS NULL OR run_id = :run_id)
    AND (:before_run IS NULL OR (run_id, name, visit) < (:before_run, :before_name, :before_visit))
ORDER BY run_id DESC, name DESC, visit DESC
LIMIT :limit;

-- name: approvals_digest
SELECT 'approvals' AS part, count(*) AS n, row_sum(json_array(
    tenant, run_id, name, visit, workflow, title, role, context, requested_at, due, state, decided_by, comment, decided_at
)) AS sum
FROM approvals;
