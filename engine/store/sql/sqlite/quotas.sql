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
-- In brackets, so that it is known for what only reads (`Statement.reads`), and no commit waits for it.
SELECT * FROM (
    WITH portion AS (
        SELECT coalesce(max(position), :after) AS upto, count(*) < :most AS whole
        FROM (SELECT rowid AS position FROM log WHERE rowid > :after AND lane = :lane ORDER BY rowid LIMIT :most)
    ), n AS (
        SELECT tenant, sum(topic = 'run.started' AND date(recorded_at / 1000000, 'unixepoch') = :day) AS begun
        FROM log WHERE rowid > :after AND rowid <= (SELECT upto FROM portion) AND lane = :lane GROUP BY tenant
    ), c AS (
        SELECT r.tenant, sum(CASE WHEN r.day = :day THEN r.started ELSE 0 END) AS counted,
            CASE WHEN sum(r.workflow = '') > 0 THEN sum(r.opened) END AS opened
        FROM run_counters r JOIN tenants t ON t.tenant = r.tenant AND t.lane = :lane WHERE (SELECT whole FROM portion) GROUP BY r.tenant
    )
    SELECT p.upto, p.whole, w.tenant, w.begun, w.counted, w.opened,
        CASE WHEN w.opened IS NOT NULL THEN
            (SELECT count(*) FROM open_runs o WHERE o.tenant = w.tenant AND o.slot)
            + (SELECT count(*) FROM open_runs o WHERE o.tenant = w.tenant AND o.queued)
            + (SELECT count(*) FROM open_runs o WHERE o.tenant = w.tenant AND NOT o.slot AND NOT o.queued)
        END AS open_runs
    FROM portion p LEFT JOIN (
        SELECT tenant, sum(begun) AS begun, sum(counted) AS counted, max(opened) AS opened
        FROM (SELECT tenant, begun, 0 AS counted, NULL AS opened FROM n UNION ALL SELECT tenant, 0, counted, opened FROM c) GROUP BY tenant
    ) w ON true
)

-- name: starts_of
SELECT * FROM (
    WITH rows AS (
        SELECT coalesce(max(position), :after) AS upto, count(*) < :most AS whole
        FROM (SELECT rowid AS position FROM log WHERE rowid > :after AND lane = :lane ORDER BY rowid LIMIT :most)
    ), starts AS (
        SELECT rowid AS position, sum(length(state)) OVER (ORDER BY rowid ROWS UNBOUNDED PRECEDING) - length(state) AS bytes_before
        FROM log WHERE rowid > :after AND rowid <= (SELECT upto FROM rows) AND lane = :lane
            AND tenant IN (SELECT value FROM json_each(:tenants)) AND topic = 'run.started' AND date(recorded_at / 1000000, 'unixepoch') = :day
    ), portion AS (
        SELECT coalesce(s.beyond - 1, r.upto) AS upto, r.whole AND s.beyond IS NULL AS whole
        FROM rows r CROSS JOIN (SELECT min(position) AS beyond FROM starts WHERE bytes_before >= :bytes) s
    )
    SELECT p.upto, p.whole, c.tenant, c.workflow, c.started AS counted, NULL AS stream, NULL AS version, NULL AS topic, NULL AS body,
        NULL AS recorded_at
    FROM portion p LEFT JOIN run_counters c
        ON p.whole AND c.tenant IN (SELECT value FROM json_each(:tenants)) AND c.day = :day AND c.workflow <> ''
    UNION ALL
    SELECT p.upto, p.whole, l.tenant, NULL, NULL, l.originator_id, l.originator_version, l.topic, l.state, l.recorded_at
    FROM portion p JOIN starts s ON s.position <= p.upto JOIN log l ON l.rowid = s.position
)

-- name: correct_counts
INSERT INTO run_counters (tenant, workflow, day, started, opened)
SELECT :tenant, w.value, :day, s.value, o.value
FROM json_each(:workflows) w JOIN json_each(:started) s ON s.key = w.key JOIN json_each(:opened) o ON o.key = w.key WHERE true
ON CONFLICT (tenant, workflow) DO UPDATE
SET started = CASE WHEN day < excluded.day THEN 0 ELSE started END + CASE WHEN day > excluded.day THEN 0 ELSE excluded.started END,
    day = max(day, excluded.day), opened = opened + excluded.opened
