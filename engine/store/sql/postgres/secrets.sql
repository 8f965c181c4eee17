-- Secrets of tenants, one version of each: what a version replaces goes with its data key.

-- name: put_secret
SELECT version FROM put_secret(:tenant, :name, :kind, :version, :hosts, :sealed, :scope, :wrapped, :root_id, :by, :now) AS r(version)

-- name: secret
SELECT * FROM secret(:tenant, :name)

-- name: secrets
SELECT * FROM secrets(:tenant)

-- name: remove_secret
SELECT name FROM remove_secret(:tenant, :name, :scope) AS r(name)
