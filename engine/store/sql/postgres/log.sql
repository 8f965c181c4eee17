-- Reading streams and lanes.

-- name: load
SELECT * FROM load(:tenant, :stream, :after)

-- name: load_many
SELECT * FROM load_many(:tenants, :streams)

-- name: snapshot
SELECT * FROM snapshot(:tenant, :stream)

-- name: snapshots_of
SELECT * FROM snapshots_of(:tenants, :streams)

-- name: read_log
SELECT * FROM read_log(:lane, :after, :limit, :bytes)

-- name: head
SELECT head(:lane) AS head

-- name: time
SELECT clock_timestamp() AS now

-- name: ping
SELECT 1 AS alive
