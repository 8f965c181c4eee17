-- Appending is one call of a function, see functions/append.sql. The SQLite twin of this file has the same work as single steps.

-- name: append
SELECT * FROM append_with_costs($1, $2, $3, $4, $5, $6, $7, $8, $9)

-- name: append_for
SELECT * FROM append_for($1, $2, $3, $4, $5)

-- name: tell
SELECT pg_notify('unwind_appends', $1::text)
