-- Shadows of read models: tables of schema `views` under the prefix `shadow_`. The projector may not make or drop tables;
-- these do it for it, with exactly the tables of one view, and copy everything from the living table: columns, defaults,
-- checks, keys, indexes, triggers, row-level security and grants.

-- The living tables of that name, or an error that names what is not one.
CREATE OR REPLACE FUNCTION shadow_tables(p_tables text[]) RETURNS text[] LANGUAGE plpgsql AS $$
DECLARE
    strange text;
BEGIN
    SELECT t INTO strange FROM unnest(p_tables) AS t
    WHERE t LIKE 'shadow\_%' OR NOT EXISTS (SELECT 1 FROM pg_class c WHERE c.relname = t AND c.relnamespace = 'views'::regnamespace AND c.relkind = 'r');
    IF strange IS NOT NULL THEN
        RAISE EXCEPTION 'views.% is no table of a read model', strange USING ERRCODE = 'invalid_parameter_value';
    END IF;
    RETURN p_tables;
END $$;

CREATE OR REPLACE FUNCTION shadow_drop(p_view text, p_tables text[]) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    t text;
BEGIN
    FOREACH t IN ARRAY shadow_tables(p_tables) LOOP
        EXECUTE format('DROP TABLE IF EXISTS views.%I', 'shadow_' || t);
    END LOOP;
    DELETE FROM checkpoints WHERE view = 'shadow/' || p_view;
END $$;

CREATE OR REPLACE FUNCTION shadow_make(p_view text, p_tables text[]) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    t text;
    living regclass;
    made text;
    x record;
BEGIN
    PERFORM shadow_drop(p_view, p_tables);
    FOREACH t IN ARRAY shadow_tables(p_tables) LOOP
        living := format('views.%I', t)::regclass;
        made := format('views.%I', 'shadow_' || t);
        EXECUTE format('CREATE TABLE %s (LIKE views.%I INCLUDING ALL EXCLUDING INDEXES)', made, t);
        FOR x IN SELECT array_to_string(reloptions, ', ') AS options, relrowsecurity, relforcerowsecurity, relacl, relowner FROM pg_class WHERE oid = living LOOP
            IF x.options IS NOT NULL THEN
                EXECUTE format('ALTER TABLE %s SET (%s)', made, x.options);
            END IF;
            IF x.relrowsecurity THEN
                EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY', made);
            END IF;
            IF x.relforcerowsecurity THEN
                EXECUTE format('ALTER TABLE %s FORCE ROW LEVEL SECURITY', made);
            END IF;
        END LOOP;
        FOR x IN SELECT a.privilege_type, CASE WHEN a.grantee = 0 THEN 'PUBLIC' ELSE a.grantee::regrole::text END AS grantee
                 FROM pg_class c, aclexplode(c.relacl) AS a WHERE c.oid = living AND a.grantee <> c.relowner LOOP
            EXECUTE format('GRANT %s ON %s TO %s', x.privilege_type, made, x.grantee);
        END LOOP;
        FOR x IN SELECT policyname, permissive, cmd, qual, with_check,
                        (SELECT string_agg(CASE WHEN r = 'public' THEN 'PUBLIC' ELSE quote_ident(r) END, ', ') FROM unnest(roles) AS r) AS roles
                 FROM pg_policies WHERE schemaname = 'views' AND tablename = t LOOP
            EXECUTE format('CREATE POLICY %I ON %s AS %s FOR %s TO %s', x.policyname, made, x.permissive, x.cmd, x.roles)
                || coalesce(' USING (' || x.qual || ')', '') || coalesce(' WITH CHECK (' || x.with_check || ')', '');
        END LOOP;
        FOR x IN SELECT i.relname, pg_get_indexdef(i.oid) AS definition, k.conname, pg_get_constraintdef(k.oid) AS key
                 FROM pg_index n JOIN pg_class i ON i.oid = n.indexrelid LEFT JOIN pg_constraint k ON k.conindid = i.oid AND k.contype IN ('p', 'u')
                 WHERE n.indrelid = living LOOP
            IF x.conname IS NOT NULL THEN
                EXECUTE format('ALTER TABLE %s ADD CONSTRAINT %I %s', made, 'shadow_' || x.conname, x.key);
            ELSE
                EXECUTE replace(replace(x.definition, format(' INDEX %I ON ', x.relname), format(' INDEX %I ON ', 'shadow_' || x.relname)),
                                format(' ON %s ', 'views.' || quote_ident(t)), format(' ON %s ', made));
            END IF;
        END LOOP;
        FOR x IN SELECT pg_get_triggerdef(g.oid) AS definition FROM pg_trigger g WHERE g.tgrelid = living AND NOT g.tgisinternal LOOP
            EXECUTE replace(x.definition, format(' ON %s ', 'views.' || quote_ident(t)), format(' ON %s ', made));
        END LOOP;
    END LOOP;
END $$;

-- Takes the checkpoints of the living view first, as every batch of a projector does, then its tables; readers and writers
-- wait for a moment. False: the living view is ahead, or its shadow has read nothing.
CREATE OR REPLACE FUNCTION shadow_switch(p_view text, p_tables text[]) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    t text;
    x record;
BEGIN
    PERFORM 1 FROM checkpoints WHERE view IN (p_view, 'shadow/' || p_view) ORDER BY view, lane FOR UPDATE;
    IF EXISTS (
        SELECT 1 FROM checkpoints living LEFT JOIN checkpoints built ON built.view = 'shadow/' || p_view AND built.lane = living.lane
        WHERE living.view = p_view AND living.position > coalesce(built.position, 0)
    ) THEN
        RETURN false;
    END IF;
    EXECUTE 'LOCK TABLE ' || (SELECT string_agg(format('views.%I', t.name), ', ') FROM unnest(shadow_tables(p_tables)) AS t (name)) || ' IN ACCESS EXCLUSIVE MODE';
    FOREACH t IN ARRAY p_tables LOOP
        EXECUTE format('DROP TABLE views.%I', t);
        EXECUTE format('ALTER TABLE views.%I RENAME TO %I', 'shadow_' || t, t);
        FOR x IN SELECT i.relname FROM pg_index n JOIN pg_class i ON i.oid = n.indexrelid
                 WHERE n.indrelid = format('views.%I', t)::regclass AND i.relname LIKE 'shadow\_%' LOOP
            EXECUTE format('ALTER INDEX views.%I RENAME TO %I', x.relname, substr(x.relname, 8));
        END LOOP;
    END LOOP;
    DELETE FROM checkpoints WHERE view = p_view;
    UPDATE checkpoints SET view = p_view WHERE view = 'shadow/' || p_view;
    RETURN true;
END $$;

-- The first keys in which a table and its shadow differ, in key order.
CREATE OR REPLACE FUNCTION shadow_differences(p_tables text[], p_limit integer) RETURNS TABLE (name text, key jsonb) LANGUAGE plpgsql AS $$
DECLARE
    t text;
    keys text;
    shown text;
BEGIN
    FOREACH t IN ARRAY shadow_tables(p_tables) LOOP
        SELECT string_agg(quote_ident(a.attname), ', ' ORDER BY k.n),
               string_agg(format('%L, %s', a.attname, CASE WHEN a.atttypid = 'bytea'::regtype THEN format('encode(%I, ''hex'')', a.attname)
                                                           ELSE quote_ident(a.attname) END), ', ' ORDER BY k.n)
        INTO keys, shown
        FROM pg_index i, unnest(i.indkey) WITH ORDINALITY AS k (attnum, n), pg_attribute a
        WHERE i.indrelid = format('views.%I', t)::regclass AND i.indisprimary AND a.attrelid = i.indrelid AND a.attnum = k.attnum;
        RETURN QUERY EXECUTE format(
            'SELECT %L, jsonb_build_object(%s) FROM (SELECT * FROM (SELECT *, a::text AS whole FROM views.%I a) a FULL JOIN '
            '(SELECT *, b::text AS whole FROM views.%I b) b USING (%s) WHERE a.whole IS DISTINCT FROM b.whole ORDER BY %s LIMIT %s) d',
            t, shown, t, 'shadow_' || t, keys, keys, p_limit);
    END LOOP;
END $$;
