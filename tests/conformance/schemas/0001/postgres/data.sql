-- What an installation of that time leaves: a process, an open run with a timer and a message, a key, a setting, a dead letter.
INSERT INTO tenants (tenant, created_at) VALUES ('acme', '2026-01-01Z');
INSERT INTO processes (name, roles, started_at, seen_at) VALUES ('old', '{all}', '2026-01-01Z', '2026-01-01Z');
INSERT INTO log (lane, position, tenant, stream, kind, version, topic, recorded_at, body) VALUES
    (0, nextval('log_position_0'), 'acme', '018f0000-0000-7000-8000-000000000001', 'run', 1, 'a', '2026-01-01Z', '\x01'),
    (0, nextval('log_position_0'), 'acme', '018f0000-0000-7000-8000-000000000001', 'run', 2, 'b', '2026-01-01Z', '\x02');
INSERT INTO starts (tenant, start_key, run_id) VALUES ('acme', 'event/w/1', '018f0000-0000-7000-8000-000000000001');
INSERT INTO open_runs (run_id, tenant, workflow, workflow_version, status, slot, queued, woken, owner, started_at, changed_at)
VALUES ('018f0000-0000-7000-8000-000000000001', 'acme', 'w', 1, 'waiting', true, false, false, 1, '2026-01-01Z', '2026-01-01Z');
INSERT INTO timers (run_id, key, tenant, due, available_at) VALUES ('018f0000-0000-7000-8000-000000000001', 't', 'acme', '2026-01-01Z', '2026-01-01Z');
INSERT INTO outbox (tenant, run_id, message_id, exchange, routing_key, body, created_at, available_at)
VALUES ('acme', '018f0000-0000-7000-8000-000000000001', 'm', 'e', 'k', '\x03', '2026-01-01Z', '2026-01-01Z');
INSERT INTO keys (tenant, scope, key_id, wrapped, root_id) VALUES ('acme', 'data', 1, '\x04', 'r');
INSERT INTO settings (tenant, name, value) VALUES ('acme', 'cap', '3');
INSERT INTO dead_letters (id, tenant, reason, detail, source, routing_key, attempts, envelope, headers, state, created_at)
VALUES ('018f0000-0000-7000-8000-000000000001', 'acme', 'unreadable', 'd', 's', 'k', '[]', '\x05', '{}', 'dead', '2026-01-01Z');
