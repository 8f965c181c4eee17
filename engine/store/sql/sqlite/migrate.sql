-- What the migration runner needs. `prepare` runs before the first migration, under the runner's lock.

-- name: prepare
CREATE TABLE IF NOT EXISTS migrations (name TEXT PRIMARY KEY, checksum TEXT NOT NULL, applied_at INTEGER NOT NULL)

-- name: migrations_exist
SELECT count(*) AS exist FROM sqlite_master WHERE type = 'table' AND name = 'migrations'

-- name: applied
SELECT name, checksum FROM migrations ORDER BY name

-- name: record_migration
INSERT INTO migrations (name, checksum, applied_at) VALUES (:name, :checksum, :now)
