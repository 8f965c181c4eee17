-- People who sign in. Of a password the store holds its Argon2id hash, of a session's id and of an invitation's token their SHA-256, and nothing of any of them else.

CREATE TABLE users (
    id           uuid PRIMARY KEY,
    email        text NOT NULL UNIQUE,
    name         text NOT NULL,
    password     text,
    created_at   timestamptz NOT NULL,
    disabled_at  timestamptz,
    signed_in_at timestamptz
);
COMMENT ON COLUMN users.email IS 'as it is compared: see engine.people';

-- Without a tenant: in the platform, and so over all tenants.
CREATE TABLE memberships (
    user_id     uuid NOT NULL,
    tenant      text,
    roles       text[] NOT NULL,
    created_at  timestamptz NOT NULL,
    disabled_at timestamptz
);
CREATE UNIQUE INDEX memberships_once ON memberships (user_id, (coalesce(tenant, '')));
CREATE INDEX memberships_tenant ON memberships (tenant);

-- Who a user is to a provider of OpenID Connect.
CREATE TABLE identities (
    issuer     text NOT NULL,
    subject    text NOT NULL,
    user_id    uuid NOT NULL,
    created_at timestamptz NOT NULL,
    PRIMARY KEY (issuer, subject)
);
CREATE INDEX identities_user ON identities (user_id);

CREATE TABLE invitations (
    id          uuid PRIMARY KEY,
    digest      bytea NOT NULL UNIQUE,
    email       text NOT NULL,
    tenant      text,
    roles       text[] NOT NULL,
    invited_by  text NOT NULL,
    created_at  timestamptz NOT NULL,
    expires_at  timestamptz NOT NULL,
    accepted_at timestamptz,
    revoked_at  timestamptz
);
CREATE INDEX invitations_email ON invitations (email);
CREATE INDEX invitations_tenant ON invitations (tenant);

CREATE TABLE sessions (
    digest       bytea PRIMARY KEY,
    user_id      uuid NOT NULL,
    tenant       text,
    created_at   timestamptz NOT NULL,
    last_seen_at timestamptz NOT NULL,
    expires_at   timestamptz NOT NULL,
    address      text NOT NULL,
    agent        text NOT NULL,
    revoked_at   timestamptz
);
CREATE INDEX sessions_user ON sessions (user_id);
CREATE INDEX sessions_expiry ON sessions (expires_at);

-- Which tenants are barred from signing in, as tenancy's facts said: the highest revision heard.
CREATE TABLE standings (
    tenant   text PRIMARY KEY,
    state    text NOT NULL,
    revision bigint NOT NULL
);
