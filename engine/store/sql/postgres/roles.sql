-- Functions, group roles and what guards the read models. SQLite has neither functions nor roles, so this file has no twin.

-- name: lock_migrations
SET LOCAL lock_timeout = '60s';
SELECT pg_advisory_xact_lock(1970169719, -1)

-- name: become_owner
SELECT set_config('role', role, true) FROM unwind.roles WHERE name = 'owner'

-- The notifications module's role, which databases did not always have; nothing where it cannot be made, or the others could not.
-- name: prepare_mail
DO $$
DECLARE
    mail text;
BEGIN
    -- The first migration of a database goes on as its owner, who makes no roles.
    SET LOCAL ROLE NONE;
    SELECT left(role, -length('engine')) || 'mail' INTO mail FROM unwind.roles WHERE name = 'engine';
    IF mail IS NULL OR EXISTS (SELECT 1 FROM unwind.roles WHERE name = 'mail') THEN
        RETURN;
    END IF;
    BEGIN
        IF NOT EXISTS (SELECT 1 FROM pg_roles WHERE rolname = mail) THEN
            EXECUTE format('CREATE ROLE %I NOLOGIN', mail);
            IF NOT (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) THEN
                EXECUTE format('GRANT %I TO %I', mail, current_user);
            END IF;
        END IF;
    EXCEPTION WHEN insufficient_privilege THEN
        RETURN;
    END;
    EXECUTE format('SET LOCAL ROLE %I', (SELECT role FROM unwind.roles WHERE name = 'owner'));
    INSERT INTO unwind.roles (name, role) VALUES ('mail', mail);
END $$

-- name: make_in
SELECT set_config('search_path', :schema, true)

-- name: take_role
SELECT set_config('role', :role, :here)

-- name: see_tenant
SELECT set_config('app.tenant', :tenant, :here)

-- name: batch_types
SELECT 'unwind.batch'::regtype::oid AS batch, 'unwind.batch_rest'::regtype::oid AS rest

-- Where the login may not be the mail role, or there is none, the engine's stands in.
-- name: roles
SELECT r.name, r.role FROM unwind.roles r WHERE r.name <> 'mail'
UNION ALL
SELECT 'mail', coalesce((
    SELECT m.role FROM unwind.roles m JOIN pg_roles p ON p.rolname = m.role WHERE m.name = 'mail' AND pg_has_role(p.oid, 'MEMBER')
), e.role) FROM unwind.roles e WHERE e.name = 'engine'

-- A role that came after the functions were guarded.
-- name: mail_unguarded
SELECT EXISTS (
    SELECT 1 FROM unwind.roles m JOIN pg_roles p ON p.rolname = m.role
    WHERE m.name = 'mail' AND NOT has_function_privilege(p.oid, 'unwind.egress_rules(text)', 'EXECUTE')
)

-- Functions are known by every text they ever had here: an older program leaves alone what a newer one has replaced.
-- name: prepare_functions
DO $$
BEGIN
    IF to_regclass('unwind.functions') IS NULL THEN
        CREATE TABLE unwind.functions (
            name text, checksum text, applied_at timestamptz NOT NULL DEFAULT now(), PRIMARY KEY (name, checksum)
        );
    END IF;
    -- Bodies name one another, in any order.
    SET LOCAL check_function_bodies = off;
END $$

-- name: table_rows
SELECT c.relname AS name, greatest(c.reltuples, 0)::bigint AS rows FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = 'unwind' AND c.relkind = 'r'

-- name: functions_exist
SELECT to_regclass('unwind.functions') IS NOT NULL AS exist

-- name: functions_applied
SELECT name, checksum FROM unwind.functions

-- name: record_functions
INSERT INTO unwind.functions (name, checksum) VALUES (:name, :checksum)

-- Nobody may execute a function by default; the engine may execute all but three, other roles what is named here.
-- name: guard_functions
DO $$
DECLARE
    f record;
    r record;
BEGIN
    SELECT max(role) FILTER (WHERE name = 'engine') AS engine, max(role) FILTER (WHERE name = 'projector') AS projector,
           max(role) FILTER (WHERE name = 'web') AS web, max(role) FILTER (WHERE name = 'mail') AS mail
    INTO r FROM unwind.roles;
    GRANT SELECT ON unwind.functions TO PUBLIC;
    FOR f IN SELECT p.oid::regprocedure AS signature, p.proname AS name FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
             WHERE n.nspname = 'unwind' AND p.prokind = 'f' AND p.proname <> 'refuse_change'
    LOOP
        EXECUTE format('ALTER FUNCTION %s SECURITY DEFINER SET search_path = unwind, pg_temp', f.signature);
        EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', f.signature);
        IF r.engine IS NOT NULL AND f.name NOT IN ('append_for', 'open_lane', 'drop_month') AND f.name NOT LIKE 'shadow\_%' THEN
            EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO %I', f.signature, r.engine);
        END IF;
        IF r.projector IS NOT NULL AND (f.name IN ('read_log', 'head') OR f.name LIKE 'shadow\_%') THEN
            EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO %I', f.signature, r.projector);
        END IF;
        IF r.web IS NOT NULL AND f.name IN ('append_for', 'head', 'lane_of') THEN
            EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO %I', f.signature, r.web);
        END IF;
        IF r.mail IS NOT NULL AND f.name IN ('egress_rules', 'lease_egress') THEN
            EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO %I', f.signature, r.mail);
        END IF;
    END LOOP;
END $$

-- name: guard_views
DO $$
DECLARE
    v record;
    r record;
BEGIN
    SELECT max(role) FILTER (WHERE name = 'owner') AS owner, max(role) FILTER (WHERE name = 'projector') AS projector,
           max(role) FILTER (WHERE name = 'web') AS web, max(role) FILTER (WHERE name = 'operator') AS operator
    INTO r FROM unwind.roles;
    FOR v IN SELECT c.oid::regclass AS name, c.relname,
                    EXISTS (SELECT 1 FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attname = 'tenant' AND NOT a.attisdropped) AS by_tenant,
                    c.relforcerowsecurity AND EXISTS (SELECT 1 FROM pg_policy p WHERE p.polrelid = c.oid) AS guarded,
                    EXISTS (SELECT 1 FROM pg_trigger g WHERE g.tgrelid = c.oid AND g.tgname LIKE '%\_stay') AS stays
             FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
             WHERE n.nspname = 'views' AND c.relkind IN ('r', 'p')
    LOOP
        IF v.by_tenant AND NOT v.guarded THEN
            EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY', v.name);
            EXECUTE format('ALTER TABLE %s FORCE ROW LEVEL SECURITY', v.name);
            IF r.web IS NULL THEN
                EXECUTE format('CREATE POLICY by_tenant ON %s USING (current_setting(''app.tenant'', true) IN (tenant, ''*''))', v.name);
            ELSE
                EXECUTE format('CREATE POLICY by_tenant ON %s FOR SELECT TO %I USING (tenant = current_setting(''app.tenant'', true))', v.name, r.web);
                EXECUTE format('CREATE POLICY all_tenants ON %s TO %I, %I, %I USING (true) WITH CHECK (true)', v.name, r.owner, r.projector, r.operator);
            END IF;
        END IF;
        IF r.web IS NOT NULL THEN
            EXECUTE format('GRANT SELECT ON %s TO %I, %I', v.name, r.web, r.operator);
            IF v.stays THEN
                EXECUTE format('REVOKE UPDATE, DELETE, TRUNCATE ON %s FROM %I', v.name, r.projector);
                EXECUTE format('GRANT SELECT, INSERT ON %s TO %I', v.name, r.projector);
            ELSE
                EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE, TRUNCATE ON %s TO %I', v.name, r.projector);
            END IF;
        END IF;
    END LOOP;
    IF r.projector IS NOT NULL THEN
        EXECUTE format('GRANT USAGE ON ALL SEQUENCES IN SCHEMA views TO %I', r.projector);
    END IF;
END $$

-- Shadows of read models (`functions/shadows.sql`); a session holds the lock of a view for as long as its shadow lives.
-- name: shadow_lock
SELECT pg_try_advisory_lock(1970169719, hashtext(:view)) AS held

-- name: shadow_make
SELECT shadow_make(:view, :tables::text[])

-- name: shadow_drop
SELECT shadow_drop(:view, :tables::text[])

-- name: shadow_switch
SELECT shadow_switch(:view, :tables::text[])

-- name: shadow_differences
SELECT name, key FROM shadow_differences(:tables::text[], :limit::integer)

-- name: shadow_tables_left
SELECT relname AS name FROM pg_class WHERE relnamespace = 'views'::regnamespace AND relkind = 'r' AND relname LIKE 'shadow\_%'

-- name: estimated_rows
SELECT relname AS name, reltuples::bigint AS rows FROM pg_class
WHERE relnamespace = 'views'::regnamespace AND relname = ANY (:tables::text[]) AND reltuples >= 100000
