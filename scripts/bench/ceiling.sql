-- The raw append ceiling: the plainest event table that still has the engine's three indexes (scripts/bench/ceiling.py).

-- name: drop_table
DROP TABLE IF EXISTS bench_ceiling;

-- name: create_table
CREATE TABLE bench_ceiling (
  position bigserial NOT NULL,
  run_id uuid NOT NULL,
  version int NOT NULL,
  topic text NOT NULL,
  dedup uuid,
  body bytea NOT NULL,
  PRIMARY KEY (run_id, version)
);

-- name: create_position_index
CREATE UNIQUE INDEX bench_ceiling_position ON bench_ceiling (position);

-- name: create_dedup_index
CREATE UNIQUE INDEX bench_ceiling_dedup ON bench_ceiling (dedup) WHERE dedup IS NOT NULL;

-- name: append_batch
INSERT INTO bench_ceiling (run_id, version, topic, dedup, body)
SELECT * FROM unnest($1::uuid[], $2::int[], $3::text[], $4::uuid[], $5::bytea[]);
