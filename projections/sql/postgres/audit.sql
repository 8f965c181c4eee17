-- The audit chain, one per tenant. Entries are inserted and never changed or removed, whoever asks: their table can only be
-- replaced as a whole by a rebuild. A table with a trigger `<table>_stay` is granted to be read and added to, and no more.

-- name: audit_create
CREATE TABLE IF NOT EXISTS audit_entries (
    tenant      text    NOT NULL,
    number      bigint  NOT NULL,
    position    bigint  NOT NULL,
    stream      uuid    NOT NULL,
    kind        text    NOT NULL,
    version     integer NOT NULL,
    topic       text    NOT NULL,
    actor       text    NOT NULL,
    details     text    NOT NULL,
    recorded_at text    NOT NULL,
    leaves      bytea   NOT NULL,
    hash        bytea   NOT NULL,
    PRIMARY KEY (tenant, number)
);
-- Hashes do not compress: trying costs time for nothing.
ALTER TABLE audit_entries ALTER COLUMN leaves SET STORAGE EXTERNAL;
CREATE INDEX IF NOT EXISTS audit_entries_by_stream ON audit_entries (tenant, stream, number);
CREATE INDEX IF NOT EXISTS audit_entries_of_erasures ON audit_entries (tenant, number) WHERE topic = 'subject.erased';

CREATE TABLE IF NOT EXISTS audit_heads (
    tenant text   NOT NULL PRIMARY KEY,
    number bigint NOT NULL,
    hash   bytea  NOT NULL,
    leaves bytea  NOT NULL
);

CREATE OR REPLACE FUNCTION audit_refuse_change() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN RAISE EXCEPTION 'audit entries are never changed' USING ERRCODE = 'insufficient_privilege'; END $$;
CREATE OR REPLACE TRIGGER audit_entries_stay BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_entries
    FOR EACH STATEMENT EXECUTE FUNCTION audit_refuse_change();

-- name: audit_reset
-- Entries are never removed: their tables give way to empty ones, as at the end of a rebuild, which is the projector's alone.
DELETE FROM unwind.checkpoints WHERE view IN ('audit', 'shadow/audit');
SELECT unwind.shadow_make('audit', '{audit_entries, audit_heads}');
SELECT unwind.shadow_switch('audit', '{audit_entries, audit_heads}');

-- name: audit_entry_insert
INSERT INTO audit_entries (
    tenant, number, position, stream, kind, version, topic, actor, details, recorded_at, leaves, hash
)
SELECT
    given.tenant, given.number, given.position, given.stream, given.kind, given.version, given.topic, given.actor,
    given.details, given.recorded_at, given.leaves, given.hash
FROM unnest(
    $1::text[], $2::bigint[], $3::bigint[], $4::uuid[], $5::text[], $6::integer[], $7::text[], $8::text[], $9::text[],
    $10::text[], $11::bytea[], $12::bytea[]
) AS given (tenant, number, position, stream, kind, version, topic, actor, details, recorded_at, leaves, hash);

-- name: audit_head_put
INSERT INTO audit_heads (tenant, number, hash, leaves)
SELECT given.tenant, given.number, given.hash, given.leaves
FROM unnest($1::text[], $2::bigint[], $3::bytea[], $4::bytea[]) AS given (tenant, number, hash, leaves)
ON CONFLICT (tenant) DO UPDATE SET number = excluded.number, hash = excluded.hash, leaves = excluded.leaves;

-- name: audit_heads_of
SELECT * FROM audit_heads
WHERE CAST(:tenant AS text) IS NULL OR tenant = :tenant
ORDER BY tenant;

-- name: audit_list
-- Newest first. Rides the primary key, or audit_entries_by_stream.
SELECT tenant, number, position, stream, kind, version, topic, actor, details, recorded_at, hash FROM audit_entries
WHERE (CAST(:tenant AS text) IS NULL OR tenant = :tenant)
    AND (CAST(:before AS bigint) IS NULL OR number < CAST(:before AS bigint))
    AND (CAST(:stream AS uuid) IS NULL OR stream = CAST(:stream AS uuid))
    AND (CAST(:topic AS text) IS NULL OR topic = :topic)
    AND (CAST(:actor AS text) IS NULL OR actor = :actor)
ORDER BY tenant, number DESC
LIMIT CAST(:limit AS integer);

-- name: audit_erasures
-- Rides audit_entries_of_erasures.
SELECT tenant, number, actor, details, recorded_at FROM audit_entries
WHERE topic = 'subject.erased' AND (CAST(:tenant AS text) IS NULL OR tenant = :tenant)
    AND (CAST(:after_tenant AS text) IS NULL OR (tenant, number) > (CAST(:after_tenant AS text), CAST(:after AS bigint)))
ORDER BY tenant, number
LIMIT CAST(:limit AS integer);

-- name: audit_chain
-- For verifying: whole entries, oldest first.
SELECT * FROM audit_entries
WHERE tenant = :tenant AND number > CAST(:after AS bigint)
ORDER BY number
LIMIT CAST(:limit AS integer);

-- name: audit_digest
SELECT 'entries' AS part, count(*) AS n, sum(('x' || substr(md5(given::text), 1, 16))::bit(64)::bigint::numeric)::text AS sum
FROM audit_entries AS given
UNION ALL
SELECT 'heads', count(*), sum(('x' || substr(md5(given::text), 1, 16))::bit(64)::bigint::numeric)::text
FROM audit_heads AS given
ORDER BY part;
