-- What quotas count, to be seen.

-- name: quota_use
SELECT workflow, sum(slots) AS slots, sum(open_runs) AS open_runs, sum(started) AS started, sum(day_micros) AS day_micros,
    sum(month_micros) AS month_micros
FROM (
    SELECT workflow, count(*) AS slots, count(*) AS open_runs, 0 AS started, 0 AS day_micros, 0 AS month_micros
    FROM open_runs WHERE tenant = :tenant AND slot GROUP BY workflow
    UNION ALL
    SELECT workflow, 0, count(*), 0, 0, 0 FROM open_runs WHERE tenant = :tenant AND queued GROUP BY workflow
    UNION ALL
    SELECT workflow, 0, count(*), 0, 0, 0 FROM open_runs WHERE tenant = :tenant AND NOT slot AND NOT queued GROUP BY workflow
    UNION ALL
    SELECT workflow, 0, 0, started, 0, 0 FROM run_counters WHERE tenant = :tenant AND day = :day AND workflow <> ''
    UNION ALL
    SELECT workflow, 0, 0, 0, CASE WHEN day = :day THEN day_micros ELSE 0 END, month_micros
    FROM cost_counters WHERE tenant = :tenant AND month = substr(:day, 1, 8) || '01'
)
GROUP BY workflow ORDER BY workflow

-- name: keys_answered
SELECT key FROM input_keys WHERE run_id = :stream AND key IN (SELECT value FROM json_each(:keys))

-- name: egress_taken
SELECT coalesce(sum(taken), 0) AS taken FROM egress_slots WHERE tenant = :tenant AND width_ms = :width_ms AND slot > :slot - :slots

-- name: position_before
SELECT coalesce(max(rowid), 0) AS position FROM log WHERE lane = :lane AND recorded_at < :at

-- name: starts_counted
WITH n AS (
    SELECT tenant, max(rowid) AS head, sum(topic = 'run.started' AND date(recorded_at / 1000000, 'unixepoch') = :day) AS begun
    FROM log WHERE rowid > :after AND lane = :lane GROUP BY tenant
), c AS (
    SELECT r.tenant, sum(CASE WHEN r.day = :day THEN r.started ELSE 0 END) AS counted,
        CASE WHEN sum(r.workflow = '') > 0 THEN sum(r.opened) END AS opened
    FROM run_counters r JOIN tenants t ON t.tenant = r.tenant AND t.lane = :lane GROUP BY r.tenant
)
SELECT w.tenant, coalesce(n.begun, 0) AS begun, coalesce((SELECT max(head) FROM n), :after) AS head, coalesce(c.counted, 0) AS counted, c.opened,
    CASE WHEN c.opened IS NOT NULL THEN
        (SELECT count(*) FROM open_runs o WHERE o.tenant = w.tenant AND o.slot)
        + (SELECT count(*) FROM open_runs o WHERE o.tenant = w.tenant AND o.queued)
        + (SELECT count(*) FROM open_runs o WHERE o.tenant = w.tenant AND NOT o.slot AND NOT o.queued)
    END AS open_runs
FROM (SELECT tenant FROM n UNION SELECT tenant FROM c) w LEFT JOIN n ON n.tenant = w.tenant LEFT JOIN c ON c.tenant = w.tenant

-- name: starts_of
SELECT workflow, started AS counted, NULL AS stream, NULL AS version, NULL AS topic, NULL AS body, NULL AS recorded_at
FROM run_counters WHERE tenant = :tenant AND day = :day AND workflow <> ''
UNION ALL
SELECT NULL, NULL, originator_id, originator_version, topic, state, recorded_at FROM log
WHERE rowid > :after AND lane = :lane AND tenant = :tenant AND topic = 'run.started' AND date(recorded_at / 1000000, 'unixepoch') = :day

-- name: correct_counts
INSERT INTO run_counters (tenant, workflow, day, started, opened)
SELECT :tenant, w.value, :day, s.value, o.value
FROM json_each(:workflows) w JOIN json_each(:started) s ON s.key = w.key JOIN json_each(:opened) o ON o.key = w.key WHERE true
ON CONFLICT (tenant, workflow) DO UPDATE
SET started = CASE WHEN day = excluded.day THEN started ELSE 0 END + excluded.started, day = excluded.day, opened = opened + excluded.opened
