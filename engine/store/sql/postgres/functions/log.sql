-- A stream is whole in the log or whole in the archive.
CREATE OR REPLACE FUNCTION load(p_tenant text, p_stream uuid, p_after integer)
RETURNS TABLE (version integer, topic text, body bytea, recorded_at timestamptz) LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN QUERY SELECT l.version, l.topic, l.body, l.recorded_at FROM log l
    WHERE l.stream = p_stream AND l.version > p_after AND l.tenant = p_tenant ORDER BY l.version;
    IF NOT FOUND THEN
        RETURN QUERY SELECT a.version, a.topic, a.body, a.recorded_at FROM archived_runs r
        JOIN archive a ON a.month = r.month AND a.stream = r.run_id AND a.tenant = r.tenant
        WHERE r.run_id = p_stream AND r.tenant = p_tenant AND a.version > p_after ORDER BY a.version;
    END IF;
END $$;

CREATE OR REPLACE FUNCTION load_many(p_tenants text[], p_streams uuid[])
RETURNS TABLE (stream uuid, version integer, topic text, body bytea, recorded_at timestamptz) LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN QUERY SELECT l.stream, l.version, l.topic, l.body, l.recorded_at
    FROM unnest(p_tenants, p_streams) AS u(tenant, stream) JOIN log l ON l.stream = ANY (ARRAY[u.stream]) AND l.tenant = u.tenant
    ORDER BY u.stream, l.version;
    IF EXISTS (SELECT 1 FROM archive_heads) THEN
        RETURN QUERY SELECT a.stream, a.version, a.topic, a.body, a.recorded_at
        FROM unnest(p_tenants, p_streams) AS u(tenant, stream)
        JOIN archived_runs r ON r.run_id = ANY (ARRAY[u.stream]) AND r.tenant = u.tenant
        JOIN archive a ON a.month = r.month AND a.stream = ANY (ARRAY[r.run_id]) AND a.tenant = r.tenant
        ORDER BY u.stream, a.version;
    END IF;
END $$;

CREATE OR REPLACE FUNCTION snapshot(p_tenant text, p_stream uuid) RETURNS TABLE (version integer, body bytea) LANGUAGE sql STABLE AS $$
    SELECT version, body FROM snapshots WHERE stream = p_stream AND tenant = p_tenant;
$$;

-- Up to p_limit events; after the first, only those that begin within p_bytes of bodies. Whoever is past the archive reads the log alone.
CREATE OR REPLACE FUNCTION read_log(p_lane smallint, p_after bigint, p_limit integer, p_bytes bigint)
RETURNS TABLE (pos bigint, tenant text, stream uuid, kind text, version integer, topic text, body bytea, recorded_at timestamptz)
LANGUAGE plpgsql STABLE AS $$
BEGIN
    IF p_after < (SELECT h.position FROM archive_heads h WHERE h.lane = p_lane) THEN
        RETURN QUERY SELECT r.position, r.tenant, r.stream, r.kind, r.version, r.topic, r.body, r.recorded_at FROM (
            SELECT u.*, sum(octet_length(u.body)) OVER (ORDER BY u.position ROWS UNBOUNDED PRECEDING) - octet_length(u.body) AS bytes_before
            FROM (
                (SELECT l.position, l.tenant, l.stream, l.kind, l.version, l.topic, l.body, l.recorded_at
                 FROM log l WHERE l.lane = p_lane AND l.position > p_after ORDER BY l.position LIMIT p_limit)
                UNION ALL
                (SELECT a.position, a.tenant, a.stream, a.kind, a.version, a.topic, a.body, a.recorded_at
                 FROM archive a WHERE a.lane = p_lane AND a.position > p_after ORDER BY a.position LIMIT p_limit)
                ORDER BY position LIMIT p_limit
            ) AS u
        ) AS r WHERE r.bytes_before < p_bytes ORDER BY r.position;
        RETURN;
    END IF;
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
    FROM unnest(p_tenants, p_streams) AS u(tenant, stream) JOIN snapshots s ON s.stream = ANY (ARRAY[u.stream]) AND s.tenant = u.tenant;
END $$;
