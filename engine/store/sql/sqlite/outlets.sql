-- Outlets, and what is delivered to them.

-- name: add_outlet
INSERT INTO outlets (tenant, name, url, types, enabled, version, secret, created_at, created_by)
VALUES (:tenant, :name, :url, :types, true, :version, :secret, :created_at, :created_by)
ON CONFLICT (tenant, name) DO NOTHING RETURNING name

-- name: outlet
SELECT * FROM outlets WHERE tenant = :tenant AND name = :name

-- name: outlets
SELECT * FROM outlets WHERE :tenant IS NULL OR tenant = :tenant ORDER BY tenant, name

-- name: rotate_outlet
-- Whoever rotates names the version it replaces: of two at once one is told that it lost.
UPDATE outlets SET version = version + 1, secret = :secret, old_secret = secret, old_until = :old_until, rotated_at = :rotated_at
WHERE tenant = :tenant AND name = :name AND version = :version RETURNING name

-- name: switch_outlet
UPDATE outlets SET enabled = :enabled, switched_at = :at, switched_why = :why, failing_since = NULL
WHERE tenant = :tenant AND name = :name AND enabled <> :enabled RETURNING name

-- name: note_outlet
-- Failing since the first failure after a success.
UPDATE outlets SET failing_since = CASE WHEN :failed THEN coalesce(failing_since, :at) END
WHERE tenant = :tenant AND name = :name AND (:failed OR failing_since IS NOT NULL) RETURNING failing_since

-- name: remove_outlet
DELETE FROM outlet_deliveries WHERE tenant = :tenant AND outlet = :name;
DELETE FROM outlets WHERE tenant = :tenant AND name = :name RETURNING name

-- name: add_delivery
INSERT INTO outlet_deliveries (tenant, outlet, message_id, about, type, body, state, attempts, created_at, due_at)
SELECT :tenant, :outlet, :message_id, :about, :type, :body, 'waiting', 0, :created_at, :created_at
WHERE EXISTS (SELECT 1 FROM outlets WHERE tenant = :tenant AND name = :outlet)
ON CONFLICT (tenant, outlet, message_id) DO NOTHING RETURNING message_id

-- name: claim_deliveries
-- A claim is a lease: what is not settled by then is due again. Of one outlet a few at a time, so that a slow one keeps nobody waiting.
UPDATE outlet_deliveries SET due_at = :lease_until
WHERE (tenant, outlet, message_id) IN (
    SELECT tenant, outlet, message_id FROM (
        SELECT d.tenant, d.outlet, d.message_id, d.due_at, row_number() OVER (PARTITION BY d.tenant, d.outlet ORDER BY d.due_at) AS place
        FROM outlet_deliveries d INDEXED BY outlet_deliveries_due JOIN outlets o ON o.tenant = d.tenant AND o.name = d.outlet AND o.enabled
        WHERE d.state = 'waiting' AND d.due_at <= :at AND d.tenant || '/' || d.outlet NOT IN (SELECT value FROM json_each(:busy))
    ) WHERE place <= :each ORDER BY due_at LIMIT :limit
) RETURNING *

-- name: settle_delivery
UPDATE outlet_deliveries SET state = :state, attempts = :attempts, due_at = :due_at, status = :status, error = :error, settled_at = :settled_at
WHERE tenant = :tenant AND outlet = :outlet AND message_id = :message_id AND state = 'waiting' RETURNING message_id

-- name: deliveries
SELECT * FROM outlet_deliveries
WHERE tenant = :tenant AND outlet = :outlet AND (:state IS NULL OR state = :state)
ORDER BY created_at DESC, message_id LIMIT :limit

-- name: delivery
SELECT * FROM outlet_deliveries WHERE tenant = :tenant AND outlet = :outlet AND message_id = :message_id

-- name: resend_delivery
-- What is due soon comes by itself, or somebody has it in hand.
UPDATE outlet_deliveries SET state = 'waiting', attempts = 0, due_at = :at, settled_at = NULL
WHERE tenant = :tenant AND outlet = :outlet AND message_id = :message_id AND (state <> 'waiting' OR due_at > :soon)
RETURNING message_id

-- name: resend_failed
-- Failed for good, or so far.
UPDATE outlet_deliveries SET state = 'waiting', attempts = 0, due_at = :at, settled_at = NULL
WHERE tenant = :tenant AND outlet = :outlet AND message_id IN (
    SELECT message_id FROM outlet_deliveries
    WHERE tenant = :tenant AND outlet = :outlet AND created_at >= :since
      AND (state = 'failed' OR state = 'waiting' AND attempts > 0 AND due_at > :soon)
    ORDER BY created_at, message_id LIMIT :limit
) RETURNING message_id

-- name: outlet_queues
-- Outlets that are disabled, or for which notices wait; of those, as many as are due first.
SELECT o.tenant, o.name AS outlet, o.enabled, o.switched_why, o.failing_since, coalesce(w.waiting, 0) AS waiting, w.oldest
FROM outlets o LEFT JOIN (
    SELECT tenant, outlet, count(*) AS waiting, min(created_at) AS oldest
    FROM (SELECT tenant, outlet, created_at FROM outlet_deliveries WHERE state = 'waiting' ORDER BY due_at LIMIT :most)
    GROUP BY tenant, outlet
) w ON w.tenant = o.tenant AND w.outlet = o.name
WHERE NOT o.enabled OR w.waiting > 0 ORDER BY o.tenant, o.name

-- name: prune_deliveries
DELETE FROM outlet_deliveries WHERE (tenant, outlet, message_id) IN (
    SELECT tenant, outlet, message_id FROM outlet_deliveries WHERE settled_at < :before ORDER BY settled_at LIMIT :limit
) RETURNING message_id
