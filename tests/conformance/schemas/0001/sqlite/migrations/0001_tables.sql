-- The embedded store's tables: the same as PostgreSQL's, with instants as microseconds since 1970 in UTC, uuids as hex, lists as JSON. There are no roles here;
-- triggers keep what is append-only, and every statement names its tenant.

CREATE TABLE tenants (
    tenant     TEXT PRIMARY KEY,
    lane       INTEGER NOT NULL DEFAULT 0,
    created_at INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE processes (
    epoch      INTEGER PRIMARY KEY AUTOINCREMENT,
    name       TEXT NOT NULL,
    roles      TEXT NOT NULL,
    started_at INTEGER NOT NULL,
    seen_at    INTEGER NOT NULL,
    dead       INTEGER NOT NULL DEFAULT 0
);

-- The column names are the recorder's; a position is the rowid, which AUTOINCREMENT never gives twice.
CREATE TABLE log (
    rowid              INTEGER PRIMARY KEY AUTOINCREMENT,
    originator_id      TEXT NOT NULL,
    originator_version INTEGER NOT NULL,
    topic              TEXT NOT NULL,
    state              BLOB NOT NULL,
    tenant             TEXT NOT NULL,
    lane               INTEGER NOT NULL,
    kind               TEXT NOT NULL,
    recorded_at        INTEGER NOT NULL,
    event_id           TEXT,
    metadata           TEXT,
    UNIQUE (originator_id, originator_version)
);

CREATE TABLE snapshots (
    stream  TEXT PRIMARY KEY,
    tenant  TEXT NOT NULL,
    version INTEGER NOT NULL,
    body    BLOB NOT NULL
) WITHOUT ROWID;

CREATE TABLE arrivals (
    id           INTEGER PRIMARY KEY AUTOINCREMENT,
    tenant       TEXT NOT NULL,
    source       TEXT NOT NULL,
    event_id     TEXT NOT NULL,
    type         TEXT NOT NULL,
    causation_id TEXT,
    received_at  INTEGER NOT NULL,
    body         BLOB NOT NULL
);
CREATE INDEX arrivals_causation ON arrivals (tenant, causation_id) WHERE causation_id IS NOT NULL;

CREATE TABLE arrival_keys (
    tenant      TEXT NOT NULL,
    type        TEXT NOT NULL,
    name        TEXT NOT NULL,
    hash        BLOB NOT NULL,
    received_at INTEGER NOT NULL,
    arrival     INTEGER NOT NULL,
    PRIMARY KEY (tenant, type, name, hash, received_at, arrival)
) WITHOUT ROWID;
CREATE INDEX arrival_keys_arrival ON arrival_keys (arrival);

CREATE TABLE arrival_outcomes (
    arrival     INTEGER NOT NULL,
    outcome     TEXT NOT NULL,
    recorded_at INTEGER NOT NULL,
    PRIMARY KEY (arrival, outcome)
) WITHOUT ROWID;

CREATE TABLE inbox (
    tenant    TEXT NOT NULL,
    source    TEXT NOT NULL,
    event_id  TEXT NOT NULL,
    body_hash BLOB NOT NULL,
    arrival   INTEGER NOT NULL,
    PRIMARY KEY (tenant, source, event_id)
) WITHOUT ROWID;

CREATE TABLE starts (
    tenant    TEXT NOT NULL,
    start_key TEXT NOT NULL,
    run_id    TEXT NOT NULL,
    PRIMARY KEY (tenant, start_key)
) WITHOUT ROWID;

CREATE TABLE input_keys (
    run_id TEXT NOT NULL,
    key    TEXT NOT NULL,
    PRIMARY KEY (run_id, key)
) WITHOUT ROWID;

CREATE TABLE inputs (
    id           INTEGER PRIMARY KEY AUTOINCREMENT,
    tenant       TEXT NOT NULL,
    kind         TEXT NOT NULL CHECK (kind IN ('start', 'fact', 'reply', 'note')),
    run_id       TEXT,
    workflow     TEXT,
    name         TEXT,
    visit        INTEGER NOT NULL,
    source       TEXT,
    event_id     TEXT,
    arrival      INTEGER,
    body         BLOB,
    created_at   INTEGER NOT NULL,
    available_at INTEGER NOT NULL,
    owner        INTEGER
);
CREATE INDEX inputs_available ON inputs (available_at, id);
CREATE INDEX inputs_run ON inputs (run_id) WHERE run_id IS NOT NULL;
CREATE INDEX inputs_arrival ON inputs (arrival) WHERE arrival IS NOT NULL;

CREATE TABLE outbox (
    id           INTEGER PRIMARY KEY AUTOINCREMENT,
    tenant       TEXT NOT NULL,
    run_id       TEXT,
    message_id   TEXT NOT NULL,
    exchange     TEXT NOT NULL,
    routing_key  TEXT NOT NULL,
    body         BLOB NOT NULL,
    created_at   INTEGER NOT NULL,
    available_at INTEGER NOT NULL,
    owner        INTEGER
);
CREATE INDEX outbox_available ON outbox (available_at, id);
CREATE INDEX outbox_run ON outbox (run_id) WHERE run_id IS NOT NULL;

CREATE TABLE timers (
    run_id       TEXT NOT NULL,
    key          TEXT NOT NULL,
    tenant       TEXT NOT NULL,
    due          INTEGER NOT NULL,
    available_at INTEGER NOT NULL,
    owner        INTEGER,
    PRIMARY KEY (run_id, key)
) WITHOUT ROWID;
CREATE INDEX timers_available ON timers (available_at);

CREATE TABLE subscriptions (
    id        INTEGER PRIMARY KEY AUTOINCREMENT,
    tenant    TEXT NOT NULL,
    run_id    TEXT NOT NULL,
    name      TEXT NOT NULL,
    visit     INTEGER NOT NULL,
    type      TEXT NOT NULL,
    key_name  TEXT NOT NULL,
    key_hash  BLOB NOT NULL,
    look_back INTEGER NOT NULL
);
CREATE INDEX subscriptions_key ON subscriptions (tenant, type, key_name, key_hash);
CREATE INDEX subscriptions_run ON subscriptions (run_id, name, visit);

CREATE TABLE awaits (
    tenant     TEXT NOT NULL,
    command_id TEXT NOT NULL,
    run_id     TEXT NOT NULL,
    step       TEXT NOT NULL,
    visit      INTEGER NOT NULL,
    types      TEXT NOT NULL,
    PRIMARY KEY (tenant, command_id)
) WITHOUT ROWID;
CREATE INDEX awaits_run ON awaits (run_id);

CREATE TABLE open_runs (
    run_id            TEXT PRIMARY KEY,
    tenant            TEXT NOT NULL,
    workflow          TEXT NOT NULL,
    workflow_version  INTEGER NOT NULL,
    status            TEXT NOT NULL,
    slot              INTEGER NOT NULL,
    queued            INTEGER NOT NULL,
    woken             INTEGER NOT NULL,
    owner             INTEGER,
    takeovers         INTEGER NOT NULL DEFAULT 0,
    deadline          INTEGER,
    deadline_lease    INTEGER,
    started_at        INTEGER NOT NULL,
    changed_at        INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX open_runs_slots ON open_runs (tenant, workflow) WHERE slot;
CREATE INDEX open_runs_queued ON open_runs (tenant, woken DESC, started_at) WHERE queued;
CREATE INDEX open_runs_owner ON open_runs (owner);
CREATE INDEX open_runs_deadline ON open_runs (deadline) WHERE deadline IS NOT NULL;

CREATE TABLE checkpoints (
    view     TEXT NOT NULL,
    lane     INTEGER NOT NULL,
    position INTEGER NOT NULL,
    PRIMARY KEY (view, lane)
) WITHOUT ROWID;

CREATE TABLE dead_letters (
    id          TEXT PRIMARY KEY,
    tenant      TEXT NOT NULL,
    reason      TEXT NOT NULL,
    detail      TEXT NOT NULL,
    source      TEXT NOT NULL,
    routing_key TEXT NOT NULL,
    event_id    TEXT,
    type        TEXT,
    attempts    TEXT NOT NULL,
    envelope    BLOB NOT NULL,
    headers     TEXT NOT NULL,
    state       TEXT NOT NULL CHECK (state IN ('dead', 'redriven', 'discarded')),
    created_at  INTEGER NOT NULL,
    settled_at  INTEGER,
    settled_by  TEXT
);
CREATE INDEX dead_letters_tenant ON dead_letters (tenant, id);
CREATE INDEX dead_letters_state ON dead_letters (state, id);

CREATE TABLE keys (
    tenant  TEXT NOT NULL,
    scope   TEXT NOT NULL,
    key_id  INTEGER NOT NULL,
    wrapped BLOB NOT NULL,
    root_id TEXT NOT NULL,
    PRIMARY KEY (tenant, scope, key_id)
) WITHOUT ROWID;
CREATE INDEX keys_root ON keys (root_id);

CREATE TABLE tokens (
    prefix       TEXT PRIMARY KEY,
    digest       BLOB NOT NULL,
    tenant       TEXT,
    name         TEXT NOT NULL,
    roles        TEXT NOT NULL,
    created_at   INTEGER NOT NULL,
    expires_at   INTEGER,
    revoked_at   INTEGER,
    last_used_at INTEGER
) WITHOUT ROWID;
CREATE INDEX tokens_tenant ON tokens (tenant);

CREATE TABLE settings (
    tenant TEXT NOT NULL,
    name   TEXT NOT NULL,
    value  TEXT NOT NULL,
    PRIMARY KEY (tenant, name)
) WITHOUT ROWID;
