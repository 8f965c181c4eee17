-- Secrets of tenants: the value is sealed under a data key of this very version, which `keys` holds in the scope `secret/<name>`.

CREATE TABLE secrets (
    tenant     TEXT NOT NULL,
    name       TEXT NOT NULL,
    kind       TEXT NOT NULL,
    version    INTEGER NOT NULL,
    hosts      TEXT NOT NULL,
    sealed     BLOB NOT NULL,
    created_at INTEGER NOT NULL,
    changed_at INTEGER NOT NULL,
    changed_by TEXT NOT NULL,
    PRIMARY KEY (tenant, name)
) WITHOUT ROWID;

-- Outbound requests that processes have leased, by slot of the tenant's rate.
CREATE TABLE egress_slots (
    tenant   TEXT NOT NULL,
    slot     INTEGER NOT NULL,
    width_ms INTEGER NOT NULL,
    taken    INTEGER NOT NULL,
    PRIMARY KEY (tenant, slot)
) WITHOUT ROWID;
