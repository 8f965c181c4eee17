-- What an installation of that time leaves: a process, an open run with a timer and a message, a key, a setting, a dead letter.
INSERT INTO tenants (tenant, created_at) VALUES ('acme', 1767225600000000);
INSERT INTO processes (name, roles, started_at, seen_at) VALUES ('old', '["all"]', 1767225600000000, 1767225600000000);
INSERT INTO log (lane, tenant, originator_id, kind, originator_version, topic, recorded_at, state) VALUES
    (0, 'acme', '018f0000000070008000000000000001', 'run', 1, 'a', 1767225600000000, x'01'),
    (0, 'acme', '018f0000000070008000000000000001', 'run', 2, 'b', 1767225600000000, x'02');
INSERT INTO starts (tenant, start_key, run_id) VALUES ('acme', 'event/w/1', '018f0000000070008000000000000001');
INSERT INTO open_runs (run_id, tenant, workflow, workflow_version, status, slot, queued, woken, owner, started_at, changed_at)
VALUES ('018f0000000070008000000000000001', 'acme', 'w', 1, 'waiting', 1, 0, 0, 1, 1767225600000000, 1767225600000000);
INSERT INTO timers (run_id, key, tenant, due, available_at) VALUES ('018f0000000070008000000000000001', 't', 'acme', 1767225600000000, 1767225600000000);
INSERT INTO outbox (tenant, run_id, message_id, exchange, routing_key, body, created_at, available_at)
VALUES ('acme', '018f0000000070008000000000000001', 'm', 'e', 'k', x'03', 1767225600000000, 1767225600000000);
INSERT INTO keys (tenant, scope, key_id, wrapped, root_id) VALUES ('acme', 'data', 1, x'04', 'r');
INSERT INTO settings (tenant, name, value) VALUES ('acme', 'cap', '3');
INSERT INTO dead_letters (id, tenant, reason, detail, source, routing_key, attempts, envelope, headers, state, created_at)
VALUES ('018f0000000070008000000000000001', 'acme', 'unreadable', 'd', 's', 'k', '[]', x'05', '{}', 'dead', 1767225600000000);
