-- One setting of every tenant at once: pauses are read so, every second.

CREATE INDEX settings_by_name ON settings (name);

CREATE FUNCTION settings_named(p_name text) RETURNS TABLE (tenant text, value jsonb) LANGUAGE sql STABLE
SECURITY DEFINER SET search_path = unwind, pg_temp AS $$
    SELECT s.tenant, s.value FROM settings s WHERE s.name = p_name;
$$;

REVOKE ALL ON FUNCTION settings_named FROM PUBLIC;

DO $$
DECLARE
    engine text := (SELECT role FROM roles WHERE name = 'engine');
BEGIN
    IF engine IS NOT NULL THEN
        EXECUTE format('GRANT EXECUTE ON FUNCTION settings_named TO %I', engine);
    END IF;
END $$;
