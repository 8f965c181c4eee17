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
SELECT keep_token(
    :prefix, :digest, :tenant, :name, :roles, :created_at, :expires_at, :revoked_at, :last_used_at, :made_by, :made_with, :maker
)

-- name: presented
SELECT * FROM presented(:prefix)

-- name: token
SELECT * FROM token(:prefix)

-- name: tokens
SELECT * FROM tokens(:tenant)

-- name: touch_token
SELECT prefix FROM touch_token(:prefix, :now, :before) AS r(prefix)

-- name: revoke_token
SELECT prefix FROM revoke_token(:prefix, :now) AS r(prefix)

-- name: setting
SELECT setting(:tenant, :name) AS value

-- name: settings_named
SELECT * FROM settings_named(:name)

-- name: settings_changed
SELECT * FROM settings_changed(:names, :after)

-- name: put_setting
SELECT put_setting(:tenant, :name, :value)

-- name: egress_rules
SELECT egress_rules(:tenant) AS value

-- name: lease_egress
SELECT lease_egress(:tenant, :slot, :width_ms, :slots, :most, :wanted) AS granted

-- name: forget_arrivals
SELECT id FROM forget_arrivals(:tenant, :limit) AS f(id)

-- name: forget_tenant
SELECT arrivals, letters, tokens, keys FROM forget_tenant(:tenant)

-- What the database itself refuses: one row per guardrail. For the doctor, by anybody who may connect.
-- name: guards
SELECT 'roles' AS name, count(*) = 5 AS holds,
    CASE WHEN count(*) = 5 THEN 'each process acts as ' || string_agg(role, ', ' ORDER BY role)
         ELSE 'this database has no roles apart: whoever connects does everything' END AS detail
FROM unwind.roles
UNION ALL
SELECT 'login', NOT (u.rolsuper OR u.rolbypassrls),
    format('this process connects as %s%s', u.rolname, CASE WHEN u.rolsuper THEN ', a superuser: nothing binds it' WHEN u.rolbypassrls THEN ', which passes row-level security' ELSE '' END)
FROM pg_roles u WHERE u.rolname = session_user
UNION ALL
SELECT 'row-level security', count(*) > 0 AND bool_and(guarded), coalesce(string_agg(name, ', ' ORDER BY name) FILTER (WHERE NOT guarded) || ' stand open', count(*) || ' read models are behind it')
FROM (
    SELECT c.relname AS name, c.relrowsecurity AND c.relforcerowsecurity AND EXISTS (SELECT 1 FROM pg_policy p WHERE p.polrelid = c.oid) AS guarded
    FROM pg_class c
    WHERE c.relnamespace = 'views'::regnamespace AND c.relkind IN ('r', 'p')
        AND EXISTS (SELECT 1 FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attname = 'tenant' AND NOT a.attisdropped)
) v
UNION ALL
-- 8, 16 and 32 in a trigger's type are DELETE, UPDATE and TRUNCATE.
SELECT 'audit append-only', triggers = 56 AND may IS NULL,
    CASE WHEN triggers <> 56 THEN 'its trigger is missing or switched off' ELSE coalesce(may || ' may change entries', 'no role may change an entry') END
FROM (
    SELECT (SELECT coalesce(bit_or(g.tgtype::integer), 0) & 56 FROM pg_trigger g WHERE g.tgrelid = to_regclass('views.audit_entries') AND g.tgenabled IN ('O', 'A') AND NOT g.tgisinternal) AS triggers,
        (SELECT string_agg(DISTINCT r.role, ', ') FROM unwind.roles r, unnest(ARRAY['UPDATE', 'DELETE', 'TRUNCATE']) AS p (privilege)
         WHERE r.name <> 'owner' AND has_table_privilege(r.role, to_regclass('views.audit_entries'), p.privilege)) AS may
) a
UNION ALL
SELECT 'log append-only', types = 56, CASE WHEN types = 56 THEN 'no role may change an event' ELSE 'its triggers are missing or switched off' END
FROM (SELECT coalesce(bit_or(g.tgtype::integer), 0) & 56 AS types FROM pg_trigger g WHERE g.tgrelid = 'unwind.log'::regclass AND g.tgenabled IN ('O', 'A') AND NOT g.tgisinternal) l;
