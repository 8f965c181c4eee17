-- The tenants, the same text for PostgreSQL and SQLite.

-- name: schema
CREATE TABLE IF NOT EXISTS tenants (
  tenant text PRIMARY KEY,
  name text NOT NULL,
  edition text NOT NULL,
  trial boolean NOT NULL,
  owner_id text NOT NULL,
  owner_email text NOT NULL,
  owner_name text NOT NULL,
  state text NOT NULL,
  revision integer NOT NULL,
  steps text NOT NULL,
  provisioning_since timestamptz,
  registered_at timestamptz NOT NULL
);
CREATE TABLE IF NOT EXISTS tenant_transitions (
  tenant text NOT NULL,
  revision integer NOT NULL,
  trigger_name text NOT NULL,
  previous text,
  state text NOT NULL,
  caused_by text NOT NULL,
  at timestamptz NOT NULL,
  PRIMARY KEY (tenant, revision)
);
CREATE TABLE IF NOT EXISTS tenant_holds (
  tenant text NOT NULL,
  cause text NOT NULL,
  reason text NOT NULL,
  placed_by text NOT NULL,
  since timestamptz NOT NULL,
  PRIMARY KEY (tenant, cause)
);

-- name: register
INSERT INTO tenants
  (tenant, name, edition, trial, owner_id, owner_email, owner_name, state, revision, steps, registered_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, 'Registered', 1, '[]', $8)
ON CONFLICT (tenant) DO NOTHING;

-- name: find
SELECT name, edition, owner_id, owner_email, owner_name, state, revision, steps, provisioning_since
FROM tenants WHERE tenant = $1;

-- name: move
-- Fails to find its row when another command moved the tenant meanwhile.
UPDATE tenants SET state = $2, steps = $3, provisioning_since = $4, revision = revision + 1
WHERE tenant = $1 AND revision = $5;

-- name: note
INSERT INTO tenant_transitions (tenant, revision, trigger_name, previous, state, caused_by, at)
VALUES ($1, $2, $3, $4, $5, $6, $7);

-- name: transitions
SELECT revision, trigger_name, previous, state, caused_by, at FROM tenant_transitions WHERE tenant = $1 ORDER BY revision;

-- name: hold
-- One hold per cause; whoever placed it first takes it away again when it unwinds.
INSERT INTO tenant_holds (tenant, cause, reason, placed_by, since) VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (tenant, cause) DO NOTHING;

-- name: undo_hold
DELETE FROM tenant_holds WHERE tenant = $1 AND placed_by = $2;

-- name: release
DELETE FROM tenant_holds WHERE tenant = $1 AND cause = $2;

-- name: release_all
DELETE FROM tenant_holds WHERE tenant = $1;

-- name: holds
SELECT cause FROM tenant_holds WHERE tenant = $1 ORDER BY cause;
