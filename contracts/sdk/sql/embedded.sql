-- The embedded bus: a queue is rows of `messages` in id order. A row with no owner is ready; with an owner it is unsettled
-- at that consumer; owner 0 holds it until its dead-letter exchange has a queue again. Every write runs inside one
-- `BEGIN IMMEDIATE` of the writer thread, which is the only lock this file has. Batches travel as one JSON parameter so
-- that a whole batch is one step of the database, during which no Python thread is held up.

-- name: schema
CREATE TABLE IF NOT EXISTS topology (version integer NOT NULL);
INSERT INTO topology (version) SELECT 1 WHERE NOT EXISTS (SELECT 1 FROM topology);
CREATE TABLE IF NOT EXISTS exchanges (
    name text PRIMARY KEY,
    kind text NOT NULL CHECK (kind IN ('topic', 'fanout', 'direct')),
    alternate text
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS sessions (
    id integer PRIMARY KEY AUTOINCREMENT,
    host text NOT NULL,
    pid integer NOT NULL,
    started text NOT NULL,
    lease_until real NOT NULL
);
CREATE TABLE IF NOT EXISTS queues (
    id integer PRIMARY KEY AUTOINCREMENT,
    name text NOT NULL UNIQUE,
    dead_letter_exchange text,
    dead_letter_key text,
    delivery_limit integer NOT NULL,
    max_length integer,
    session integer
);
CREATE TABLE IF NOT EXISTS bindings (
    exchange text NOT NULL,
    key text NOT NULL,
    queue integer NOT NULL,
    PRIMARY KEY (exchange, key, queue)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS consumers (
    id integer PRIMARY KEY AUTOINCREMENT,
    session integer NOT NULL,
    queue integer NOT NULL
);
CREATE TABLE IF NOT EXISTS messages (
    id integer PRIMARY KEY AUTOINCREMENT,
    queue integer NOT NULL,
    owner integer,
    delivery_count integer NOT NULL DEFAULT 0,
    expires_at real,
    exchange text NOT NULL,
    routing_key text NOT NULL,
    properties text,
    body blob NOT NULL
);
CREATE INDEX IF NOT EXISTS messages_ready ON messages (queue, id) WHERE owner IS NULL;
CREATE INDEX IF NOT EXISTS messages_owned ON messages (owner) WHERE owner IS NOT NULL;
CREATE INDEX IF NOT EXISTS messages_expiring ON messages (expires_at) WHERE expires_at IS NOT NULL;

-- name: turn_state
-- What every turn must know, in one step. Ids are never used twice, also after the table has been empty: an old
-- settlement cannot meet a new message.
SELECT
    (SELECT version FROM topology),
    EXISTS (SELECT 1 FROM sessions WHERE id = :session),
    coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'messages'), 0);

-- name: bump_topology
UPDATE topology SET version = version + 1;

-- name: read_exchanges
SELECT name, kind, alternate FROM exchanges;

-- name: read_queues
SELECT id, name, dead_letter_exchange, dead_letter_key, delivery_limit, max_length, session FROM queues;

-- name: read_bindings
SELECT exchange, key, queue FROM bindings ORDER BY queue;

-- name: add_exchange
INSERT INTO exchanges (name, kind, alternate) VALUES (:name, :kind, :alternate);

-- name: add_queue
INSERT INTO queues (name, dead_letter_exchange, dead_letter_key, delivery_limit, max_length, session)
VALUES (:name, :dead_letter_exchange, :dead_letter_key, :delivery_limit, :max_length, :session);

-- name: add_binding
INSERT INTO bindings (exchange, key, queue) VALUES (:exchange, :key, :queue);

-- name: drop_queue
DELETE FROM queues WHERE id = :queue;

-- name: drop_queue_bindings
DELETE FROM bindings WHERE queue = :queue;

-- name: drop_queue_messages
DELETE FROM messages WHERE queue = :queue;

-- name: drop_queue_consumers
DELETE FROM consumers WHERE queue = :queue;

-- name: add_session
INSERT INTO sessions (host, pid, started, lease_until) VALUES (:host, :pid, :started, :lease_until);

-- name: renew_session
UPDATE sessions SET lease_until = :lease_until WHERE id = :session;

-- name: read_sessions
SELECT id, host, pid, started, lease_until FROM sessions;

-- name: drop_session
DELETE FROM sessions WHERE id = :session;

-- name: session_consumers
SELECT id FROM consumers WHERE session = :session;

-- name: session_queues
SELECT id FROM queues WHERE session = :session;

-- name: add_consumer
INSERT INTO consumers (session, queue) VALUES (:session, :queue);

-- name: drop_consumer
DELETE FROM consumers WHERE id = :consumer;

-- name: insert_messages
-- :rows is [[id, queue, owner, expires_at, exchange, routing_key, properties, offset, length], ...] into the blob :bodies.
INSERT INTO messages (id, queue, owner, expires_at, exchange, routing_key, properties, body)
SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]'), json_extract(value, '$[2]'),
       json_extract(value, '$[3]'), json_extract(value, '$[4]'), json_extract(value, '$[5]'),
       json_extract(value, '$[6]'),
       CAST(substr(:bodies, json_extract(value, '$[7]'), json_extract(value, '$[8]')) AS blob)
FROM json_each(:rows);

-- name: ready_messages
-- Rides messages_ready. The whole answer is one row, so the reader thread wakes once however many messages there are.
SELECT json_group_array(json_array(id, exchange, routing_key, properties, delivery_count, hex(body)))
FROM (
    SELECT id, exchange, routing_key, properties, delivery_count, body FROM messages
    WHERE queue = :queue AND owner IS NULL AND (expires_at IS NULL OR expires_at > :now)
    ORDER BY id LIMIT :limit
);

-- name: count_ready
SELECT count(*) FROM (SELECT 1 FROM messages WHERE queue = :queue AND owner IS NULL LIMIT :limit);

-- name: own_messages
-- :ids is [[id, owner], ...].
UPDATE messages SET owner = claim.owner
FROM (SELECT json_extract(value, '$[0]') AS id, json_extract(value, '$[1]') AS owner FROM json_each(:ids)) AS claim
WHERE messages.id = claim.id AND messages.owner IS NULL;

-- name: settle_messages
-- Only the consumer that holds a message can settle it; a late settlement after a return changes nothing.
DELETE FROM messages WHERE id IN (SELECT value FROM json_each(:ids)) AND owner = :owner;

-- name: owned_messages
SELECT id FROM messages WHERE owner = :owner ORDER BY id;

-- name: return_messages
UPDATE messages SET owner = NULL, delivery_count = delivery_count + 1
WHERE id IN (SELECT value FROM json_each(:ids)) AND owner = :owner;

-- name: exhausted_messages
-- A message that came back more often than its queue allows is dead-lettered, as a quorum queue does.
SELECT messages.id FROM messages JOIN queues ON queues.id = messages.queue
WHERE messages.id IN (SELECT value FROM json_each(:ids)) AND messages.owner IS NULL
  AND messages.delivery_count > queues.delivery_limit;

-- name: refused_messages
SELECT id FROM messages WHERE id IN (SELECT value FROM json_each(:ids)) AND owner = :owner;

-- name: expired_messages
-- Rides messages_expiring; unsettled ones are left to their consumer.
SELECT id FROM messages WHERE expires_at <= :now AND owner IS NULL ORDER BY id LIMIT 1000;

-- name: held_messages
SELECT id FROM messages WHERE owner = 0 ORDER BY id LIMIT 1000;

-- name: hold_message
UPDATE messages SET owner = 0, properties = :properties WHERE id = :id;

-- name: read_message
SELECT id, queue, owner, exchange, routing_key, properties FROM messages WHERE id = :id;

-- name: copy_message
INSERT INTO messages (queue, exchange, routing_key, properties, body)
SELECT :queue, :exchange, :routing_key, :properties, body FROM messages WHERE id = :id;

-- name: drop_message
DELETE FROM messages WHERE id = :id;
