-- Which version of the program a process runs; empty: one from before this column.

ALTER TABLE processes ADD COLUMN version TEXT NOT NULL DEFAULT '';
