-- Secrets of tenants: the value is sealed under a data key of this very version, which `keys` holds in the scope `secret/<name>`.

CREATE TABLE secrets (
    tenant     text NOT NULL,
    name       text NOT NULL,
    kind       text NOT NULL,
    version    integer NOT NULL,
    hosts      text NOT NULL,
    sealed     bytea NOT NULL,
    created_at timestamptz NOT NULL,
    changed_at timestamptz NOT NULL,
    changed_by text NOT NULL,
    PRIMARY KEY (tenant, name)
);
