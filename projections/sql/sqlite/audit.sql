-- The audit chain, one per tenant. Entries are inserted and never changed; the reset of a rebuild is the only way out.

-- name: audit_create
CREATE TABLE IF NOT EXISTS audit_entries (
    tenant      TEXT    NOT NULL,
    number      INTEGER NOT NULL,
    position    INTEGER NOT NULL,
    stream      TEXT    NOT NULL,
    kind        TEXT    NOT NULL,
    version     INTEGER NOT NULL,
    topic       TEXT    NOT NULL,
    actor       TEXT    NOT NULL,
    details     TEXT    NOT NULL,
    recorded_at TEXT    NOT NULL,
    leaves      BLOB    NOT NULL,
    hash        BLOB    NOT NULL,
    PRIMARY KEY (tenant, number)
) STRICT;
CREATE INDEX IF NOT EXISTS audit_entries_by_stream ON audit_entries (tenant, stream, number);
CREATE INDEX IF NOT EXISTS audit_entries_of_erasures ON audit_entries (tenant, number) WHERE topic = 'subject.erased';

CREATE TABLE IF NOT EXISTS audit_heads (
    tenant TEXT    NOT NULL PRIMARY KEY,
    number INTEGER NOT NULL,
    hash   BLOB    NOT NULL,
    leaves BLOB    NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TRIGGER IF NOT EXISTS audit_entries_stay BEFORE UPDATE ON audit_entries
    BEGIN SELECT raise(ABORT, 'audit entries are never changed'); END;
CREATE TABLE IF NOT EXISTS audit_rebuilding (tenant TEXT NOT NULL) STRICT;
CREATE TRIGGER IF NOT EXISTS audit_entries_remain BEFORE DELETE ON audit_entries
    WHEN NOT EXISTS (SELECT 1 FROM audit_rebuilding)
    BEGIN SELECT raise(ABORT, 'audit entries are never removed'); END;

-- name: audit_reset
INSERT INTO audit_rebuilding VALUES ('*');
DELETE FROM audit_entries;
DELETE FROM audit_heads;
DELETE FROM audit_rebuilding;

-- name: audit_entry_insert
INSERT INTO audit_entries (
    tenant, number, position, stream, kind, version, topic, actor, details, recorded_at, leaves, hash
)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12);

-- name: audit_head_put
INSERT INTO audit_heads (tenant, number, hash, leaves) VALUES ($1, $2, $3, $4)
ON CONFLICT (tenant) DO UPDATE SET number = excluded.number, hash = excluded.hash, leaves = excluded.leaves;

-- name: audit_heads_of
SELECT * FROM audit_heads
WHERE :tenant IS NULL OR tenant = :tenant
ORDER BY tenant;

-- name: audit_list
-- Newest first.
SELECT tenant, number, position, stream, kind, version, topic, actor, details, recorded_at, hash FROM audit_entries
WHERE (:tenant IS NULL OR tenant = :tenant)
    AND (:before IS NULL OR number < :before)
    AND (:stream IS NULL OR stream = :stream)
    AND (:topic IS NULL OR topic = :topic)
    AND (:actor IS NULL OR actor = :actor)
ORDER BY tenant, number DESC
LIMIT :limit;

-- name: audit_erasures
-- Rides audit_entries_of_erasures.
SELECT tenant, number, actor, details, recorded_at FROM audit_entries
WHERE topic = 'subject.erased' AND (:tenant IS NULL OR tenant = :tenant)
    AND (:after_tenant IS NULL OR (tenant, number) > (:after_tenant, :after))
ORDER BY tenant, number
LIMIT :limit;

-- name: audit_chain
-- For verifying: whole entries, oldest first.
SELECT * FROM audit_entries
WHERE tenant = :tenant AND number > :after
ORDER BY number
LIMIT :limit;

-- name: audit_digest
SELECT 'entries' AS part, count(*) AS n, row_sum(json_array(
    tenant, number, position, stream, kind, version, topic, actor, details, recorded_at, hex(leaves), hex(hash)
)) AS sum
FROM audit_entries
UNION ALL
SELECT 'heads', count(*), row_sum(json_array(tenant, number, hex(hash), hex(leaves))) FROM audit_heads
ORDER BY part;
