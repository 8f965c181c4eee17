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
