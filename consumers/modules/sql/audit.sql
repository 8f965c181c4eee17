-- Audit entries, the same text for PostgreSQL and SQLite.

-- name: schema
CREATE TABLE IF NOT EXISTS audit_entries (
  tenant text NOT NULL,
  number bigint NOT NULL,
  entry_id text NOT NULL,
  about_id text NOT NULL,
  about_type text NOT NULL,
  subject text NOT NULL,
  state text NOT NULL,
  previous text,
  happened_at timestamptz NOT NULL,
  PRIMARY KEY (tenant, number)
);

-- name: add
-- Two processes that take the same number: one of them fails on the primary key and is tried again.
INSERT INTO audit_entries
  (tenant, number, entry_id, about_id, about_type, subject, state, previous, happened_at)
SELECT $1, coalesce(max(number), 0) + 1, $2, $3, $4, $5, $6, $7, $8 FROM audit_entries WHERE tenant = $1;

-- name: previous
SELECT state FROM audit_entries WHERE tenant = $1 AND subject = $2 ORDER BY number DESC LIMIT 1;

-- name: entries
SELECT number, entry_id, about_id, about_type, subject, state, previous, happened_at FROM audit_entries
WHERE tenant = $1 AND number > $2 ORDER BY number LIMIT $3;

-- name: entries_of
SELECT number, entry_id, about_id, about_type, subject, state, previous, happened_at FROM audit_entries
WHERE tenant = $1 AND number > $2 AND subject = $4 ORDER BY number LIMIT $3;
