-- Arrivals, start keys, dead letters.

-- name: arrival
SELECT a.body FROM inbox i JOIN arrivals a ON a.id = i.arrival WHERE i.tenant = :tenant AND i.source = :source AND i.event_id = :event_id

-- name: started
SELECT run_id FROM starts WHERE tenant = :tenant AND start_key = :start_key

-- name: record_outcome
INSERT INTO arrival_outcomes (arrival, outcome, recorded_at)
SELECT arrival, :outcome, :now FROM inbox WHERE tenant = :tenant AND source = :source AND event_id = :event_id
ON CONFLICT (arrival, outcome) DO NOTHING

-- name: outcomes
SELECT o.outcome FROM inbox i JOIN arrival_outcomes o ON o.arrival = i.arrival
WHERE i.tenant = :tenant AND i.source = :source AND i.event_id = :event_id ORDER BY o.recorded_at, o.outcome

-- name: prune_journal
-- The inbox goes last: while a row of it stands, the others of its arrival are still found.
DELETE FROM arrivals WHERE id IN (
    SELECT s.id FROM (SELECT id, received_at FROM arrivals ORDER BY id LIMIT :limit) s
    WHERE s.received_at < :before AND NOT EXISTS (SELECT 1 FROM inputs i WHERE i.arrival = s.id)
);
CREATE TEMP TABLE IF NOT EXISTS pruned (n INTEGER);
DELETE FROM pruned;
INSERT INTO pruned SELECT changes();
DELETE FROM arrival_keys WHERE received_at < :before AND NOT EXISTS (SELECT 1 FROM arrivals a WHERE a.id = arrival_keys.arrival);
DELETE FROM arrival_outcomes WHERE NOT EXISTS (SELECT 1 FROM arrivals a WHERE a.id = arrival_outcomes.arrival);
DELETE FROM inbox WHERE NOT EXISTS (SELECT 1 FROM arrivals a WHERE a.id = inbox.arrival);
SELECT n AS pruned FROM pruned

-- name: bury
INSERT INTO dead_letters (id, tenant, reason, detail, source, routing_key, event_id, type, attempts, envelope, headers, state, created_at,
                          settled_at, settled_by)
VALUES (:id, :tenant, :reason, :detail, :source, :routing_key, :event_id, :type, :attempts, :envelope, :headers, :state, :created_at,
        :settled_at, :settled_by)
ON CONFLICT (id) DO NOTHING RETURNING id

-- name: dead_letters
SELECT * FROM dead_letters
WHERE (:tenant IS NULL OR tenant = :tenant) AND (:state IS NULL OR state = :state) AND (:after IS NULL OR id > :after)
ORDER BY id LIMIT :limit

-- name: dead_letter
SELECT * FROM dead_letters WHERE id = :id AND (:tenant IS NULL OR tenant = :tenant)

-- name: settle_dead_letter
UPDATE dead_letters SET state = :state, settled_by = :by, settled_at = :now WHERE id = :id AND state = 'dead' RETURNING id
