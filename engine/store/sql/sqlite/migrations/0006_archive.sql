-- Ended runs age out of the log into months. What is archived is read where the log is read, and the append path never meets it again.

CREATE TABLE archive (
    position           INTEGER PRIMARY KEY,
    month              TEXT NOT NULL,
    originator_id      TEXT NOT NULL,
    originator_version INTEGER NOT NULL,
    topic              TEXT NOT NULL,
    state              BLOB NOT NULL,
    tenant             TEXT NOT NULL,
    lane               INTEGER NOT NULL,
    kind               TEXT NOT NULL,
    recorded_at        INTEGER NOT NULL,
    event_id           TEXT,
    metadata           TEXT,
    UNIQUE (originator_id, originator_version)
);
CREATE INDEX archive_month ON archive (month, position);

-- Kept for ever, as start keys are: where a run's log has gone.
CREATE TABLE archived_runs (
    run_id  TEXT PRIMARY KEY,
    tenant  TEXT NOT NULL,
    month   TEXT NOT NULL,
    events  INTEGER NOT NULL,
    dropped INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE INDEX archived_runs_month ON archived_runs (month);

-- A row may leave the log when the same row stands in the archive, and not otherwise, whoever asks.
DROP TRIGGER log_no_delete;
CREATE TRIGGER log_no_delete BEFORE DELETE ON log
WHEN NOT EXISTS (SELECT 1 FROM archive a WHERE a.position = OLD.rowid AND a.originator_id = OLD.originator_id AND a.state = OLD.state)
BEGIN SELECT RAISE(ABORT, 'table log is append-only: DELETE is refused'); END;
CREATE TRIGGER archive_no_update BEFORE UPDATE ON archive BEGIN SELECT RAISE(ABORT, 'table archive is append-only: UPDATE is refused'); END;
-- A month of the archive is only dropped whole: its runs are marked first.
CREATE TRIGGER archive_no_delete BEFORE DELETE ON archive
WHEN NOT EXISTS (SELECT 1 FROM archived_runs r WHERE r.run_id = OLD.originator_id AND r.dropped)
BEGIN SELECT RAISE(ABORT, 'table archive is append-only: DELETE is refused'); END;
