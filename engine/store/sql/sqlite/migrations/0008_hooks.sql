-- Webhook endpoints of tenants. Secrets are sealed under the tenant's key, each bound to its endpoint and version.

CREATE TABLE hooks (
    tenant     TEXT NOT NULL,
    name       TEXT NOT NULL,
    workflow   TEXT NOT NULL,
    scheme     TEXT NOT NULL,
    fields     TEXT NOT NULL,
    id_pointer TEXT,
    version    INTEGER NOT NULL,
    secret     BLOB NOT NULL,
    old_secret BLOB,
    old_until  INTEGER,
    created_at INTEGER NOT NULL,
    created_by TEXT NOT NULL,
    rotated_at INTEGER,
    PRIMARY KEY (tenant, name)
) WITHOUT ROWID;
