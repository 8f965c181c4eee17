-- Webhook endpoints of tenants.

-- name: add_hook
SELECT name FROM add_hook(:tenant, :name, :workflow, :scheme, :fields, :id_pointer, :version, :secret, :created_at, :created_by) AS a(name)

-- name: hook
SELECT * FROM hook(:tenant, :name)

-- name: hooks
SELECT * FROM hooks(:tenant)

-- name: rotate_hook
SELECT name FROM rotate_hook(:tenant, :name, :version, :secret, :old_until, :rotated_at) AS r(name)

-- name: remove_hook
SELECT name FROM remove_hook(:tenant, :name) AS r(name)
