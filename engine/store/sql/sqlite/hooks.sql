-- Webhook endpoints of tenants.

-- name: add_hook
INSERT INTO hooks (tenant, name, workflow, scheme, fields, id_pointer, version, secret, created_at, created_by)
VALUES (:tenant, :name, :workflow, :scheme, :fields, :id_pointer, :version, :secret, :created_at, :created_by)
ON CONFLICT (tenant, name) DO NOTHING RETURNING name

-- name: hook
SELECT * FROM hooks WHERE tenant = :tenant AND name = :name

-- name: hooks
SELECT * FROM hooks WHERE :tenant IS NULL OR tenant = :tenant ORDER BY tenant, name

-- name: rotate_hook
-- Whoever rotates names the version it replaces: of two at once one is told that it lost.
UPDATE hooks SET version = version + 1, secret = :secret, old_secret = secret, old_until = :old_until, rotated_at = :rotated_at
WHERE tenant = :tenant AND name = :name AND version = :version RETURNING name

-- name: remove_hook
DELETE FROM hooks WHERE tenant = :tenant AND name = :name RETURNING name
