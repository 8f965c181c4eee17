-- A data subject that is erased: what its arrivals could be found by goes with its key.

CREATE FUNCTION forget_subject(p_tenant text, p_frame bytea) RETURNS SETOF bigint LANGUAGE sql
SECURITY DEFINER SET search_path = unwind, pg_temp AS $$
    WITH of_subject AS (
        SELECT a.id FROM arrivals a WHERE a.tenant = p_tenant AND substring(a.body FROM 1 FOR octet_length(p_frame)) = p_frame
    ), gone AS (
        DELETE FROM arrival_keys k USING of_subject s WHERE k.arrival = s.id
    )
    SELECT id FROM of_subject;
$$;

REVOKE ALL ON FUNCTION forget_subject FROM PUBLIC;

DO $$
DECLARE
    engine text := (SELECT role FROM roles WHERE name = 'engine');
BEGIN
    IF engine IS NOT NULL THEN
        EXECUTE format('GRANT EXECUTE ON FUNCTION forget_subject TO %I', engine);
    END IF;
END $$;
