-- Tenants and lanes, keys, tokens, settings.

-- name: lane_of
INSERT INTO tenants (tenant, created_at) VALUES (:tenant, :now) ON CONFLICT (tenant) DO NOTHING;
SELECT lane FROM tenants WHERE tenant = :tenant

-- name: lanes
SELECT lane FROM tenants UNION SELECT 0 ORDER BY 1

-- name: keys
SELECT * FROM keys WHERE tenant = :tenant AND (:scopes IS NULL OR scope IN (SELECT value FROM json_each(:scopes))) ORDER BY scope, key_id

-- name: keys_not_under
-- Rides keys_root, on both sides of what is left alone: of a million keys that are wrapped anew a few hundred at a time none is looked at twice.
SELECT * FROM (
    SELECT * FROM (SELECT * FROM keys WHERE root_id < :root_id ORDER BY root_id LIMIT :limit)
    UNION ALL
    SELECT * FROM (SELECT * FROM keys WHERE root_id > :root_id ORDER BY root_id LIMIT :limit)
) LIMIT :limit

-- name: add_key
INSERT INTO keys (tenant, scope, key_id, wrapped, root_id) VALUES (:tenant, :scope, :key_id, :wrapped, :root_id)
ON CONFLICT (tenant, scope, key_id) DO NOTHING;
SELECT * FROM keys WHERE tenant = :tenant AND scope = :scope AND key_id = :key_id

-- name: rewrap_key
UPDATE keys SET wrapped = :wrapped, root_id = :root_id WHERE tenant = :tenant AND scope = :scope AND key_id = :key_id

-- name: drop_key
DELETE FROM keys WHERE tenant = :tenant AND scope = :scope RETURNING key_id

-- name: root_ids
SELECT root_id, count(*) AS held FROM keys GROUP BY root_id

-- name: add_token
INSERT INTO tokens (prefix, digest, tenant, name, roles, created_at, expires_at, revoked_at, last_used_at, made_by, made_with, maker)
VALUES (:prefix, :digest, :tenant, :name, :roles, :created_at, :expires_at, :revoked_at, :last_used_at, :made_by, :made_with, :maker)

-- name: presented
-- All that is asked of a token with each request, in one look: itself, what tenancy said of its tenant, and the roles that its maker has there now,
-- or in the platform; none of who is gone, NULL where it stands on no user's rights.
SELECT t.*, s.state, CASE WHEN t.maker IS NOT NULL THEN (
    SELECT json_group_array(DISTINCT r.value) FROM users u JOIN memberships m ON m.user_id = u.id, json_each(m.roles) r
    WHERE u.id = t.maker AND u.disabled_at IS NULL AND m.disabled_at IS NULL AND (m.tenant IS NULL OR m.tenant = t.tenant)
) END AS maker_roles
FROM tokens t LEFT JOIN standings s ON s.tenant = t.tenant WHERE t.prefix = :prefix

-- name: token
SELECT * FROM tokens WHERE prefix = :prefix

-- name: tokens
SELECT * FROM tokens WHERE :tenant IS NULL OR tenant = :tenant ORDER BY created_at, prefix

-- name: touch_token
UPDATE tokens SET last_used_at = :now WHERE prefix = :prefix AND (last_used_at IS NULL OR last_used_at <= :before) RETURNING prefix

-- name: revoke_token
UPDATE tokens SET revoked_at = :now WHERE prefix = :prefix AND revoked_at IS NULL RETURNING prefix

-- name: setting
SELECT value FROM settings WHERE name = :name AND tenant IN (:tenant, '*') ORDER BY tenant = '*' LIMIT 1

-- name: settings_named
SELECT tenant, value FROM settings WHERE name = :name

-- name: settings_changed
SELECT tenant, name, value, changed FROM settings WHERE name IN (SELECT value FROM json_each(:names)) AND changed > :after

-- name: put_setting
UPDATE setting_changes SET last = last + 1 WHERE id = 1;
INSERT INTO settings (tenant, name, value, changed) VALUES (:tenant, :name, :value, (SELECT last FROM setting_changes WHERE id = 1))
ON CONFLICT (tenant, name) DO UPDATE SET value = excluded.value, changed = excluded.changed

-- name: egress_rules
SELECT value FROM settings WHERE name = 'egress' AND tenant IN (:tenant, '*') ORDER BY tenant = '*' LIMIT 1

-- name: lease_egress
DELETE FROM egress_slots WHERE tenant = :tenant AND (width_ms <> :width_ms OR slot <= :slot - :slots);
SELECT max(0, min(:wanted, :most - coalesce((SELECT sum(taken) FROM egress_slots WHERE tenant = :tenant), 0))) AS granted;
INSERT INTO egress_slots (tenant, slot, width_ms, taken)
SELECT :tenant, :slot, :width_ms, min(:wanted, :most - coalesce((SELECT sum(taken) FROM egress_slots WHERE tenant = :tenant), 0))
WHERE :most > coalesce((SELECT sum(taken) FROM egress_slots WHERE tenant = :tenant), 0)
ON CONFLICT (tenant, slot) DO UPDATE SET taken = taken + excluded.taken

-- name: forget_arrivals
-- Some arrivals of a tenant that is offboarded, so that `forget_tenant` has few left; none while a run of it is open.
DELETE FROM arrival_outcomes WHERE arrival IN (
    SELECT arrival FROM inbox WHERE tenant = :tenant AND NOT EXISTS (SELECT 1 FROM open_runs WHERE tenant = :tenant)
    ORDER BY source, event_id LIMIT :limit
);
DELETE FROM arrival_keys WHERE arrival IN (
    SELECT arrival FROM inbox WHERE tenant = :tenant AND NOT EXISTS (SELECT 1 FROM open_runs WHERE tenant = :tenant)
    ORDER BY source, event_id LIMIT :limit
);
DELETE FROM arrivals WHERE id IN (
    SELECT arrival FROM inbox WHERE tenant = :tenant AND NOT EXISTS (SELECT 1 FROM open_runs WHERE tenant = :tenant)
    ORDER BY source, event_id LIMIT :limit
);
DELETE FROM inbox WHERE (tenant, source, event_id) IN (
    SELECT tenant, source, event_id FROM inbox WHERE tenant = :tenant AND NOT EXISTS (SELECT 1 FROM open_runs WHERE tenant = :tenant)
    ORDER BY source, event_id LIMIT :limit
) RETURNING arrival AS id

-- name: forget_tenant
-- All that can be let go of a tenant that is offboarded, once no run of it is open: the driver looks first, in this transaction.
SELECT
    (SELECT count(*) FROM arrivals WHERE tenant = :tenant) AS arrivals, (SELECT count(*) FROM dead_letters WHERE tenant = :tenant) AS letters,
    (SELECT count(*) FROM tokens WHERE tenant = :tenant) AS tokens, (SELECT count(*) FROM keys WHERE tenant = :tenant) AS keys;
DELETE FROM arrival_outcomes WHERE arrival IN (SELECT id FROM arrivals WHERE tenant = :tenant);
DELETE FROM arrival_keys WHERE tenant = :tenant;
DELETE FROM inbox WHERE tenant = :tenant;
DELETE FROM inputs WHERE tenant = :tenant;
DELETE FROM outbox WHERE tenant = :tenant;
DELETE FROM snapshots WHERE tenant = :tenant;
DELETE FROM settings WHERE tenant = :tenant AND name <> 'offboarding';
DELETE FROM secrets WHERE tenant = :tenant;
DELETE FROM egress_slots WHERE tenant = :tenant;
DELETE FROM run_counters WHERE tenant = :tenant;
DELETE FROM invitations WHERE tenant = :tenant;
DELETE FROM sessions WHERE tenant = :tenant;
DELETE FROM standings WHERE tenant = :tenant;
DELETE FROM identities WHERE user_id IN (SELECT user_id FROM memberships WHERE tenant = :tenant)
    AND user_id NOT IN (SELECT user_id FROM memberships WHERE tenant IS NOT :tenant);
DELETE FROM users WHERE id IN (SELECT user_id FROM memberships WHERE tenant = :tenant)
    AND id NOT IN (SELECT user_id FROM memberships WHERE tenant IS NOT :tenant);
DELETE FROM memberships WHERE tenant = :tenant;
DELETE FROM cost_counters WHERE tenant = :tenant;
DELETE FROM arrivals WHERE tenant = :tenant;
DELETE FROM dead_letters WHERE tenant = :tenant;
DELETE FROM tokens WHERE tenant = :tenant;
DELETE FROM hooks WHERE tenant = :tenant;
DELETE FROM outlet_deliveries WHERE tenant = :tenant OR about = :tenant;
DELETE FROM outlets WHERE tenant = :tenant;
DELETE FROM keys WHERE tenant = :tenant

-- What the database itself refuses: one row per guardrail. SQLite has neither roles nor row-level security.
-- name: guards
SELECT 'audit append-only' AS name, count(*) = 2 AS holds,
    CASE WHEN count(*) = 2 THEN 'entries are refused changes by triggers' ELSE 'its triggers are missing' END AS detail
FROM sqlite_master WHERE type = 'trigger' AND name IN ('audit_entries_stay', 'audit_entries_remain')
UNION ALL
SELECT 'log append-only', count(*) = 2, CASE WHEN count(*) = 2 THEN 'events are refused changes by triggers' ELSE 'its triggers are missing' END
FROM sqlite_master WHERE type = 'trigger' AND name IN ('log_no_update', 'log_no_delete');
