-- What tenants are entitled to, the same text for PostgreSQL and SQLite.

-- name: schema
CREATE TABLE IF NOT EXISTS applied_entitlements (
  tenant text PRIMARY KEY,
  edition text NOT NULL,
  entitlements text NOT NULL,
  flags text NOT NULL,
  applied_by text NOT NULL,
  at timestamptz NOT NULL
);

-- name: apply
INSERT INTO applied_entitlements (tenant, edition, entitlements, flags, applied_by, at)
VALUES ($1, $2, $3, $4, $5, $6)
ON CONFLICT (tenant) DO UPDATE
SET edition = excluded.edition, entitlements = excluded.entitlements, flags = excluded.flags,
    applied_by = excluded.applied_by, at = excluded.at;

-- name: restore
INSERT INTO applied_entitlements (tenant, edition, entitlements, flags, applied_by, at)
VALUES ($1, $2, $3, $4, $5, $6)
ON CONFLICT (tenant) DO NOTHING;

-- name: revoke
-- Only what that order applied: a later change of edition stays.
DELETE FROM applied_entitlements WHERE tenant = $1 AND applied_by = $2;

-- name: find
SELECT edition, entitlements, flags, applied_by FROM applied_entitlements WHERE tenant = $1;
