CREATE OR REPLACE FUNCTION arrival(p_tenant text, p_source text, p_event_id text) RETURNS bytea LANGUAGE sql STABLE AS $$
    SELECT a.body FROM inbox i JOIN arrivals a ON a.id = i.arrival
    WHERE i.tenant = p_tenant AND i.source = p_source AND i.event_id = p_event_id;
$$;

CREATE OR REPLACE FUNCTION started(p_tenant text, p_start_key text) RETURNS uuid LANGUAGE sql STABLE AS $$
    SELECT run_id FROM starts WHERE tenant = p_tenant AND start_key = p_start_key;
$$;

-- The last arrival that was received before a moment, by halving, with an hour to spare for clocks that differ; 0: none.
CREATE OR REPLACE FUNCTION arrival_before(p_at timestamptz) RETURNS bigint LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_low bigint := 0;
    v_high bigint := coalesce((SELECT max(a.id) FROM arrivals a), 0);
    v_middle bigint;
    v_id bigint;
    v_received timestamptz;
BEGIN
    WHILE v_low < v_high LOOP
        v_middle := (v_low + v_high) / 2;
        SELECT a.id, a.received_at INTO v_id, v_received FROM arrivals a WHERE a.id > v_middle ORDER BY a.id LIMIT 1;
        IF NOT FOUND OR v_received >= p_at - interval '1 hour' THEN
            v_high := v_middle;
        ELSE
            v_low := v_id;
        END IF;
    END LOOP;
    RETURN v_low;
END $$;

-- The journal is in the order of arrival, so a backfill walks its primary key; types are joined by commas. Looks at the next `p_most` arrivals,
-- whosesoever: the last of these, whether no more are to be looked at, and of those that are meant `p_limit` at most. One row at least, of none.
CREATE OR REPLACE FUNCTION past_arrivals_among(
    p_tenant text, p_types text, p_since timestamptz, p_until timestamptz, p_after bigint, p_limit integer, p_most integer
) RETURNS TABLE (upto bigint, whole boolean, id bigint, source text, event_id text, type text) LANGUAGE sql STABLE AS $$
    WITH portion AS (
        SELECT coalesce(max(x.id), p_after) AS upto, count(*) < p_most OR bool_and(x.received_at >= p_until + interval '1 hour') AS whole
        FROM (SELECT a.id, a.received_at FROM arrivals a WHERE a.id > p_after ORDER BY a.id LIMIT p_most) x
    )
    SELECT p.upto, p.whole, m.id, m.source, m.event_id, m.type FROM portion p LEFT JOIN LATERAL (
        SELECT a.id, a.source, a.event_id, a.type FROM arrivals a
        WHERE a.id > p_after AND a.id <= p.upto AND a.tenant = p_tenant AND a.type = ANY (string_to_array(p_types, ','))
            AND a.received_at >= p_since AND a.received_at < p_until
        ORDER BY a.id LIMIT p_limit
    ) m ON true ORDER BY m.id;
$$;

CREATE OR REPLACE FUNCTION count_past_arrivals_among(
    p_tenant text, p_types text, p_since timestamptz, p_until timestamptz, p_after bigint, p_most integer
) RETURNS TABLE (upto bigint, whole boolean, found bigint) LANGUAGE sql STABLE AS $$
    SELECT coalesce(max(x.id), p_after), count(*) < p_most OR bool_and(x.received_at >= p_until + interval '1 hour'),
        count(*) FILTER (WHERE x.tenant = p_tenant AND x.type = ANY (string_to_array(p_types, ','))
            AND x.received_at >= p_since AND x.received_at < p_until)
    FROM (SELECT a.id, a.tenant, a.type, a.received_at FROM arrivals a WHERE a.id > p_after ORDER BY a.id LIMIT p_most) x;
$$;

-- For processes from before `past_arrivals_among` and `count_past_arrivals_among`.
CREATE OR REPLACE FUNCTION past_arrivals(
    p_tenant text, p_types text, p_since timestamptz, p_until timestamptz, p_after bigint, p_limit integer
) RETURNS TABLE (id bigint, source text, event_id text, type text) LANGUAGE sql STABLE AS $$
    SELECT a.id, a.source, a.event_id, a.type FROM arrivals a
    WHERE a.id > p_after AND a.tenant = p_tenant AND a.type = ANY (string_to_array(p_types, ','))
        AND a.received_at >= p_since AND a.received_at < p_until
    ORDER BY a.id LIMIT p_limit;
$$;

CREATE OR REPLACE FUNCTION count_past_arrivals(p_tenant text, p_types text, p_since timestamptz, p_until timestamptz) RETURNS bigint
LANGUAGE sql STABLE AS $$
    SELECT count(*) FROM arrivals a
    WHERE a.tenant = p_tenant AND a.type = ANY (string_to_array(p_types, ',')) AND a.received_at >= p_since AND a.received_at < p_until;
$$;

CREATE OR REPLACE FUNCTION record_outcome(p_tenant text, p_source text, p_event_id text, p_outcome text, p_now timestamptz) RETURNS void LANGUAGE sql AS $$
    INSERT INTO arrival_outcomes (arrival, outcome, recorded_at)
    SELECT i.arrival, p_outcome, coalesce(p_now, clock_timestamp()) FROM inbox i
    WHERE i.tenant = p_tenant AND i.source = p_source AND i.event_id = p_event_id
    ON CONFLICT (arrival, outcome) DO NOTHING;
$$;

CREATE OR REPLACE FUNCTION outcomes(p_tenant text, p_source text, p_event_id text) RETURNS SETOF text LANGUAGE sql STABLE AS $$
    SELECT o.outcome FROM inbox i JOIN arrival_outcomes o ON o.arrival = i.arrival
    WHERE i.tenant = p_tenant AND i.source = p_source AND i.event_id = p_event_id ORDER BY o.recorded_at, o.outcome;
$$;

CREATE OR REPLACE FUNCTION journaled(p_tenant text, p_source text, p_event_id text)
RETURNS TABLE (type text, received_at timestamptz, causation_id text, body bytea) LANGUAGE sql STABLE AS $$
    SELECT a.type, a.received_at, a.causation_id, a.body FROM inbox i JOIN arrivals a ON a.id = i.arrival
    WHERE i.tenant = p_tenant AND i.source = p_source AND i.event_id = p_event_id;
$$;

CREATE OR REPLACE FUNCTION pending_inputs(p_tenant text, p_source text, p_event_id text)
RETURNS TABLE (kind text, run_id uuid, workflow text, name text, visit integer) LANGUAGE sql STABLE AS $$
    SELECT p.kind, p.run_id, p.workflow, p.name, p.visit FROM inbox i JOIN inputs p ON p.arrival = i.arrival
    WHERE i.tenant = p_tenant AND i.source = p_source AND i.event_id = p_event_id ORDER BY p.id;
$$;

-- The oldest rows first, a slice at a time, so that no lock is held for long.
CREATE OR REPLACE FUNCTION prune_journal(p_before timestamptz, p_limit integer) RETURNS SETOF bigint LANGUAGE plpgsql AS $$
DECLARE
    old bigint[];
BEGIN
    SELECT array_agg(s.id) INTO old FROM (SELECT id, received_at FROM arrivals ORDER BY id LIMIT p_limit) s
    WHERE s.received_at < p_before AND NOT EXISTS (SELECT 1 FROM inputs i WHERE i.arrival = s.id);
    IF old IS NULL THEN
        RETURN;
    END IF;
    DELETE FROM inbox x USING arrivals a
    WHERE a.id = ANY (old) AND x.tenant = ANY (ARRAY[a.tenant]) AND x.source = a.source AND x.event_id = a.event_id;
    DELETE FROM arrival_keys WHERE arrival = ANY (old);
    DELETE FROM arrival_outcomes WHERE arrival = ANY (old);
    DELETE FROM arrivals WHERE id = ANY (old);
    RETURN QUERY SELECT unnest(old);
END $$;

CREATE OR REPLACE FUNCTION bury(
    p_id uuid, p_tenant text, p_reason text, p_detail text, p_source text, p_routing_key text, p_event_id text, p_type text, p_attempts jsonb,
    p_envelope bytea, p_headers jsonb, p_state text, p_created_at timestamptz, p_settled_at timestamptz, p_settled_by text
) RETURNS SETOF uuid LANGUAGE sql AS $$
    INSERT INTO dead_letters (id, tenant, reason, detail, source, routing_key, event_id, type, attempts, envelope, headers, state, created_at,
                              settled_at, settled_by)
    VALUES (p_id, p_tenant, p_reason, p_detail, p_source, p_routing_key, p_event_id, p_type, p_attempts, p_envelope, p_headers, p_state,
            p_created_at, p_settled_at, p_settled_by)
    ON CONFLICT (id) DO NOTHING RETURNING id;
$$;

CREATE OR REPLACE FUNCTION dead_letters(p_tenant text, p_state text, p_after uuid, p_limit integer) RETURNS SETOF dead_letters LANGUAGE sql STABLE AS $$
    SELECT * FROM dead_letters
    WHERE (p_tenant IS NULL OR tenant = p_tenant) AND (p_state IS NULL OR state = p_state) AND (p_after IS NULL OR id > p_after)
    ORDER BY id LIMIT p_limit;
$$;

CREATE OR REPLACE FUNCTION dead_letter(p_tenant text, p_id uuid) RETURNS SETOF dead_letters LANGUAGE sql STABLE AS $$
    SELECT * FROM dead_letters WHERE id = p_id AND (p_tenant IS NULL OR tenant = p_tenant);
$$;

CREATE OR REPLACE FUNCTION dead_letters_of(p_tenant text, p_event_id text, p_limit integer) RETURNS SETOF dead_letters LANGUAGE sql STABLE AS $$
    SELECT * FROM dead_letters WHERE tenant = p_tenant AND event_id = p_event_id ORDER BY created_at, id LIMIT p_limit;
$$;

CREATE OR REPLACE FUNCTION settle_dead_letter(p_id uuid, p_state text, p_by text, p_now timestamptz) RETURNS SETOF uuid LANGUAGE sql AS $$
    UPDATE dead_letters SET state = p_state, settled_by = p_by, settled_at = coalesce(p_now, clock_timestamp())
    WHERE id = p_id AND state = 'dead' RETURNING id;
$$;

-- A data subject that is erased: what its arrivals could be found by goes with its key. Looks at the next arrivals of the tenant after one of them,
-- `p_limit` at most: the last of these, whether there are no more, and how many are the subject's.
CREATE OR REPLACE FUNCTION forget_subject_among(p_tenant text, p_frame bytea, p_source text, p_event_id text, p_limit integer)
RETURNS TABLE (source text, event_id text, whole boolean, found bigint) LANGUAGE sql AS $$
    WITH portion AS (
        SELECT i.source, i.event_id, i.arrival FROM inbox i WHERE i.tenant = p_tenant AND (i.source, i.event_id) > (p_source, p_event_id)
        ORDER BY i.source, i.event_id LIMIT p_limit
    ), of_subject AS (
        SELECT a.id FROM portion p JOIN arrivals a ON a.id = ANY (ARRAY[p.arrival]) WHERE substring(a.body FROM 1 FOR octet_length(p_frame)) = p_frame
    ), gone AS (
        DELETE FROM arrival_keys k USING of_subject s WHERE k.arrival = ANY (ARRAY[s.id])
    )
    SELECT l.source, l.event_id, n.looked < p_limit, n.found
    FROM (SELECT (SELECT count(*) FROM portion) AS looked, (SELECT count(*) FROM of_subject) AS found) n
    LEFT JOIN (SELECT p.source, p.event_id FROM portion p ORDER BY p.source DESC, p.event_id DESC LIMIT 1) l ON true;
$$;

-- For processes from before `forget_subject_among`.
CREATE OR REPLACE FUNCTION forget_subject(p_tenant text, p_frame bytea) RETURNS SETOF bigint LANGUAGE sql AS $$
    WITH of_subject AS (
        SELECT a.id FROM arrivals a WHERE a.tenant = p_tenant AND substring(a.body FROM 1 FOR octet_length(p_frame)) = p_frame
    ), gone AS (
        DELETE FROM arrival_keys k USING of_subject s WHERE k.arrival = ANY (ARRAY[s.id])
    )
    SELECT id FROM of_subject;
$$;
