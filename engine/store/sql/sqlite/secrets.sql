-- Secrets of tenants, one version of each: what a version replaces goes with its data key.

-- name: put_secret
DELETE FROM keys WHERE tenant = :tenant AND scope = :scope
AND coalesce((SELECT version FROM secrets WHERE tenant = :tenant AND name = :name), 0) = :version - 1;
INSERT INTO keys (tenant, scope, key_id, wrapped, root_id) SELECT :tenant, :scope, :version, :wrapped, :root_id
WHERE coalesce((SELECT version FROM secrets WHERE tenant = :tenant AND name = :name), 0) = :version - 1;
INSERT INTO secrets (tenant, name, kind, version, hosts, sealed, created_at, changed_at, changed_by)
SELECT :tenant, :name, :kind, :version, :hosts, :sealed, :now, :now, :by
WHERE coalesce((SELECT version FROM secrets WHERE tenant = :tenant AND name = :name), 0) = :version - 1
ON CONFLICT (tenant, name) DO UPDATE SET kind = excluded.kind, version = excluded.version, hosts = excluded.hosts, sealed = excluded.sealed,
    changed_at = excluded.changed_at, changed_by = excluded.changed_by
RETURNING version

-- name: secret
SELECT s.tenant, s.name, s.kind, s.version, s.hosts, s.sealed, s.created_at, s.changed_at, s.changed_by, k.scope, k.wrapped, k.root_id
FROM secrets s JOIN keys k ON k.tenant = s.tenant AND k.scope = 'secret/' || s.name AND k.key_id = s.version
WHERE s.tenant = :tenant AND s.name = :name

-- name: secrets
SELECT tenant, name, kind, version, hosts, created_at, changed_at, changed_by FROM secrets WHERE tenant = :tenant ORDER BY name

-- name: remove_secret
DELETE FROM keys WHERE tenant = :tenant AND scope = :scope;
DELETE FROM secrets WHERE tenant = :tenant AND name = :name RETURNING name
