CREATE OR REPLACE FUNCTION load(p_tenant text, p_stream uuid, p_after integer)
RETURNS TABLE (version integer, topic text, body bytea, recorded_at timestamptz) LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN QUERY SELECT l.version, l.topic, l.body, l.recorded_at FROM log l
    WHERE l.stream = p_stream AND l.version > p_after AND l.tenant = p_tenant ORDER BY l.version;
END $$;

CREATE OR REPLACE FUNCTION load_many(p_tenants text[], p_streams uuid[])
RETURNS TABLE (stream uuid, version integer, topic text, body bytea, recorded_at timestamptz) LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN QUERY SELECT l.stream, l.version, l.topic, l.body, l.recorded_at
    FROM unnest(p_tenants, p_streams) AS u(tenant, stream) JOIN log l ON l.stream = u.stream AND l.tenant = u.tenant
    ORDER BY l.stream, l.version;
END $$;

CREATE OR REPLACE FUNCTION snapshot(p_tenant text, p_stream uuid) RETURNS TABLE (version integer, body bytea) LANGUAGE sql STABLE AS $$
    SELECT version, body FROM snapshots WHERE stream = p_stream AND tenant = p_tenant;
$$;

-- Up to p_limit events; after the first, only those that begin within p_bytes of bodies.
CREATE OR REPLACE FUNCTION read_log(p_lane smallint, p_after bigint, p_limit integer, p_bytes bigint)
RETURNS TABLE (pos bigint, tenant text, stream uuid, kind text, version integer, topic text, body bytea, recorded_at timestamptz)
LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN QUERY SELECT r.position, r.tenant, r.stream, r.kind, r.version, r.topic, r.body, r.recorded_at FROM (
        SELECT l.*, sum(octet_length(l.body)) OVER (ORDER BY l.position ROWS UNBOUNDED PRECEDING) - octet_length(l.body) AS bytes_before
        FROM log l WHERE l.lane = p_lane AND l.position > p_after ORDER BY l.position LIMIT p_limit
    ) AS r WHERE r.bytes_before < p_bytes ORDER BY r.position;
END $$;

CREATE OR REPLACE FUNCTION head(p_lane smallint) RETURNS bigint LANGUAGE sql STABLE AS $$
    SELECT coalesce((SELECT position FROM log WHERE lane = p_lane ORDER BY position DESC LIMIT 1), 0);
$$;

-- Snapshots of many runs at once, for a load of cold ones.
CREATE OR REPLACE FUNCTION snapshots_of(p_tenants text[], p_streams uuid[])
RETURNS TABLE (stream uuid, version integer, body bytea) LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN QUERY SELECT s.stream, s.version, s.body
    FROM unnest(p_tenants, p_streams) AS u(tenant, stream) JOIN snapshots s ON s.stream = u.stream AND s.tenant = u.tenant;
END $$;
