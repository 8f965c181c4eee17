-- Outlets: where notices are delivered to, signed. Secrets are sealed under the owner's key, each bound to its outlet and version.

CREATE TABLE outlets (
    tenant        text NOT NULL,
    name          text NOT NULL,
    url           text NOT NULL,
    types         text NOT NULL,
    enabled       boolean NOT NULL,
    version       integer NOT NULL,
    secret        bytea NOT NULL,
    old_secret    bytea,
    old_until     timestamptz,
    created_at    timestamptz NOT NULL,
    created_by    text NOT NULL,
    rotated_at    timestamptz,
    failing_since timestamptz,
    switched_at   timestamptz,
    switched_why  text NOT NULL DEFAULT '',
    PRIMARY KEY (tenant, name)
);
COMMENT ON COLUMN outlets.types IS 'the types of notices it takes, with spaces between; empty: all';

-- What each was, is or will be sent. `about` is the tenant whose notice it is, under whose key the body is sealed.
CREATE TABLE outlet_deliveries (
    tenant     text NOT NULL,
    outlet     text NOT NULL,
    message_id text NOT NULL,
    about      text NOT NULL,
    type       text NOT NULL,
    body       bytea NOT NULL,
    state      text NOT NULL CHECK (state IN ('waiting', 'delivered', 'failed')),
    attempts   integer NOT NULL,
    created_at timestamptz NOT NULL,
    due_at     timestamptz NOT NULL,
    status     integer,
    error      text,
    settled_at timestamptz,
    PRIMARY KEY (tenant, outlet, message_id)
);
CREATE INDEX outlet_deliveries_due ON outlet_deliveries (due_at) WHERE state = 'waiting';
CREATE INDEX outlet_deliveries_newest ON outlet_deliveries (tenant, outlet, created_at DESC, message_id);
CREATE INDEX outlet_deliveries_about ON outlet_deliveries (about);
CREATE INDEX outlet_deliveries_settled ON outlet_deliveries (settled_at) WHERE settled_at IS NOT NULL;
