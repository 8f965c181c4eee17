-- Checkpoints of the read models; the read models' own statements are the projections'.

-- name: checkpoint
SELECT position FROM checkpoints WHERE view = :view AND lane = :lane

-- name: move_checkpoint
INSERT INTO checkpoints (view, lane, position)
SELECT :view, :lane, :position WHERE :expected = 0 OR EXISTS (SELECT 1 FROM checkpoints WHERE view = :view AND lane = :lane)
ON CONFLICT (view, lane) DO UPDATE SET position = excluded.position WHERE checkpoints.position = :expected
RETURNING position

-- name: drop_checkpoints
DELETE FROM checkpoints WHERE view = :view

-- name: checkpoints_of
SELECT view, lane, position FROM checkpoints WHERE view IN (:view, :shadow) AND position > 0 ORDER BY view, lane

-- name: rename_checkpoints
UPDATE checkpoints SET view = :view WHERE view = :shadow
