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

-- Outbound requests that processes have leased, by slot of the tenant's rate.
CREATE TABLE egress_slots (
    tenant   text NOT NULL,
    slot     bigint NOT NULL,
    width_ms bigint NOT NULL,
    taken    bigint NOT NULL,
    PRIMARY KEY (tenant, slot)
);
