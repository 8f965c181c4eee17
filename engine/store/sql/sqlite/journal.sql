-- Arrivals, start keys, dead letters.

-- name: arrival
SELECT a.body FROM inbox i JOIN arrivals a ON a.id = i.arrival WHERE i.tenant = :tenant AND i.source = :source AND i.event_id = :event_id

-- name: started
SELECT run_id FROM starts WHERE tenant = :tenant AND start_key = :start_key

-- name: arrival_before
-- With an hour to spare for clocks that differ.
SELECT coalesce(max(id), 0) AS id FROM arrivals WHERE received_at < :at - 3600000000

-- name: past_arrivals
-- The journal is in the order of arrival, so a backfill walks its primary key; types are joined by commas.
SELECT p.upto, p.whole, m.id, m.source, m.event_id, m.type
FROM (
    SELECT coalesce(max(id), :after) AS upto, count(*) < :most OR min(received_at) >= :until + 3600000000 AS whole
    FROM (SELECT id, received_at FROM arrivals WHERE id > :after ORDER BY id LIMIT :most)
) p LEFT JOIN (
    SELECT id, source, event_id, type
    FROM (SELECT * FROM arrivals WHERE id > :after ORDER BY id LIMIT :most)
    WHERE tenant = :tenant AND instr(',' || :types || ',', ',' || type || ',') > 0 AND received_at >= :since AND received_at < :until
    ORDER BY id LIMIT :limit
) m ON true ORDER BY m.id

-- name: count_past_arrivals
SELECT coalesce(max(id), :after) AS upto, count(*) < :most OR min(received_at) >= :until + 3600000000 AS whole,
    coalesce(sum(
        tenant = :tenant AND instr(',' || :types || ',', ',' || type || ',') > 0 AND received_at >= :since AND received_at < :until
    ), 0) AS found
FROM (SELECT id, tenant, type, received_at FROM arrivals WHERE id > :after ORDER BY id LIMIT :most)

-- name: record_outcome
INSERT INTO arrival_outcomes (arrival, outcome, recorded_at)
SELECT arrival, :outcome, :now FROM inbox WHERE tenant = :tenant AND source = :source AND event_id = :event_id
ON CONFLICT (arrival, outcome) DO NOTHING

-- name: outcomes
SELECT o.outcome FROM inbox i JOIN arrival_outcomes o ON o.arrival = i.arrival
WHERE i.tenant = :tenant AND i.source = :source AND i.event_id = :event_id ORDER BY o.recorded_at, o.outcome

-- name: journaled
SELECT a.type, a.received_at, a.causation_id, a.body FROM inbox i JOIN arrivals a ON a.id = i.arrival
WHERE i.tenant = :tenant AND i.source = :source AND i.event_id = :event_id

-- name: pending_inputs
SELECT p.kind, p.run_id, p.workflow, p.name, p.visit FROM inbox i JOIN inputs p ON p.arrival = i.arrival
WHERE i.tenant = :tenant AND i.source = :source AND i.event_id = :event_id ORDER BY p.id

-- name: prune_journal
-- The oldest rows, a slice at a time; the arrivals themselves go last, since every step finds the slice by them.
DELETE FROM inbox WHERE (tenant, source, event_id) IN (SELECT a.tenant, a.source, a.event_id FROM arrivals a WHERE a.id IN (
    SELECT s.id FROM (SELECT id, received_at FROM arrivals ORDER BY id LIMIT :limit) s
    WHERE s.received_at < :before AND NOT EXISTS (SELECT 1 FROM inputs i WHERE i.arrival = s.id)
));
DELETE FROM arrival_keys WHERE arrival IN (
    SELECT s.id FROM (SELECT id, received_at FROM arrivals ORDER BY id LIMIT :limit) s
    WHERE s.received_at < :before AND NOT EXISTS (SELECT 1 FROM inputs i WHERE i.arrival = s.id)
);
DELETE FROM arrival_outcomes WHERE arrival IN (
    SELECT s.id FROM (SELECT id, received_at FROM arrivals ORDER BY id LIMIT :limit) s
    WHERE s.received_at < :before AND NOT EXISTS (SELECT 1 FROM inputs i WHERE i.arrival = s.id)
);
DELETE FROM arrivals WHERE id IN (
    SELECT s.id FROM (SELECT id, received_at FROM arrivals ORDER BY id LIMIT :limit) s
    WHERE s.received_at < :before AND NOT EXISTS (SELECT 1 FROM inputs i WHERE i.arrival = s.id)
) RETURNING id

-- name: forget_subject
DELETE FROM arrival_keys WHERE arrival IN (
    SELECT a.id FROM (
        SELECT arrival FROM inbox WHERE tenant = :tenant AND (source, event_id) > (:source, :event_id) ORDER BY source, event_id LIMIT :limit
    ) i JOIN arrivals a ON a.id = i.arrival WHERE substr(a.body, 1, length(:frame)) = :frame
);
SELECT max(i.source) AS source, (
        SELECT event_id FROM (
            SELECT source, event_id FROM inbox
            WHERE tenant = :tenant AND (source, event_id) > (:source, :event_id) ORDER BY source, event_id LIMIT :limit
        ) ORDER BY source DESC, event_id DESC LIMIT 1
    ) AS event_id, count(*) < :limit AS whole, coalesce(sum(substr(a.body, 1, length(:frame)) = :frame), 0) AS found
FROM (
    SELECT source, event_id, arrival FROM inbox
    WHERE tenant = :tenant AND (source, event_id) > (:source, :event_id) ORDER BY source, event_id LIMIT :limit
) i LEFT JOIN arrivals a ON a.id = i.arrival

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

-- name: dead_letters_of
SELECT * FROM dead_letters WHERE tenant = :tenant AND event_id = :event_id ORDER BY created_at, id LIMIT :limit

-- name: settle_dead_letter
UPDATE dead_letters SET state = :state, settled_by = :by, settled_at = :now WHERE id = :id AND state = 'dead' RETURNING id
