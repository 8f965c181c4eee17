-- For processes from before `register_process`.
CREATE OR REPLACE FUNCTION register(p_name text, p_roles text[], p_now timestamptz) RETURNS bigint LANGUAGE sql AS $$
    INSERT INTO processes (name, roles, started_at, seen_at)
    VALUES (p_name, p_roles, coalesce(p_now, clock_timestamp()), coalesce(p_now, clock_timestamp())) RETURNING epoch;
$$;

CREATE OR REPLACE FUNCTION register_process(p_name text, p_roles text[], p_version text, p_now timestamptz) RETURNS bigint LANGUAGE sql AS $$
    INSERT INTO processes (name, roles, version, started_at, seen_at)
    VALUES (p_name, p_roles, p_version, coalesce(p_now, clock_timestamp()), coalesce(p_now, clock_timestamp())) RETURNING epoch;
$$;

CREATE OR REPLACE FUNCTION heartbeat(p_epoch bigint, p_now timestamptz) RETURNS bigint LANGUAGE sql AS $$
    UPDATE processes SET seen_at = coalesce(p_now, clock_timestamp()) WHERE epoch = p_epoch AND NOT dead RETURNING epoch;
$$;

-- FOR UPDATE waits for every append that holds the row, so none of a dead process's appends is in flight when this answers.
-- Whoever asks (`p_but`) lives, however long it could not say so.
CREATE OR REPLACE FUNCTION declare_dead_but(p_silent_seconds double precision, p_now timestamptz, p_but bigint) RETURNS SETOF bigint
LANGUAGE plpgsql AS $$
DECLARE
    gone bigint[];
    v_now timestamptz := coalesce(p_now, clock_timestamp());
BEGIN
    SELECT array_agg(p.epoch) INTO gone FROM (
        SELECT epoch FROM processes
        WHERE NOT dead AND seen_at < v_now - make_interval(secs => p_silent_seconds) AND epoch IS DISTINCT FROM p_but
        ORDER BY epoch FOR UPDATE
    ) p;
    IF gone IS NULL THEN
        RETURN;
    END IF;
    -- Waits for an append of theirs that is under way; one that comes later finds them dead (see `append`).
    PERFORM pg_advisory_xact_lock(1970169720, epoch::integer) FROM unnest(gone) AS g(epoch);
    UPDATE processes SET dead = true WHERE epoch = ANY (gone);
    UPDATE inputs SET available_at = v_now, owner = NULL WHERE owner = ANY (gone);
    UPDATE outbox SET available_at = v_now, owner = NULL WHERE owner = ANY (gone);
    UPDATE timers SET available_at = due, owner = NULL WHERE owner = ANY (gone);
    UPDATE open_runs SET deadline_lease = NULL WHERE owner = ANY (gone) AND deadline_lease IS NOT NULL;
    RETURN QUERY SELECT unnest(gone) ORDER BY 1;
END $$;

-- For processes from before `declare_dead_but`.
CREATE OR REPLACE FUNCTION declare_dead(p_silent_seconds double precision, p_now timestamptz) RETURNS SETOF bigint LANGUAGE sql AS $$
    SELECT * FROM declare_dead_but(p_silent_seconds, p_now, NULL);
$$;

CREATE OR REPLACE FUNCTION retire(p_epoch bigint) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM 1 FROM processes WHERE epoch = p_epoch FOR UPDATE;
    PERFORM pg_advisory_xact_lock(1970169720, p_epoch::integer);
    UPDATE processes SET dead = true WHERE epoch = p_epoch;
    UPDATE open_runs SET owner = NULL, deadline_lease = NULL WHERE owner = p_epoch;
    UPDATE inputs SET available_at = created_at, owner = NULL WHERE owner = p_epoch;
    UPDATE outbox SET available_at = created_at, owner = NULL WHERE owner = p_epoch;
    UPDATE timers SET available_at = due, owner = NULL WHERE owner = p_epoch;
END $$;

-- A database that was put back: the processes it knows worked on the original, which may be there still. None of theirs is any epoch given here.
CREATE OR REPLACE FUNCTION restored() RETURNS bigint LANGUAGE plpgsql AS $$
BEGIN
    PERFORM retire(p.epoch) FROM processes p WHERE NOT p.dead ORDER BY p.epoch;
    DELETE FROM sessions;
    RETURN setval(pg_get_serial_sequence('processes', 'epoch'), coalesce((SELECT max(p.epoch) FROM processes p), 0) + 100000);
END $$;

CREATE OR REPLACE FUNCTION processes() RETURNS SETOF processes LANGUAGE sql STABLE AS $$ SELECT * FROM processes ORDER BY epoch; $$;
