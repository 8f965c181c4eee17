-- Subscriptions, customers and payments, the same text for PostgreSQL and SQLite.

-- name: schema
CREATE TABLE IF NOT EXISTS subscriptions (
  tenant text NOT NULL,
  subscription_id text NOT NULL,
  edition text NOT NULL,
  status text NOT NULL CHECK (status IN ('trial', 'active', 'cancelled')),
  made_at timestamptz NOT NULL,
  PRIMARY KEY (tenant, subscription_id)
);
CREATE UNIQUE INDEX IF NOT EXISTS subscriptions_live ON subscriptions (tenant) WHERE status <> 'cancelled';
CREATE TABLE IF NOT EXISTS customers (
  tenant text NOT NULL,
  customer_id text NOT NULL,
  account_id text NOT NULL,
  email text NOT NULL,
  name text NOT NULL,
  closed boolean NOT NULL,
  made_at timestamptz NOT NULL,
  PRIMARY KEY (tenant, customer_id)
);
CREATE TABLE IF NOT EXISTS past_due (
  tenant text NOT NULL,
  subscription_id text NOT NULL,
  days integer NOT NULL,
  since timestamptz NOT NULL,
  PRIMARY KEY (tenant, subscription_id)
);
CREATE TABLE IF NOT EXISTS subscription_payments (
  tenant text NOT NULL,
  payment_id text NOT NULL,
  subscription_id text NOT NULL,
  amount_minor bigint NOT NULL,
  currency text NOT NULL,
  at timestamptz NOT NULL,
  PRIMARY KEY (tenant, payment_id)
);
CREATE UNIQUE INDEX IF NOT EXISTS customers_open ON customers (tenant, account_id) WHERE NOT closed;
CREATE TABLE IF NOT EXISTS payments (
  tenant text NOT NULL,
  payment_id text NOT NULL,
  customer_id text NOT NULL,
  amount_minor bigint NOT NULL,
  currency text NOT NULL,
  at timestamptz NOT NULL,
  PRIMARY KEY (tenant, payment_id)
);

-- name: subscribe
INSERT INTO subscriptions (tenant, subscription_id, edition, status, made_at)
VALUES ($1, $2, $3, $4, $5)
ON CONFLICT DO NOTHING;

-- name: cancel
UPDATE subscriptions SET status = 'cancelled' WHERE tenant = $1 AND subscription_id = $2;

-- name: reopen
-- There is one live subscription per tenant: another that came meanwhile stands.
UPDATE subscriptions SET status = $3
WHERE tenant = $1 AND subscription_id = $2
  AND NOT EXISTS (SELECT 1 FROM subscriptions live WHERE live.tenant = $1 AND live.status <> 'cancelled');

-- name: fall_due
INSERT INTO past_due (tenant, subscription_id, days, since) VALUES ($1, $2, $3, $4)
ON CONFLICT (tenant, subscription_id) DO UPDATE SET days = excluded.days;

-- name: past_due
-- Of a subscription that is cancelled nothing is due.
SELECT d.days FROM past_due d
JOIN subscriptions s ON s.tenant = d.tenant AND s.subscription_id = d.subscription_id
WHERE d.tenant = $1 AND d.subscription_id = $2 AND s.status <> 'cancelled';

-- name: settle
DELETE FROM past_due WHERE tenant = $1 AND subscription_id = $2;

-- name: live
SELECT subscription_id, edition, status FROM subscriptions WHERE tenant = $1 AND status <> 'cancelled';

-- name: latest
SELECT subscription_id, edition, status FROM subscriptions WHERE tenant = $1 ORDER BY made_at DESC LIMIT 1;

-- name: add_customer
INSERT INTO customers (tenant, customer_id, account_id, email, name, closed, made_at)
VALUES ($1, $2, $3, $4, $5, FALSE, $6)
ON CONFLICT DO NOTHING;

-- name: close_customer
UPDATE customers SET closed = TRUE WHERE tenant = $1 AND customer_id = $2;

-- name: open_customer
SELECT customer_id FROM customers WHERE tenant = $1 AND customer_id = $2 AND NOT closed;

-- name: customer_of
SELECT customer_id FROM customers WHERE tenant = $1 AND account_id = $2 AND NOT closed;

-- name: pay
INSERT INTO payments (tenant, payment_id, customer_id, amount_minor, currency, at) VALUES ($1, $2, $3, $4, $5, $6);

-- name: pay_subscription
INSERT INTO subscription_payments (tenant, payment_id, subscription_id, amount_minor, currency, at)
VALUES ($1, $2, $3, $4, $5, $6);

-- name: paid
SELECT count(*) AS payments, coalesce(sum(amount_minor), 0) AS paid_minor
FROM payments WHERE tenant = $1 AND customer_id = $2;
