-- Snapshots of many runs at once, for a load of cold ones.

CREATE FUNCTION snapshots_of(p_tenants text[], p_streams uuid[])
RETURNS TABLE (stream uuid, version integer, body bytea) LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = unwind, pg_temp AS $$
BEGIN
    RETURN QUERY SELECT s.stream, s.version, s.body
    FROM unnest(p_tenants, p_streams) AS u(tenant, stream) JOIN snapshots s ON s.stream = u.stream AND s.tenant = u.tenant;
END $$;

REVOKE ALL ON FUNCTION snapshots_of FROM PUBLIC;

DO $$
DECLARE
    engine text := (SELECT role FROM roles WHERE name = 'engine');
BEGIN
    IF engine IS NOT NULL THEN
        EXECUTE format('GRANT EXECUTE ON FUNCTION snapshots_of TO %I', engine);
    END IF;
END $$;
