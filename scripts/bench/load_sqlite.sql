-- The questions of load.sql to an embedded store.

-- name: head
SELECT coalesce(max(rowid), 0) AS position FROM log WHERE lane = 0

-- name: ended_since
SELECT count(*) AS ended, max(rowid) AS position FROM log WHERE lane = 0 AND rowid > :after AND topic = 'run.ended'

-- name: counted
SELECT count(*) AS events, count(DISTINCT originator_id) AS runs FROM log
WHERE lane = 0 AND rowid > :after AND kind = 'run'
