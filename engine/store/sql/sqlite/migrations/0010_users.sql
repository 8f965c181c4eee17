-- People who sign in. Of a password the store holds its Argon2id hash, of a session's id and of an invitation's token their SHA-256, and nothing of any of them else.

CREATE TABLE users (
    id           TEXT PRIMARY KEY,
    email        TEXT NOT NULL UNIQUE,
    name         TEXT NOT NULL,
    password     TEXT,
    created_at   INTEGER NOT NULL,
    disabled_at  INTEGER,
    signed_in_at INTEGER
) WITHOUT ROWID;

-- Without a tenant: in the platform, and so over all tenants.
CREATE TABLE memberships (
    user_id     TEXT NOT NULL,
    tenant      TEXT,
    roles       TEXT NOT NULL,
    created_at  INTEGER NOT NULL,
    disabled_at INTEGER
);
CREATE UNIQUE INDEX memberships_once ON memberships (user_id, coalesce(tenant, ''));
CREATE INDEX memberships_tenant ON memberships (tenant);

-- Who a user is to a provider of OpenID Connect.
CREATE TABLE identities (
    issuer     TEXT NOT NULL,
    subject    TEXT NOT NULL,
    user_id    TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    PRIMARY KEY (issuer, subject)
) WITHOUT ROWID;
CREATE INDEX identities_user ON identities (user_id);

CREATE TABLE invitations (
    id          TEXT PRIMARY KEY,
    digest      BLOB NOT NULL UNIQUE,
    email       TEXT NOT NULL,
    tenant      TEXT,
    roles       TEXT NOT NULL,
    invited_by  TEXT NOT NULL,
    created_at  INTEGER NOT NULL,
    expires_at  INTEGER NOT NULL,
    accepted_at INTEGER,
    revoked_at  INTEGER
) WITHOUT ROWID;
CREATE INDEX invitations_email ON invitations (email);
CREATE INDEX invitations_tenant ON invitations (tenant);

CREATE TABLE sessions (
    digest       BLOB PRIMARY KEY,
    user_id      TEXT NOT NULL,
    tenant       TEXT,
    created_at   INTEGER NOT NULL,
    last_seen_at INTEGER NOT NULL,
    expires_at   INTEGER NOT NULL,
    address      TEXT NOT NULL,
    agent        TEXT NOT NULL,
    revoked_at   INTEGER
) WITHOUT ROWID;
CREATE INDEX sessions_user ON sessions (user_id);
CREATE INDEX sessions_expiry ON sessions (expires_at);

-- Which tenants are barred from signing in, as tenancy's facts said: the highest revision heard.
CREATE TABLE standings (
    tenant   TEXT PRIMARY KEY,
    state    TEXT NOT NULL,
    revision INTEGER NOT NULL
) WITHOUT ROWID;
