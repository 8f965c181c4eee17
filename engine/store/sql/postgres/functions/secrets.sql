-- The next version of a secret with its data key, and the one before with its own goes; no row when this is not the next one.
CREATE OR REPLACE FUNCTION put_secret(
    p_tenant text, p_name text, p_kind text, p_version integer, p_hosts text, p_sealed bytea, p_scope text, p_wrapped bytea, p_root_id text,
    p_by text, p_now timestamptz
) RETURNS SETOF integer LANGUAGE plpgsql AS $$
DECLARE
    moment timestamptz := coalesce(p_now, clock_timestamp());
BEGIN
    IF p_version = 1 THEN
        INSERT INTO secrets (tenant, name, kind, version, hosts, sealed, created_at, changed_at, changed_by)
        VALUES (p_tenant, p_name, p_kind, 1, p_hosts, p_sealed, moment, moment, p_by)
        ON CONFLICT (tenant, name) DO NOTHING;
    ELSE
        UPDATE secrets SET kind = p_kind, version = p_version, hosts = p_hosts, sealed = p_sealed, changed_at = moment, changed_by = p_by
        WHERE tenant = p_tenant AND name = p_name AND version = p_version - 1;
    END IF;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    DELETE FROM keys WHERE tenant = p_tenant AND scope = p_scope;
    INSERT INTO keys (tenant, scope, key_id, wrapped, root_id) VALUES (p_tenant, p_scope, p_version, p_wrapped, p_root_id);
    RETURN NEXT p_version;
END $$;

CREATE OR REPLACE FUNCTION secret(p_tenant text, p_name text) RETURNS TABLE (
    tenant text, name text, kind text, version integer, hosts text, sealed bytea, created_at timestamptz, changed_at timestamptz, changed_by text,
    scope text, wrapped bytea, root_id text
) LANGUAGE sql STABLE AS $$
    SELECT s.tenant, s.name, s.kind, s.version, s.hosts, s.sealed, s.created_at, s.changed_at, s.changed_by, k.scope, k.wrapped, k.root_id
    FROM secrets s JOIN keys k ON k.tenant = s.tenant AND k.scope = 'secret/' || s.name AND k.key_id = s.version
    WHERE s.tenant = p_tenant AND s.name = p_name;
$$;

-- Without what is sealed.
CREATE OR REPLACE FUNCTION secrets(p_tenant text) RETURNS TABLE (
    tenant text, name text, kind text, version integer, hosts text, created_at timestamptz, changed_at timestamptz, changed_by text
) LANGUAGE sql STABLE AS $$
    SELECT s.tenant, s.name, s.kind, s.version, s.hosts, s.created_at, s.changed_at, s.changed_by FROM secrets s
    WHERE s.tenant = p_tenant ORDER BY s.name;
$$;

CREATE OR REPLACE FUNCTION remove_secret(p_tenant text, p_name text, p_scope text) RETURNS SETOF text LANGUAGE plpgsql AS $$
BEGIN
    RETURN QUERY DELETE FROM secrets s WHERE s.tenant = p_tenant AND s.name = p_name RETURNING s.name;
    DELETE FROM keys WHERE tenant = p_tenant AND scope = p_scope;
END $$;
