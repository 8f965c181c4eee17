-- What waits in the database, for the metrics: counts ride indexes and end at a limit; only the open runs are all looked at.

CREATE FUNCTION census(p_most integer, p_now timestamptz)
RETURNS TABLE (
    runs jsonb, outbox_rows bigint, outbox_age double precision, timers_late bigint, timers_lateness double precision,
    dead_letters bigint, processes bigint
) LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = unwind, pg_temp AS $$
DECLARE
    v_now timestamptz := coalesce(p_now, clock_timestamp());
BEGIN
    RETURN QUERY SELECT
        (SELECT coalesce(jsonb_object_agg(r.status, r.runs), '{}') FROM (SELECT o.status, count(*) AS runs FROM open_runs o GROUP BY o.status) r),
        (SELECT count(*) FROM (SELECT 1 FROM outbox LIMIT p_most) m),
        coalesce((SELECT extract(epoch FROM v_now - m.created_at)::double precision FROM outbox m ORDER BY m.id LIMIT 1), 0),
        late.timers,
        coalesce(extract(epoch FROM v_now - late.since)::double precision, 0),
        (SELECT count(*) FROM (SELECT 1 FROM dead_letters d WHERE d.state = 'dead' LIMIT p_most) d),
        (SELECT count(*) FROM processes p WHERE NOT p.dead)
    FROM (
        SELECT count(*) AS timers, min(u.due) AS since FROM (
            -- One that was claimed may be claimed again at the end of the lease: late ones are among those available by then.
            (SELECT t.due FROM timers t WHERE t.available_at <= v_now + interval '30 seconds' AND t.due <= v_now
             ORDER BY t.available_at LIMIT p_most)
            UNION ALL
            (SELECT o.deadline FROM open_runs o WHERE o.deadline <= v_now ORDER BY o.deadline LIMIT p_most)
        ) u
    ) late;
END $$;

REVOKE ALL ON FUNCTION census FROM PUBLIC;

DO $$
DECLARE
    engine text := (SELECT role FROM roles WHERE name = 'engine');
BEGIN
    IF engine IS NOT NULL THEN
        EXECUTE format('GRANT EXECUTE ON FUNCTION census TO %I', engine);
    END IF;
END $$;
