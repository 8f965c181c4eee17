CREATE OR REPLACE FUNCTION add_user(p_id uuid, p_email text, p_name text, p_password text, p_created_at timestamptz) RETURNS SETOF uuid LANGUAGE sql AS $$
    INSERT INTO users (id, email, name, password, created_at) VALUES (p_id, p_email, p_name, p_password, p_created_at)
    ON CONFLICT DO NOTHING RETURNING id;
$$;

-- A row per membership of each user, and one for who has none; with a tenant, only the membership there.
CREATE OR REPLACE FUNCTION people_of(p_ids uuid[], p_tenant text) RETURNS TABLE (
    id uuid, email text, name text, password text, created_at timestamptz, disabled_at timestamptz, signed_in_at timestamptz,
    tenant text, roles text[], member_since timestamptz, member_disabled_at timestamptz
) LANGUAGE sql STABLE AS $$
    SELECT u.id, u.email, u.name, u.password, u.created_at, u.disabled_at, u.signed_in_at, m.tenant, m.roles, m.created_at, m.disabled_at
    FROM users u LEFT JOIN memberships m ON m.user_id = u.id AND (p_tenant IS NULL OR m.tenant = p_tenant)
    WHERE u.id = ANY (p_ids) ORDER BY u.id, m.tenant NULLS FIRST;
$$;

CREATE OR REPLACE FUNCTION users_by_email(p_email text) RETURNS uuid[] LANGUAGE sql STABLE AS $$ SELECT array_agg(id) FROM users WHERE email = p_email; $$;

CREATE OR REPLACE FUNCTION users_by_identity(p_issuer text, p_subject text) RETURNS uuid[] LANGUAGE sql STABLE AS $$
    SELECT array_agg(user_id) FROM identities WHERE issuer = p_issuer AND subject = p_subject;
$$;

CREATE OR REPLACE FUNCTION users_of(p_tenant text, p_limit integer, p_after uuid) RETURNS uuid[] LANGUAGE sql STABLE AS $$
    SELECT array_agg(id) FROM (
        SELECT u.id FROM users u WHERE (p_after IS NULL OR u.id > p_after)
            AND (p_tenant IS NULL OR EXISTS (SELECT 1 FROM memberships m WHERE m.user_id = u.id AND m.tenant = p_tenant))
        ORDER BY u.id LIMIT p_limit
    ) page;
$$;

CREATE OR REPLACE FUNCTION set_password(p_id uuid, p_password text, p_was text) RETURNS SETOF uuid LANGUAGE sql AS $$
    UPDATE users SET password = p_password WHERE id = p_id AND password IS NOT DISTINCT FROM p_was RETURNING id;
$$;

CREATE OR REPLACE FUNCTION disable_user(p_id uuid, p_disabled_at timestamptz) RETURNS SETOF uuid LANGUAGE plpgsql AS $$
BEGIN
    UPDATE users SET disabled_at = p_disabled_at WHERE id = p_id AND (disabled_at IS NULL) = (p_disabled_at IS NOT NULL);
    IF NOT FOUND THEN
        RETURN;
    END IF;
    UPDATE sessions SET revoked_at = p_disabled_at WHERE user_id = p_id AND revoked_at IS NULL AND p_disabled_at IS NOT NULL;
    RETURN NEXT p_id;
END $$;

CREATE OR REPLACE FUNCTION remove_user(p_id uuid) RETURNS SETOF uuid LANGUAGE sql AS $$
    DELETE FROM invitations WHERE email = (SELECT email FROM users WHERE id = p_id);
    DELETE FROM sessions WHERE user_id = p_id;
    DELETE FROM identities WHERE user_id = p_id;
    DELETE FROM memberships WHERE user_id = p_id;
    DELETE FROM users WHERE id = p_id RETURNING id;
$$;

CREATE OR REPLACE FUNCTION put_membership(p_user_id uuid, p_tenant text, p_roles text[], p_created_at timestamptz, p_disabled_at timestamptz)
RETURNS void LANGUAGE sql AS $$
    INSERT INTO memberships (user_id, tenant, roles, created_at, disabled_at) VALUES (p_user_id, p_tenant, p_roles, p_created_at, p_disabled_at)
    ON CONFLICT (user_id, (coalesce(tenant, ''))) DO UPDATE SET roles = excluded.roles, disabled_at = excluded.disabled_at;
    UPDATE sessions SET revoked_at = p_disabled_at
    WHERE user_id = p_user_id AND tenant IS NOT DISTINCT FROM p_tenant AND revoked_at IS NULL AND p_disabled_at IS NOT NULL;
$$;

CREATE OR REPLACE FUNCTION remove_membership(p_user_id uuid, p_tenant text, p_now timestamptz) RETURNS SETOF uuid LANGUAGE sql AS $$
    UPDATE sessions SET revoked_at = p_now WHERE user_id = p_user_id AND tenant IS NOT DISTINCT FROM p_tenant AND revoked_at IS NULL;
    DELETE FROM memberships WHERE user_id = p_user_id AND tenant IS NOT DISTINCT FROM p_tenant RETURNING user_id;
$$;

CREATE OR REPLACE FUNCTION add_identity(p_issuer text, p_subject text, p_user_id uuid, p_created_at timestamptz) RETURNS SETOF uuid LANGUAGE sql AS $$
    INSERT INTO identities (issuer, subject, user_id, created_at) VALUES (p_issuer, p_subject, p_user_id, p_created_at)
    ON CONFLICT DO NOTHING RETURNING user_id;
$$;

CREATE OR REPLACE FUNCTION identities(p_user_id uuid) RETURNS SETOF identities LANGUAGE sql STABLE AS $$
    SELECT * FROM identities WHERE user_id = p_user_id ORDER BY created_at, issuer, subject;
$$;

CREATE OR REPLACE FUNCTION remove_identity(p_issuer text, p_subject text) RETURNS SETOF uuid LANGUAGE sql AS $$
    DELETE FROM identities WHERE issuer = p_issuer AND subject = p_subject RETURNING user_id;
$$;

CREATE OR REPLACE FUNCTION add_invitation(
    p_id uuid, p_digest bytea, p_email text, p_tenant text, p_roles text[], p_invited_by text, p_created_at timestamptz, p_expires_at timestamptz
) RETURNS void LANGUAGE sql AS $$
    INSERT INTO invitations (id, digest, email, tenant, roles, invited_by, created_at, expires_at)
    VALUES (p_id, p_digest, p_email, p_tenant, p_roles, p_invited_by, p_created_at, p_expires_at);
$$;

CREATE OR REPLACE FUNCTION invitation(p_id uuid) RETURNS SETOF invitations LANGUAGE sql STABLE AS $$ SELECT * FROM invitations WHERE id = p_id; $$;

CREATE OR REPLACE FUNCTION invitation_by_digest(p_digest bytea) RETURNS SETOF invitations LANGUAGE sql STABLE AS $$
    SELECT * FROM invitations WHERE digest = p_digest;
$$;

CREATE OR REPLACE FUNCTION invitations(p_tenant text, p_email text) RETURNS SETOF invitations LANGUAGE sql STABLE AS $$
    SELECT * FROM invitations WHERE (p_tenant IS NULL OR tenant = p_tenant) AND (p_email IS NULL OR email = p_email) ORDER BY created_at DESC, id DESC;
$$;

CREATE OR REPLACE FUNCTION revoke_invitation(p_id uuid, p_now timestamptz) RETURNS SETOF uuid LANGUAGE sql AS $$
    UPDATE invitations SET revoked_at = p_now
    WHERE id = p_id AND accepted_at IS NULL AND revoked_at IS NULL AND expires_at > p_now RETURNING id;
$$;

-- Accepted once, by a user who is there and not disabled: the invitation's row is held until all of it stands.
CREATE OR REPLACE FUNCTION accept_invitation(p_id uuid, p_user_id uuid, p_email text, p_name text, p_password text, p_now timestamptz)
RETURNS SETOF uuid LANGUAGE plpgsql AS $$
DECLARE
    found_one invitations;
BEGIN
    SELECT * INTO found_one FROM invitations
    WHERE id = p_id AND accepted_at IS NULL AND revoked_at IS NULL AND expires_at > p_now FOR UPDATE;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    INSERT INTO users (id, email, name, password, created_at) VALUES (p_user_id, p_email, p_name, p_password, p_now) ON CONFLICT DO NOTHING;
    IF NOT EXISTS (SELECT 1 FROM users WHERE id = p_user_id AND disabled_at IS NULL) THEN
        RETURN;
    END IF;
    INSERT INTO memberships AS m (user_id, tenant, roles, created_at) VALUES (p_user_id, found_one.tenant, found_one.roles, p_now)
    ON CONFLICT (user_id, (coalesce(tenant, ''))) DO UPDATE
        SET roles = ARRAY(SELECT DISTINCT r FROM unnest(m.roles || excluded.roles) AS x (r) ORDER BY r);
    UPDATE invitations SET accepted_at = p_now WHERE id = p_id;
    RETURN NEXT p_user_id;
END $$;

CREATE OR REPLACE FUNCTION add_session(
    p_digest bytea, p_user_id uuid, p_tenant text, p_created_at timestamptz, p_expires_at timestamptz, p_address text, p_agent text
) RETURNS void LANGUAGE sql AS $$
    INSERT INTO sessions (digest, user_id, tenant, created_at, last_seen_at, expires_at, address, agent)
    VALUES (p_digest, p_user_id, p_tenant, p_created_at, p_created_at, p_expires_at, p_address, p_agent);
    UPDATE users SET signed_in_at = p_created_at WHERE id = p_user_id;
$$;

-- All that is asked of a session with each request, in one look: its user, his memberships, and what tenancy said of their tenants.
CREATE OR REPLACE FUNCTION signed(p_digest bytea) RETURNS TABLE (
    acts_in text, began_at timestamptz, last_seen_at timestamptz, expires_at timestamptz, address text, agent text, revoked_at timestamptz,
    id uuid, email text, name text, password text, created_at timestamptz, disabled_at timestamptz, signed_in_at timestamptz,
    tenant text, roles text[], member_since timestamptz, member_disabled_at timestamptz, state text
) LANGUAGE sql STABLE AS $$
    SELECT s.tenant, s.created_at, s.last_seen_at, s.expires_at, s.address, s.agent, s.revoked_at,
        u.id, u.email, u.name, u.password, u.created_at, u.disabled_at, u.signed_in_at,
        m.tenant, m.roles, m.created_at, m.disabled_at, t.state
    FROM sessions s JOIN users u ON u.id = s.user_id
        LEFT JOIN memberships m ON m.user_id = u.id
        LEFT JOIN standings t ON t.tenant = m.tenant
    WHERE s.digest = p_digest ORDER BY m.tenant NULLS FIRST;
$$;

CREATE OR REPLACE FUNCTION sessions(p_user_id uuid) RETURNS SETOF sessions LANGUAGE sql STABLE AS $$
    SELECT * FROM sessions WHERE user_id = p_user_id ORDER BY created_at DESC, digest;
$$;

-- At most one write between `p_before` and `p_now`, however many processes the session is used at.
CREATE OR REPLACE FUNCTION touch_session(p_digest bytea, p_now timestamptz, p_before timestamptz) RETURNS SETOF uuid LANGUAGE sql AS $$
    UPDATE sessions SET last_seen_at = p_now WHERE digest = p_digest AND last_seen_at <= p_before RETURNING user_id;
$$;

CREATE OR REPLACE FUNCTION move_session(p_digest bytea, p_tenant text) RETURNS SETOF uuid LANGUAGE sql AS $$
    UPDATE sessions SET tenant = p_tenant WHERE digest = p_digest AND revoked_at IS NULL RETURNING user_id;
$$;

CREATE OR REPLACE FUNCTION end_session(p_digest bytea, p_now timestamptz) RETURNS SETOF uuid LANGUAGE sql AS $$
    UPDATE sessions SET revoked_at = p_now WHERE digest = p_digest AND revoked_at IS NULL RETURNING user_id;
$$;

CREATE OR REPLACE FUNCTION end_sessions(p_user_id uuid, p_but bytea, p_tenant text, p_now timestamptz) RETURNS SETOF bytea LANGUAGE sql AS $$
    UPDATE sessions SET revoked_at = p_now
    WHERE user_id = p_user_id AND revoked_at IS NULL AND expires_at > p_now AND (p_but IS NULL OR digest <> p_but)
        AND (p_tenant IS NULL OR tenant = p_tenant) RETURNING digest;
$$;

CREATE OR REPLACE FUNCTION forget_past_people(p_before timestamptz) RETURNS SETOF integer LANGUAGE plpgsql AS $$
BEGIN
    RETURN QUERY DELETE FROM sessions WHERE least(expires_at, revoked_at) < p_before RETURNING 1;
    RETURN QUERY DELETE FROM invitations WHERE least(expires_at, accepted_at, revoked_at) < p_before RETURNING 1;
END $$;

CREATE OR REPLACE FUNCTION note_standing(p_tenant text, p_state text, p_revision bigint) RETURNS SETOF text LANGUAGE sql AS $$
    INSERT INTO standings AS s (tenant, state, revision) VALUES (p_tenant, p_state, p_revision)
    ON CONFLICT (tenant) DO UPDATE SET state = excluded.state, revision = excluded.revision WHERE s.revision < excluded.revision RETURNING tenant;
$$;

CREATE OR REPLACE FUNCTION standing(p_tenant text) RETURNS SETOF text LANGUAGE sql STABLE AS $$ SELECT state FROM standings WHERE tenant = p_tenant; $$;
