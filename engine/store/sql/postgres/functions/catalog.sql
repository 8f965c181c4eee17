CREATE OR REPLACE FUNCTION lane_of(p_tenant text) RETURNS smallint LANGUAGE plpgsql AS $$
DECLARE
    found_lane smallint;
BEGIN
    SELECT lane INTO found_lane FROM tenants WHERE tenant = p_tenant;
    IF NOT FOUND THEN
        INSERT INTO tenants (tenant) VALUES (p_tenant) ON CONFLICT (tenant) DO NOTHING;
        SELECT lane INTO found_lane FROM tenants WHERE tenant = p_tenant;
    END IF;
    RETURN found_lane;
END $$;

-- For the administrator: a further lane. Tenants are put on it when they are made; a tenant never changes its lane.
CREATE OR REPLACE FUNCTION open_lane(p_lane smallint) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('CREATE SEQUENCE IF NOT EXISTS log_position_%s AS bigint', p_lane);
END $$;

CREATE OR REPLACE FUNCTION lanes() RETURNS SETOF smallint LANGUAGE sql STABLE AS $$
    SELECT lane FROM tenants UNION SELECT 0::smallint ORDER BY 1;
$$;

CREATE OR REPLACE FUNCTION keys(p_tenant text, p_scopes text[]) RETURNS SETOF keys LANGUAGE sql STABLE AS $$
    SELECT * FROM keys WHERE tenant = p_tenant AND (p_scopes IS NULL OR scope = ANY (p_scopes)) ORDER BY scope, key_id;
$$;

-- Rides keys_root, on both sides of what is left alone: of a million keys that are wrapped anew a few hundred at a time none is looked at twice.
CREATE OR REPLACE FUNCTION keys_not_under(p_root_id text, p_limit integer) RETURNS SETOF keys LANGUAGE sql STABLE AS $$
    SELECT * FROM (
        (SELECT * FROM keys WHERE root_id < p_root_id ORDER BY root_id LIMIT p_limit)
        UNION ALL (SELECT * FROM keys WHERE root_id > p_root_id ORDER BY root_id LIMIT p_limit)
    ) k LIMIT p_limit;
$$;

CREATE OR REPLACE FUNCTION add_key(p_tenant text, p_scope text, p_key_id bigint, p_wrapped bytea, p_root_id text) RETURNS SETOF keys LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO keys (tenant, scope, key_id, wrapped, root_id) VALUES (p_tenant, p_scope, p_key_id, p_wrapped, p_root_id)
    ON CONFLICT (tenant, scope, key_id) DO NOTHING;
    RETURN QUERY SELECT * FROM keys k WHERE k.tenant = p_tenant AND k.scope = p_scope AND k.key_id = p_key_id;
END $$;

CREATE OR REPLACE FUNCTION rewrap_key(p_tenant text, p_scope text, p_key_id bigint, p_wrapped bytea, p_root_id text) RETURNS void LANGUAGE sql AS $$
    UPDATE keys SET wrapped = p_wrapped, root_id = p_root_id WHERE tenant = p_tenant AND scope = p_scope AND key_id = p_key_id;
$$;

CREATE OR REPLACE FUNCTION drop_key(p_tenant text, p_scope text) RETURNS SETOF bigint LANGUAGE sql AS $$
    DELETE FROM keys WHERE tenant = p_tenant AND scope = p_scope RETURNING key_id;
$$;

CREATE OR REPLACE FUNCTION root_ids() RETURNS TABLE (root_id text, held bigint) LANGUAGE sql STABLE AS $$
    SELECT root_id, count(*) FROM keys GROUP BY root_id;
$$;

-- Called by the release before alone.
CREATE OR REPLACE FUNCTION add_token(
    p_prefix text, p_digest bytea, p_tenant text, p_name text, p_roles text[], p_created_at timestamptz, p_expires_at timestamptz,
    p_revoked_at timestamptz, p_last_used_at timestamptz
) RETURNS void LANGUAGE sql AS $$
    INSERT INTO tokens (prefix, digest, tenant, name, roles, created_at, expires_at, revoked_at, last_used_at)
    VALUES (p_prefix, p_digest, p_tenant, p_name, p_roles, p_created_at, p_expires_at, p_revoked_at, p_last_used_at);
$$;

CREATE OR REPLACE FUNCTION keep_token(
    p_prefix text, p_digest bytea, p_tenant text, p_name text, p_roles text[], p_created_at timestamptz, p_expires_at timestamptz,
    p_revoked_at timestamptz, p_last_used_at timestamptz, p_made_by text, p_made_with text, p_maker uuid
) RETURNS void LANGUAGE sql AS $$
    INSERT INTO tokens (prefix, digest, tenant, name, roles, created_at, expires_at, revoked_at, last_used_at, made_by, made_with, maker)
    VALUES (p_prefix, p_digest, p_tenant, p_name, p_roles, p_created_at, p_expires_at, p_revoked_at, p_last_used_at, p_made_by, p_made_with, p_maker);
$$;

-- All that is asked of a token with each request, in one look: itself, what tenancy said of its tenant, and the roles that its maker has there now,
-- or in the platform; none of who is gone, NULL where it stands on no user's rights.
CREATE OR REPLACE FUNCTION presented(p_prefix text) RETURNS TABLE (
    prefix text, digest bytea, tenant text, name text, roles text[], created_at timestamptz, expires_at timestamptz, revoked_at timestamptz,
    last_used_at timestamptz, made_by text, made_with text, maker uuid, state text, maker_roles text[]
) LANGUAGE sql STABLE AS $$
    SELECT t.prefix, t.digest, t.tenant, t.name, t.roles, t.created_at, t.expires_at, t.revoked_at, t.last_used_at, t.made_by, t.made_with, t.maker,
        s.state, CASE WHEN t.maker IS NOT NULL THEN ARRAY(
            SELECT DISTINCT r FROM users u JOIN memberships m ON m.user_id = u.id CROSS JOIN unnest(m.roles) AS x (r)
            WHERE u.id = t.maker AND u.disabled_at IS NULL AND m.disabled_at IS NULL AND (m.tenant IS NULL OR m.tenant = t.tenant)
        ) END
    FROM tokens t LEFT JOIN standings s ON s.tenant = t.tenant WHERE t.prefix = p_prefix;
$$;

CREATE OR REPLACE FUNCTION token(p_prefix text) RETURNS SETOF tokens LANGUAGE sql STABLE AS $$ SELECT * FROM tokens WHERE prefix = p_prefix; $$;

CREATE OR REPLACE FUNCTION tokens(p_tenant text) RETURNS SETOF tokens LANGUAGE sql STABLE AS $$
    SELECT * FROM tokens WHERE p_tenant IS NULL OR tenant = p_tenant ORDER BY created_at, prefix;
$$;

CREATE OR REPLACE FUNCTION revoke_token(p_prefix text, p_now timestamptz) RETURNS SETOF text LANGUAGE sql AS $$
    UPDATE tokens SET revoked_at = coalesce(p_now, clock_timestamp()) WHERE prefix = p_prefix AND revoked_at IS NULL RETURNING prefix;
$$;

-- At most one write between `p_before` and `p_now`, however many processes the token is used at.
CREATE OR REPLACE FUNCTION touch_token(p_prefix text, p_now timestamptz, p_before timestamptz) RETURNS SETOF text LANGUAGE sql AS $$
    UPDATE tokens SET last_used_at = p_now WHERE prefix = p_prefix AND (last_used_at IS NULL OR last_used_at <= p_before) RETURNING prefix;
$$;

CREATE OR REPLACE FUNCTION setting(p_tenant text, p_name text) RETURNS jsonb LANGUAGE sql STABLE AS $$
    SELECT value FROM settings WHERE name = p_name AND tenant IN (p_tenant, '*') ORDER BY tenant = '*' LIMIT 1;
$$;

-- Changes are numbered in the order in which they are seen: one waits for the other's commit.
CREATE OR REPLACE FUNCTION put_setting(p_tenant text, p_name text, p_value jsonb) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(1970169723, 0);
    INSERT INTO settings (tenant, name, value, changed) VALUES (p_tenant, p_name, p_value, nextval('settings_changes'))
    ON CONFLICT (tenant, name) DO UPDATE SET value = excluded.value, changed = excluded.changed;
END $$;

CREATE OR REPLACE FUNCTION settings_changed(p_names text[], p_after bigint) RETURNS TABLE (tenant text, name text, value jsonb, changed bigint)
LANGUAGE sql STABLE AS $$
    SELECT s.tenant, s.name, s.value, s.changed FROM settings s WHERE s.name = ANY (p_names) AND s.changed > p_after;
$$;

-- One setting of every tenant at once: pauses are read so, every second.
CREATE OR REPLACE FUNCTION settings_named(p_name text) RETURNS TABLE (tenant text, value jsonb) LANGUAGE sql STABLE AS $$
    SELECT s.tenant, s.value FROM settings s WHERE s.name = p_name;
$$;

-- Some arrivals of a tenant that is offboarded, so that `forget_tenant` has few left; none while a run of it is open.
CREATE OR REPLACE FUNCTION forget_arrivals(p_tenant text, p_limit integer) RETURNS SETOF bigint LANGUAGE plpgsql AS $$
DECLARE
    old bigint[];
BEGIN
    IF EXISTS (SELECT 1 FROM open_runs o WHERE o.tenant = p_tenant) THEN
        RETURN;
    END IF;
    WITH gone AS (
        DELETE FROM inbox x WHERE x.ctid = ANY (ARRAY(
            SELECT i.ctid FROM inbox i WHERE i.tenant = p_tenant ORDER BY i.source, i.event_id LIMIT p_limit
        )) RETURNING x.arrival
    )
    SELECT array_agg(gone.arrival) INTO old FROM gone;
    DELETE FROM arrival_outcomes WHERE arrival = ANY (old);
    DELETE FROM arrival_keys WHERE arrival = ANY (old);
    RETURN QUERY DELETE FROM arrivals WHERE id = ANY (old) RETURNING id;
END $$;

-- All that can be let go of a tenant that is offboarded; nothing, and no row, while a run of it is open.
CREATE OR REPLACE FUNCTION forget_tenant(p_tenant text) RETURNS TABLE (arrivals bigint, letters bigint, tokens bigint, keys bigint)
LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT 1 FROM open_runs o WHERE o.tenant = p_tenant) THEN
        RETURN;
    END IF;
    SELECT count(*) INTO arrivals FROM forget_arrivals(p_tenant, NULL);
    DELETE FROM arrival_keys x WHERE x.tenant = p_tenant;
    DELETE FROM inputs x WHERE x.tenant = p_tenant;
    DELETE FROM outbox x WHERE x.tenant = p_tenant;
    DELETE FROM snapshots x WHERE x.tenant = p_tenant;
    DELETE FROM settings x WHERE x.tenant = p_tenant AND x.name <> 'offboarding';
    DELETE FROM secrets x WHERE x.tenant = p_tenant;
    DELETE FROM hooks x WHERE x.tenant = p_tenant;
    DELETE FROM outlet_deliveries x WHERE x.tenant = p_tenant OR x.about = p_tenant;
    DELETE FROM outlets x WHERE x.tenant = p_tenant;
    DELETE FROM egress_slots x WHERE x.tenant = p_tenant;
    DELETE FROM run_counters x WHERE x.tenant = p_tenant;
    DELETE FROM invitations x WHERE x.tenant = p_tenant;
    DELETE FROM sessions x WHERE x.tenant = p_tenant;
    DELETE FROM standings x WHERE x.tenant = p_tenant;
    WITH gone AS (
        DELETE FROM users u WHERE EXISTS (SELECT 1 FROM memberships m WHERE m.user_id = u.id AND m.tenant = p_tenant)
            AND NOT EXISTS (SELECT 1 FROM memberships m WHERE m.user_id = u.id AND m.tenant IS DISTINCT FROM p_tenant) RETURNING u.id
    )
    DELETE FROM identities i USING gone WHERE i.user_id = gone.id;
    DELETE FROM memberships x WHERE x.tenant = p_tenant;
    DELETE FROM cost_counters x WHERE x.tenant = p_tenant;
    WITH gone AS (DELETE FROM dead_letters x WHERE x.tenant = p_tenant RETURNING 1) SELECT count(*) INTO letters FROM gone;
    WITH gone AS (DELETE FROM unwind.tokens x WHERE x.tenant = p_tenant RETURNING 1) SELECT count(*) INTO tokens FROM gone;
    WITH gone AS (DELETE FROM unwind.keys x WHERE x.tenant = p_tenant RETURNING 1) SELECT count(*) INTO keys FROM gone;
    RETURN NEXT;
END $$;
