CREATE OR REPLACE FUNCTION add_hook(
    p_tenant text, p_name text, p_workflow text, p_scheme text, p_fields text, p_id_pointer text, p_version integer, p_secret bytea,
    p_created_at timestamptz, p_created_by text
) RETURNS SETOF text LANGUAGE sql AS $$
    INSERT INTO hooks (tenant, name, workflow, scheme, fields, id_pointer, version, secret, created_at, created_by)
    VALUES (p_tenant, p_name, p_workflow, p_scheme, p_fields, p_id_pointer, p_version, p_secret, p_created_at, p_created_by)
    ON CONFLICT (tenant, name) DO NOTHING RETURNING name;
$$;

CREATE OR REPLACE FUNCTION hook(p_tenant text, p_name text) RETURNS SETOF hooks LANGUAGE sql STABLE AS $$
    SELECT * FROM hooks WHERE tenant = p_tenant AND name = p_name;
$$;

CREATE OR REPLACE FUNCTION hooks(p_tenant text) RETURNS SETOF hooks LANGUAGE sql STABLE AS $$
    SELECT * FROM hooks WHERE p_tenant IS NULL OR tenant = p_tenant ORDER BY tenant, name;
$$;

-- Whoever rotates names the version it replaces: of two at once one is told that it lost.
CREATE OR REPLACE FUNCTION rotate_hook(
    p_tenant text, p_name text, p_version integer, p_secret bytea, p_old_until timestamptz, p_rotated_at timestamptz
) RETURNS SETOF text LANGUAGE sql AS $$
    UPDATE hooks SET version = version + 1, secret = p_secret, old_secret = secret, old_until = p_old_until, rotated_at = p_rotated_at
    WHERE tenant = p_tenant AND name = p_name AND version = p_version RETURNING name;
$$;

CREATE OR REPLACE FUNCTION remove_hook(p_tenant text, p_name text) RETURNS SETOF text LANGUAGE sql AS $$
    DELETE FROM hooks WHERE tenant = p_tenant AND name = p_name RETURNING name;
$$;
