-- Arrivals, start keys, dead letters.

-- name: arrival
SELECT arrival(:tenant, :source, :event_id) AS body

-- name: started
SELECT started(:tenant, :start_key) AS run_id

-- name: arrival_before
SELECT arrival_before(:at) AS id

-- name: past_arrivals
SELECT * FROM past_arrivals_among(:tenant, :types, :since, :until, :after, :limit, :most)

-- name: count_past_arrivals
SELECT * FROM count_past_arrivals_among(:tenant, :types, :since, :until, :after, :most)

-- name: record_outcome
SELECT record_outcome(:tenant, :source, :event_id, :outcome, :now)

-- name: outcomes
SELECT outcome FROM outcomes(:tenant, :source, :event_id) AS o(outcome)

-- name: journaled
SELECT * FROM journaled(:tenant, :source, :event_id)

-- name: pending_inputs
SELECT * FROM pending_inputs(:tenant, :source, :event_id)

-- name: prune_journal
SELECT id FROM prune_journal(:before, :limit) AS p(id)

-- name: forget_subject
SELECT * FROM forget_subject_among(:tenant, :frame, :source, :event_id, :limit)

-- name: bury
SELECT id FROM bury(:id, :tenant, :reason, :detail, :source, :routing_key, :event_id, :type, :attempts, :envelope, :headers, :state, :created_at,
                    :settled_at, :settled_by) AS b(id)

-- name: dead_letters
SELECT * FROM dead_letters(:tenant, :state, :after, :limit)

-- name: dead_letter
SELECT * FROM dead_letter(:tenant, :id)

-- name: dead_letters_of
SELECT * FROM dead_letters_of(:tenant, :event_id, :limit)

-- name: settle_dead_letter
SELECT id FROM settle_dead_letter(:id, :state, :by, :now) AS s(id)
