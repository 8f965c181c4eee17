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
        LEFT JOIN settings own ON own.tenant = ANY (ARRAY[a.tenant]) AND own.name = 'quotas'
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

-- The next rows of a lane after a position, `p_limit` at most, and by tenant the starts of a day among them. Where they reach the lane's head
-- (`whole`), also what is counted of that day, what counts as open, and what is: all as of one moment. One row at least, of no tenant.
CREATE OR REPLACE FUNCTION counted_portion(p_lane smallint, p_after bigint, p_day date, p_limit integer)
RETURNS TABLE (upto bigint, whole boolean, tenant text, begun bigint, counted bigint, opened bigint, open_runs bigint) LANGUAGE sql STABLE AS $$
    WITH portion AS (
        SELECT coalesce(max(x.position), p_after) AS upto, p_limit IS NULL OR count(*) < p_limit AS whole
        FROM (SELECT l.position FROM log l WHERE l.lane = p_lane AND l.position > p_after ORDER BY l.position LIMIT p_limit) x
    ), n AS (
        SELECT l.tenant, count(*) FILTER (WHERE l.topic = 'run.started' AND (l.recorded_at AT TIME ZONE 'UTC')::date = p_day) AS begun
        FROM log l WHERE l.lane = p_lane AND l.position > p_after AND l.position <= (SELECT p.upto FROM portion p) GROUP BY l.tenant
    ), c AS (
        SELECT r.tenant, sum(r.started) FILTER (WHERE r.day = p_day) AS counted, CASE WHEN bool_or(r.workflow = '') THEN sum(r.opened)::bigint END AS opened
        FROM run_counters r JOIN tenants t ON t.tenant = r.tenant AND t.lane = p_lane WHERE (SELECT p.whole FROM portion p) GROUP BY r.tenant
    )
    SELECT p.upto, p.whole, coalesce(n.tenant, c.tenant), coalesce(n.begun, 0), coalesce(c.counted, 0), c.opened,
           CASE WHEN c.opened IS NOT NULL THEN
               (SELECT count(*) FROM open_runs o WHERE o.tenant = c.tenant AND o.slot)
               + (SELECT count(*) FROM open_runs o WHERE o.tenant = c.tenant AND o.queued)
               + (SELECT count(*) FROM open_runs o WHERE o.tenant = c.tenant AND NOT o.slot AND NOT o.queued)
           END
    FROM portion p LEFT JOIN (n FULL JOIN c ON c.tenant = n.tenant) ON true;
$$;

-- The starts of a day of some tenants among the next rows of a lane after a position: `p_limit` rows at most, and only starts whose bodies begin
-- within `p_bytes`. Where that reaches the lane's head (`whole`), also what is counted of that day by tenant and workflow, as of the same moment.
-- One row at least, of neither.
CREATE OR REPLACE FUNCTION starts_portion(p_tenants text[], p_lane smallint, p_after bigint, p_day date, p_limit integer, p_bytes bigint)
RETURNS TABLE (
    upto bigint, whole boolean, tenant text, workflow text, counted bigint, stream uuid, version integer, topic text, body bytea, recorded_at timestamptz
) LANGUAGE sql STABLE AS $$
    WITH rows AS (
        SELECT coalesce(max(x.position), p_after) AS upto, p_limit IS NULL OR count(*) < p_limit AS whole
        FROM (SELECT l.position FROM log l WHERE l.lane = p_lane AND l.position > p_after ORDER BY l.position LIMIT p_limit) x
    ), starts AS (
        SELECT l.position, sum(octet_length(l.body)) OVER (ORDER BY l.position ROWS UNBOUNDED PRECEDING) - octet_length(l.body) AS bytes_before
        FROM log l WHERE l.lane = p_lane AND l.position > p_after AND l.position <= (SELECT r.upto FROM rows r) AND l.tenant = ANY (p_tenants)
          AND l.topic = 'run.started' AND (l.recorded_at AT TIME ZONE 'UTC')::date = p_day
    ), portion AS (
        SELECT coalesce(s.beyond - 1, r.upto) AS upto, r.whole AND s.beyond IS NULL AS whole
        FROM rows r CROSS JOIN (SELECT min(b.position) AS beyond FROM starts b WHERE b.bytes_before >= p_bytes) s
    )
    SELECT p.upto, p.whole, c.tenant, c.workflow, c.started, NULL::uuid, NULL::integer, NULL::text, NULL::bytea, NULL::timestamptz
    FROM portion p LEFT JOIN run_counters c ON p.whole AND c.tenant = ANY (p_tenants) AND c.day = p_day AND c.workflow <> ''
    UNION ALL
    SELECT p.upto, p.whole, l.tenant, NULL, NULL, l.stream, l.version, l.topic, l.body, l.recorded_at
    FROM portion p JOIN starts s ON s.position <= p.upto JOIN log l ON l.lane = p_lane AND l.position = s.position;
$$;

-- For processes from before `counted_portion` and `starts_portion`.
CREATE OR REPLACE FUNCTION starts_counted(p_lane smallint, p_after bigint, p_day date)
RETURNS TABLE (tenant text, begun bigint, head bigint, counted bigint, opened bigint, open_runs bigint) LANGUAGE sql STABLE AS $$
    SELECT c.tenant, c.begun, c.upto, c.counted, c.opened, c.open_runs FROM counted_portion(p_lane, p_after, p_day, NULL) c WHERE c.tenant IS NOT NULL;
$$;

CREATE OR REPLACE FUNCTION starts_of(p_tenant text, p_lane smallint, p_after bigint, p_day date)
RETURNS TABLE (workflow text, counted bigint, stream uuid, version integer, topic text, body bytea, recorded_at timestamptz) LANGUAGE sql STABLE AS $$
    SELECT s.workflow, s.counted, s.stream, s.version, s.topic, s.body, s.recorded_at
    FROM starts_portion(ARRAY[p_tenant], p_lane, p_after, p_day, NULL, NULL) s WHERE s.tenant IS NOT NULL;
$$;

-- Corrects counts by what they differ, so that what is counted meanwhile stays counted; of a day that is over there is nothing to correct.
-- Workflow '' has what counts as open.
CREATE OR REPLACE FUNCTION correct_counts(p_tenant text, p_day date, p_workflows text[], p_started bigint[], p_opened bigint[])
RETURNS void LANGUAGE sql AS $$
    INSERT INTO run_counters AS r (tenant, workflow, day, started, opened)
    SELECT p_tenant, u.workflow, p_day, u.started, u.opened FROM unnest(p_workflows, p_started, p_opened) AS u(workflow, started, opened)
    ON CONFLICT (tenant, workflow) DO UPDATE
    SET started = CASE WHEN r.day < excluded.day THEN 0 ELSE r.started END + CASE WHEN r.day > excluded.day THEN 0 ELSE excluded.started END,
        day = greatest(r.day, excluded.day), opened = r.opened + excluded.opened;
$$;
