-- Of the starts given, those over a quota of their tenant, in the order of their ordinals: 9 open runs, 10 runs of the day, 11 runs of the day of
-- the workflow (num: the quota). Asked by `append` under the lane lock; a tenant has one lane, so that nobody else counts at the same time.
-- What a tenant's own quotas leave open, everybody's say. Open runs are counted only when they never were, or when those opened since could be
-- too many: an end writes nothing here.
CREATE OR REPLACE FUNCTION over_quotas(p_day date, p_ords integer[], p_tenants text[], p_workflows text[])
RETURNS TABLE (ord integer, code smallint, num bigint) LANGUAGE plpgsql AS $$
DECLARE
    t record;
    v_opened bigint;
    v_today bigint;
    v_cap bigint;
    v_taken jsonb;
    v_workflow text;
BEGIN
    FOR t IN
        SELECT a.tenant, a.ords, a.workflows, cardinality(a.ords) AS asked, c.opened, c.today, own.value -> 'workflows' AS own,
               everyone.value -> 'workflows' AS everyone,
               coalesce(own.value ->> 'open_runs', everyone.value ->> 'open_runs')::bigint AS open_runs,
               coalesce(own.value ->> 'daily_runs', everyone.value ->> 'daily_runs')::bigint AS daily_runs
        FROM (
            SELECT u.tenant, array_agg(u.ord ORDER BY u.ord) AS ords, array_agg(u.workflow ORDER BY u.ord) AS workflows
            FROM unnest(p_ords, p_tenants, p_workflows) AS u(ord, tenant, workflow) GROUP BY u.tenant
        ) a
        LEFT JOIN settings own ON own.tenant = a.tenant AND own.name = 'quotas'
        LEFT JOIN settings everyone ON everyone.tenant = '*' AND everyone.name = 'quotas'
        CROSS JOIN LATERAL (
            SELECT CASE WHEN bool_or(n.workflow = '') THEN sum(n.opened)::bigint END AS opened,
                   coalesce(sum(n.started) FILTER (WHERE n.day = p_day), 0)::bigint AS today
            FROM run_counters n WHERE n.tenant = a.tenant
        ) c
    LOOP
        v_opened := t.opened;
        v_today := t.today;
        IF t.open_runs IS NOT NULL AND (v_opened IS NULL OR v_opened + t.asked > t.open_runs) THEN
            SELECT (SELECT count(*) FROM open_runs o WHERE o.tenant = t.tenant AND o.slot)
                 + (SELECT count(*) FROM open_runs o WHERE o.tenant = t.tenant AND o.queued)
                 + (SELECT count(*) FROM open_runs o WHERE o.tenant = t.tenant AND NOT o.slot AND NOT o.queued)
            INTO v_opened;
            UPDATE run_counters n SET opened = 0 WHERE n.tenant = t.tenant AND n.workflow <> '';
            INSERT INTO run_counters AS n (tenant, workflow, day, started, opened) VALUES (t.tenant, '', p_day, 0, v_opened)
            ON CONFLICT (tenant, workflow) DO UPDATE SET opened = excluded.opened;
        END IF;
        CONTINUE WHEN coalesce(t.own, '{}') = '{}' AND coalesce(t.everyone, '{}') = '{}'
            AND NOT coalesce(v_opened + t.asked > t.open_runs, false) AND NOT coalesce(v_today + t.asked > t.daily_runs, false);
        v_taken := '{}';
        FOR i IN 1..t.asked LOOP
            v_workflow := t.workflows[i];
            v_cap := coalesce(
                t.own -> v_workflow ->> 'daily_runs', t.own -> '*' ->> 'daily_runs',
                t.everyone -> v_workflow ->> 'daily_runs', t.everyone -> '*' ->> 'daily_runs'
            )::bigint;
            IF v_cap IS NOT NULL AND v_taken -> v_workflow IS NULL THEN
                v_taken := v_taken || jsonb_build_object(v_workflow, coalesce((
                    SELECT n.started FROM run_counters n WHERE n.tenant = t.tenant AND n.workflow = v_workflow AND n.day = p_day
                ), 0));
            END IF;
            ord := t.ords[i];
            IF v_opened >= t.open_runs THEN
                code := 9;
                num := t.open_runs;
                RETURN NEXT;
            ELSIF v_today >= t.daily_runs THEN
                code := 10;
                num := t.daily_runs;
                RETURN NEXT;
            ELSIF (v_taken ->> v_workflow)::bigint >= v_cap THEN
                code := 11;
                num := v_cap;
                RETURN NEXT;
            ELSE
                v_opened := v_opened + 1;
                v_today := v_today + 1;
                IF v_cap IS NOT NULL THEN
                    v_taken := v_taken || jsonb_build_object(v_workflow, (v_taken ->> v_workflow)::bigint + 1);
                END IF;
            END IF;
        END LOOP;
    END LOOP;
END $$;

-- What a tenant's quotas count now, one row per workflow: the very rows that the append counts.
CREATE OR REPLACE FUNCTION quota_use(p_tenant text, p_day date)
RETURNS TABLE (workflow text, slots bigint, open_runs bigint, started bigint, day_micros bigint, month_micros bigint) LANGUAGE sql STABLE AS $$
    SELECT w.workflow, sum(w.slots)::bigint, sum(w.open_runs)::bigint, sum(w.started)::bigint, sum(w.day_micros)::bigint, sum(w.month_micros)::bigint
    FROM (
        SELECT o.workflow, count(*) AS slots, count(*) AS open_runs, 0 AS started, 0 AS day_micros, 0 AS month_micros
        FROM open_runs o WHERE o.tenant = p_tenant AND o.slot GROUP BY o.workflow
        UNION ALL
        SELECT o.workflow, 0, count(*), 0, 0, 0 FROM open_runs o WHERE o.tenant = p_tenant AND o.queued GROUP BY o.workflow
        UNION ALL
        SELECT o.workflow, 0, count(*), 0, 0, 0 FROM open_runs o WHERE o.tenant = p_tenant AND NOT o.slot AND NOT o.queued GROUP BY o.workflow
        UNION ALL
        SELECT n.workflow, 0, 0, n.started, 0, 0 FROM run_counters n WHERE n.tenant = p_tenant AND n.day = p_day AND n.workflow <> ''
        UNION ALL
        SELECT c.workflow, 0, 0, 0, CASE WHEN c.day = p_day THEN c.day_micros ELSE 0 END, c.month_micros
        FROM cost_counters c WHERE c.tenant = p_tenant AND c.month = date_trunc('month', p_day)::date
    ) w
    GROUP BY w.workflow ORDER BY w.workflow;
$$;

-- Which of these keys the stream has answered.
CREATE OR REPLACE FUNCTION keys_answered(p_stream uuid, p_keys text[]) RETURNS SETOF text LANGUAGE sql STABLE AS $$
    SELECT k.key FROM input_keys k WHERE k.run_id = p_stream AND k.key = ANY (p_keys);
$$;

CREATE OR REPLACE FUNCTION egress_taken(p_tenant text, p_slot bigint, p_width_ms bigint, p_slots integer) RETURNS bigint LANGUAGE sql STABLE AS $$
    SELECT coalesce(sum(e.taken), 0)::bigint FROM egress_slots e WHERE e.tenant = p_tenant AND e.width_ms = p_width_ms AND e.slot > p_slot - p_slots;
$$;

-- The last position of a lane that was recorded before a moment, by halving; 0: none.
CREATE OR REPLACE FUNCTION position_before(p_lane smallint, p_at timestamptz) RETURNS bigint LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_low bigint := 0;
    v_high bigint := coalesce((SELECT max(l.position) FROM log l WHERE l.lane = p_lane), 0);
    v_middle bigint;
    v_position bigint;
    v_recorded timestamptz;
BEGIN
    WHILE v_low < v_high LOOP
        v_middle := (v_low + v_high) / 2;
        SELECT l.position, l.recorded_at INTO v_position, v_recorded FROM log l
        WHERE l.lane = p_lane AND l.position > v_middle ORDER BY l.position LIMIT 1;
        IF NOT FOUND OR v_recorded >= p_at THEN
            v_high := v_middle;
        ELSE
            v_low := v_position;
        END IF;
    END LOOP;
    RETURN v_low;
END $$;

-- By tenant of a lane, as of one moment: the starts of a day that were recorded after a position, what is counted of that day, what counts as open,
-- and what is.
CREATE OR REPLACE FUNCTION starts_counted(p_lane smallint, p_after bigint, p_day date)
RETURNS TABLE (tenant text, begun bigint, head bigint, counted bigint, opened bigint, open_runs bigint) LANGUAGE sql STABLE AS $$
    SELECT coalesce(n.tenant, c.tenant), coalesce(n.begun, 0), coalesce(max(n.head) OVER (), p_after), coalesce(c.counted, 0), c.opened,
           CASE WHEN c.opened IS NOT NULL THEN
               (SELECT count(*) FROM open_runs o WHERE o.tenant = c.tenant AND o.slot)
               + (SELECT count(*) FROM open_runs o WHERE o.tenant = c.tenant AND o.queued)
               + (SELECT count(*) FROM open_runs o WHERE o.tenant = c.tenant AND NOT o.slot AND NOT o.queued)
           END
    FROM (
        SELECT l.tenant, max(l.position) AS head,
               count(*) FILTER (WHERE l.topic = 'run.started' AND (l.recorded_at AT TIME ZONE 'UTC')::date = p_day) AS begun
        FROM log l WHERE l.lane = p_lane AND l.position > p_after GROUP BY l.tenant
    ) n
    FULL JOIN (
        SELECT r.tenant, sum(r.started) FILTER (WHERE r.day = p_day) AS counted, CASE WHEN bool_or(r.workflow = '') THEN sum(r.opened)::bigint END AS opened
        FROM run_counters r JOIN tenants t ON t.tenant = r.tenant AND t.lane = p_lane GROUP BY r.tenant
    ) c ON c.tenant = n.tenant;
$$;

-- As of one moment: the starts of a tenant's day, one row each, and by workflow what is counted of it.
CREATE OR REPLACE FUNCTION starts_of(p_tenant text, p_lane smallint, p_after bigint, p_day date)
RETURNS TABLE (workflow text, counted bigint, stream uuid, version integer, topic text, body bytea, recorded_at timestamptz) LANGUAGE sql STABLE AS $$
    SELECT r.workflow, r.started, NULL::uuid, NULL::integer, NULL::text, NULL::bytea, NULL::timestamptz
    FROM run_counters r WHERE r.tenant = p_tenant AND r.day = p_day AND r.workflow <> ''
    UNION ALL
    SELECT NULL, NULL, l.stream, l.version, l.topic, l.body, l.recorded_at FROM log l
    WHERE l.lane = p_lane AND l.position > p_after AND l.tenant = p_tenant AND l.topic = 'run.started'
      AND (l.recorded_at AT TIME ZONE 'UTC')::date = p_day;
$$;

-- Corrects counts by what they differ, so that what is counted meanwhile stays counted. Workflow '' has what counts as open.
CREATE OR REPLACE FUNCTION correct_counts(p_tenant text, p_day date, p_workflows text[], p_started bigint[], p_opened bigint[])
RETURNS void LANGUAGE sql AS $$
    INSERT INTO run_counters AS r (tenant, workflow, day, started, opened)
    SELECT p_tenant, u.workflow, p_day, u.started, u.opened FROM unnest(p_workflows, p_started, p_opened) AS u(workflow, started, opened)
    ON CONFLICT (tenant, workflow) DO UPDATE
    SET started = CASE WHEN r.day = excluded.day THEN r.started ELSE 0 END + excluded.started, day = excluded.day, opened = r.opened + excluded.opened;
$$;
