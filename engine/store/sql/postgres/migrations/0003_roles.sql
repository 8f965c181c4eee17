-- Who may do what. The group roles are recorded in `roles` by the runner when it was allowed to make them; without them one database user does all.
-- Functions are guarded by the runner, whenever one has changed.

REVOKE ALL ON ALL TABLES IN SCHEMA unwind FROM PUBLIC;
GRANT USAGE ON SCHEMA unwind, views TO PUBLIC;
GRANT SELECT ON roles, migrations TO PUBLIC;

DO $$
DECLARE
    projector text := (SELECT role FROM roles WHERE name = 'projector');
    web text := (SELECT role FROM roles WHERE name = 'web');
BEGIN
    IF projector IS NULL THEN
        RETURN;
    END IF;
    EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON checkpoints TO %I', projector);
    EXECUTE format('GRANT SELECT ON checkpoints TO %I', web);
END $$;
