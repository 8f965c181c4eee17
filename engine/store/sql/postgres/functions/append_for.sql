-- For a caller bound to one tenant: a batch that names another is refused whole. Such a caller records arrivals, inputs, messages and events; the
-- reasons to wake and the slots of a run are its owner's.
CREATE OR REPLACE FUNCTION append_for(
    p_tenant text, p_lane smallint, p_epoch bigint, p_now timestamptz, b batch,
    OUT first_position bigint, OUT codes smallint[], OUT nums bigint[], OUT runs uuid[],
    OUT m_ord integer[], OUT m_id bigint[], OUT m_tenant text[], OUT m_kind text[], OUT m_run uuid[], OUT m_name text[], OUT m_visit integer[],
    OUT m_source text[], OUT m_event_id text[], OUT m_body bytea[]
) RETURNS record LANGUAGE plpgsql AS $$
DECLARE
    rest batch_rest := b.rest;
    other text;
BEGIN
    SELECT t INTO other FROM unnest(
        b.c_tenant || b.e_tenant || rest.a_tenant || rest.h_tenant || rest.i_tenant || rest.o_tenant
    ) AS x(t) WHERE t IS DISTINCT FROM p_tenant LIMIT 1;
    IF NOT FOUND THEN
        SELECT o.tenant INTO other FROM unnest(rest.i_run) AS u(run) JOIN open_runs o ON o.run_id = ANY (ARRAY[u.run])
        WHERE o.tenant <> p_tenant LIMIT 1;
    END IF;
    IF FOUND THEN
        RAISE EXCEPTION 'append_for %: a commit of tenant % is refused', p_tenant, other USING ERRCODE = 'insufficient_privilege';
    END IF;
    IF cardinality(b.cl_ord) > 0
       OR cardinality(rest.s_ord) + cardinality(rest.k_ord) + cardinality(rest.x_ord) + cardinality(rest.t_ord) + cardinality(rest.tc_ord)
          + cardinality(rest.u_ord) + cardinality(rest.ud_ord) + cardinality(rest.w_ord) + cardinality(rest.wd_ord) + cardinality(rest.oo_ord)
          + cardinality(rest.oc_ord) + cardinality(rest.q_ord) + cardinality(rest.n_ord) > 0 THEN
        RAISE EXCEPTION 'append_for %: only arrivals, inputs, messages and events may be recorded', p_tenant
            USING ERRCODE = 'insufficient_privilege';
    END IF;
    SELECT * INTO first_position, codes, nums, runs, m_ord, m_id, m_tenant, m_kind, m_run, m_name, m_visit, m_source, m_event_id, m_body
    FROM append_with_costs(p_lane, p_epoch, p_now, false, NULL, NULL, true, NULL, b);
END $$;
