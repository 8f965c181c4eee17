-- The store's tables. Only functions of 0002 and 0003 write them; no role but the owner may touch them directly.
-- A tenant's lane orders everything of that tenant: lock, sequence and checkpoint exist once per lane.

CREATE TABLE tenants (
    tenant     text PRIMARY KEY,
    lane       smallint NOT NULL DEFAULT 0,
    created_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE processes (
    epoch      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name       text NOT NULL,
    roles      text[] NOT NULL,
    started_at timestamptz NOT NULL,
    seen_at    timestamptz NOT NULL,
    dead       boolean NOT NULL DEFAULT false
);
CREATE INDEX processes_living ON processes (seen_at) WHERE NOT dead;

-- event_id and metadata are there for readers that want them filled; nothing of ours does yet.
CREATE TABLE log (
    lane        smallint NOT NULL,
    position    bigint NOT NULL,
    tenant      text NOT NULL,
    stream      uuid NOT NULL,
    kind        text NOT NULL,
    version     integer NOT NULL,
    topic       text NOT NULL,
    recorded_at timestamptz NOT NULL,
    event_id    uuid,
    metadata    jsonb,
    body        bytea NOT NULL,
    PRIMARY KEY (lane, position),
    CONSTRAINT log_stream_version UNIQUE (stream, version)
);
-- Sealed bytes do not compress: trying costs time on every large body.
ALTER TABLE log ALTER COLUMN body SET STORAGE EXTERNAL;
CREATE SEQUENCE log_position_0 AS bigint;

CREATE TABLE snapshots (
    stream  uuid PRIMARY KEY,
    tenant  text NOT NULL,
    version integer NOT NULL,
    body    bytea NOT NULL
);
ALTER TABLE snapshots ALTER COLUMN body SET STORAGE EXTERNAL;

CREATE SEQUENCE arrival_ids AS bigint;
CREATE TABLE arrivals (
    id           bigint PRIMARY KEY,
    tenant       text NOT NULL,
    source       text NOT NULL,
    event_id     text NOT NULL,
    type         text NOT NULL,
    causation_id text,
    received_at  timestamptz NOT NULL,
    body         bytea NOT NULL
);
ALTER TABLE arrivals ALTER COLUMN body SET STORAGE EXTERNAL;
CREATE INDEX arrivals_causation ON arrivals (tenant, causation_id) WHERE causation_id IS NOT NULL;

CREATE TABLE arrival_keys (
    tenant      text NOT NULL,
    type        text NOT NULL,
    name        text NOT NULL,
    hash        bytea NOT NULL,
    received_at timestamptz NOT NULL,
    arrival     bigint NOT NULL,
    PRIMARY KEY (tenant, type, name, hash, received_at, arrival)
);
CREATE INDEX arrival_keys_arrival ON arrival_keys (arrival);

CREATE TABLE arrival_outcomes (
    arrival     bigint NOT NULL,
    outcome     text NOT NULL,
    recorded_at timestamptz NOT NULL,
    PRIMARY KEY (arrival, outcome)
);

CREATE TABLE inbox (
    tenant    text NOT NULL,
    source    text NOT NULL,
    event_id  text NOT NULL,
    body_hash bytea NOT NULL,
    arrival   bigint NOT NULL,
    PRIMARY KEY (tenant, source, event_id)
);

CREATE TABLE starts (
    tenant    text NOT NULL,
    start_key text NOT NULL,
    run_id    uuid NOT NULL,
    PRIMARY KEY (tenant, start_key)
);

CREATE TABLE input_keys (
    run_id uuid NOT NULL,
    key    text NOT NULL,
    PRIMARY KEY (run_id, key)
);

-- `available_at` is when a row may be claimed: first its own time, then the end of the claimer's lease.
CREATE SEQUENCE input_ids AS bigint;
CREATE TABLE inputs (
    id           bigint PRIMARY KEY DEFAULT nextval('input_ids'),
    tenant       text NOT NULL,
    kind         text NOT NULL CHECK (kind IN ('start', 'fact', 'reply', 'note')),
    run_id       uuid,
    workflow     text,
    name         text,
    visit        integer NOT NULL,
    source       text,
    event_id     text,
    arrival      bigint,
    body         bytea,
    created_at   timestamptz NOT NULL,
    available_at timestamptz NOT NULL,
    owner        bigint
);
CREATE INDEX inputs_available ON inputs (available_at, id);
CREATE INDEX inputs_run ON inputs (run_id) WHERE run_id IS NOT NULL;
CREATE INDEX inputs_arrival ON inputs (arrival) WHERE arrival IS NOT NULL;

CREATE TABLE outbox (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant       text NOT NULL,
    run_id       uuid,
    message_id   text NOT NULL,
    exchange     text NOT NULL,
    routing_key  text NOT NULL,
    body         bytea NOT NULL,
    created_at   timestamptz NOT NULL,
    available_at timestamptz NOT NULL,
    owner        bigint
);
ALTER TABLE outbox ALTER COLUMN body SET STORAGE EXTERNAL;
CREATE INDEX outbox_available ON outbox (available_at, id);
CREATE INDEX outbox_run ON outbox (run_id) WHERE run_id IS NOT NULL;

CREATE TABLE timers (
    run_id       uuid NOT NULL,
    key          text NOT NULL,
    tenant       text NOT NULL,
    due          timestamptz NOT NULL,
    available_at timestamptz NOT NULL,
    owner        bigint,
    PRIMARY KEY (run_id, key)
);
CREATE INDEX timers_available ON timers (available_at);

CREATE TABLE subscriptions (
    id        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant    text NOT NULL,
    run_id    uuid NOT NULL,
    name      text NOT NULL,
    visit     integer NOT NULL,
    type      text NOT NULL,
    key_name  text NOT NULL,
    key_hash  bytea NOT NULL,
    look_back timestamptz NOT NULL
);
CREATE INDEX subscriptions_key ON subscriptions (tenant, type, key_name, key_hash);
CREATE INDEX subscriptions_run ON subscriptions (run_id, name, visit);

CREATE TABLE awaits (
    tenant     text NOT NULL,
    command_id text NOT NULL,
    run_id     uuid NOT NULL,
    step       text NOT NULL,
    visit      integer NOT NULL,
    types      text[] NOT NULL,
    PRIMARY KEY (tenant, command_id)
);
CREATE INDEX awaits_run ON awaits (run_id);

-- The slot ledger, the run lease and the janitor's universe.
CREATE TABLE open_runs (
    run_id            uuid PRIMARY KEY,
    tenant            text NOT NULL,
    workflow          text NOT NULL,
    workflow_version  integer NOT NULL,
    status            text NOT NULL,
    slot              boolean NOT NULL,
    queued            boolean NOT NULL,
    woken             boolean NOT NULL,
    owner             bigint,
    takeovers         integer NOT NULL DEFAULT 0,
    deadline          timestamptz,
    deadline_lease    timestamptz,
    started_at        timestamptz NOT NULL,
    changed_at        timestamptz NOT NULL
) WITH (fillfactor = 80);
CREATE INDEX open_runs_slots ON open_runs (tenant, workflow) WHERE slot;
CREATE INDEX open_runs_queued ON open_runs (tenant, woken DESC, started_at) WHERE queued;
CREATE INDEX open_runs_owner ON open_runs (owner);
CREATE INDEX open_runs_deadline ON open_runs (deadline) WHERE deadline IS NOT NULL;

CREATE TABLE checkpoints (
    view     text NOT NULL,
    lane     smallint NOT NULL,
    position bigint NOT NULL,
    PRIMARY KEY (view, lane)
);

CREATE TABLE dead_letters (
    id          uuid PRIMARY KEY,
    tenant      text NOT NULL,
    reason      text NOT NULL,
    detail      text NOT NULL,
    source      text NOT NULL,
    routing_key text NOT NULL,
    event_id    text,
    type        text,
    attempts    jsonb NOT NULL,
    envelope    bytea NOT NULL,
    headers     jsonb NOT NULL,
    state       text NOT NULL CHECK (state IN ('dead', 'redriven', 'discarded')),
    created_at  timestamptz NOT NULL,
    settled_at  timestamptz,
    settled_by  text
);
CREATE INDEX dead_letters_tenant ON dead_letters (tenant, id);
CREATE INDEX dead_letters_state ON dead_letters (state, id);

CREATE TABLE keys (
    tenant  text NOT NULL,
    scope   text NOT NULL,
    key_id  bigint NOT NULL,
    wrapped bytea NOT NULL,
    root_id text NOT NULL,
    PRIMARY KEY (tenant, scope, key_id)
);
CREATE INDEX keys_root ON keys (root_id);

CREATE TABLE tokens (
    prefix       text PRIMARY KEY,
    digest       bytea NOT NULL,
    tenant       text,
    name         text NOT NULL,
    roles        text[] NOT NULL,
    created_at   timestamptz NOT NULL,
    expires_at   timestamptz,
    revoked_at   timestamptz,
    last_used_at timestamptz
);
CREATE INDEX tokens_tenant ON tokens (tenant);

CREATE TABLE settings (
    tenant text NOT NULL,
    name   text NOT NULL,
    value  jsonb NOT NULL,
    PRIMARY KEY (tenant, name)
);

-- Privileges bind other roles; these triggers bind the owner as well.
CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'table % is append-only: % is refused', TG_TABLE_NAME, TG_OP USING ERRCODE = 'integrity_constraint_violation';
END $$;
CREATE TRIGGER log_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON log FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER starts_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON starts FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
