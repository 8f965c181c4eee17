-- Webhook endpoints of tenants. Secrets are sealed under the tenant's key, each bound to its endpoint and version.

CREATE TABLE hooks (
    tenant     text NOT NULL,
    name       text NOT NULL,
    workflow   text NOT NULL,
    scheme     text NOT NULL,
    fields     text NOT NULL,
    id_pointer text,
    version    integer NOT NULL,
    secret     bytea NOT NULL,
    old_secret bytea,
    old_until  timestamptz,
    created_at timestamptz NOT NULL,
    created_by text NOT NULL,
    rotated_at timestamptz,
    PRIMARY KEY (tenant, name)
);
