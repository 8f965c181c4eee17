-- What processes claim: leases by epoch, inputs, outbox rows, timers. `:lease` is when a claim made now ends.

-- name: register
INSERT INTO processes (name, roles, version, started_at, seen_at) VALUES (:name, :roles, :version, :now, :now) RETURNING epoch

-- name: heartbeat
UPDATE processes SET seen_at = :now WHERE epoch = :epoch AND NOT dead RETURNING epoch

-- name: declare_dead
-- What a dead process held is free at once; its `seen_at` is how the last step knows those of this call. Whoever asks (`:but`) lives,
-- however long it could not say so.
UPDATE inputs SET available_at = :now, owner = NULL
WHERE owner IN (SELECT epoch FROM processes WHERE NOT dead AND seen_at < :now - :silent_seconds * 1000000 AND epoch IS NOT :but);
UPDATE outbox SET available_at = :now, owner = NULL
WHERE owner IN (SELECT epoch FROM processes WHERE NOT dead AND seen_at < :now - :silent_seconds * 1000000 AND epoch IS NOT :but);
UPDATE timers SET available_at = due, owner = NULL
WHERE owner IN (SELECT epoch FROM processes WHERE NOT dead AND seen_at < :now - :silent_seconds * 1000000 AND epoch IS NOT :but);
UPDATE open_runs SET deadline_lease = NULL
WHERE owner IN (SELECT epoch FROM processes WHERE NOT dead AND seen_at < :now - :silent_seconds * 1000000 AND epoch IS NOT :but);
UPDATE processes SET dead = 1 WHERE NOT dead AND seen_at < :now - :silent_seconds * 1000000 AND epoch IS NOT :but RETURNING epoch

-- name: retire
UPDATE processes SET dead = 1 WHERE epoch = :epoch;
UPDATE open_runs SET owner = NULL, deadline_lease = NULL WHERE owner = :epoch;
UPDATE inputs SET available_at = created_at, owner = NULL WHERE owner = :epoch;
UPDATE outbox SET available_at = created_at, owner = NULL WHERE owner = :epoch;
UPDATE timers SET available_at = due, owner = NULL WHERE owner = :epoch

-- name: restored
UPDATE processes SET dead = 1;
UPDATE open_runs SET owner = NULL, deadline_lease = NULL WHERE owner IS NOT NULL;
UPDATE inputs SET available_at = created_at, owner = NULL WHERE owner IS NOT NULL;
UPDATE outbox SET available_at = created_at, owner = NULL WHERE owner IS NOT NULL;
UPDATE timers SET available_at = due, owner = NULL WHERE owner IS NOT NULL;
DELETE FROM sessions;
UPDATE sqlite_sequence SET seq = seq + 100000 WHERE name = 'processes'

-- name: processes
SELECT * FROM processes ORDER BY epoch

-- name: claim_runs
UPDATE open_runs SET takeovers = takeovers + (owner IS NOT NULL), owner = :epoch
WHERE run_id IN (
    SELECT o.run_id FROM open_runs o
    WHERE (o.owner IS NULL OR EXISTS (SELECT 1 FROM processes p WHERE p.epoch = o.owner AND p.dead))
      AND EXISTS (SELECT 1 FROM json_each(:workflows) w JOIN json_each(:versions) v ON v.key = w.key
                  WHERE w.value = o.workflow AND v.value = o.workflow_version)
    ORDER BY o.started_at LIMIT :limit
) AND EXISTS (SELECT 1 FROM processes WHERE epoch = :epoch AND NOT dead)
RETURNING *

-- name: claim_named
UPDATE open_runs SET takeovers = takeovers + (owner IS NOT NULL AND owner <> :epoch), owner = :epoch
WHERE run_id IN (SELECT value FROM json_each(:runs))
  AND EXISTS (SELECT 1 FROM json_each(:runs) r JOIN json_each(:tenants) t ON t.key = r.key
              WHERE r.value = open_runs.run_id AND t.value = open_runs.tenant)
  AND (owner IS NULL OR owner = :epoch OR NOT EXISTS (SELECT 1 FROM processes p WHERE p.epoch = open_runs.owner AND NOT p.dead))
  AND EXISTS (SELECT 1 FROM processes WHERE epoch = :epoch AND NOT dead)
RETURNING *

-- name: release_runs
UPDATE open_runs SET owner = NULL, deadline_lease = NULL WHERE run_id IN (SELECT value FROM json_each(:runs)) AND owner = :epoch

-- name: hand_over
-- What was leased of runs that another living process has taken meanwhile: without this it would get them at the end of the lease.
UPDATE open_runs SET deadline_lease = NULL
WHERE deadline_lease IS NOT NULL AND run_id IN (
    SELECT o.run_id FROM open_runs o JOIN processes p ON p.epoch = o.owner
    WHERE o.run_id IN (SELECT value FROM json_each(:runs)) AND p.epoch <> :epoch AND NOT p.dead);
UPDATE timers SET available_at = due, owner = NULL
WHERE owner = :epoch AND run_id IN (
    SELECT o.run_id FROM open_runs o JOIN processes p ON p.epoch = o.owner
    WHERE o.run_id IN (SELECT value FROM json_each(:runs)) AND p.epoch <> :epoch AND NOT p.dead);
UPDATE inputs SET available_at = :now, owner = NULL
WHERE owner = :epoch AND run_id IN (
    SELECT o.run_id FROM open_runs o JOIN processes p ON p.epoch = o.owner
    WHERE o.run_id IN (SELECT value FROM json_each(:runs)) AND p.epoch <> :epoch AND NOT p.dead)

-- name: open_run
SELECT * FROM open_runs WHERE run_id = :run AND tenant = :tenant

-- name: open_runs
SELECT * FROM open_runs WHERE (:tenant IS NULL OR tenant = :tenant) AND (:after IS NULL OR run_id > :after) ORDER BY run_id LIMIT :limit

-- name: queued_runs
-- Fair between tenants: who holds few slots for his weight (`quotas`) comes first. Within a tenant one run of each workflow in turn, so that
-- one that is paused, at its cap or without a budget keeps no other waiting; within a workflow woken runs before new ones, then by age.
-- None of `tenants`, nor of the workflows that `of` and `workflows` name in pairs.
WITH queued AS MATERIALIZED (
    SELECT *, row_number() OVER (PARTITION BY tenant, workflow ORDER BY woken DESC, started_at, run_id) AS place
    FROM open_runs
    WHERE queued AND (owner IS NULL OR owner = :epoch) AND tenant NOT IN (SELECT value FROM json_each(:tenants))
        AND (tenant, workflow) NOT IN (SELECT t.value, w.value FROM json_each(:of) t JOIN json_each(:workflows) w ON w.key = t.key)
), waiting AS MATERIALIZED (
    SELECT d.tenant, (SELECT count(*) FROM open_runs h WHERE h.slot AND h.tenant = d.tenant) AS held,
        coalesce((SELECT CAST(json_extract(value, '$.weight') AS REAL) FROM settings
                  WHERE name = 'quotas' AND tenant IN (d.tenant, '*') AND json_extract(value, '$.weight') IS NOT NULL
                  ORDER BY tenant = '*' LIMIT 1), 1.0) AS weight
    FROM (SELECT DISTINCT tenant FROM queued) d
)
SELECT * FROM (
    SELECT o.*, (row_number() OVER (PARTITION BY o.tenant ORDER BY o.place, o.woken DESC, o.started_at, o.run_id) + t.held) / t.weight AS turn
    FROM queued o JOIN waiting t ON t.tenant = o.tenant
)
ORDER BY turn, started_at, run_id LIMIT :limit

-- name: slots_held
SELECT tenant, workflow, count(*) AS held FROM open_runs
WHERE slot AND tenant IN (SELECT value FROM json_each(:tenants)) GROUP BY tenant, workflow

-- name: claim_inputs
UPDATE inputs SET available_at = :lease, owner = :epoch
WHERE id IN (
    SELECT i.id FROM inputs i
    WHERE i.available_at <= :now AND i.tenant NOT IN (SELECT value FROM json_each(:but))
      AND (i.run_id IS NULL OR NOT EXISTS (
              SELECT 1 FROM open_runs o JOIN processes p ON p.epoch = o.owner
              WHERE o.run_id = i.run_id AND p.epoch <> :epoch AND NOT p.dead))
    ORDER BY i.available_at, i.id LIMIT :limit
) AND EXISTS (SELECT 1 FROM processes WHERE epoch = :epoch AND NOT dead)
RETURNING id, tenant, kind, run_id, workflow, name, visit, source, event_id,
          coalesce(body, (SELECT a.body FROM arrivals a WHERE a.id = arrival)) AS body

-- name: claim_outbox
UPDATE outbox SET available_at = :lease, owner = :epoch
WHERE id IN (SELECT o.id FROM outbox o WHERE o.available_at <= :now ORDER BY o.available_at, o.id LIMIT :limit)
  AND EXISTS (SELECT 1 FROM processes WHERE epoch = :epoch AND NOT dead)
RETURNING id, tenant, message_id, exchange, routing_key, body, created_at

-- name: settle_outbox
DELETE FROM outbox WHERE id IN (SELECT value FROM json_each(:sent));
UPDATE outbox SET available_at = coalesce(:retry_at, :now), owner = NULL WHERE id IN (SELECT value FROM json_each(:returned))

-- name: due_timers
-- Deadlines ride in the same answer: it has the rows of both steps.
UPDATE timers SET available_at = :lease, owner = :epoch
WHERE (run_id, key) IN (
    SELECT t.run_id, t.key FROM timers t
    WHERE t.available_at <= :now AND NOT EXISTS (
        SELECT 1 FROM open_runs o JOIN processes p ON p.epoch = o.owner
        WHERE o.run_id = t.run_id AND p.epoch <> :epoch AND NOT p.dead)
    ORDER BY t.available_at LIMIT :limit
) AND EXISTS (SELECT 1 FROM processes WHERE epoch = :epoch AND NOT dead)
RETURNING tenant, run_id, key, due;
UPDATE open_runs SET deadline_lease = :lease
WHERE run_id IN (
    SELECT o.run_id FROM open_runs o
    WHERE o.deadline <= :now AND (o.deadline_lease IS NULL OR o.deadline_lease <= :now)
      AND NOT EXISTS (SELECT 1 FROM processes p WHERE p.epoch = o.owner AND p.epoch <> :epoch AND NOT p.dead)
    ORDER BY o.deadline LIMIT :limit
) AND EXISTS (SELECT 1 FROM processes WHERE epoch = :epoch AND NOT dead)
RETURNING tenant, run_id, 'run/deadline' AS key, deadline AS due

-- name: wakes
SELECT 'timers' AS reason, json_object('key', key, 'due', due, 'available_at', available_at) AS detail
FROM timers WHERE run_id = :run AND tenant = :tenant
UNION ALL SELECT 'subscriptions', json_object('name', name, 'visit', visit, 'type', type, 'key_name', key_name, 'look_back', look_back)
FROM subscriptions WHERE run_id = :run AND tenant = :tenant
UNION ALL SELECT 'awaits', json_object('command_id', command_id, 'step', step, 'visit', visit, 'types', types)
FROM awaits WHERE run_id = :run AND tenant = :tenant
UNION ALL SELECT 'inputs', json_object('id', id, 'kind', kind, 'name', name, 'visit', visit, 'available_at', available_at)
FROM inputs WHERE run_id = :run AND tenant = :tenant
UNION ALL SELECT 'outbox', json_object('id', id, 'message_id', message_id, 'exchange', exchange, 'routing_key', routing_key,
                                       'available_at', available_at)
FROM outbox WHERE run_id = :run AND tenant = :tenant

-- name: runs_without_wake
SELECT o.* FROM open_runs o
WHERE o.changed_at <= :now - :older_than_seconds * 1000000
  AND o.status NOT IN ('queued', 'parked')
  AND (NOT EXISTS (SELECT 1 FROM processes p WHERE p.epoch = o.owner AND NOT p.dead)
       OR NOT (EXISTS (SELECT 1 FROM timers t WHERE t.run_id = o.run_id)
               OR EXISTS (SELECT 1 FROM subscriptions s WHERE s.run_id = o.run_id)
               OR EXISTS (SELECT 1 FROM awaits w WHERE w.run_id = o.run_id)
               OR EXISTS (SELECT 1 FROM inputs i WHERE i.run_id = o.run_id)
               OR EXISTS (SELECT 1 FROM outbox b WHERE b.run_id = o.run_id)))
ORDER BY o.changed_at LIMIT :limit

-- name: census
-- A timer that was claimed may be claimed again at the end of the lease: late ones are among those available by then.
SELECT
    (SELECT json_group_object(status, runs) FROM (SELECT status, count(*) AS runs FROM open_runs GROUP BY status)) AS runs,
    (SELECT count(*) FROM (SELECT 1 FROM outbox LIMIT :most)) AS outbox_rows,
    coalesce((SELECT (:now - created_at) / 1e6 FROM outbox ORDER BY id LIMIT 1), 0.0) AS outbox_age,
    late.timers AS timers_late,
    coalesce((:now - late.since) / 1e6, 0.0) AS timers_lateness,
    (SELECT count(*) FROM (SELECT 1 FROM dead_letters WHERE state = 'dead' LIMIT :most)) AS dead_letters,
    (SELECT count(*) FROM processes WHERE NOT dead) AS processes
FROM (
    SELECT count(*) AS timers, min(due) AS since FROM (
        SELECT due FROM (SELECT due FROM timers WHERE available_at <= :lease AND due <= :now ORDER BY available_at LIMIT :most)
        UNION ALL
        SELECT due FROM (SELECT deadline AS due FROM open_runs WHERE deadline <= :now ORDER BY deadline LIMIT :most)
    )
) late
