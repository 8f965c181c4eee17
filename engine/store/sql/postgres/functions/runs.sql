-- Taking over from a dead process counts; picking up what a process released on its way out does not.
CREATE OR REPLACE FUNCTION claim_runs(p_epoch bigint, p_workflows text[], p_versions integer[], p_limit integer)
RETURNS SETOF run_rows LANGUAGE plpgsql AS $$
DECLARE
    gone bigint[];
BEGIN
    PERFORM 1 FROM processes WHERE epoch = p_epoch AND NOT dead FOR KEY SHARE;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    SELECT coalesce(array_agg(p.epoch), '{}') INTO gone FROM processes p
    WHERE p.dead AND EXISTS (SELECT 1 FROM open_runs o WHERE o.owner = ANY (ARRAY[p.epoch]));
    RETURN QUERY
    WITH picked AS (
        SELECT o.run_id FROM open_runs o
        WHERE (o.owner IS NULL OR o.owner = ANY (gone))
          AND EXISTS (SELECT 1 FROM unnest(p_workflows, p_versions) AS k(workflow, version)
                      WHERE k.workflow = o.workflow AND k.version = o.workflow_version)
        ORDER BY o.started_at LIMIT p_limit FOR UPDATE OF o SKIP LOCKED
    )
    UPDATE open_runs o SET takeovers = o.takeovers + (o.owner IS NOT NULL)::integer, owner = p_epoch
    FROM picked WHERE o.run_id = ANY (ARRAY[picked.run_id])
    RETURNING o.tenant, o.run_id, o.workflow, o.workflow_version, o.status, o.slot, o.owner, o.takeovers, o.deadline, o.started_at;
END $$;

-- Takes the named runs at once, those that are unowned, owned by a dead process, or ours already.
CREATE OR REPLACE FUNCTION claim_named(p_epoch bigint, p_tenants text[], p_runs uuid[]) RETURNS SETOF run_rows LANGUAGE plpgsql AS $$
BEGIN
    PERFORM 1 FROM processes WHERE epoch = p_epoch AND NOT dead FOR KEY SHARE;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    RETURN QUERY
    WITH picked AS (
        SELECT o.run_id FROM open_runs o JOIN unnest(p_tenants, p_runs) AS named (tenant, run_id)
            ON o.run_id = ANY (ARRAY[named.run_id]) AND o.tenant = named.tenant
        WHERE o.owner IS NULL OR o.owner = p_epoch OR NOT EXISTS (SELECT 1 FROM processes p WHERE p.epoch = o.owner AND NOT p.dead)
        ORDER BY named.run_id FOR UPDATE OF o
    )
    UPDATE open_runs o SET takeovers = o.takeovers + (o.owner IS NOT NULL AND o.owner <> p_epoch)::integer, owner = p_epoch
    FROM picked WHERE o.run_id = ANY (ARRAY[picked.run_id])
    RETURNING o.tenant, o.run_id, o.workflow, o.workflow_version, o.status, o.slot, o.owner, o.takeovers, o.deadline, o.started_at;
END $$;

-- The release before asks for one run at a time.
CREATE OR REPLACE FUNCTION claim_run(p_epoch bigint, p_tenant text, p_run uuid) RETURNS SETOF run_rows LANGUAGE plpgsql AS $$
BEGIN
    PERFORM 1 FROM processes WHERE epoch = p_epoch AND NOT dead FOR KEY SHARE;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    RETURN QUERY
    UPDATE open_runs o SET takeovers = o.takeovers + (o.owner IS NOT NULL AND o.owner <> p_epoch)::integer, owner = p_epoch
    WHERE o.run_id = p_run AND o.tenant = p_tenant
      AND (o.owner IS NULL OR o.owner = p_epoch OR NOT EXISTS (SELECT 1 FROM processes p WHERE p.epoch = o.owner AND NOT p.dead))
    RETURNING o.tenant, o.run_id, o.workflow, o.workflow_version, o.status, o.slot, o.owner, o.takeovers, o.deadline, o.started_at;
END $$;

CREATE OR REPLACE FUNCTION release_runs(p_epoch bigint, p_runs uuid[]) RETURNS void LANGUAGE sql AS $$
    UPDATE open_runs SET owner = NULL, deadline_lease = NULL WHERE run_id = ANY (p_runs) AND owner IS NOT DISTINCT FROM p_epoch;
$$;

-- What was leased of runs that another living process has taken meanwhile: without this it would get them at the end of the lease.
-- Rows are locked in the order of `append`.
CREATE OR REPLACE FUNCTION hand_over(p_epoch bigint, p_runs uuid[], p_now timestamptz) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    v_others bigint[] := others(p_epoch);
    theirs uuid[];
BEGIN
    SELECT array_agg(o.run_id) INTO theirs FROM open_runs o WHERE o.run_id = ANY (p_runs) AND (o.owner = ANY (v_others)) IS TRUE;
    UPDATE open_runs SET deadline_lease = NULL WHERE run_id = ANY (theirs) AND deadline_lease IS NOT NULL;
    UPDATE timers SET available_at = due, owner = NULL WHERE run_id = ANY (theirs) AND owner = p_epoch;
    UPDATE inputs SET available_at = coalesce(p_now, clock_timestamp()), owner = NULL WHERE run_id = ANY (theirs) AND owner = p_epoch;
    IF FOUND THEN
        PERFORM pg_notify('unwind_inputs', '');
    END IF;
END $$;

CREATE OR REPLACE FUNCTION open_run(p_tenant text, p_run uuid) RETURNS SETOF run_rows LANGUAGE sql STABLE AS $$
    SELECT * FROM run_rows WHERE run_id = p_run AND tenant = p_tenant;
$$;

CREATE OR REPLACE FUNCTION open_runs(p_tenant text, p_after uuid, p_limit integer) RETURNS SETOF run_rows LANGUAGE sql STABLE AS $$
    SELECT * FROM run_rows WHERE (p_tenant IS NULL OR tenant = p_tenant) AND (p_after IS NULL OR run_id > p_after) ORDER BY run_id LIMIT p_limit;
$$;

-- Fair between tenants: who holds few slots for his weight (`quotas`) comes first. Within a tenant one run of each workflow in turn, so that
-- one that is paused, at its cap or without a budget keeps no other waiting; within a workflow woken runs before new ones, then by age.
-- None of `p_tenants`, nor of the workflows that `p_of` and `p_workflows` name in pairs.
-- Slots are counted once for each tenant, and all that is queued is joined with its tenant by a hash, which lookups are kept from.
CREATE OR REPLACE FUNCTION queued_runs_but(p_epoch bigint, p_limit integer, p_tenants text[], p_of text[], p_workflows text[])
RETURNS SETOF run_rows LANGUAGE sql STABLE SET enable_hashjoin = on AS $$
    WITH queued AS (
        SELECT q.*, row_number() OVER (PARTITION BY q.tenant, q.workflow ORDER BY q.woken DESC, q.started_at, q.run_id) AS place
        FROM open_runs q WHERE q.queued AND (q.owner IS NULL OR q.owner = p_epoch) AND q.tenant NOT IN (SELECT unnest(p_tenants))
          AND (q.tenant, q.workflow) NOT IN (SELECT b.tenant, b.workflow FROM unnest(p_of, p_workflows) AS b(tenant, workflow))
    ), waiting AS MATERIALIZED (
        SELECT d.tenant, (SELECT count(*) FROM open_runs h WHERE h.slot AND h.tenant = d.tenant) AS held,
               coalesce((SELECT (s.value ->> 'weight')::double precision FROM settings s
                         WHERE s.name = 'quotas' AND s.tenant IN (d.tenant, '*') AND s.value ->> 'weight' IS NOT NULL
                         ORDER BY s.tenant = '*' LIMIT 1), 1) AS weight
        FROM (SELECT DISTINCT q.tenant FROM queued q) d
    )
    SELECT f.tenant, f.run_id, f.workflow, f.workflow_version, f.status, f.slot, f.owner, f.takeovers, f.deadline, f.started_at
    FROM (
        SELECT o.*, (row_number() OVER (PARTITION BY o.tenant ORDER BY o.place, o.woken DESC, o.started_at, o.run_id) + t.held) / t.weight AS turn
        FROM queued o JOIN waiting t ON t.tenant = o.tenant
    ) f
    ORDER BY f.turn, f.started_at, f.run_id LIMIT p_limit;
$$;

-- For processes from before `queued_runs_but`.
CREATE OR REPLACE FUNCTION queued_runs(p_epoch bigint, p_limit integer) RETURNS SETOF run_rows LANGUAGE sql STABLE AS $$
    SELECT * FROM queued_runs_but(p_epoch, p_limit, '{}', '{}', '{}');
$$;

-- Rides open_runs_slots.
CREATE OR REPLACE FUNCTION slots_held(p_tenants text[]) RETURNS TABLE (tenant text, workflow text, held bigint) LANGUAGE sql STABLE AS $$
    SELECT o.tenant, o.workflow, count(*) FROM open_runs o WHERE o.slot AND o.tenant = ANY (p_tenants) GROUP BY 1, 2;
$$;
