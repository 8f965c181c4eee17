-- Scripted failures, the same text for PostgreSQL and SQLite.

-- name: schema
CREATE TABLE IF NOT EXISTS scripted_faults (
  id text PRIMARY KEY,
  tenant text NOT NULL,
  command text NOT NULL,
  key_part text NOT NULL,
  mode text NOT NULL,
  remaining integer NOT NULL,
  code text NOT NULL
);

-- name: script
-- One row per tenant, command and key part: scripting it again replaces what was left.
INSERT INTO scripted_faults (id, tenant, command, key_part, mode, remaining, code)
VALUES ($1, $2, $3, $4, $5, $6, $7)
ON CONFLICT (id) DO UPDATE SET mode = excluded.mode, remaining = excluded.remaining, code = excluded.code;

-- name: clear
DELETE FROM scripted_faults WHERE tenant = $1 AND command = $2;

-- name: scripted
SELECT id, key_part, mode, code FROM scripted_faults
WHERE tenant = $1 AND command = $2 AND remaining > 0 ORDER BY key_part DESC;

-- name: use
UPDATE scripted_faults SET remaining = remaining - 1 WHERE id = $1 AND remaining > 0;
