-- Outlets: where notices are delivered to, signed. Secrets are sealed under the owner's key, each bound to its outlet and version.

CREATE TABLE outlets (
    tenant        TEXT NOT NULL,
    name          TEXT NOT NULL,
    url           TEXT NOT NULL,
    -- The types of notices it takes, with spaces between; empty: all.
    types         TEXT NOT NULL,
    enabled       INTEGER NOT NULL,
    version       INTEGER NOT NULL,
    secret        BLOB NOT NULL,
    old_secret    BLOB,
    old_until     INTEGER,
    created_at    INTEGER NOT NULL,
    created_by    TEXT NOT NULL,
    rotated_at    INTEGER,
    failing_since INTEGER,
    switched_at   INTEGER,
    switched_why  TEXT NOT NULL DEFAULT '',
    PRIMARY KEY (tenant, name)
) WITHOUT ROWID;

-- What each was, is or will be sent. `about` is the tenant whose notice it is, under whose key the body is sealed.
CREATE TABLE outlet_deliveries (
    tenant     TEXT NOT NULL,
    outlet     TEXT NOT NULL,
    message_id TEXT NOT NULL,
    about      TEXT NOT NULL,
    type       TEXT NOT NULL,
    body       BLOB NOT NULL,
    state      TEXT NOT NULL CHECK (state IN ('waiting', 'delivered', 'failed')),
    attempts   INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    due_at     INTEGER NOT NULL,
    status     INTEGER,
    error      TEXT,
    settled_at INTEGER,
    PRIMARY KEY (tenant, outlet, message_id)
) WITHOUT ROWID;
CREATE INDEX outlet_deliveries_due ON outlet_deliveries (due_at) WHERE state = 'waiting';
CREATE INDEX outlet_deliveries_newest ON outlet_deliveries (tenant, outlet, created_at DESC, message_id);
CREATE INDEX outlet_deliveries_about ON outlet_deliveries (about);
CREATE INDEX outlet_deliveries_settled ON outlet_deliveries (settled_at) WHERE settled_at IS NOT NULL;
