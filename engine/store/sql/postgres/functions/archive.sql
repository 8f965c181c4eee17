-- The archive: ended runs in partitions by the month they ended in, written `YYYY-MM`.

-- What is append-only stays so, whoever asks; but a row may leave the log when the same row stands in the archive.
CREATE OR REPLACE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_TABLE_NAME = 'log' AND TG_OP = 'DELETE' AND TG_LEVEL = 'ROW' THEN
        IF EXISTS (
            SELECT 1 FROM unwind.archive a
            WHERE a.lane = OLD.lane AND a.position = OLD.position AND a.stream = OLD.stream AND a.body = OLD.body
        ) THEN
            RETURN OLD;
        END IF;
    END IF;
    RAISE EXCEPTION 'table % is append-only: % is refused', TG_TABLE_NAME, TG_OP USING ERRCODE = 'integrity_constraint_violation';
END $$;

-- Moves the logs of closed runs of a tenant, whole; answers those of the given runs that are in the archive then. Said twice, it moves
-- nothing more.
CREATE OR REPLACE FUNCTION archive_runs(p_tenant text, p_runs uuid[], p_month text)
RETURNS TABLE (run_id uuid, events integer) LANGUAGE plpgsql AS $$
DECLARE
    v_month date := to_date(p_month, 'YYYY-MM');
    v_part text := 'archive_' || replace(p_month, '-', '_');
    v_runs uuid[];
BEGIN
    PERFORM pg_advisory_xact_lock(1970169721, 0);
    IF to_regclass(format('unwind.%I', v_part)) IS NULL THEN
        EXECUTE format('CREATE TABLE unwind.%I PARTITION OF unwind.archive FOR VALUES FROM (%L) TO (%L)', v_part, v_month, v_month + interval '1 month');
        EXECUTE format('CREATE TRIGGER archive_keeps BEFORE TRUNCATE ON unwind.%I FOR EACH STATEMENT EXECUTE FUNCTION unwind.refuse_change()', v_part);
    END IF;
    SELECT array_agg(u.run) INTO v_runs FROM unnest(p_runs) AS u(run) WHERE NOT EXISTS (SELECT 1 FROM open_runs o WHERE o.run_id = ANY (ARRAY[u.run]));
    INSERT INTO archive (month, lane, position, tenant, stream, kind, version, topic, recorded_at, event_id, metadata, body)
    SELECT v_month, l.lane, l.position, l.tenant, l.stream, l.kind, l.version, l.topic, l.recorded_at, l.event_id, l.metadata, l.body
    FROM log l WHERE l.stream = ANY (v_runs) AND l.tenant = p_tenant AND l.kind = 'run';
    INSERT INTO archived_runs (run_id, tenant, month, events)
    SELECT l.stream, l.tenant, v_month, count(*) FROM log l WHERE l.stream = ANY (v_runs) AND l.tenant = p_tenant AND l.kind = 'run' GROUP BY 1, 2;
    INSERT INTO archive_heads AS h (lane, position)
    SELECT l.lane, max(l.position) FROM log l WHERE l.stream = ANY (v_runs) AND l.tenant = p_tenant AND l.kind = 'run' GROUP BY 1
    ON CONFLICT (lane) DO UPDATE SET position = greatest(h.position, excluded.position);
    DELETE FROM log l WHERE l.stream = ANY (v_runs) AND l.tenant = p_tenant AND l.kind = 'run';
    DELETE FROM snapshots s WHERE s.stream = ANY (v_runs) AND s.tenant = p_tenant;
    DELETE FROM input_keys k USING archived_runs a WHERE a.run_id = ANY (v_runs) AND a.tenant = p_tenant
        AND k.run_id = ANY (ARRAY[a.run_id]);
    RETURN QUERY SELECT a.run_id, a.events FROM archived_runs a WHERE a.run_id = ANY (v_runs) AND a.tenant = p_tenant ORDER BY a.run_id;
END $$;

CREATE OR REPLACE FUNCTION archived_run(p_tenant text, p_run uuid) RETURNS TABLE (tenant text, month text, dropped boolean)
LANGUAGE sql STABLE AS $$
    SELECT a.tenant, to_char(a.month, 'YYYY-MM'), a.dropped FROM archived_runs a WHERE a.run_id = p_run AND (p_tenant IS NULL OR a.tenant = p_tenant);
$$;

CREATE OR REPLACE FUNCTION dropped_runs(p_runs uuid[]) RETURNS SETOF uuid LANGUAGE sql STABLE AS $$
    SELECT a.run_id FROM archived_runs a WHERE a.run_id = ANY (p_runs) AND a.dropped;
$$;

CREATE OR REPLACE FUNCTION archive_months() RETURNS TABLE (month text, runs bigint, events bigint, dropped boolean) LANGUAGE sql STABLE AS $$
    SELECT to_char(a.month, 'YYYY-MM'), count(*), sum(a.events)::bigint, bool_and(a.dropped) FROM archived_runs a GROUP BY a.month ORDER BY a.month;
$$;

-- Lanes count by themselves: what shares its position with the last row of a page comes with it, or the next page would begin behind it.
CREATE OR REPLACE FUNCTION read_archive(p_month text, p_after bigint, p_limit integer)
RETURNS TABLE (pos bigint, tenant text, stream uuid, kind text, version integer, topic text, body bytea, recorded_at timestamptz)
LANGUAGE sql STABLE AS $$
    SELECT x.position, x.tenant, x.stream, x.kind, x.version, x.topic, x.body, x.recorded_at
    FROM archive_heads h CROSS JOIN LATERAL (
        -- By lane, which the primary key begins with: a page is read without the rest of its month.
        SELECT a.* FROM archive a WHERE a.lane = h.lane AND a.month = to_date(p_month, 'YYYY-MM') AND a.position > p_after
        ORDER BY a.position LIMIT p_limit
    ) x
    ORDER BY x.position FETCH FIRST (p_limit) ROWS WITH TIES;
$$;

-- For the owner alone (`guard_functions`): what it drops is gone. The table goes last: whoever reads the archive waits for no mark.
CREATE OR REPLACE FUNCTION drop_month(p_month text) RETURNS TABLE (runs bigint, events bigint) LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(1970169721, 0);
    RETURN QUERY WITH gone AS (
        UPDATE archived_runs a SET dropped = true WHERE a.month = to_date(p_month, 'YYYY-MM') AND NOT a.dropped RETURNING a.events
    )
    SELECT count(*), coalesce(sum(gone.events), 0)::bigint FROM gone;
    EXECUTE format('DROP TABLE IF EXISTS unwind.%I', 'archive_' || replace(p_month, '-', '_'));
END $$;
