-- What the migration runner needs. `prepare` runs before the first migration, under the runner's lock.

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
                -- Who makes a role administers it, and from PostgreSQL 16 on may not take it by that alone.
                IF NOT (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) THEN
                    EXECUTE format('GRANT %I TO %I', prefix || role_name, current_user);
                END IF;
            ELSIF NOT pg_has_role(current_user, prefix || role_name, 'MEMBER') THEN
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

-- name: migrations_exist
SELECT to_regclass('unwind.migrations') IS NOT NULL AS exist

-- name: applied
SELECT name, checksum FROM unwind.migrations ORDER BY name

-- name: record_migration
INSERT INTO unwind.migrations (name, checksum) VALUES (:name, :checksum)
