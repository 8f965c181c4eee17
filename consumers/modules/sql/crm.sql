-- Contacts and what sales thinks of them, the same text for PostgreSQL and SQLite.

-- name: schema
CREATE TABLE IF NOT EXISTS contacts (
  tenant text NOT NULL,
  contact_id text NOT NULL,
  customer_id text NOT NULL,
  email text NOT NULL,
  name text NOT NULL,
  made_at timestamptz NOT NULL,
  PRIMARY KEY (tenant, contact_id)
);
CREATE UNIQUE INDEX IF NOT EXISTS contacts_customer ON contacts (tenant, customer_id);
CREATE TABLE IF NOT EXISTS reviews (
  tenant text NOT NULL,
  customer_id text NOT NULL,
  approved boolean NOT NULL,
  reviewer text NOT NULL,
  at timestamptz NOT NULL,
  PRIMARY KEY (tenant, customer_id)
);

-- name: add
INSERT INTO contacts (tenant, contact_id, customer_id, email, name, made_at)
VALUES ($1, $2, $3, $4, $5, $6)
ON CONFLICT DO NOTHING;

-- name: delete
DELETE FROM contacts WHERE tenant = $1 AND contact_id = $2;

-- name: find
SELECT contact_id FROM contacts WHERE tenant = $1 AND customer_id = $2;

-- name: review
INSERT INTO reviews (tenant, customer_id, approved, reviewer, at) VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (tenant, customer_id) DO UPDATE
SET approved = excluded.approved, reviewer = excluded.reviewer, at = excluded.at;

-- name: reviewed
SELECT approved FROM reviews WHERE tenant = $1 AND customer_id = $2;
