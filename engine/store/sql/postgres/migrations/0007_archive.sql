-- Ended runs age out of the log into months. What is archived is read where the log is read, and the append path never meets it again.

CREATE TABLE archive (
    month       date NOT NULL,
    lane        smallint NOT NULL,
    position    bigint NOT NULL,
    tenant      text NOT NULL,
    stream      uuid NOT NULL,
    kind        text NOT NULL,
    version     integer NOT NULL,
    topic       text NOT NULL,
    recorded_at timestamptz NOT NULL,
    event_id    uuid,
    metadata    jsonb,
    body        bytea NOT NULL,
    PRIMARY KEY (lane, position, month),
    UNIQUE (stream, version, month)
) PARTITION BY RANGE (month);
ALTER TABLE archive ALTER COLUMN body SET STORAGE EXTERNAL;

-- Kept for ever, as start keys are: where a run's log has gone.
CREATE TABLE archived_runs (
    run_id  uuid PRIMARY KEY,
    tenant  text NOT NULL,
    month   date NOT NULL,
    events  integer NOT NULL,
    dropped boolean NOT NULL DEFAULT false
);
CREATE INDEX archived_runs_month ON archived_runs (month);

-- The highest archived position of a lane: whoever reads on from there reads the log alone.
CREATE TABLE archive_heads (
    lane     smallint PRIMARY KEY,
    position bigint NOT NULL
);

-- A row may leave the log when the same row stands in the archive, and not otherwise, whoever asks (`refuse_change`).
DROP TRIGGER log_append_only ON log;
CREATE TRIGGER log_append_only BEFORE UPDATE OR TRUNCATE ON log FOR EACH STATEMENT EXECUTE PROCEDURE refuse_change();
CREATE TRIGGER log_keeps BEFORE DELETE ON log FOR EACH ROW EXECUTE PROCEDURE refuse_change();
-- A month of the archive can only be dropped whole, by the owner.
CREATE TRIGGER archive_append_only BEFORE UPDATE OR DELETE ON archive FOR EACH ROW EXECUTE PROCEDURE refuse_change();
