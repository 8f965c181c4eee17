-- What quotas count, to be seen.

-- name: quota_use
SELECT * FROM quota_use(:tenant, CAST(:day AS text)::date)

-- name: keys_answered
SELECT key FROM keys_answered(:stream, :keys) AS k(key)

-- name: egress_taken
SELECT egress_taken(:tenant, :slot, :width_ms, :slots) AS taken
