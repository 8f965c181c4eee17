-- The processes beside this one that live: what waits for a run of theirs is theirs to take.
CREATE OR REPLACE FUNCTION others(p_epoch bigint) RETURNS bigint[] LANGUAGE sql STABLE AS $$
    SELECT coalesce(array_agg(p.epoch), '{}') FROM processes p WHERE NOT p.dead AND p.epoch <> p_epoch;
$$;

CREATE OR REPLACE FUNCTION claim_inputs_but(p_epoch bigint, p_limit integer, p_now timestamptz, p_but text[]) RETURNS SETOF input_rows LANGUAGE plpgsql AS $$
DECLARE
    v_now timestamptz := coalesce(p_now, clock_timestamp());
    v_others bigint[] := others(p_epoch);
BEGIN
    PERFORM 1 FROM processes WHERE epoch = p_epoch AND NOT dead FOR KEY SHARE;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    RETURN QUERY
    WITH picked AS (
        SELECT i.id FROM inputs i
        WHERE i.available_at <= v_now AND i.tenant <> ALL (p_but)
          AND ((SELECT o.owner FROM open_runs o WHERE o.run_id = i.run_id) = ANY (v_others)) IS NOT TRUE
        ORDER BY i.available_at, i.id LIMIT p_limit FOR UPDATE OF i SKIP LOCKED
    )
    UPDATE inputs i SET available_at = v_now + interval '30 seconds', owner = p_epoch FROM picked WHERE i.id = ANY (ARRAY[picked.id])
    RETURNING i.id, i.tenant, i.kind, i.run_id, i.workflow, i.name, i.visit, i.source, i.event_id,
              coalesce(i.body, (SELECT a.body FROM arrivals a WHERE a.id = i.arrival));
END $$;

CREATE OR REPLACE FUNCTION claim_inputs(p_epoch bigint, p_limit integer, p_now timestamptz) RETURNS SETOF input_rows LANGUAGE sql AS $$
    SELECT * FROM claim_inputs_but(p_epoch, p_limit, p_now, '{}');
$$;

CREATE OR REPLACE FUNCTION claim_outbox(p_epoch bigint, p_limit integer, p_now timestamptz) RETURNS SETOF outbox_rows LANGUAGE plpgsql AS $$
DECLARE
    v_now timestamptz := coalesce(p_now, clock_timestamp());
BEGIN
    PERFORM 1 FROM processes WHERE epoch = p_epoch AND NOT dead FOR KEY SHARE;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    RETURN QUERY
    WITH picked AS (
        SELECT o.id FROM outbox o WHERE o.available_at <= v_now ORDER BY o.available_at, o.id LIMIT p_limit FOR UPDATE SKIP LOCKED
    )
    UPDATE outbox o SET available_at = v_now + interval '30 seconds', owner = p_epoch FROM picked WHERE o.id = ANY (ARRAY[picked.id])
    RETURNING o.id, o.tenant, o.message_id, o.exchange, o.routing_key, o.body, o.created_at;
END $$;

CREATE OR REPLACE FUNCTION settle_outbox(p_sent bigint[], p_returned bigint[], p_retry_at timestamptz) RETURNS void LANGUAGE sql AS $$
    DELETE FROM outbox WHERE id = ANY (p_sent);
    UPDATE outbox SET available_at = coalesce(p_retry_at, clock_timestamp()), owner = NULL WHERE id = ANY (p_returned);
$$;

CREATE OR REPLACE FUNCTION due_timers(p_epoch bigint, p_limit integer, p_now timestamptz)
RETURNS TABLE (tenant text, run_id uuid, key text, due timestamptz) LANGUAGE plpgsql AS $$
DECLARE
    v_now timestamptz := coalesce(p_now, clock_timestamp());
    v_others bigint[] := others(p_epoch);
BEGIN
    PERFORM 1 FROM processes WHERE epoch = p_epoch AND NOT dead FOR KEY SHARE;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    RETURN QUERY
    WITH picked AS (
        SELECT t.run_id, t.key FROM timers t
        WHERE t.available_at <= v_now AND ((SELECT o.owner FROM open_runs o WHERE o.run_id = t.run_id) = ANY (v_others)) IS NOT TRUE
        ORDER BY t.available_at LIMIT p_limit FOR UPDATE OF t SKIP LOCKED
    )
    UPDATE timers t SET available_at = v_now + interval '30 seconds', owner = p_epoch FROM picked
    WHERE t.run_id = ANY (ARRAY[picked.run_id]) AND t.key = picked.key
    RETURNING t.tenant, t.run_id, t.key, t.due;
    RETURN QUERY
    WITH picked AS (
        SELECT o.run_id FROM open_runs o
        WHERE o.deadline <= v_now AND (o.deadline_lease IS NULL OR o.deadline_lease <= v_now)
          AND (o.owner = ANY (v_others)) IS NOT TRUE
        ORDER BY o.deadline LIMIT p_limit FOR UPDATE OF o SKIP LOCKED
    )
    UPDATE open_runs o SET deadline_lease = v_now + interval '30 seconds' FROM picked WHERE o.run_id = ANY (ARRAY[picked.run_id])
    RETURNING o.tenant, o.run_id, 'run/deadline', o.deadline;
END $$;

CREATE OR REPLACE FUNCTION wakes(p_tenant text, p_run uuid) RETURNS TABLE (reason text, detail jsonb) LANGUAGE sql STABLE AS $$
    SELECT 'timers', jsonb_build_object('key', key, 'due', due, 'available_at', available_at)
    FROM timers WHERE run_id = p_run AND tenant = p_tenant
    UNION ALL SELECT 'subscriptions', jsonb_build_object('name', name, 'visit', visit, 'type', type, 'key_name', key_name, 'look_back', look_back)
    FROM subscriptions WHERE run_id = p_run AND tenant = p_tenant
    UNION ALL SELECT 'awaits', jsonb_build_object('command_id', command_id, 'step', step, 'visit', visit, 'types', types)
    FROM awaits WHERE run_id = p_run AND tenant = p_tenant
    UNION ALL SELECT 'inputs', jsonb_build_object('id', id, 'kind', kind, 'name', name, 'visit', visit, 'available_at', available_at)
    FROM inputs WHERE run_id = p_run AND tenant = p_tenant
    UNION ALL SELECT 'outbox', jsonb_build_object('id', id, 'message_id', message_id, 'exchange', exchange, 'routing_key', routing_key,
                                                  'available_at', available_at)
    FROM outbox WHERE run_id = p_run AND tenant = p_tenant;
$$;

-- Queued and parked runs wait for a slot or a person; any other open run without a living owner, or with no row that moves it, is answered.
CREATE OR REPLACE FUNCTION runs_without_wake(p_older_than_seconds double precision, p_limit integer, p_now timestamptz) RETURNS SETOF run_rows
LANGUAGE sql STABLE AS $$
    SELECT o.tenant, o.run_id, o.workflow, o.workflow_version, o.status, o.slot, o.owner, o.takeovers, o.deadline, o.started_at
    FROM open_runs o
    WHERE o.changed_at <= coalesce(p_now, clock_timestamp()) - make_interval(secs => p_older_than_seconds)
      AND o.status NOT IN ('queued', 'parked')
      AND (NOT EXISTS (SELECT 1 FROM processes p WHERE p.epoch = o.owner AND NOT p.dead)
           OR NOT (EXISTS (SELECT 1 FROM timers t WHERE t.run_id = o.run_id)
                   OR EXISTS (SELECT 1 FROM subscriptions s WHERE s.run_id = o.run_id)
                   OR EXISTS (SELECT 1 FROM awaits w WHERE w.run_id = o.run_id)
                   OR EXISTS (SELECT 1 FROM inputs i WHERE i.run_id = o.run_id)
                   OR EXISTS (SELECT 1 FROM outbox b WHERE b.run_id = o.run_id)))
    ORDER BY o.changed_at LIMIT p_limit;
$$;

-- What waits in the database, for the metrics: counts ride indexes and end at a limit; only the open runs are all looked at.
CREATE OR REPLACE FUNCTION census(p_most integer, p_now timestamptz)
RETURNS TABLE (
    runs jsonb, outbox_rows bigint, outbox_age double precision, timers_late bigint, timers_lateness double precision,
    dead_letters bigint, processes bigint
) LANGUAGE plpgsql STABLE AS $$
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
