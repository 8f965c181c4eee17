-- Who may do what. The group roles are recorded in `roles` by the runner when it was allowed to make them; without them one database user does all.

DO $$
DECLARE
    f record;
BEGIN
    FOR f IN SELECT p.oid::regprocedure AS signature FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
             WHERE n.nspname = 'unwind' AND p.prokind = 'f' AND p.proname <> 'refuse_change'
    LOOP
        EXECUTE format('ALTER FUNCTION %s SECURITY DEFINER SET search_path = unwind, pg_temp', f.signature);
        EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', f.signature);
    END LOOP;
END $$;

REVOKE ALL ON ALL TABLES IN SCHEMA unwind FROM PUBLIC;
GRANT USAGE ON SCHEMA unwind, views TO PUBLIC;
GRANT SELECT ON roles, migrations TO PUBLIC;

DO $$
DECLARE
    engine text := (SELECT role FROM roles WHERE name = 'engine');
    projector text := (SELECT role FROM roles WHERE name = 'projector');
    web text := (SELECT role FROM roles WHERE name = 'web');
BEGIN
    IF engine IS NULL THEN
        RETURN;
    END IF;
    EXECUTE format('GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA unwind TO %I', engine);
    EXECUTE format('REVOKE EXECUTE ON FUNCTION append_for, open_lane FROM %I', engine);
    EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON checkpoints TO %I', projector);
    EXECUTE format('GRANT EXECUTE ON FUNCTION read_log, head TO %I', projector);
    EXECUTE format('GRANT EXECUTE ON FUNCTION append_for, head, lane_of TO %I', web);
    EXECUTE format('GRANT SELECT ON checkpoints TO %I', web);
END $$;
