-- What the SDK keeps in a module's own database, beside the module's own tables. Twin of module.sqlite.sql.

-- name: schema
-- handled: one row per obeyed order, for ever, under the tenant and the key that never changes. `reply` is the whole
-- envelope that was answered, so that a redelivery is answered with the same bytes. outcome: handling (only inside its
-- transaction), success, failure, tombstone (an undo came first; the order is refused when it comes).
CREATE TABLE IF NOT EXISTS unwind_handled (
  tenant text NOT NULL,
  key text NOT NULL,
  command_id text NOT NULL,
  type text NOT NULL,
  digest bytea NOT NULL,
  outcome text NOT NULL CHECK (outcome IN ('handling', 'success', 'failure', 'tombstone')),
  reply_id text,
  reply_type text,
  reply bytea,
  at timestamptz NOT NULL,
  PRIMARY KEY (tenant, key)
);
-- consumed: one row per fact taken in.
CREATE TABLE IF NOT EXISTS unwind_consumed (
  tenant text NOT NULL,
  source text NOT NULL,
  event_id text NOT NULL,
  at timestamptz NOT NULL,
  PRIMARY KEY (tenant, source, event_id)
);
-- attempts: deliveries that began more than once and were not finished; what the broker counts is only a hint.
CREATE TABLE IF NOT EXISTS unwind_attempts (
  tenant text NOT NULL,
  message_id text NOT NULL,
  attempts integer NOT NULL,
  PRIMARY KEY (tenant, message_id)
);
-- outbox: what must still be sent. A row is the relay's that claimed it until claimed_until.
CREATE TABLE IF NOT EXISTS unwind_outbox (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  event_id text NOT NULL,
  exchange text NOT NULL,
  routing_key text NOT NULL,
  body bytea NOT NULL,
  reply boolean NOT NULL,
  claimed_until timestamptz NOT NULL
);
CREATE INDEX IF NOT EXISTS unwind_outbox_claimed_until ON unwind_outbox (claimed_until, id);

-- name: claim_key
-- Waits for another process that handles the same key, then inserts nothing when that one committed.
INSERT INTO unwind_handled (tenant, key, command_id, type, digest, outcome, at)
VALUES ($1, $2, $3, $4, $5, $6, $7)
ON CONFLICT (tenant, key) DO NOTHING;

-- name: find_handled
SELECT command_id, type, digest, outcome, reply_id, reply_type, reply FROM unwind_handled WHERE tenant = $1 AND key = $2;

-- name: remember_and_put
-- What an order came to and the messages sent for it, in their order, on one way to the server.
WITH remembered AS (
  UPDATE unwind_handled SET outcome = $3, reply_id = $4, reply_type = $5, reply = $6 WHERE tenant = $1 AND key = $2
)
INSERT INTO unwind_outbox (event_id, exchange, routing_key, body, reply, claimed_until)
SELECT event_id, exchange, routing_key, body, reply, $12
FROM unnest($7::text[], $8::text[], $9::text[], $10::bytea[], $11::boolean[])
  WITH ORDINALITY AS message (event_id, exchange, routing_key, body, reply, place)
ORDER BY place
RETURNING id;

-- name: claim_event
INSERT INTO unwind_consumed (tenant, source, event_id, at) VALUES ($1, $2, $3, $4)
ON CONFLICT (tenant, source, event_id) DO NOTHING;

-- name: begin_attempt
INSERT INTO unwind_attempts (tenant, message_id, attempts) VALUES ($1, $2, 1)
ON CONFLICT (tenant, message_id) DO UPDATE SET attempts = unwind_attempts.attempts + 1
RETURNING attempts;

-- name: forget_attempts
DELETE FROM unwind_attempts WHERE tenant = $1 AND message_id = $2;

-- name: put_outbox
INSERT INTO unwind_outbox (event_id, exchange, routing_key, body, reply, claimed_until)
VALUES ($1, $2, $3, $4, $5, $6)
RETURNING id;

-- name: claim_outbox
-- Rides unwind_outbox_claimed_until; rows that another relay is claiming now are passed over.
UPDATE unwind_outbox SET claimed_until = $2
WHERE id = ANY (ARRAY(
  SELECT id FROM unwind_outbox WHERE claimed_until <= $1 ORDER BY id LIMIT $3 FOR UPDATE SKIP LOCKED
))
RETURNING id, event_id, exchange, routing_key, body, reply;

-- name: release_outbox
UPDATE unwind_outbox SET claimed_until = $2 WHERE id = $1;

-- name: delete_outbox
-- $1 is a JSON array of ids.
DELETE FROM unwind_outbox
WHERE id = ANY (ARRAY(SELECT value::bigint FROM json_array_elements_text($1::json)));

-- name: count_outbox
SELECT count(*) AS rows FROM unwind_outbox;
