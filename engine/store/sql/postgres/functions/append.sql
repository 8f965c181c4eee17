-- append: one call, one transaction, an outcome per commit. The batch comes as columns; every child row carries the ordinal (1..n) of its commit.
-- At most one commit per stream and no key twice: engine.store.batch sees to it before the call, the unique indexes stand behind it.
-- A key that is looked up for each row of something else is compared by `= ANY (ARRAY[key])`, here and in all functions of the engine: the planner
-- takes it as a condition of the index and as nothing else. By `=` it may read the table from end to end, since that yields the order of the
-- key, which looks free as long as it believes the table to be empty.

-- codes: NULL when every commit was appended, else per commit 0 appended, 1 duplicate, 2 mismatch, 3 stale (num: actual version),
-- 4 limited by workflow, 5 by tenant (num: cap), 6 fenced, 9 to 11 over a quota of starts (`over_quotas`; num: the quota), 12 to 15 over a budget
-- (`over_budgets`; num: the budget). `p_costs` NULL: nothing costs, and no budget bounds anything in the batch. Two more are never
-- answered: 7, a stream of another tenant, is an error, and 8, the process is dead, fences the whole batch. The m_ columns are inputs that matching brought about for runs of this epoch.
-- A run's step waits for this call, and plpgsql pays for each expression anew in each transaction: what few batches need is asked behind an IF.
CREATE OR REPLACE FUNCTION append_with_costs(
    p_lane smallint, p_epoch bigint, p_now timestamptz, p_strict boolean, p_view text, p_view_position bigint, p_tell boolean, p_costs jsonb, b batch,
    OUT first_position bigint, OUT codes smallint[], OUT nums bigint[], OUT runs uuid[],
    OUT m_ord integer[], OUT m_id bigint[], OUT m_tenant text[], OUT m_kind text[], OUT m_run uuid[], OUT m_name text[], OUT m_visit integer[],
    OUT m_source text[], OUT m_event_id text[], OUT m_body bytea[]
) LANGUAGE plpgsql AS $$
DECLARE
    rest batch_rest := b.rest;
    v_now timestamptz;
    -- By ordinal, true where a commit is refused; NULL as long as none is.
    v_refused boolean[];
    v_events integer := coalesce(cardinality(b.e_ord), 0);
    v_positions regclass := 'log_position_' || p_lane;
    v_arrivals bigint[];
    v_foreign boolean := false;
    v_ending boolean := cardinality(b.cl_ord) > 0;
    v_left boolean;
    v_waited boolean;
    f_ord integer[]; f_id bigint[]; f_tenant text[]; f_kind text[]; f_run uuid[]; f_name text[]; f_visit integer[]; f_arrival bigint[];
    f_owned boolean[];
    v_done text;
    r record;
BEGIN
    -- Its own statement, before any check: a check in the same statement would see what was before the lock was granted. What is assigned
    -- here and below is evaluated without a plan of its own, which PERFORM would cost.
    v_done := pg_advisory_xact_lock(1970169719, p_lane)::text;
    -- Whoever declares this process dead wants this lock to itself: it waits for this append, and the next one sees what it has written.
    v_done := pg_advisory_xact_lock_shared(1970169720, p_epoch::integer)::text;
    v_now := coalesce(p_now, clock_timestamp());

    FOR r IN
        SELECT c.ord,
               CASE
                   WHEN me.alive IS NULL THEN 8 WHEN head.tenant <> c.tenant THEN 7
                   WHEN coalesce(head.version, least(c.expected, 0)) <> c.expected THEN 3 ELSE 6
               END::smallint AS code,
               coalesce(head.version, 0)::bigint AS num, o.owner
        FROM (SELECT (SELECT true FROM processes p WHERE p.epoch = p_epoch AND NOT p.dead) AS alive) me
        CROSS JOIN unnest(b.c_tenant, b.c_stream, b.c_expected) WITH ORDINALITY AS c(tenant, stream, expected, ord)
        LEFT JOIN LATERAL (
            SELECT l.version, l.tenant FROM log l WHERE l.stream = c.stream ORDER BY l.version DESC LIMIT 1
        ) head ON true
        LEFT JOIN open_runs o ON o.run_id = ANY (ARRAY[c.stream])
        WHERE me.alive IS NULL OR c.stream IS NOT NULL
          AND (coalesce(head.version, least(c.expected, 0)) <> c.expected OR o.owner <> p_epoch OR head.tenant <> c.tenant)
    LOOP
        IF r.code = 8 THEN
            codes := array_fill(6::smallint, ARRAY[cardinality(b.c_tenant)]);
            nums := array_fill(0::bigint, ARRAY[cardinality(b.c_tenant)]);
            runs := array_fill(NULL::uuid, ARRAY[cardinality(b.c_tenant)]);
            first_position := 0;
            RETURN;
        END IF;
        IF r.code = 7 THEN
            RAISE EXCEPTION 'stream % belongs to another tenant than %', b.c_stream[r.ord], b.c_tenant[r.ord]
                USING ERRCODE = 'integrity_constraint_violation';
        END IF;
        -- A run of a process that lives is none of ours; what a dead one has left may be taken.
        IF r.owner <> p_epoch AND EXISTS (SELECT 1 FROM processes living WHERE living.epoch = r.owner AND NOT living.dead) THEN
            r.code := 6;
        ELSIF r.code = 6 THEN
            CONTINUE;
        END IF;
        v_refused[r.ord] := true;
        codes[r.ord] := r.code;
        nums[r.ord] := r.num;
    END LOOP;

    -- A key outweighs a stale head, so that a batch sent again after a lost answer is a duplicate and not a conflict. Another fact under a
    -- known id outweighs both, also where the known one has started a run: it must not be lost.
    IF cardinality(rest.a_ord) > 0 THEN
        FOR r IN
            SELECT u.ord, CASE WHEN i.body_hash = u.hash THEN 1 ELSE 2 END::smallint AS code
            FROM unnest(rest.a_ord, rest.a_tenant, rest.a_source, rest.a_event_id, rest.a_hash) AS u(ord, tenant, source, event_id, hash)
            JOIN inbox i ON i.tenant = ANY (ARRAY[u.tenant]) AND i.source = u.source AND i.event_id = u.event_id
        LOOP
            CONTINUE WHEN codes[r.ord] = 6;
            v_refused[r.ord] := true;
            codes[r.ord] := r.code;
            nums[r.ord] := 0;
        END LOOP;
    END IF;
    IF cardinality(rest.s_ord) > 0 THEN
        FOR r IN
            SELECT u.ord, s.run_id
            FROM unnest(rest.s_ord, rest.s_tenant, rest.s_key) AS u(ord, tenant, key)
            JOIN starts s ON s.tenant = ANY (ARRAY[u.tenant]) AND s.start_key = u.key
        LOOP
            CONTINUE WHEN codes[r.ord] IN (2, 6);
            v_refused[r.ord] := true;
            codes[r.ord] := 1;
            nums[r.ord] := 0;
            runs[r.ord] := r.run_id;
        END LOOP;
    END IF;
    IF cardinality(rest.k_ord) > 0 THEN
        FOR r IN
            SELECT u.ord, u.run
            FROM unnest(rest.k_ord, rest.k_run, rest.k_key) AS u(ord, run, key)
            JOIN input_keys k ON k.run_id = ANY (ARRAY[u.run]) AND k.key = u.key
        LOOP
            CONTINUE WHEN codes[r.ord] IN (2, 6);
            v_refused[r.ord] := true;
            codes[r.ord] := 1;
            nums[r.ord] := 0;
            runs[r.ord] := r.run;
        END LOOP;
    END IF;

    IF cardinality(rest.q_ord) > 0 THEN
        -- A row that names its workflow is a start that quotas count; others ask for a slot alone.
        FOR r IN
            SELECT o.ord, o.code, o.num
            FROM (
                SELECT array_agg(q.ord) AS ords, array_agg(q.tenant) AS tenants, array_agg(q.workflow) AS workflows
                FROM unnest(rest.q_ord, rest.q_tenant, rest.q_workflow) AS q(ord, tenant, workflow)
                WHERE q.workflow IS NOT NULL AND v_refused[q.ord] IS NOT TRUE
            ) s
            CROSS JOIN LATERAL over_quotas((v_now AT TIME ZONE 'UTC')::date, s.ords, s.tenants, s.workflows) o
            WHERE s.ords IS NOT NULL
        LOOP
            v_refused[r.ord] := true;
            codes[r.ord] := r.code;
            nums[r.ord] := r.num;
        END LOOP;
    END IF;
    IF p_costs IS NOT NULL THEN
        FOR r IN SELECT o.ord, o.code, o.num FROM over_budgets((v_now AT TIME ZONE 'UTC')::date, p_costs, v_refused) o LOOP
            v_refused[r.ord] := true;
            codes[r.ord] := r.code;
            nums[r.ord] := r.num;
        END LOOP;
    END IF;
    IF cardinality(rest.q_ord) > 0 THEN
        -- Slots: one bounded count per (tenant, workflow) and per tenant, plus the rank within the batch. Materialized, or a count is made again
        -- for each commit.
        FOR r IN
            WITH asked AS (
                SELECT q.ord, q.tenant, coalesce(q.workflow, o.workflow) AS workflow, q.workflow_cap, q.tenant_cap
                FROM unnest(rest.q_ord, rest.q_tenant, rest.q_run, rest.q_workflow, rest.q_workflow_cap, rest.q_tenant_cap)
                    AS q(ord, tenant, run, workflow, workflow_cap, tenant_cap)
                LEFT JOIN open_runs o ON o.run_id = ANY (ARRAY[q.run])
                WHERE v_refused[q.ord] IS NOT TRUE AND o.slot IS NOT TRUE AND (q.workflow_cap IS NOT NULL OR q.tenant_cap IS NOT NULL)
            ), by_workflow AS (
                SELECT a.*, row_number() OVER (PARTITION BY a.tenant, a.workflow ORDER BY a.ord) AS rank FROM asked a
            ), used_by_workflow AS MATERIALIZED (
                SELECT g.tenant, g.workflow, (
                    SELECT count(*) FROM (
                        SELECT 1 FROM open_runs o WHERE o.slot AND o.tenant = g.tenant AND o.workflow = g.workflow LIMIT g.cap + 1
                    ) held
                ) AS used
                FROM (SELECT tenant, workflow, max(workflow_cap) AS cap FROM asked WHERE workflow_cap IS NOT NULL GROUP BY 1, 2) g
            ), by_tenant AS (
                SELECT w.*, u.used, coalesce(u.used + w.rank > w.workflow_cap, false) AS over,
                       row_number() OVER (
                           PARTITION BY w.tenant, coalesce(u.used + w.rank > w.workflow_cap, false) ORDER BY w.ord
                       ) AS tenant_rank
                FROM by_workflow w LEFT JOIN used_by_workflow u ON u.tenant = w.tenant AND u.workflow = w.workflow
            ), used_by_tenant AS MATERIALIZED (
                SELECT g.tenant, (
                    SELECT count(*) FROM (SELECT 1 FROM open_runs o WHERE o.slot AND o.tenant = g.tenant LIMIT g.cap + 1) held
                ) AS used
                FROM (SELECT tenant, max(tenant_cap) AS cap FROM asked WHERE tenant_cap IS NOT NULL GROUP BY 1) g
            )
            SELECT t.ord, CASE WHEN t.over THEN 4 ELSE 5 END::smallint AS code,
                   CASE WHEN t.over THEN t.workflow_cap ELSE t.tenant_cap END::bigint AS num
            FROM by_tenant t LEFT JOIN used_by_tenant u ON u.tenant = t.tenant
            WHERE t.over OR u.used + t.tenant_rank > t.tenant_cap
        LOOP
            v_refused[r.ord] := true;
            codes[r.ord] := r.code;
            nums[r.ord] := r.num;
        END LOOP;
    END IF;

    IF v_refused IS NOT NULL THEN
        IF p_strict THEN
            RAISE EXCEPTION 'strict append: % of % commits refused', cardinality(array_positions(v_refused, true)), cardinality(b.c_tenant)
                USING ERRCODE = 'unique_violation';
        END IF;
        SELECT array_agg(coalesce(codes[c.ord], 0::smallint) ORDER BY c.ord), array_agg(coalesce(nums[c.ord], 0) ORDER BY c.ord),
               array_agg(runs[c.ord] ORDER BY c.ord)
        INTO codes, nums, runs FROM generate_series(1, cardinality(b.c_tenant)) AS c(ord);
        SELECT count(*) INTO v_events FROM unnest(b.e_ord) AS e(ord) WHERE v_refused[e.ord] IS NOT TRUE;
    END IF;
    IF p_view IS NOT NULL THEN
        INSERT INTO checkpoints AS c (view, lane, position) VALUES (p_view, p_lane, p_view_position)
        ON CONFLICT (view, lane) DO UPDATE SET position = excluded.position WHERE c.position < excluded.position;
        IF NOT FOUND THEN
            RAISE EXCEPTION 'checkpoint of % is at % or past it', p_view, p_view_position USING ERRCODE = 'unique_violation';
        END IF;
    END IF;

    IF v_events = 0 THEN
        first_position := 0;
    ELSE
        -- setval is written to disk each time, nextval every 32nd.
        first_position := nextval(v_positions);
        IF v_events > 8 THEN
            v_done := setval(v_positions, first_position + v_events - 1)::text;
        ELSE
            FOR i IN 2..v_events LOOP
                v_done := nextval(v_positions)::text;
            END LOOP;
        END IF;
        IF v_refused IS NULL THEN
            INSERT INTO log (lane, position, tenant, stream, kind, version, topic, recorded_at, body)
            SELECT p_lane, first_position - 1 + e.n, e.tenant, e.stream, e.kind, e.version, e.topic, v_now, e.body
            FROM unnest(b.e_tenant, b.e_stream, b.e_kind, b.e_version, b.e_topic, b.e_body) WITH ORDINALITY
                AS e(tenant, stream, kind, version, topic, body, n);
        ELSE
            INSERT INTO log (lane, position, tenant, stream, kind, version, topic, recorded_at, body)
            SELECT p_lane, first_position - 1 + row_number() OVER (ORDER BY e.n), e.tenant, e.stream, e.kind, e.version, e.topic, v_now, e.body
            FROM unnest(b.e_ord, b.e_tenant, b.e_stream, b.e_kind, b.e_version, b.e_topic, b.e_body) WITH ORDINALITY
                AS e(ord, tenant, stream, kind, version, topic, body, n)
            WHERE v_refused[e.ord] IS NOT TRUE;
        END IF;
    END IF;

    IF p_costs IS NOT NULL THEN
        v_done := add_costs((v_now AT TIME ZONE 'UTC')::date, p_costs, v_refused)::text;
    END IF;
    IF rest.s_ord IS NULL AND NOT v_ending AND NOT p_tell THEN
        RETURN;
    END IF;

    <<brought>>
    BEGIN
        EXIT brought WHEN rest.s_ord IS NULL;

        IF cardinality(rest.s_ord) > 0 THEN
            INSERT INTO starts (tenant, start_key, run_id)
            SELECT u.tenant, u.key, u.run FROM unnest(rest.s_ord, rest.s_tenant, rest.s_key, rest.s_run) AS u(ord, tenant, key, run)
            WHERE v_refused[u.ord] IS NOT TRUE;
        END IF;
        IF cardinality(rest.oo_ord) > 0 THEN
            INSERT INTO open_runs (run_id, tenant, workflow, workflow_version, status, slot, queued, woken, owner, deadline, started_at, changed_at)
            SELECT u.run, u.tenant, u.workflow, u.version, u.status, u.slot, u.status = 'queued', false, p_epoch, u.deadline, v_now, v_now
            FROM unnest(rest.oo_ord, rest.oo_tenant, rest.oo_run, rest.oo_workflow, rest.oo_version, rest.oo_status, rest.oo_slot, rest.oo_deadline)
                AS u(ord, tenant, run, workflow, version, status, slot, deadline)
            WHERE v_refused[u.ord] IS NOT TRUE;
            INSERT INTO run_counters AS c (tenant, workflow, day, started, opened)
            SELECT u.tenant, u.workflow, (v_now AT TIME ZONE 'UTC')::date, count(*), count(*)
            FROM unnest(rest.oo_ord, rest.oo_tenant, rest.oo_workflow) AS u(ord, tenant, workflow)
            WHERE v_refused[u.ord] IS NOT TRUE GROUP BY u.tenant, u.workflow
            ON CONFLICT (tenant, workflow) DO UPDATE
            SET started = CASE WHEN c.day = excluded.day THEN c.started ELSE 0 END + excluded.started, day = excluded.day,
                opened = c.opened + excluded.opened;
        END IF;
        IF cardinality(rest.oc_ord) > 0 THEN
            UPDATE open_runs o
            SET status = u.status, slot = u.slot, queued = u.status = 'queued', woken = u.status = 'queued', owner = p_epoch, takeovers = 0,
                deadline = u.deadline, deadline_lease = CASE WHEN o.deadline IS NOT DISTINCT FROM u.deadline THEN o.deadline_lease END,
                changed_at = v_now
            FROM unnest(rest.oc_ord, rest.oc_run, rest.oc_status, rest.oc_slot, rest.oc_deadline) AS u(ord, run, status, slot, deadline)
            WHERE o.run_id = ANY (ARRAY[u.run]) AND v_refused[u.ord] IS NOT TRUE;
        END IF;
        IF cardinality(rest.k_ord) > 0 THEN
            INSERT INTO input_keys (run_id, key)
            SELECT u.run, u.key FROM unnest(rest.k_ord, rest.k_run, rest.k_key) AS u(ord, run, key) WHERE v_refused[u.ord] IS NOT TRUE;
        END IF;
        IF cardinality(rest.o_ord) > 0 THEN
            INSERT INTO outbox (tenant, run_id, message_id, exchange, routing_key, body, created_at, available_at)
            SELECT u.tenant, u.run, u.message_id, u.exchange, u.routing_key, u.body, v_now, coalesce(u.not_before, v_now)
            FROM unnest(rest.o_ord, rest.o_tenant, rest.o_run, rest.o_message_id, rest.o_exchange, rest.o_routing_key, rest.o_body, rest.o_not_before)
                AS u(ord, tenant, run, message_id, exchange, routing_key, body, not_before)
            WHERE v_refused[u.ord] IS NOT TRUE;
        END IF;
        IF cardinality(rest.tc_ord) > 0 THEN
            DELETE FROM timers t USING unnest(rest.tc_ord, rest.tc_run, rest.tc_key) AS u(ord, run, key)
            WHERE t.run_id = ANY (ARRAY[u.run]) AND t.key = u.key AND v_refused[u.ord] IS NOT TRUE;
        END IF;
        IF cardinality(rest.t_ord) > 0 THEN
            INSERT INTO timers (run_id, key, tenant, due, available_at)
            SELECT u.run, u.key, u.tenant, u.due, u.due
            FROM unnest(rest.t_ord, rest.t_tenant, rest.t_run, rest.t_key, rest.t_due) AS u(ord, tenant, run, key, due)
            WHERE v_refused[u.ord] IS NOT TRUE
            ON CONFLICT (run_id, key) DO UPDATE SET due = excluded.due, available_at = excluded.available_at, owner = NULL;
        END IF;
        IF cardinality(rest.ud_ord) > 0 THEN
            DELETE FROM subscriptions s USING unnest(rest.ud_ord, rest.ud_run, rest.ud_name, rest.ud_visit) AS u(ord, run, name, visit)
            WHERE s.run_id = ANY (ARRAY[u.run]) AND s.name = u.name AND s.visit = u.visit AND v_refused[u.ord] IS NOT TRUE;
        END IF;
        IF cardinality(rest.wd_ord) > 0 THEN
            DELETE FROM awaits w USING unnest(rest.wd_ord, rest.wd_tenant, rest.wd_command) AS u(ord, tenant, command)
            WHERE w.tenant = ANY (ARRAY[u.tenant]) AND w.command_id = u.command AND v_refused[u.ord] IS NOT TRUE;
        END IF;
        IF cardinality(rest.n_ord) > 0 THEN
            INSERT INTO snapshots (stream, tenant, version, body)
            SELECT u.stream, u.tenant, u.version, u.body FROM unnest(rest.n_ord, rest.n_tenant, rest.n_stream, rest.n_version, rest.n_body)
                AS u(ord, tenant, stream, version, body)
            WHERE v_refused[u.ord] IS NOT TRUE
            ON CONFLICT (stream) DO UPDATE SET version = excluded.version, body = excluded.body;
        END IF;
        IF cardinality(rest.x_ord) > 0 THEN
            DELETE FROM inputs i USING unnest(rest.x_ord, rest.x_id) AS u(ord, id)
            WHERE i.id = ANY (ARRAY[u.id]) AND v_refused[u.ord] IS NOT TRUE;
        END IF;

        IF cardinality(rest.a_ord) > 0 THEN
            FOR i IN 1..cardinality(rest.a_ord) LOOP
                v_arrivals[i] := nextval('arrival_ids');
            END LOOP;
            INSERT INTO arrivals (id, tenant, source, event_id, type, causation_id, received_at, body)
            SELECT u.id, u.tenant, u.source, u.event_id, u.type, u.causation, u.received, u.body
            FROM unnest(
                v_arrivals, rest.a_ord, rest.a_tenant, rest.a_source, rest.a_event_id, rest.a_type, rest.a_causation, rest.a_received, rest.a_body
            ) AS u(id, ord, tenant, source, event_id, type, causation, received, body)
            WHERE v_refused[u.ord] IS NOT TRUE;
            INSERT INTO inbox (tenant, source, event_id, body_hash, arrival)
            SELECT u.tenant, u.source, u.event_id, u.hash, u.id
            FROM unnest(v_arrivals, rest.a_ord, rest.a_tenant, rest.a_source, rest.a_event_id, rest.a_hash) AS u(id, ord, tenant, source, event_id, hash)
            WHERE v_refused[u.ord] IS NOT TRUE;
            IF cardinality(rest.h_ord) > 0 THEN
                INSERT INTO arrival_keys (tenant, type, name, hash, received_at, arrival)
                SELECT u.tenant, u.type, u.name, u.hash, u.received, v_arrivals[u.arrival]
                FROM unnest(rest.h_ord, rest.h_arrival, rest.h_tenant, rest.h_type, rest.h_name, rest.h_hash, rest.h_received)
                    AS u(ord, arrival, tenant, type, name, hash, received)
                WHERE v_refused[u.ord] IS NOT TRUE;
            END IF;
        END IF;
        IF cardinality(rest.i_ord) > 0 THEN
            INSERT INTO inputs (tenant, kind, run_id, workflow, name, visit, source, event_id, arrival, body, created_at, available_at)
            SELECT u.tenant, u.kind, u.run, u.workflow, u.name, u.visit, u.source, u.event_id, x.arrival, u.body, v_now, v_now
            FROM unnest(
                rest.i_ord, rest.i_tenant, rest.i_kind, rest.i_run, rest.i_workflow, rest.i_name, rest.i_visit, rest.i_source, rest.i_event_id,
                rest.i_body
            ) AS u(ord, tenant, kind, run, workflow, name, visit, source, event_id, body)
            LEFT JOIN inbox x ON x.tenant = ANY (ARRAY[u.tenant]) AND x.source = u.source AND x.event_id = u.event_id
            WHERE v_refused[u.ord] IS NOT TRUE;
            v_foreign := FOUND;
        END IF;
        IF cardinality(rest.u_ord) > 0 THEN
            INSERT INTO subscriptions (tenant, run_id, name, visit, type, key_name, key_hash, look_back)
            SELECT u.tenant, u.run, u.name, u.visit, u.type, u.key_name, u.key_hash, u.look_back
            FROM unnest(rest.u_ord, rest.u_tenant, rest.u_run, rest.u_name, rest.u_visit, rest.u_type, rest.u_key_name, rest.u_key_hash, rest.u_look_back)
                AS u(ord, tenant, run, name, visit, type, key_name, key_hash, look_back)
            WHERE v_refused[u.ord] IS NOT TRUE;
        END IF;
        IF cardinality(rest.w_ord) > 0 THEN
            INSERT INTO awaits (tenant, command_id, run_id, step, visit, types)
            SELECT u.tenant, u.command, u.run, u.step, u.visit, string_to_array(u.types, ' ')
            FROM unnest(rest.w_ord, rest.w_tenant, rest.w_run, rest.w_command, rest.w_step, rest.w_visit, rest.w_types)
                AS u(ord, tenant, run, command, step, visit, types)
            WHERE v_refused[u.ord] IS NOT TRUE
            ON CONFLICT (tenant, command_id) DO UPDATE SET types = excluded.types;
        END IF;

    END brought;

    -- A run that ends takes its reasons to wake and its snapshot with it. What it was still to be given is remembered as ignored.
    IF v_ending THEN
        DELETE FROM open_runs o USING unnest(b.cl_ord, b.cl_run) AS u(ord, run)
        WHERE o.run_id = ANY (ARRAY[u.run]) AND v_refused[u.ord] IS NOT TRUE;
        -- Most runs have none of these left: to look costs half of what deleting nothing does.
        v_left := EXISTS (SELECT FROM unnest(b.cl_run) AS u(run) JOIN inputs o ON o.run_id = ANY (ARRAY[u.run]));
        IF NOT v_left AND false = ANY (b.cl_bare) THEN
            v_left := EXISTS (
                SELECT FROM unnest(b.cl_run) AS u(run)
                WHERE EXISTS (SELECT FROM timers o WHERE o.run_id = ANY (ARRAY[u.run]))
                   OR EXISTS (SELECT FROM subscriptions o WHERE o.run_id = ANY (ARRAY[u.run]))
                   OR EXISTS (SELECT FROM awaits o WHERE o.run_id = ANY (ARRAY[u.run]))
                   OR EXISTS (SELECT FROM input_keys o WHERE o.run_id = ANY (ARRAY[u.run]))
                   OR EXISTS (SELECT FROM snapshots o WHERE o.stream = ANY (ARRAY[u.run]))
            );
        END IF;
        IF v_left THEN
            WITH over AS (
                SELECT u.run FROM unnest(b.cl_ord, b.cl_run) AS u(ord, run) WHERE v_refused[u.ord] IS NOT TRUE
            ), no_timers AS (
                DELETE FROM timers o USING over WHERE o.run_id = ANY (ARRAY[over.run])
            ), no_subscriptions AS (
                DELETE FROM subscriptions o USING over WHERE o.run_id = ANY (ARRAY[over.run])
            ), no_awaits AS (
                DELETE FROM awaits o USING over WHERE o.run_id = ANY (ARRAY[over.run])
            ), no_input_keys AS (
                DELETE FROM input_keys o USING over WHERE o.run_id = ANY (ARRAY[over.run])
            ), no_snapshot AS (
                DELETE FROM snapshots o USING over WHERE o.stream = ANY (ARRAY[over.run])
            ), gone AS (
                DELETE FROM inputs o USING over WHERE o.run_id = ANY (ARRAY[over.run]) RETURNING o.arrival
            )
            INSERT INTO arrival_outcomes (arrival, outcome, recorded_at)
            SELECT DISTINCT g.arrival, 'ignored: the run had ended', v_now FROM gone g WHERE g.arrival IS NOT NULL
            ON CONFLICT (arrival, outcome) DO NOTHING;
        END IF;
    END IF;

    -- Matching on either insert. A pair of which both sides are new belongs to the arrival's side, so it is found once. Most arrivals are
    -- waited for by nobody: to look costs a fraction of what matching does.
    v_waited := cardinality(rest.u_ord) > 0 OR cardinality(rest.w_ord) > 0;
    IF NOT v_waited AND cardinality(rest.a_ord) > 0 THEN
        v_waited := EXISTS (
            SELECT FROM unnest(rest.h_tenant, rest.h_type, rest.h_name, rest.h_hash) AS h(tenant, type, name, hash)
            JOIN subscriptions s ON s.tenant = ANY (ARRAY[h.tenant]) AND s.type = h.type AND s.key_name = h.name AND s.key_hash = h.hash
        ) OR EXISTS (
            SELECT FROM unnest(rest.a_tenant, rest.a_causation) AS a(tenant, causation)
            JOIN awaits w ON w.tenant = ANY (ARRAY[a.tenant]) AND w.command_id = a.causation
        );
    END IF;
    IF v_waited THEN
        SELECT array_agg(m.ord), array_agg(nextval('input_ids')), array_agg(m.tenant), array_agg(m.kind), array_agg(m.run_id),
               array_agg(m.name), array_agg(m.visit), array_agg(m.arrival), array_agg(coalesce(o.owner = p_epoch, false))
        INTO f_ord, f_id, f_tenant, f_kind, f_run, f_name, f_visit, f_arrival, f_owned
        FROM (
            (SELECT DISTINCT ON (s.id) s.ord, s.tenant, 'fact' AS kind, s.run_id, s.name, s.visit, v_arrivals[s.arrival] AS arrival
             FROM (
                 SELECT h.ord, h.arrival, s.id, s.tenant, s.run_id, s.name, s.visit
                 FROM unnest(rest.h_ord, rest.h_arrival, rest.h_tenant, rest.h_type, rest.h_name, rest.h_hash, rest.h_received)
                     AS h(ord, arrival, tenant, type, name, hash, received)
                 JOIN subscriptions s ON s.tenant = ANY (ARRAY[h.tenant]) AND s.type = h.type AND s.key_name = h.name AND s.key_hash = h.hash
                     AND s.look_back <= h.received
                 WHERE v_refused[h.ord] IS NOT TRUE OFFSET 0
             ) s
             ORDER BY s.id, s.arrival)
            UNION ALL
            (SELECT u.ord, u.tenant, 'fact', u.run, u.name, u.visit, j.arrival
             FROM (
                 SELECT DISTINCT ON (n.run, n.name, n.visit) n.*, e.arrival
                 FROM unnest(
                     rest.u_ord, rest.u_tenant, rest.u_run, rest.u_name, rest.u_visit, rest.u_type, rest.u_key_name, rest.u_key_hash,
                     rest.u_look_back
                 ) AS n(ord, tenant, run, name, visit, type, key_name, key_hash, look_back)
                 CROSS JOIN LATERAL (
                     SELECT k.arrival, k.received_at FROM arrival_keys k
                     WHERE k.tenant = n.tenant AND k.type = n.type AND k.name = n.key_name AND k.hash = n.key_hash
                       AND k.received_at >= n.look_back AND (v_arrivals IS NULL OR k.arrival < v_arrivals[1])
                     ORDER BY k.received_at, k.arrival LIMIT 1
                 ) e
                 WHERE v_refused[n.ord] IS NOT TRUE
                 ORDER BY n.run, n.name, n.visit, e.received_at
             ) j, LATERAL (SELECT j.ord, j.tenant, j.run, j.name, j.visit) u)
            UNION ALL
            SELECT a.ord, w.tenant, 'reply', w.run_id, w.step, w.visit, v_arrivals[a.n]
            FROM unnest(rest.a_ord, rest.a_tenant, rest.a_type, rest.a_causation) WITH ORDINALITY AS a(ord, tenant, type, causation, n)
            JOIN awaits w ON w.tenant = ANY (ARRAY[a.tenant]) AND w.command_id = a.causation AND a.type = ANY (w.types)
            WHERE v_refused[a.ord] IS NOT TRUE
            UNION ALL
            SELECT w.ord, w.tenant, 'reply', w.run, w.step, w.visit, j.id
            FROM unnest(rest.w_ord, rest.w_tenant, rest.w_run, rest.w_command, rest.w_step, rest.w_visit, rest.w_types)
                AS w(ord, tenant, run, command, step, visit, types)
            CROSS JOIN LATERAL (
                SELECT a.id FROM arrivals a
                WHERE a.tenant = w.tenant AND a.causation_id = w.command AND a.type = ANY (string_to_array(w.types, ' '))
                  AND (v_arrivals IS NULL OR a.id < v_arrivals[1])
                ORDER BY a.id LIMIT 1
            ) j
            WHERE v_refused[w.ord] IS NOT TRUE
        ) m
        LEFT JOIN open_runs o ON o.run_id = ANY (ARRAY[m.run_id]);

        IF f_ord IS NOT NULL THEN
            INSERT INTO inputs (id, tenant, kind, run_id, name, visit, source, event_id, arrival, created_at, available_at, owner)
            SELECT f.id, f.tenant, f.kind, f.run, f.name, f.visit, a.source, a.event_id, f.arrival, v_now,
                   CASE WHEN f.owned THEN v_now + interval '30 seconds' ELSE v_now END, CASE WHEN f.owned THEN p_epoch END
            FROM unnest(f_id, f_tenant, f_kind, f_run, f_name, f_visit, f_arrival, f_owned)
                AS f(id, tenant, kind, run, name, visit, arrival, owned)
            JOIN arrivals a ON a.id = ANY (ARRAY[f.arrival]);
            -- A reply is known by its cause; whom a fact was given to is remembered with it.
            INSERT INTO arrival_outcomes (arrival, outcome, recorded_at)
            SELECT DISTINCT f.arrival, format('matched: %s %s/%s', f.run, f.name, f.visit), v_now
            FROM unnest(f_kind, f_run, f_name, f_visit, f_arrival) AS f(kind, run, name, visit, arrival)
            WHERE f.kind = 'fact'
            ON CONFLICT (arrival, outcome) DO NOTHING;
            SELECT array_agg(f.ord), array_agg(f.id), array_agg(f.tenant), array_agg(f.kind), array_agg(f.run), array_agg(f.name),
                   array_agg(f.visit), array_agg(a.source), array_agg(a.event_id), array_agg(a.body)
            INTO m_ord, m_id, m_tenant, m_kind, m_run, m_name, m_visit, m_source, m_event_id, m_body
            FROM unnest(f_ord, f_id, f_tenant, f_kind, f_run, f_name, f_visit, f_arrival, f_owned)
                AS f(ord, id, tenant, kind, run, name, visit, arrival, owned)
            JOIN arrivals a ON a.id = ANY (ARRAY[f.arrival])
            WHERE f.owned;
            v_foreign := v_foreign OR false = ANY (f_owned);
        END IF;
    END IF;

    -- At most once per batch, and seldom where nobody waits for it: committing a notification takes a lock of the whole server and wakes
    -- every process that listens to its channel.
    IF p_tell OR v_ending THEN
        v_done := pg_notify('unwind_appends', p_lane || ' ' || (first_position + greatest(v_events - 1, 0)))::text;
    END IF;
    IF v_foreign THEN
        v_done := pg_notify('unwind_inputs', '')::text;
    END IF;
END $$;

-- The release before appends without costs.
CREATE OR REPLACE FUNCTION append(
    p_lane smallint, p_epoch bigint, p_now timestamptz, p_strict boolean, p_view text, p_view_position bigint, p_tell boolean, b batch,
    OUT first_position bigint, OUT codes smallint[], OUT nums bigint[], OUT runs uuid[],
    OUT m_ord integer[], OUT m_id bigint[], OUT m_tenant text[], OUT m_kind text[], OUT m_run uuid[], OUT m_name text[], OUT m_visit integer[],
    OUT m_source text[], OUT m_event_id text[], OUT m_body bytea[]
) LANGUAGE plpgsql AS $$
BEGIN
    SELECT * INTO first_position, codes, nums, runs, m_ord, m_id, m_tenant, m_kind, m_run, m_name, m_visit, m_source, m_event_id, m_body
    FROM append_with_costs(p_lane, p_epoch, p_now, p_strict, p_view, p_view_position, p_tell, NULL, b);
END $$;
