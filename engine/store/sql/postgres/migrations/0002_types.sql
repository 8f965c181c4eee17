-- What functions take and give. An append's batch comes as columns; most steps bring events and nothing else: then `rest` is NULL, and no time goes
-- into seventy empty columns. Processes of two versions send it at once: another column is another type, taken by a function with another name.

CREATE TYPE batch_rest AS (
    s_ord integer[], s_tenant text[], s_key text[], s_run uuid[],
    k_ord integer[], k_run uuid[], k_key text[],
    a_ord integer[], a_tenant text[], a_source text[], a_event_id text[], a_type text[], a_hash bytea[], a_body bytea[], a_received timestamptz[],
    a_causation text[],
    h_ord integer[], h_arrival integer[], h_tenant text[], h_type text[], h_name text[], h_hash bytea[], h_received timestamptz[],
    i_ord integer[], i_tenant text[], i_kind text[], i_run uuid[], i_workflow text[], i_name text[], i_visit integer[], i_source text[],
    i_event_id text[], i_body bytea[],
    x_ord integer[], x_id bigint[],
    o_ord integer[], o_tenant text[], o_run uuid[], o_message_id text[], o_exchange text[], o_routing_key text[], o_body bytea[],
    o_not_before timestamptz[],
    t_ord integer[], t_tenant text[], t_run uuid[], t_key text[], t_due timestamptz[],
    tc_ord integer[], tc_run uuid[], tc_key text[],
    u_ord integer[], u_tenant text[], u_run uuid[], u_name text[], u_visit integer[], u_type text[], u_key_name text[], u_key_hash bytea[],
    u_look_back timestamptz[],
    ud_ord integer[], ud_run uuid[], ud_name text[], ud_visit integer[],
    w_ord integer[], w_tenant text[], w_run uuid[], w_command text[], w_step text[], w_visit integer[], w_types text[],
    wd_ord integer[], wd_tenant text[], wd_command text[],
    oo_ord integer[], oo_tenant text[], oo_run uuid[], oo_workflow text[], oo_version integer[], oo_status text[], oo_slot boolean[],
    oo_deadline timestamptz[],
    oc_ord integer[], oc_run uuid[], oc_status text[], oc_slot boolean[], oc_deadline timestamptz[],
    q_ord integer[], q_tenant text[], q_run uuid[], q_workflow text[], q_workflow_cap integer[], q_tenant_cap integer[],
    n_ord integer[], n_tenant text[], n_stream uuid[], n_version integer[], n_body bytea[]
);
CREATE TYPE batch AS (
    c_tenant text[], c_stream uuid[], c_kind text[], c_expected integer[],
    e_ord integer[], e_tenant text[], e_stream uuid[], e_kind text[], e_version integer[], e_topic text[], e_body bytea[],
    cl_ord integer[], cl_run uuid[], cl_bare boolean[],
    rest batch_rest
);

CREATE VIEW run_rows AS
    SELECT tenant, run_id, workflow, workflow_version, status, slot, owner, takeovers, deadline, started_at FROM open_runs;
CREATE VIEW input_rows AS
    SELECT i.id, i.tenant, i.kind, i.run_id, i.workflow, i.name, i.visit, i.source, i.event_id, i.body FROM inputs i;
CREATE VIEW outbox_rows AS
    SELECT id, tenant, message_id, exchange, routing_key, body, created_at FROM outbox;
