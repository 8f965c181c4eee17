-- What the migration runner itself needs. `prepare` runs before the first migration, under the runner's lock.

-- name: lock_migrations
SELECT pg_advisory_xact_lock(1970169719, -1)

-- name: prepare
DO $$
DECLARE
    prefix text := 'unwind_' || CASE WHEN length(current_database()) <= 40 THEN current_database()
                                     ELSE left(current_database(), 31) || '_' || left(md5(current_database()), 8) END || '_';
    role_name text;
    able boolean := true;
BEGIN
    IF to_regclass('unwind.migrations') IS NOT NULL THEN
        RETURN;
    END IF;
    FOREACH role_name IN ARRAY ARRAY['owner', 'engine', 'projector', 'web', 'operator'] LOOP
        BEGIN
            IF NOT EXISTS (SELECT 1 FROM pg_roles WHERE rolname = prefix || role_name) THEN
                EXECUTE format('CREATE ROLE %I NOLOGIN', prefix || role_name);
            END IF;
            IF NOT pg_has_role(current_user, prefix || role_name, 'MEMBER') THEN
                EXECUTE format('GRANT %I TO %I', prefix || role_name, current_user);
            END IF;
        EXCEPTION WHEN insufficient_privilege THEN
            able := false;
        END;
        EXIT WHEN NOT able;
    END LOOP;
    IF able THEN
        EXECUTE format('CREATE SCHEMA unwind AUTHORIZATION %I', prefix || 'owner');
        EXECUTE format('CREATE SCHEMA views AUTHORIZATION %I', prefix || 'owner');
        EXECUTE format('SET LOCAL ROLE %I', prefix || 'owner');
    ELSE
        CREATE SCHEMA unwind;
        CREATE SCHEMA views;
    END IF;
    CREATE TABLE unwind.roles (name text PRIMARY KEY, role text NOT NULL);
    CREATE TABLE unwind.migrations (name text PRIMARY KEY, checksum text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now());
    IF able THEN
        INSERT INTO unwind.roles SELECT r, prefix || r FROM unnest(ARRAY['owner', 'engine', 'projector', 'web', 'operator']) AS r;
    END IF;
END $$

-- name: become_owner
SELECT set_config('role', role, true) FROM unwind.roles WHERE name = 'owner'

-- name: migrations_exist
SELECT to_regclass('unwind.migrations') IS NOT NULL AS exist

-- name: applied
SELECT name, checksum FROM unwind.migrations ORDER BY name

-- name: record_migration
INSERT INTO unwind.migrations (name, checksum) VALUES (:name, :checksum)

-- name: roles
SELECT name, role FROM unwind.roles

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
                    EXISTS (SELECT 1 FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attname = 'tenant' AND NOT a.attisdropped) AS by_tenant
             FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
             WHERE n.nspname = 'views' AND c.relkind IN ('r', 'p')
    LOOP
        IF v.by_tenant THEN
            EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY', v.name);
            EXECUTE format('ALTER TABLE %s FORCE ROW LEVEL SECURITY', v.name);
            EXECUTE format('DROP POLICY IF EXISTS by_tenant ON %s', v.name);
            EXECUTE format('DROP POLICY IF EXISTS all_tenants ON %s', v.name);
            IF r.web IS NULL THEN
                EXECUTE format('CREATE POLICY by_tenant ON %s USING (current_setting(''app.tenant'', true) IN (tenant, ''*''))', v.name);
            ELSE
                EXECUTE format('CREATE POLICY by_tenant ON %s FOR SELECT TO %I USING (tenant = current_setting(''app.tenant'', true))', v.name, r.web);
                EXECUTE format('CREATE POLICY all_tenants ON %s TO %I, %I, %I USING (true) WITH CHECK (true)', v.name, r.owner, r.projector, r.operator);
            END IF;
        END IF;
        IF r.web IS NOT NULL THEN
            EXECUTE format('GRANT SELECT ON %s TO %I, %I', v.name, r.web, r.operator);
            EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE, TRUNCATE ON %s TO %I', v.name, r.projector);
        END IF;
    END LOOP;
    IF r.projector IS NOT NULL THEN
        EXECUTE format('GRANT USAGE ON ALL SEQUENCES IN SCHEMA views TO %I', r.projector);
    END IF;
END $$
