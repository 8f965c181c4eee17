-- Appending and reading streams. The functions live in migrations 0002 and 0003.

-- name: append
SELECT * FROM append($1, $2, $3, $4, $5, $6, $7)

-- name: append_for
SELECT * FROM append_for($1, $2, $3, $4, $5)

-- name: load
SELECT * FROM load(:tenant, :stream, :after)

-- name: load_many
SELECT * FROM load_many(:tenants, :streams)

-- name: snapshot
SELECT * FROM snapshot(:tenant, :stream)

-- name: read_log
SELECT * FROM read_log(:lane, :after, :limit)

-- name: head
SELECT head(:lane) AS head

-- name: ping
SELECT 1 AS alive
