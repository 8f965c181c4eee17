-- People who sign in: users, memberships, identities, invitations, sessions.

-- name: add_user
INSERT INTO users (id, email, name, password, created_at) VALUES (:id, :email, :name, :password, :created_at)
ON CONFLICT DO NOTHING RETURNING id

-- A row per membership of each user, and one for who has none.
-- name: person
SELECT u.*, m.tenant, m.roles, m.created_at AS member_since, m.disabled_at AS member_disabled_at
FROM users u LEFT JOIN memberships m ON m.user_id = u.id
WHERE u.id = :id ORDER BY m.tenant

-- name: person_by_email
SELECT u.*, m.tenant, m.roles, m.created_at AS member_since, m.disabled_at AS member_disabled_at
FROM users u LEFT JOIN memberships m ON m.user_id = u.id
WHERE u.email = :email ORDER BY m.tenant

-- name: person_by_identity
SELECT u.*, m.tenant, m.roles, m.created_at AS member_since, m.disabled_at AS member_disabled_at
FROM identities i JOIN users u ON u.id = i.user_id LEFT JOIN memberships m ON m.user_id = u.id
WHERE i.issuer = :issuer AND i.subject = :subject ORDER BY m.tenant

-- name: people
SELECT u.*, m.tenant, m.roles, m.created_at AS member_since, m.disabled_at AS member_disabled_at
FROM (
    SELECT * FROM users x WHERE (:after IS NULL OR x.id > :after)
        AND (:tenant IS NULL OR EXISTS (SELECT 1 FROM memberships y WHERE y.user_id = x.id AND y.tenant = :tenant))
    ORDER BY x.id LIMIT :limit
) u LEFT JOIN memberships m ON m.user_id = u.id AND (:tenant IS NULL OR m.tenant = :tenant)
ORDER BY u.id, m.tenant

-- name: set_password
UPDATE users SET password = :password WHERE id = :id AND password IS :was RETURNING id

-- name: disable_user
UPDATE sessions SET revoked_at = :disabled_at WHERE user_id = :id AND revoked_at IS NULL AND :disabled_at IS NOT NULL;
UPDATE users SET disabled_at = :disabled_at WHERE id = :id AND (disabled_at IS NULL) = (:disabled_at IS NOT NULL) RETURNING id

-- name: remove_user
DELETE FROM invitations WHERE email = (SELECT email FROM users WHERE id = :id);
DELETE FROM sessions WHERE user_id = :id;
DELETE FROM identities WHERE user_id = :id;
DELETE FROM memberships WHERE user_id = :id;
DELETE FROM users WHERE id = :id RETURNING id

-- name: put_membership
INSERT INTO memberships (user_id, tenant, roles, created_at, disabled_at) VALUES (:user_id, :tenant, :roles, :created_at, :disabled_at)
ON CONFLICT (user_id, coalesce(tenant, '')) DO UPDATE SET roles = excluded.roles, disabled_at = excluded.disabled_at;
UPDATE sessions SET revoked_at = :disabled_at
WHERE user_id = :user_id AND tenant IS :tenant AND revoked_at IS NULL AND :disabled_at IS NOT NULL

-- name: remove_membership
UPDATE sessions SET revoked_at = :now WHERE user_id = :user_id AND tenant IS :tenant AND revoked_at IS NULL;
DELETE FROM memberships WHERE user_id = :user_id AND tenant IS :tenant RETURNING user_id

-- name: add_identity
INSERT INTO identities (issuer, subject, user_id, created_at) VALUES (:issuer, :subject, :user_id, :created_at)
ON CONFLICT DO NOTHING RETURNING user_id

-- name: identities
SELECT * FROM identities WHERE user_id = :user_id ORDER BY created_at, issuer, subject

-- name: remove_identity
DELETE FROM identities WHERE issuer = :issuer AND subject = :subject RETURNING user_id

-- name: add_invitation
INSERT INTO invitations (id, digest, email, tenant, roles, invited_by, created_at, expires_at)
VALUES (:id, :digest, :email, :tenant, :roles, :invited_by, :created_at, :expires_at)

-- name: invitation
SELECT * FROM invitations WHERE id = :id

-- name: invitation_by_digest
SELECT * FROM invitations WHERE digest = :digest

-- name: invitations
SELECT * FROM invitations WHERE (:tenant IS NULL OR tenant = :tenant) AND (:email IS NULL OR email = :email) ORDER BY created_at DESC, id DESC

-- name: revoke_invitation
UPDATE invitations SET revoked_at = :now
WHERE id = :id AND accepted_at IS NULL AND revoked_at IS NULL AND expires_at > :now RETURNING id

-- name: accept_invitation
-- Accepted once, by a user who is there and not disabled: every statement looks, in this transaction.
INSERT INTO users (id, email, name, password, created_at) SELECT :user_id, :email, :name, :password, :now
WHERE EXISTS (SELECT 1 FROM invitations WHERE id = :id AND accepted_at IS NULL AND revoked_at IS NULL AND expires_at > :now)
ON CONFLICT DO NOTHING;
INSERT INTO memberships (user_id, tenant, roles, created_at)
SELECT :user_id, i.tenant, i.roles, :now FROM invitations i
WHERE i.id = :id AND i.accepted_at IS NULL AND i.revoked_at IS NULL AND i.expires_at > :now
    AND EXISTS (SELECT 1 FROM users WHERE id = :user_id AND disabled_at IS NULL)
ON CONFLICT (user_id, coalesce(tenant, '')) DO UPDATE SET roles =
    (SELECT json_group_array(value) FROM (SELECT value FROM json_each(memberships.roles) UNION SELECT value FROM json_each(excluded.roles) ORDER BY value));
UPDATE invitations SET accepted_at = :now
WHERE id = :id AND accepted_at IS NULL AND revoked_at IS NULL AND expires_at > :now
    AND EXISTS (SELECT 1 FROM users WHERE id = :user_id AND disabled_at IS NULL) RETURNING id

-- name: add_session
INSERT INTO sessions (digest, user_id, tenant, created_at, last_seen_at, expires_at, address, agent)
VALUES (:digest, :user_id, :tenant, :created_at, :created_at, :expires_at, :address, :agent);
UPDATE users SET signed_in_at = :created_at WHERE id = :user_id

-- name: signed
-- All that is asked of a session with each request, in one look: its user, his memberships, and what tenancy said of their tenants.
SELECT s.tenant AS acts_in, s.created_at AS began_at, s.last_seen_at, s.expires_at, s.address, s.agent, s.revoked_at,
    u.*, m.tenant, m.roles, m.created_at AS member_since, m.disabled_at AS member_disabled_at, t.state
FROM sessions s JOIN users u ON u.id = s.user_id
    LEFT JOIN memberships m ON m.user_id = u.id
    LEFT JOIN standings t ON t.tenant = m.tenant
WHERE s.digest = :digest ORDER BY m.tenant

-- name: sessions
SELECT * FROM sessions WHERE user_id = :user_id ORDER BY created_at DESC, digest

-- name: touch_session
UPDATE sessions SET last_seen_at = :now WHERE digest = :digest AND last_seen_at <= :before RETURNING user_id

-- name: move_session
UPDATE sessions SET tenant = :tenant WHERE digest = :digest AND revoked_at IS NULL RETURNING user_id

-- name: end_session
UPDATE sessions SET revoked_at = :now WHERE digest = :digest AND revoked_at IS NULL RETURNING user_id

-- name: end_sessions
UPDATE sessions SET revoked_at = :now
WHERE user_id = :user_id AND revoked_at IS NULL AND expires_at > :now AND (:but IS NULL OR digest <> :but)
    AND (:tenant IS NULL OR tenant = :tenant) RETURNING digest

-- name: forget_past_people
DELETE FROM sessions WHERE expires_at < :before OR revoked_at < :before RETURNING 1;
DELETE FROM invitations WHERE expires_at < :before OR accepted_at < :before OR revoked_at < :before RETURNING 1

-- name: note_standing
INSERT INTO standings (tenant, state, revision) VALUES (:tenant, :state, :revision)
ON CONFLICT (tenant) DO UPDATE SET state = excluded.state, revision = excluded.revision WHERE standings.revision < excluded.revision RETURNING tenant

-- name: standing
SELECT state FROM standings WHERE tenant = :tenant
