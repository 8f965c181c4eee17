-- Outlets, and what is delivered to them.

-- name: add_outlet
SELECT name FROM add_outlet(:tenant, :name, :url, :types, :version, :secret, :created_at, :created_by) AS a(name)

-- name: outlet
SELECT * FROM outlet(:tenant, :name)

-- name: outlets
SELECT * FROM outlets(:tenant)

-- name: rotate_outlet
SELECT name FROM rotate_outlet(:tenant, :name, :version, :secret, :old_until, :rotated_at) AS r(name)

-- name: switch_outlet
SELECT name FROM switch_outlet(:tenant, :name, :enabled, :why, :at) AS s(name)

-- name: note_outlet
SELECT failing_since FROM note_outlet(:tenant, :name, :failed, :at) AS n(failing_since)

-- name: remove_outlet
SELECT name FROM remove_outlet(:tenant, :name) AS r(name)

-- name: add_delivery
SELECT message_id FROM add_delivery(:tenant, :outlet, :message_id, :about, :type, :body, :created_at) AS a(message_id)

-- name: claim_deliveries
SELECT * FROM claim_deliveries(:at, :lease_until, :busy, :each, :limit)

-- name: settle_delivery
SELECT message_id FROM settle_delivery(:tenant, :outlet, :message_id, :state, :attempts, :due_at, :status, :error, :settled_at) AS s(message_id)

-- name: deliveries
SELECT * FROM deliveries(:tenant, :outlet, :state, :limit)

-- name: delivery
SELECT * FROM delivery(:tenant, :outlet, :message_id)

-- name: resend_delivery
SELECT message_id FROM resend_delivery(:tenant, :outlet, :message_id, :at, :soon) AS r(message_id)

-- name: resend_failed
SELECT message_id FROM resend_failed(:tenant, :outlet, :since, :at, :soon, :limit) AS r(message_id)

-- name: outlet_queues
SELECT * FROM outlet_queues(:most)

-- name: prune_deliveries
SELECT message_id FROM prune_deliveries_to(:before, :limit) AS p(message_id)
