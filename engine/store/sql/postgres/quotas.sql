-- What quotas count, to be seen.

-- name: quota_use
SELECT * FROM quota_use(:tenant, CAST(:day AS text)::date)

-- name: keys_answered
SELECT key FROM keys_answered(:stream, :keys) AS k(key)

-- name: egress_taken
SELECT egress_taken(:tenant, :slot, :width_ms, :slots) AS taken

-- name: position_before
SELECT position_before(:lane, :at) AS position

-- name: starts_counted
SELECT * FROM counted_portion(:lane, :after, CAST(:day AS text)::date, :most)

-- name: starts_of
SELECT * FROM starts_portion(:tenants, :lane, :after, CAST(:day AS text)::date, :most, :bytes)

-- name: correct_counts
SELECT correct_counts(:tenant, CAST(:day AS text)::date, :workflows, :started, :opened)
