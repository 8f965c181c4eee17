-- The users of tenants, the same text for PostgreSQL and SQLite.

-- name: schema
CREATE TABLE IF NOT EXISTS users (
  tenant text NOT NULL,
  user_id text NOT NULL,
  email text NOT NULL,
  email_key text NOT NULL,
  name text NOT NULL,
  role text NOT NULL,
  state text NOT NULL CHECK (state IN ('invited', 'active', 'disabled')),
  email_confirmed boolean NOT NULL,
  made_at timestamptz NOT NULL,
  PRIMARY KEY (tenant, user_id)
);
-- An address belongs to one user who can still come in; a disabled user's is free again.
CREATE UNIQUE INDEX IF NOT EXISTS users_email ON users (tenant, email_key) WHERE state <> 'disabled';
-- Who was disabled together with the whole tenant, and what they were before.
CREATE TABLE IF NOT EXISTS users_disabled (
  tenant text NOT NULL,
  user_id text NOT NULL,
  state text NOT NULL,
  disabled_by text NOT NULL,
  PRIMARY KEY (tenant, disabled_by, user_id)
);
CREATE TABLE IF NOT EXISTS sign_in_blocks (tenant text PRIMARY KEY, reason text NOT NULL, since timestamptz NOT NULL);

-- name: add
-- The same user again (invited after having been disabled) is the same row. Another user with the address: no row.
INSERT INTO users (tenant, user_id, email, email_key, name, role, state, email_confirmed, made_at)
SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9
WHERE NOT EXISTS (SELECT 1 FROM users WHERE tenant = $1 AND email_key = $4 AND state <> 'disabled')
ON CONFLICT (tenant, user_id) DO UPDATE
SET email = excluded.email, email_key = excluded.email_key, name = excluded.name, role = excluded.role,
    state = excluded.state, email_confirmed = excluded.email_confirmed;

-- name: set_state
UPDATE users SET state = $3 WHERE tenant = $1 AND user_id = $2;

-- name: confirm
UPDATE users SET email_confirmed = TRUE WHERE tenant = $1 AND user_id = $2;

-- name: remove
DELETE FROM users WHERE tenant = $1 AND user_id = $2;

-- name: find
SELECT user_id, email, name, state FROM users WHERE tenant = $1 AND user_id = $2;

-- name: find_by_email
SELECT user_id, state FROM users WHERE tenant = $1 AND email_key = $2 ORDER BY state = 'disabled' LIMIT 1;

-- name: remember_states
INSERT INTO users_disabled (tenant, user_id, state, disabled_by)
SELECT tenant, user_id, state, $2 FROM users WHERE tenant = $1 AND state <> 'disabled';

-- name: disable_all
UPDATE users SET state = 'disabled' WHERE tenant = $1;

-- name: restore_states
-- Who was disabled before stays so, and an address that another user has taken stays theirs.
UPDATE users SET state = (
  SELECT d.state FROM users_disabled d WHERE d.tenant = $1 AND d.disabled_by = $2 AND d.user_id = users.user_id
)
WHERE tenant = $1
  AND user_id IN (SELECT d.user_id FROM users_disabled d WHERE d.tenant = $1 AND d.disabled_by = $2)
  AND NOT EXISTS (
    SELECT 1 FROM users other
    WHERE other.tenant = $1 AND other.email_key = users.email_key AND other.state <> 'disabled'
  );

-- name: forget_states
DELETE FROM users_disabled WHERE tenant = $1 AND disabled_by = $2;

-- name: block
INSERT INTO sign_in_blocks (tenant, reason, since) VALUES ($1, $2, $3) ON CONFLICT (tenant) DO NOTHING;

-- name: unblock
DELETE FROM sign_in_blocks WHERE tenant = $1;

-- name: blocked
SELECT reason FROM sign_in_blocks WHERE tenant = $1;
