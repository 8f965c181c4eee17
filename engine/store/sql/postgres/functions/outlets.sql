CREATE OR REPLACE FUNCTION add_outlet(
    p_tenant text, p_name text, p_url text, p_types text, p_version integer, p_secret bytea, p_created_at timestamptz, p_created_by text
) RETURNS SETOF text LANGUAGE sql AS $$
    INSERT INTO outlets (tenant, name, url, types, enabled, version, secret, created_at, created_by)
    VALUES (p_tenant, p_name, p_url, p_types, true, p_version, p_secret, p_created_at, p_created_by)
    ON CONFLICT (tenant, name) DO NOTHING RETURNING name;
$$;

CREATE OR REPLACE FUNCTION outlet(p_tenant text, p_name text) RETURNS SETOF outlets LANGUAGE sql STABLE AS $$
    SELECT * FROM outlets WHERE tenant = p_tenant AND name = p_name;
$$;

CREATE OR REPLACE FUNCTION outlets(p_tenant text) RETURNS SETOF outlets LANGUAGE sql STABLE AS $$
    SELECT * FROM outlets WHERE p_tenant IS NULL OR tenant = p_tenant ORDER BY tenant, name;
$$;

-- Whoever rotates names the version it replaces: of two at once one is told that it lost.
CREATE OR REPLACE FUNCTION rotate_outlet(
    p_tenant text, p_name text, p_version integer, p_secret bytea, p_old_until timestamptz, p_rotated_at timestamptz
) RETURNS SETOF text LANGUAGE sql AS $$
    UPDATE outlets SET version = version + 1, secret = p_secret, old_secret = secret, old_until = p_old_until, rotated_at = p_rotated_at
    WHERE tenant = p_tenant AND name = p_name AND version = p_version RETURNING name;
$$;

CREATE OR REPLACE FUNCTION switch_outlet(p_tenant text, p_name text, p_enabled boolean, p_why text, p_at timestamptz)
RETURNS SETOF text LANGUAGE sql AS $$
    UPDATE outlets SET enabled = p_enabled, switched_at = p_at, switched_why = p_why, failing_since = NULL
    WHERE tenant = p_tenant AND name = p_name AND enabled <> p_enabled RETURNING name;
$$;

-- Failing since the first failure after a success.
CREATE OR REPLACE FUNCTION note_outlet(p_tenant text, p_name text, p_failed boolean, p_at timestamptz)
RETURNS SETOF timestamptz LANGUAGE sql AS $$
    UPDATE outlets SET failing_since = CASE WHEN p_failed THEN coalesce(failing_since, p_at) END
    WHERE tenant = p_tenant AND name = p_name AND (p_failed OR failing_since IS NOT NULL) RETURNING failing_since;
$$;

CREATE OR REPLACE FUNCTION remove_outlet(p_tenant text, p_name text) RETURNS SETOF text LANGUAGE sql AS $$
    DELETE FROM outlet_deliveries WHERE tenant = p_tenant AND outlet = p_name;
    DELETE FROM outlets WHERE tenant = p_tenant AND name = p_name RETURNING name;
$$;

CREATE OR REPLACE FUNCTION add_delivery(
    p_tenant text, p_outlet text, p_message_id text, p_about text, p_type text, p_body bytea, p_created_at timestamptz
) RETURNS SETOF text LANGUAGE sql AS $$
    INSERT INTO outlet_deliveries (tenant, outlet, message_id, about, type, body, state, attempts, created_at, due_at)
    SELECT p_tenant, p_outlet, p_message_id, p_about, p_type, p_body, 'waiting', 0, p_created_at, p_created_at
    WHERE EXISTS (SELECT 1 FROM outlets WHERE tenant = p_tenant AND name = p_outlet)
    ON CONFLICT (tenant, outlet, message_id) DO NOTHING RETURNING message_id;
$$;

-- A claim is a lease: what is not settled by then is due again. Of one outlet a few at a time, so that a slow one keeps nobody waiting.
CREATE OR REPLACE FUNCTION claim_deliveries(
    p_at timestamptz, p_lease_until timestamptz, p_busy text[], p_each integer, p_limit integer
) RETURNS SETOF outlet_deliveries LANGUAGE sql AS $$
    WITH ranked AS (
        SELECT d.tenant, d.outlet, d.message_id, row_number() OVER (PARTITION BY d.tenant, d.outlet ORDER BY d.due_at) AS place
        FROM outlet_deliveries d JOIN outlets o ON o.tenant = d.tenant AND o.name = d.outlet AND o.enabled
        WHERE d.state = 'waiting' AND d.due_at <= p_at AND d.tenant || '/' || d.outlet <> ALL (p_busy)
    ), picked AS (
        SELECT d.tenant, d.outlet, d.message_id
        FROM outlet_deliveries d JOIN ranked r USING (tenant, outlet, message_id)
        WHERE r.place <= p_each AND d.state = 'waiting' AND d.due_at <= p_at
        ORDER BY d.due_at LIMIT p_limit FOR UPDATE OF d SKIP LOCKED
    )
    UPDATE outlet_deliveries x SET due_at = p_lease_until FROM picked p
    WHERE x.tenant = p.tenant AND x.outlet = p.outlet AND x.message_id = p.message_id RETURNING x.*;
$$;

CREATE OR REPLACE FUNCTION settle_delivery(
    p_tenant text, p_outlet text, p_message_id text, p_state text, p_attempts integer, p_due_at timestamptz, p_status integer, p_error text,
    p_settled_at timestamptz
) RETURNS SETOF text LANGUAGE sql AS $$
    UPDATE outlet_deliveries
    SET state = p_state, attempts = p_attempts, due_at = p_due_at, status = p_status, error = p_error, settled_at = p_settled_at
    WHERE tenant = p_tenant AND outlet = p_outlet AND message_id = p_message_id AND state = 'waiting' RETURNING message_id;
$$;

CREATE OR REPLACE FUNCTION deliveries(p_tenant text, p_outlet text, p_state text, p_limit integer)
RETURNS SETOF outlet_deliveries LANGUAGE sql STABLE AS $$
    SELECT * FROM outlet_deliveries WHERE tenant = p_tenant AND outlet = p_outlet AND (p_state IS NULL OR state = p_state)
    ORDER BY created_at DESC, message_id LIMIT p_limit;
$$;

CREATE OR REPLACE FUNCTION delivery(p_tenant text, p_outlet text, p_message_id text)
RETURNS SETOF outlet_deliveries LANGUAGE sql STABLE AS $$
    SELECT * FROM outlet_deliveries WHERE tenant = p_tenant AND outlet = p_outlet AND message_id = p_message_id;
$$;

-- What is due soon comes by itself, or somebody has it in hand.
CREATE OR REPLACE FUNCTION resend_delivery(p_tenant text, p_outlet text, p_message_id text, p_at timestamptz, p_soon timestamptz)
RETURNS SETOF text LANGUAGE sql AS $$
    UPDATE outlet_deliveries SET state = 'waiting', attempts = 0, due_at = p_at, settled_at = NULL
    WHERE tenant = p_tenant AND outlet = p_outlet AND message_id = p_message_id AND (state <> 'waiting' OR due_at > p_soon)
    RETURNING message_id;
$$;

-- Failed for good, or so far.
CREATE OR REPLACE FUNCTION resend_failed(
    p_tenant text, p_outlet text, p_since timestamptz, p_at timestamptz, p_soon timestamptz, p_limit integer
) RETURNS SETOF text LANGUAGE sql AS $$
    WITH picked AS (
        SELECT message_id FROM outlet_deliveries
        WHERE tenant = p_tenant AND outlet = p_outlet AND created_at >= p_since
          AND (state = 'failed' OR state = 'waiting' AND attempts > 0 AND due_at > p_soon)
        ORDER BY created_at, message_id LIMIT p_limit FOR UPDATE
    )
    UPDATE outlet_deliveries x SET state = 'waiting', attempts = 0, due_at = p_at, settled_at = NULL FROM picked p
    WHERE x.tenant = p_tenant AND x.outlet = p_outlet AND x.message_id = p.message_id RETURNING x.message_id;
$$;

-- Outlets that are disabled, or for which notices wait; of those, as many as are due first. Counted once, and joined by a hash.
CREATE OR REPLACE FUNCTION outlet_queues(p_most integer) RETURNS TABLE (
    tenant text, outlet text, enabled boolean, switched_why text, failing_since timestamptz, waiting bigint, oldest timestamptz
) LANGUAGE sql STABLE SET enable_hashjoin = on AS $$
    SELECT o.tenant, o.name, o.enabled, o.switched_why, o.failing_since, coalesce(w.waiting, 0), w.oldest
    FROM outlets o LEFT JOIN (
        SELECT d.tenant, d.outlet, count(*) AS waiting, min(d.created_at) AS oldest
        FROM (SELECT x.* FROM outlet_deliveries x WHERE x.state = 'waiting' ORDER BY x.due_at LIMIT p_most) d
        GROUP BY d.tenant, d.outlet
    ) w ON w.tenant = o.tenant AND w.outlet = o.name
    WHERE NOT o.enabled OR w.waiting > 0 ORDER BY o.tenant, o.name;
$$;

-- The oldest rows first, a slice at a time, so that there are never too many for one statement.
CREATE OR REPLACE FUNCTION prune_deliveries_to(p_before timestamptz, p_limit integer) RETURNS SETOF text LANGUAGE sql AS $$
    WITH picked AS (
        SELECT d.tenant, d.outlet, d.message_id FROM outlet_deliveries d WHERE d.settled_at < p_before
        ORDER BY d.settled_at LIMIT p_limit FOR UPDATE SKIP LOCKED
    )
    DELETE FROM outlet_deliveries x USING picked p
    WHERE x.tenant = p.tenant AND x.outlet = p.outlet AND x.message_id = p.message_id RETURNING x.message_id;
$$;

-- For processes from before `prune_deliveries_to`.
CREATE OR REPLACE FUNCTION prune_deliveries(p_before timestamptz) RETURNS SETOF text LANGUAGE sql AS $$
    SELECT * FROM prune_deliveries_to(p_before, 10000);
$$;
