-- Everything the engine's role may do besides append, as functions: it holds EXECUTE on these and no right on any table.
-- 0004 makes all of them SECURITY DEFINER with a fixed search_path. `p_now` NULL is the database's clock.

CREATE VIEW run_rows AS
    SELECT tenant, run_id, workflow, workflow_version, status, slot, owner, takeovers, deadline, started_at FROM open_runs;
CREATE VIEW input_rows AS
    SELECT i.id, i.tenant, i.kind, i.run_id, i.workflow, i.name, i.visit, i.source, i.event_id, i.body FROM inputs i;
CREATE VIEW outbox_rows AS
    SELECT id, tenant, message_id, exchange, routing_key, body, created_at FROM outbox;

-- ---------------------------------------------------------------------------------------------------------------------- the log

CREATE FUNCTION load(p_tenant text, p_stream uuid, p_after integer)
RETURNS TABLE (version integer, topic text, body bytea, recorded_at timestamptz) LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN QUERY SELECT l.version, l.topic, l.body, l.recorded_at FROM log l
    WHERE l.stream = p_stream AND l.version > p_after AND l.tenant = p_tenant ORDER BY l.version;
END $$;

CREATE FUNCTION load_many(p_tenants text[], p_streams uuid[])
RETURNS TABLE (stream uuid, version integer, topic text, body bytea, recorded_at timestamptz) LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN QUERY SELECT l.stream, l.version, l.topic, l.body, l.recorded_at
    FROM unnest(p_tenants, p_streams) AS u(tenant, stream) JOIN log l ON l.stream = u.stream AND l.tenant = u.tenant
    ORDER BY l.stream, l.version;
END $$;

CREATE FUNCTION snapshot(p_tenant text, p_stream uuid) RETURNS TABLE (version integer, body bytea) LANGUAGE sql STABLE AS $$
    SELECT version, body FROM snapshots WHERE stream = p_stream AND tenant = p_tenant;
$$;

-- Up to p_limit events; after the first, only those that begin within p_bytes of bodies.
CREATE FUNCTION read_log(p_lane smallint, p_after bigint, p_limit integer, p_bytes bigint)
RETURNS TABLE (pos bigint, tenant text, stream uuid, kind text, version integer, topic text, body bytea, recorded_at timestamptz)
LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN QUERY SELECT r.position, r.tenant, r.stream, r.kind, r.version, r.topic, r.body, r.recorded_at FROM (
        SELECT l.*, sum(octet_length(l.body)) OVER (ORDER BY l.position ROWS UNBOUNDED PRECEDING) - octet_length(l.body) AS bytes_before
        FROM log l WHERE l.lane = p_lane AND l.position > p_after ORDER BY l.position LIMIT p_limit
    ) AS r WHERE r.bytes_before < p_bytes ORDER BY r.position;
END $$;

CREATE FUNCTION head(p_lane smallint) RETURNS bigint LANGUAGE sql STABLE AS $$
    SELECT coalesce((SELECT position FROM log WHERE lane = p_lane ORDER BY position DESC LIMIT 1), 0);
$$;

-- ---------------------------------------------------------------------------------------------------------------------- processes

CREATE FUNCTION register(p_name text, p_roles text[], p_now timestamptz) RETURNS bigint LANGUAGE sql AS $$
    INSERT INTO processes (name, roles, started_at, seen_at)
    VALUES (p_name, p_roles, coalesce(p_now, clock_timestamp()), coalesce(p_now, clock_timestamp())) RETURNING epoch;
$$;

CREATE FUNCTION heartbeat(p_epoch bigint, p_now timestamptz) RETURNS bigint LANGUAGE sql AS $$
    UPDATE processes SET seen_at = coalesce(p_now, clock_timestamp()) WHERE epoch = p_epoch AND NOT dead RETURNING epoch;
$$;

-- FOR UPDATE waits for every append that holds the row, so none of a dead process's appends is in flight when this answers.
CREATE FUNCTION declare_dead(p_silent_seconds double precision, p_now timestamptz) RETURNS SETOF bigint LANGUAGE plpgsql AS $$
DECLARE
    gone bigint[];
    v_now timestamptz := coalesce(p_now, clock_timestamp());
BEGIN
    SELECT array_agg(p.epoch) INTO gone FROM (
        SELECT epoch FROM processes WHERE NOT dead AND seen_at < v_now - make_interval(secs => p_silent_seconds) ORDER BY epoch FOR UPDATE
    ) p;
    IF gone IS NULL THEN
        RETURN;
    END IF;
    -- Waits for an append of theirs that is under way; one that comes later finds them dead (see `append`).
    PERFORM pg_advisory_xact_lock(1970169720, epoch::integer) FROM unnest(gone) AS g(epoch);
    UPDATE processes SET dead = true WHERE epoch = ANY (gone);
    UPDATE inputs SET available_at = v_now, owner = NULL WHERE owner = ANY (gone);
    UPDATE outbox SET available_at = v_now, owner = NULL WHERE owner = ANY (gone);
    UPDATE timers SET available_at = due, owner = NULL WHERE owner = ANY (gone);
    UPDATE open_runs SET deadline_lease = NULL WHERE owner = ANY (gone) AND deadline_lease IS NOT NULL;
    RETURN QUERY SELECT unnest(gone) ORDER BY 1;
END $$;

CREATE FUNCTION retire(p_epoch bigint) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM 1 FROM processes WHERE epoch = p_epoch FOR UPDATE;
    PERFORM pg_advisory_xact_lock(1970169720, p_epoch::integer);
    UPDATE processes SET dead = true WHERE epoch = p_epoch;
    UPDATE open_runs SET owner = NULL, deadline_lease = NULL WHERE owner = p_epoch;
    UPDATE inputs SET available_at = created_at, owner = NULL WHERE owner = p_epoch;
    UPDATE outbox SET available_at = created_at, owner = NULL WHERE owner = p_epoch;
    UPDATE timers SET available_at = due, owner = NULL WHERE owner = p_epoch;
END $$;

CREATE FUNCTION processes() RETURNS SETOF processes LANGUAGE sql STABLE AS $$ SELECT * FROM processes ORDER BY epoch; $$;

-- ---------------------------------------------------------------------------------------------------------------------- leases of runs

-- Taking over from a dead process counts; picking up what a process released on its way out does not.
CREATE FUNCTION claim_runs(p_epoch bigint, p_workflows text[], p_versions integer[], p_limit integer)
RETURNS SETOF run_rows LANGUAGE plpgsql AS $$
DECLARE
    gone bigint[];
BEGIN
    PERFORM 1 FROM processes WHERE epoch = p_epoch AND NOT dead FOR KEY SHARE;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    SELECT coalesce(array_agg(p.epoch), '{}') INTO gone FROM processes p
    WHERE p.dead AND EXISTS (SELECT 1 FROM open_runs o WHERE o.owner = p.epoch);
    RETURN QUERY
    WITH picked AS (
        SELECT o.run_id FROM open_runs o
        WHERE (o.owner IS NULL OR o.owner = ANY (gone))
          AND EXISTS (SELECT 1 FROM unnest(p_workflows, p_versions) AS k(workflow, version)
                      WHERE k.workflow = o.workflow AND k.version = o.workflow_version)
        ORDER BY o.started_at LIMIT p_limit FOR UPDATE OF o SKIP LOCKED
    )
    UPDATE open_runs o SET takeovers = o.takeovers + (o.owner IS NOT NULL)::integer, owner = p_epoch
    FROM picked WHERE o.run_id = picked.run_id
    RETURNING o.tenant, o.run_id, o.workflow, o.workflow_version, o.status, o.slot, o.owner, o.takeovers, o.deadline, o.started_at;
END $$;

CREATE FUNCTION claim_run(p_epoch bigint, p_tenant text, p_run uuid) RETURNS SETOF run_rows LANGUAGE plpgsql AS $$
BEGIN
    PERFORM 1 FROM processes WHERE epoch = p_epoch AND NOT dead FOR KEY SHARE;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    RETURN QUERY
    UPDATE open_runs o SET takeovers = o.takeovers + (o.owner IS NOT NULL AND o.owner <> p_epoch)::integer, owner = p_epoch
    WHERE o.run_id = p_run AND o.tenant = p_tenant
      AND (o.owner IS NULL OR o.owner = p_epoch OR NOT EXISTS (SELECT 1 FROM processes p WHERE p.epoch = o.owner AND NOT p.dead))
    RETURNING o.tenant, o.run_id, o.workflow, o.workflow_version, o.status, o.slot, o.owner, o.takeovers, o.deadline, o.started_at;
END $$;

CREATE FUNCTION release_runs(p_epoch bigint, p_runs uuid[]) RETURNS void LANGUAGE sql AS $$
    UPDATE open_runs SET owner = NULL, deadline_lease = NULL WHERE run_id = ANY (p_runs) AND owner = p_epoch;
$$;

CREATE FUNCTION open_run(p_tenant text, p_run uuid) RETURNS SETOF run_rows LANGUAGE sql STABLE AS $$
    SELECT * FROM run_rows WHERE run_id = p_run AND tenant = p_tenant;
$$;

CREATE FUNCTION open_runs(p_tenant text, p_after uuid, p_limit integer) RETURNS SETOF run_rows LANGUAGE sql STABLE AS $$
    SELECT * FROM run_rows WHERE (p_tenant IS NULL OR tenant = p_tenant) AND (p_after IS NULL OR run_id > p_after) ORDER BY run_id LIMIT p_limit;
$$;

-- Fair between tenants: who holds few slots for his weight comes first; within a tenant woken runs before new ones, then by age.
CREATE FUNCTION queued_runs(p_epoch bigint, p_limit integer) RETURNS SETOF run_rows LANGUAGE sql STABLE AS $$
    SELECT f.tenant, f.run_id, f.workflow, f.workflow_version, f.status, f.slot, f.owner, f.takeovers, f.deadline, f.started_at
    FROM (
        SELECT o.*, (
                   row_number() OVER (PARTITION BY o.tenant ORDER BY o.woken DESC, o.started_at, o.run_id)
                   + (SELECT count(*) FROM open_runs h WHERE h.slot AND h.tenant = o.tenant)
               ) / greatest(coalesce((SELECT (value #>> '{}')::double precision FROM settings
                                      WHERE name = 'weight' AND jsonb_typeof(value) = 'number' AND tenant IN (o.tenant, '*') ORDER BY tenant = '*' LIMIT 1), 1), 0.001) AS turn
        FROM open_runs o WHERE o.queued AND (o.owner IS NULL OR o.owner = p_epoch)
    ) f
    ORDER BY f.turn, f.started_at, f.run_id LIMIT p_limit;
$$;

-- ---------------------------------------------------------------------------------------------------------------------- inputs, outbox, timers

CREATE FUNCTION claim_inputs(p_epoch bigint, p_limit integer, p_now timestamptz) RETURNS SETOF input_rows LANGUAGE plpgsql AS $$
DECLARE
    v_now timestamptz := coalesce(p_now, clock_timestamp());
BEGIN
    PERFORM 1 FROM processes WHERE epoch = p_epoch AND NOT dead FOR KEY SHARE;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    RETURN QUERY
    WITH picked AS (
        SELECT i.id FROM inputs i
        WHERE i.available_at <= v_now
          AND (i.run_id IS NULL OR NOT EXISTS (
                  SELECT 1 FROM open_runs o JOIN processes p ON p.epoch = o.owner
                  WHERE o.run_id = i.run_id AND p.epoch <> p_epoch AND NOT p.dead))
        ORDER BY i.available_at, i.id LIMIT p_limit FOR UPDATE OF i SKIP LOCKED
    )
    UPDATE inputs i SET available_at = v_now + interval '30 seconds', owner = p_epoch FROM picked WHERE i.id = picked.id
    RETURNING i.id, i.tenant, i.kind, i.run_id, i.workflow, i.name, i.visit, i.source, i.event_id,
              coalesce(i.body, (SELECT a.body FROM arrivals a WHERE a.id = i.arrival));
END $$;

CREATE FUNCTION claim_outbox(p_epoch bigint, p_limit integer, p_now timestamptz) RETURNS SETOF outbox_rows LANGUAGE plpgsql AS $$
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
    UPDATE outbox o SET available_at = v_now + interval '30 seconds', owner = p_epoch FROM picked WHERE o.id = picked.id
    RETURNING o.id, o.tenant, o.message_id, o.exchange, o.routing_key, o.body, o.created_at;
END $$;

CREATE FUNCTION settle_outbox(p_sent bigint[], p_returned bigint[], p_retry_at timestamptz) RETURNS void LANGUAGE sql AS $$
    DELETE FROM outbox WHERE id = ANY (p_sent);
    UPDATE outbox SET available_at = coalesce(p_retry_at, clock_timestamp()), owner = NULL WHERE id = ANY (p_returned);
$$;

CREATE FUNCTION due_timers(p_epoch bigint, p_limit integer, p_now timestamptz)
RETURNS TABLE (tenant text, run_id uuid, key text, due timestamptz) LANGUAGE plpgsql AS $$
DECLARE
    v_now timestamptz := coalesce(p_now, clock_timestamp());
BEGIN
    PERFORM 1 FROM processes WHERE epoch = p_epoch AND NOT dead FOR KEY SHARE;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    RETURN QUERY
    WITH picked AS (
        SELECT t.run_id, t.key FROM timers t
        WHERE t.available_at <= v_now AND NOT EXISTS (
            SELECT 1 FROM open_runs o JOIN processes p ON p.epoch = o.owner
            WHERE o.run_id = t.run_id AND p.epoch <> p_epoch AND NOT p.dead)
        ORDER BY t.available_at LIMIT p_limit FOR UPDATE OF t SKIP LOCKED
    )
    UPDATE timers t SET available_at = v_now + interval '30 seconds', owner = p_epoch FROM picked
    WHERE t.run_id = picked.run_id AND t.key = picked.key
    RETURNING t.tenant, t.run_id, t.key, t.due;
    RETURN QUERY
    WITH picked AS (
        SELECT o.run_id FROM open_runs o
        WHERE o.deadline <= v_now AND (o.deadline_lease IS NULL OR o.deadline_lease <= v_now)
          AND NOT EXISTS (SELECT 1 FROM processes p WHERE p.epoch = o.owner AND p.epoch <> p_epoch AND NOT p.dead)
        ORDER BY o.deadline LIMIT p_limit FOR UPDATE OF o SKIP LOCKED
    )
    UPDATE open_runs o SET deadline_lease = v_now + interval '30 seconds' FROM picked WHERE o.run_id = picked.run_id
    RETURNING o.tenant, o.run_id, 'run/deadline', o.deadline;
END $$;

CREATE FUNCTION wakes(p_tenant text, p_run uuid) RETURNS TABLE (reason text, detail jsonb) LANGUAGE sql STABLE AS $$
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
CREATE FUNCTION runs_without_wake(p_older_than_seconds double precision, p_limit integer, p_now timestamptz) RETURNS SETOF run_rows
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

-- ---------------------------------------------------------------------------------------------------------------------- journal

CREATE FUNCTION arrival(p_tenant text, p_source text, p_event_id text) RETURNS bytea LANGUAGE sql STABLE AS $$
    SELECT a.body FROM inbox i JOIN arrivals a ON a.id = i.arrival
    WHERE i.tenant = p_tenant AND i.source = p_source AND i.event_id = p_event_id;
$$;

CREATE FUNCTION started(p_tenant text, p_start_key text) RETURNS uuid LANGUAGE sql STABLE AS $$
    SELECT run_id FROM starts WHERE tenant = p_tenant AND start_key = p_start_key;
$$;

CREATE FUNCTION record_outcome(p_tenant text, p_source text, p_event_id text, p_outcome text, p_now timestamptz) RETURNS void LANGUAGE sql AS $$
    INSERT INTO arrival_outcomes (arrival, outcome, recorded_at)
    SELECT i.arrival, p_outcome, coalesce(p_now, clock_timestamp()) FROM inbox i
    WHERE i.tenant = p_tenant AND i.source = p_source AND i.event_id = p_event_id
    ON CONFLICT (arrival, outcome) DO NOTHING;
$$;

CREATE FUNCTION outcomes(p_tenant text, p_source text, p_event_id text) RETURNS SETOF text LANGUAGE sql STABLE AS $$
    SELECT o.outcome FROM inbox i JOIN arrival_outcomes o ON o.arrival = i.arrival
    WHERE i.tenant = p_tenant AND i.source = p_source AND i.event_id = p_event_id ORDER BY o.recorded_at, o.outcome;
$$;

-- The oldest rows first, a slice at a time, so that no lock is held for long.
CREATE FUNCTION prune_journal(p_before timestamptz, p_limit integer) RETURNS SETOF bigint LANGUAGE plpgsql AS $$
DECLARE
    old bigint[];
BEGIN
    SELECT array_agg(s.id) INTO old FROM (SELECT id, received_at FROM arrivals ORDER BY id LIMIT p_limit) s
    WHERE s.received_at < p_before AND NOT EXISTS (SELECT 1 FROM inputs i WHERE i.arrival = s.id);
    IF old IS NULL THEN
        RETURN;
    END IF;
    DELETE FROM inbox x USING arrivals a WHERE a.id = ANY (old) AND x.tenant = a.tenant AND x.source = a.source AND x.event_id = a.event_id;
    DELETE FROM arrival_keys WHERE arrival = ANY (old);
    DELETE FROM arrival_outcomes WHERE arrival = ANY (old);
    DELETE FROM arrivals WHERE id = ANY (old);
    RETURN QUERY SELECT unnest(old);
END $$;

CREATE FUNCTION bury(
    p_id uuid, p_tenant text, p_reason text, p_detail text, p_source text, p_routing_key text, p_event_id text, p_type text, p_attempts jsonb,
    p_envelope bytea, p_headers jsonb, p_state text, p_created_at timestamptz, p_settled_at timestamptz, p_settled_by text
) RETURNS SETOF uuid LANGUAGE sql AS $$
    INSERT INTO dead_letters (id, tenant, reason, detail, source, routing_key, event_id, type, attempts, envelope, headers, state, created_at,
                              settled_at, settled_by)
    VALUES (p_id, p_tenant, p_reason, p_detail, p_source, p_routing_key, p_event_id, p_type, p_attempts, p_envelope, p_headers, p_state,
            p_created_at, p_settled_at, p_settled_by)
    ON CONFLICT (id) DO NOTHING RETURNING id;
$$;

CREATE FUNCTION dead_letters(p_tenant text, p_state text, p_after uuid, p_limit integer) RETURNS SETOF dead_letters LANGUAGE sql STABLE AS $$
    SELECT * FROM dead_letters
    WHERE (p_tenant IS NULL OR tenant = p_tenant) AND (p_state IS NULL OR state = p_state) AND (p_after IS NULL OR id > p_after)
    ORDER BY id LIMIT p_limit;
$$;

CREATE FUNCTION dead_letter(p_tenant text, p_id uuid) RETURNS SETOF dead_letters LANGUAGE sql STABLE AS $$
    SELECT * FROM dead_letters WHERE id = p_id AND (p_tenant IS NULL OR tenant = p_tenant);
$$;

CREATE FUNCTION settle_dead_letter(p_id uuid, p_state text, p_by text, p_now timestamptz) RETURNS SETOF uuid LANGUAGE sql AS $$
    UPDATE dead_letters SET state = p_state, settled_by = p_by, settled_at = coalesce(p_now, clock_timestamp())
    WHERE id = p_id AND state = 'dead' RETURNING id;
$$;

-- ---------------------------------------------------------------------------------------------------------------------- catalog

CREATE FUNCTION lane_of(p_tenant text) RETURNS smallint LANGUAGE plpgsql AS $$
DECLARE
    found_lane smallint;
BEGIN
    SELECT lane INTO found_lane FROM tenants WHERE tenant = p_tenant;
    IF NOT FOUND THEN
        INSERT INTO tenants (tenant) VALUES (p_tenant) ON CONFLICT (tenant) DO NOTHING;
        SELECT lane INTO found_lane FROM tenants WHERE tenant = p_tenant;
    END IF;
    RETURN found_lane;
END $$;

-- For the administrator: a further lane. Tenants are put on it when they are made; a tenant never changes its lane.
CREATE FUNCTION open_lane(p_lane smallint) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('CREATE SEQUENCE IF NOT EXISTS log_position_%s AS bigint', p_lane);
END $$;

CREATE FUNCTION lanes() RETURNS SETOF smallint LANGUAGE sql STABLE AS $$
    SELECT lane FROM tenants UNION SELECT 0::smallint ORDER BY 1;
$$;

CREATE FUNCTION keys(p_tenant text, p_scopes text[]) RETURNS SETOF keys LANGUAGE sql STABLE AS $$
    SELECT * FROM keys WHERE tenant = p_tenant AND (p_scopes IS NULL OR scope = ANY (p_scopes)) ORDER BY scope, key_id;
$$;

CREATE FUNCTION keys_not_under(p_root_id text, p_limit integer) RETURNS SETOF keys LANGUAGE sql STABLE AS $$
    SELECT * FROM keys WHERE root_id <> p_root_id ORDER BY tenant, scope, key_id LIMIT p_limit;
$$;

CREATE FUNCTION add_key(p_tenant text, p_scope text, p_key_id bigint, p_wrapped bytea, p_root_id text) RETURNS SETOF keys LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO keys (tenant, scope, key_id, wrapped, root_id) VALUES (p_tenant, p_scope, p_key_id, p_wrapped, p_root_id)
    ON CONFLICT (tenant, scope, key_id) DO NOTHING;
    RETURN QUERY SELECT * FROM keys k WHERE k.tenant = p_tenant AND k.scope = p_scope AND k.key_id = p_key_id;
END $$;

CREATE FUNCTION rewrap_key(p_tenant text, p_scope text, p_key_id bigint, p_wrapped bytea, p_root_id text) RETURNS void LANGUAGE sql AS $$
    UPDATE keys SET wrapped = p_wrapped, root_id = p_root_id WHERE tenant = p_tenant AND scope = p_scope AND key_id = p_key_id;
$$;

CREATE FUNCTION drop_key(p_tenant text, p_scope text) RETURNS SETOF bigint LANGUAGE sql AS $$
    DELETE FROM keys WHERE tenant = p_tenant AND scope = p_scope RETURNING key_id;
$$;

CREATE FUNCTION root_ids() RETURNS TABLE (root_id text, held bigint) LANGUAGE sql STABLE AS $$
    SELECT root_id, count(*) FROM keys GROUP BY root_id;
$$;

CREATE FUNCTION add_token(
    p_prefix text, p_digest bytea, p_tenant text, p_name text, p_roles text[], p_created_at timestamptz, p_expires_at timestamptz,
    p_revoked_at timestamptz, p_last_used_at timestamptz
) RETURNS void LANGUAGE sql AS $$
    INSERT INTO tokens (prefix, digest, tenant, name, roles, created_at, expires_at, revoked_at, last_used_at)
    VALUES (p_prefix, p_digest, p_tenant, p_name, p_roles, p_created_at, p_expires_at, p_revoked_at, p_last_used_at);
$$;

CREATE FUNCTION token(p_prefix text) RETURNS SETOF tokens LANGUAGE sql STABLE AS $$ SELECT * FROM tokens WHERE prefix = p_prefix; $$;

CREATE FUNCTION tokens(p_tenant text) RETURNS SETOF tokens LANGUAGE sql STABLE AS $$
    SELECT * FROM tokens WHERE p_tenant IS NULL OR tenant = p_tenant ORDER BY created_at, prefix;
$$;

CREATE FUNCTION revoke_token(p_prefix text, p_now timestamptz) RETURNS SETOF text LANGUAGE sql AS $$
    UPDATE tokens SET revoked_at = coalesce(p_now, clock_timestamp()) WHERE prefix = p_prefix AND revoked_at IS NULL RETURNING prefix;
$$;

CREATE FUNCTION setting(p_tenant text, p_name text) RETURNS jsonb LANGUAGE sql STABLE AS $$
    SELECT value FROM settings WHERE name = p_name AND tenant IN (p_tenant, '*') ORDER BY tenant = '*' LIMIT 1;
$$;

CREATE FUNCTION put_setting(p_tenant text, p_name text, p_value jsonb) RETURNS void LANGUAGE sql AS $$
    INSERT INTO settings (tenant, name, value) VALUES (p_tenant, p_name, p_value)
    ON CONFLICT (tenant, name) DO UPDATE SET value = excluded.value;
$$;
