-- What a module has heard of its tenants' standing, the same text for PostgreSQL and SQLite.

-- name: schema
CREATE TABLE IF NOT EXISTS tenant_standing (
  tenant text PRIMARY KEY,
  state text NOT NULL,
  revision integer NOT NULL,
  at timestamptz NOT NULL
);

-- name: hear
-- The tenant's own number orders its facts: one that arrives late changes nothing.
INSERT INTO tenant_standing (tenant, state, revision, at) VALUES ($1, $2, $3, $4)
ON CONFLICT (tenant) DO UPDATE SET state = excluded.state, revision = excluded.revision, at = excluded.at
WHERE tenant_standing.revision < excluded.revision;

-- name: standing
SELECT state FROM tenant_standing WHERE tenant = $1;
