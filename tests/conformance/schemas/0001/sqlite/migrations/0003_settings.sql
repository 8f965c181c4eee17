-- One setting of every tenant at once: pauses are read so, every second.

CREATE INDEX settings_by_name ON settings (name);
