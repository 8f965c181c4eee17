-- The steps of one append; PostgreSQL does the same in its function of that name. Rows come as `engine.store.batch` made them: ?1 is the ordinal.

-- name: living
SELECT 1 FROM processes WHERE epoch = ?1 AND NOT dead

-- name: last_position
SELECT seq FROM sqlite_sequence WHERE name = 'log'

-- name: find_start
SELECT run_id FROM starts WHERE tenant = ?2 AND start_key = ?3

-- name: find_input_key
SELECT 1 FROM input_keys WHERE run_id = ?2 AND key = ?3

-- name: find_arrival
SELECT body_hash, arrival FROM inbox WHERE tenant = ?1 AND source = ?2 AND event_id = ?3

-- name: find_stream
SELECT
    (SELECT originator_version FROM log WHERE originator_id = ?1 ORDER BY originator_version DESC LIMIT 1) AS version,
    (SELECT tenant FROM log WHERE originator_id = ?1 ORDER BY originator_version DESC LIMIT 1) AS tenant,
    (SELECT owner FROM open_runs WHERE run_id = ?1) AS owner

-- name: find_run
SELECT workflow, slot, owner, tenant FROM open_runs WHERE run_id = ?1

-- name: slots_of_workflow
SELECT count(*) FROM (SELECT 1 FROM open_runs WHERE slot AND tenant = ?1 AND workflow = ?2 LIMIT ?3 + 1)

-- name: slots_of_tenant
SELECT count(*) FROM (SELECT 1 FROM open_runs WHERE slot AND tenant = ?1 LIMIT ?2 + 1)

-- name: quotas_of
-- What a tenant's own quotas leave open, everybody's say; what was begun today, and no less than what is open.
SELECT
    coalesce(json_extract(own.value, '$.open_runs'), json_extract(everyone.value, '$.open_runs')) AS open_runs,
    coalesce(json_extract(own.value, '$.daily_runs'), json_extract(everyone.value, '$.daily_runs')) AS daily_runs,
    json_extract(own.value, '$.workflows') AS own, json_extract(everyone.value, '$.workflows') AS everyone,
    (SELECT sum(opened) FROM run_counters WHERE tenant = ?1 HAVING sum(workflow = '') > 0) AS opened,
    (SELECT coalesce(sum(started), 0) FROM run_counters WHERE tenant = ?1 AND day = ?2) AS today
FROM (SELECT 1)
LEFT JOIN settings own ON own.tenant = ?1 AND own.name = 'quotas'
LEFT JOIN settings everyone ON everyone.tenant = '*' AND everyone.name = 'quotas'

-- name: begun_of_workflow
SELECT started FROM run_counters WHERE tenant = ?1 AND workflow = ?2 AND day = ?3

-- name: count_open_runs
SELECT (SELECT count(*) FROM open_runs WHERE tenant = ?1 AND slot) + (SELECT count(*) FROM open_runs WHERE tenant = ?1 AND queued)
    + (SELECT count(*) FROM open_runs WHERE tenant = ?1 AND NOT slot AND NOT queued)

-- name: forget_opened
UPDATE run_counters SET opened = 0 WHERE tenant = ?1 AND workflow <> ''

-- name: remember_opened
INSERT INTO run_counters (tenant, workflow, day, started, opened) VALUES (?1, '', ?2, 0, ?3)
ON CONFLICT (tenant, workflow) DO UPDATE SET opened = excluded.opened

-- name: count_start
INSERT INTO run_counters (tenant, workflow, day, started, opened) VALUES (?2, ?4, date(?10 / 1000000, 'unixepoch'), 1, 1)
ON CONFLICT (tenant, workflow) DO UPDATE
SET started = CASE WHEN day = excluded.day THEN started ELSE 0 END + 1, day = excluded.day, opened = opened + 1

-- name: spent_of
-- What a tenant has spent today and this month, all in all and of the workflow, with the documents that hold its budgets.
SELECT
    own.value AS own, everyone.value AS everyone,
    (SELECT coalesce(sum(day_micros), 0) FROM cost_counters WHERE tenant = ?1 AND day = ?3) AS today,
    (SELECT coalesce(sum(month_micros), 0) FROM cost_counters WHERE tenant = ?1 AND month = ?4) AS this_month,
    (SELECT coalesce(sum(day_micros), 0) FROM cost_counters WHERE tenant = ?1 AND workflow = ?2 AND day = ?3) AS workflow_today,
    (SELECT coalesce(sum(month_micros), 0) FROM cost_counters WHERE tenant = ?1 AND workflow = ?2 AND month = ?4) AS workflow_month
FROM (SELECT 1)
LEFT JOIN settings own ON own.tenant = ?1 AND own.name = 'quotas'
LEFT JOIN settings everyone ON everyone.tenant = '*' AND everyone.name = 'quotas'

-- name: add_cost
INSERT INTO cost_counters (tenant, workflow, day, day_micros, month, month_micros) VALUES (?1, ?2, ?3, ?5, ?4, ?5)
ON CONFLICT (tenant, workflow) DO UPDATE
SET day_micros = CASE WHEN day = excluded.day THEN day_micros ELSE 0 END + excluded.day_micros, day = excluded.day,
    month_micros = CASE WHEN month = excluded.month THEN month_micros ELSE 0 END + excluded.month_micros, month = excluded.month

-- name: insert_events
INSERT INTO log (originator_id, originator_version, topic, state, tenant, lane, kind, recorded_at) VALUES (?3, ?5, ?6, ?7, ?2, ?8, ?4, ?9)

-- name: insert_start
INSERT INTO starts (tenant, start_key, run_id) VALUES (?2, ?3, ?4)

-- name: insert_open_run
INSERT INTO open_runs (run_id, tenant, workflow, workflow_version, status, slot, queued, woken, owner, deadline, started_at, changed_at)
VALUES (?3, ?2, ?4, ?5, ?6, ?7, ?6 = 'queued', 0, ?9, ?8, ?10, ?10)

-- name: change_open_run
UPDATE open_runs
SET status = ?3, slot = ?4, queued = ?3 = 'queued', woken = ?3 = 'queued', owner = ?6, takeovers = 0,
    deadline_lease = CASE WHEN deadline IS ?5 THEN deadline_lease END, deadline = ?5, changed_at = ?7
WHERE run_id = ?2

-- name: insert_input_key
INSERT INTO input_keys (run_id, key) VALUES (?2, ?3)

-- name: insert_outbox
INSERT INTO outbox (tenant, run_id, message_id, exchange, routing_key, body, created_at, available_at)
VALUES (?2, ?3, ?4, ?5, ?6, ?7, ?9, coalesce(?8, ?9))

-- name: clear_timer
DELETE FROM timers WHERE run_id = ?2 AND key = ?3

-- name: set_timer
INSERT INTO timers (run_id, key, tenant, due, available_at) VALUES (?3, ?4, ?2, ?5, ?5)
ON CONFLICT (run_id, key) DO UPDATE SET due = excluded.due, available_at = excluded.available_at, owner = NULL

-- name: drop_subscription
DELETE FROM subscriptions WHERE run_id = ?2 AND name = ?3 AND visit = ?4

-- name: drop_await
DELETE FROM awaits WHERE tenant = ?2 AND command_id = ?3

-- name: put_snapshot
INSERT INTO snapshots (tenant, stream, version, body) VALUES (?2, ?3, ?4, ?5)
ON CONFLICT (stream) DO UPDATE SET version = excluded.version, body = excluded.body

-- name: settle_input
DELETE FROM inputs WHERE id = ?2

-- name: insert_arrival
INSERT INTO arrivals (tenant, source, event_id, type, body, received_at, causation_id) VALUES (?2, ?3, ?4, ?5, ?7, ?8, ?9)

-- name: insert_inbox
INSERT INTO inbox (tenant, source, event_id, body_hash, arrival) VALUES (?2, ?3, ?4, ?6, ?10)

-- name: insert_arrival_key
INSERT INTO arrival_keys (tenant, type, name, hash, received_at, arrival) VALUES (?3, ?4, ?5, ?6, ?7, ?2)

-- name: insert_input
INSERT INTO inputs (tenant, kind, run_id, workflow, name, visit, source, event_id, body, arrival, created_at, available_at, owner)
VALUES (?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)

-- name: remember_match
-- A reply is known by its cause; whom a fact was given to is remembered with it.
INSERT INTO arrival_outcomes (arrival, outcome, recorded_at) VALUES (?2, ?3, ?4)
ON CONFLICT (arrival, outcome) DO NOTHING

-- name: insert_subscription
INSERT INTO subscriptions (tenant, run_id, name, visit, type, key_name, key_hash, look_back) VALUES (?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)

-- name: insert_await
INSERT INTO awaits (tenant, run_id, command_id, step, visit, types) VALUES (?2, ?3, ?4, ?5, ?6, ?7)
ON CONFLICT (tenant, command_id) DO UPDATE SET types = excluded.types

-- name: close_run
DELETE FROM open_runs WHERE run_id = ?2

-- name: close_timers
DELETE FROM timers WHERE run_id = ?2

-- name: close_subscriptions
DELETE FROM subscriptions WHERE run_id = ?2

-- name: close_awaits
DELETE FROM awaits WHERE run_id = ?2

-- name: close_input_keys
DELETE FROM input_keys WHERE run_id = ?2

-- name: close_snapshot
DELETE FROM snapshots WHERE stream = ?2

-- name: ignore_inputs
-- What the run was still to be given is remembered as ignored.
INSERT INTO arrival_outcomes (arrival, outcome, recorded_at)
SELECT DISTINCT arrival, 'ignored: the run had ended', ?3 FROM inputs WHERE run_id = ?2 AND arrival IS NOT NULL
ON CONFLICT (arrival, outcome) DO NOTHING

-- name: close_inputs
DELETE FROM inputs WHERE run_id = ?2

-- name: match_arrival_key
SELECT id, tenant, run_id, name, visit FROM subscriptions WHERE tenant = ?3 AND type = ?4 AND key_name = ?5 AND key_hash = ?6 AND look_back <= ?7

-- name: match_subscription
SELECT arrival, received_at FROM arrival_keys
WHERE tenant = ?2 AND type = ?6 AND name = ?7 AND hash = ?8 AND received_at >= ?9 AND arrival < ?10
ORDER BY received_at, arrival LIMIT 1

-- name: match_arrival
SELECT tenant, run_id, step, visit, types FROM awaits WHERE tenant = ?2 AND command_id = ?9

-- name: match_await
SELECT id, type FROM arrivals WHERE tenant = ?2 AND causation_id = ?4 AND id < ?8 ORDER BY id

-- name: arrival_by_id
SELECT source, event_id, body FROM arrivals WHERE id = ?1

-- name: insert_tracking
-- The recorder's own, bound by name as the library does; `checkpoints` is its tracking table.
INSERT INTO checkpoints (view, lane, position) VALUES (@application_name, 0, @notification_id)
ON CONFLICT (view, lane) DO UPDATE SET position = excluded.position WHERE checkpoints.position < excluded.position
RETURNING position AS notification_id

-- name: select_max_tracking_id
SELECT MAX(position) FROM checkpoints WHERE view = ?1

-- name: select_events
SELECT originator_id, originator_version, topic, state FROM log WHERE originator_id = ?
