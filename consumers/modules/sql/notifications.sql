-- What was sent, the same text for PostgreSQL and SQLite.

-- name: schema
CREATE TABLE IF NOT EXISTS sent_mails (
  tenant text NOT NULL,
  message_id text NOT NULL,
  template text NOT NULL,
  recipient_id text,
  at timestamptz NOT NULL,
  PRIMARY KEY (tenant, message_id)
);
CREATE INDEX IF NOT EXISTS sent_mails_recipient ON sent_mails (tenant, recipient_id, at);
CREATE TABLE IF NOT EXISTS paused_sending (tenant text PRIMARY KEY, since timestamptz NOT NULL);

-- name: note
INSERT INTO sent_mails (tenant, message_id, template, recipient_id, at) VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (tenant, message_id) DO NOTHING;

-- name: sent
SELECT message_id, template FROM sent_mails WHERE tenant = $1 AND recipient_id = $2 ORDER BY at;

-- name: pause
INSERT INTO paused_sending (tenant, since) VALUES ($1, $2) ON CONFLICT (tenant) DO NOTHING;

-- name: resume
DELETE FROM paused_sending WHERE tenant = $1;

-- name: paused
SELECT since FROM paused_sending WHERE tenant = $1;
