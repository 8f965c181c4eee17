-- Tenants and lanes, keys, tokens, settings.

-- name: lane_of
SELECT lane_of(:tenant) AS lane

-- name: lanes
SELECT lane FROM lanes() AS l(lane)

-- name: keys
SELECT * FROM keys(:tenant, :scopes)

-- name: keys_not_under
SELECT * FROM keys_not_under(:root_id, :limit)

-- name: add_key
SELECT * FROM add_key(:tenant, :scope, :key_id, :wrapped, :root_id)

-- name: rewrap_key
SELECT rewrap_key(:tenant, :scope, :key_id, :wrapped, :root_id)

-- name: drop_key
SELECT key_id FROM drop_key(:tenant, :scope) AS d(key_id)

-- name: root_ids
SELECT * FROM root_ids()

-- name: add_token
SELECT add_token(:prefix, :digest, :tenant, :name, :roles, :created_at, :expires_at, :revoked_at, :last_used_at)

-- name: token
SELECT * FROM token(:prefix)

-- name: tokens
SELECT * FROM tokens(:tenant)

-- name: revoke_token
SELECT prefix FROM revoke_token(:prefix, :now) AS r(prefix)

-- name: setting
SELECT setting(:tenant, :name) AS value

-- name: settings_named
SELECT * FROM settings_named(:name)

-- name: put_setting
SELECT put_setting(:tenant, :name, :value)

-- name: forget_tenant
SELECT arrivals, letters, tokens, keys FROM forget_tenant(:tenant)
