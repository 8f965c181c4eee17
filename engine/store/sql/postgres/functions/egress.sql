-- The outbound rules of a tenant: its own, or everybody's.
CREATE OR REPLACE FUNCTION egress_rules(p_tenant text) RETURNS jsonb LANGUAGE sql STABLE AS $$
    SELECT value FROM settings WHERE name = 'egress' AND tenant IN (p_tenant, '*') ORDER BY tenant = '*' LIMIT 1;
$$;

-- Up to `p_wanted` outbound requests of a slot, so that it and those before it hold at most `p_most`; tenants do not wait for each other.
CREATE OR REPLACE FUNCTION lease_egress(p_tenant text, p_slot bigint, p_width_ms bigint, p_slots integer, p_most integer, p_wanted integer)
RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
    granted integer;
BEGIN
    PERFORM pg_advisory_xact_lock(1970169722, hashtext(p_tenant));
    DELETE FROM egress_slots WHERE tenant = p_tenant AND (width_ms <> p_width_ms OR slot <= p_slot - p_slots);
    SELECT least(p_wanted, p_most - coalesce(sum(taken), 0)) INTO granted FROM egress_slots WHERE tenant = p_tenant;
    IF granted <= 0 THEN
        RETURN 0;
    END IF;
    INSERT INTO egress_slots AS e (tenant, slot, width_ms, taken) VALUES (p_tenant, p_slot, p_width_ms, granted)
    ON CONFLICT (tenant, slot) DO UPDATE SET taken = e.taken + excluded.taken;
    RETURN granted;
END $$;
