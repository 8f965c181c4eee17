-- Counters of what was used, added up; always in the order of the tenants, so that two processes never wait for each other in a circle.
CREATE OR REPLACE FUNCTION account(
    p_day text, p_tenants text[], p_decide double precision[], p_project double precision[], p_rows bigint[], p_sends bigint[], p_actions bigint[]
) RETURNS void LANGUAGE sql AS $$
    INSERT INTO accounts AS a (tenant, day, decide_seconds, project_seconds, rows, sends, actions)
    SELECT u.tenant, p_day::date, u.decide, u.project, u.rows, u.sends, u.actions
    FROM unnest(p_tenants, p_decide, p_project, p_rows, p_sends, p_actions) AS u(tenant, decide, project, rows, sends, actions)
    ORDER BY u.tenant
    ON CONFLICT (tenant, day) DO UPDATE
    SET decide_seconds = a.decide_seconds + excluded.decide_seconds, project_seconds = a.project_seconds + excluded.project_seconds,
        rows = a.rows + excluded.rows, sends = a.sends + excluded.sends, actions = a.actions + excluded.actions;
$$;

CREATE OR REPLACE FUNCTION accounts(p_tenant text, p_from text, p_to text, p_limit integer)
RETURNS TABLE (
    tenant text, day text, decide_seconds double precision, project_seconds double precision, rows bigint, sends bigint, actions bigint
) LANGUAGE sql STABLE AS $$
    SELECT a.tenant, a.day::text, a.decide_seconds, a.project_seconds, a.rows, a.sends, a.actions FROM accounts a
    WHERE (p_tenant IS NULL OR a.tenant = p_tenant) AND a.day BETWEEN p_from::date AND p_to::date
    ORDER BY a.day DESC, a.tenant LIMIT p_limit;
$$;

-- Of the next rows of a lane after a position, archived ones among them, `p_limit` at most: how many events of runs each tenant has of each day of
-- a span. Where they reach the lane's head, or are all later (`whole`), also how many are counted, as of the same moment. One row at least, of no
-- tenant.
CREATE OR REPLACE FUNCTION rows_portion(p_lane smallint, p_after bigint, p_from text, p_to text, p_limit integer)
RETURNS TABLE (upto bigint, whole boolean, tenant text, day text, rows bigint, counted bigint) LANGUAGE sql STABLE AS $$
    WITH portion AS (
        SELECT coalesce(max(x.position), p_after) AS upto,
               count(*) < p_limit OR bool_and(x.recorded_at >= (p_to::timestamp + interval '1 day') AT TIME ZONE 'UTC') AS whole
        FROM (
            (SELECT l.position, l.recorded_at FROM log l WHERE l.lane = p_lane AND l.position > p_after ORDER BY l.position LIMIT p_limit)
            UNION ALL
            (SELECT a.position, a.recorded_at FROM archive a WHERE a.lane = p_lane AND a.position > p_after ORDER BY a.position LIMIT p_limit)
            ORDER BY position LIMIT p_limit
        ) x
    ), n AS (
        SELECT u.tenant, (u.recorded_at AT TIME ZONE 'UTC')::date AS day, count(*) AS rows
        FROM (
            SELECT l.tenant, l.kind, l.recorded_at FROM log l
            WHERE l.lane = p_lane AND l.position > p_after AND l.position <= (SELECT p.upto FROM portion p)
            UNION ALL
            SELECT a.tenant, a.kind, a.recorded_at FROM archive a
            WHERE a.lane = p_lane AND a.position > p_after AND a.position <= (SELECT p.upto FROM portion p)
        ) u
        WHERE u.kind = 'run' AND (u.recorded_at AT TIME ZONE 'UTC')::date BETWEEN p_from::date AND p_to::date GROUP BY 1, 2
    ), c AS (
        SELECT a.tenant, a.day, a.rows FROM accounts a WHERE (SELECT p.whole FROM portion p) AND a.day BETWEEN p_from::date AND p_to::date
    )
    SELECT p.upto, p.whole, coalesce(n.tenant, c.tenant), coalesce(n.day, c.day)::text, coalesce(n.rows, 0), coalesce(c.rows, 0)
    FROM portion p LEFT JOIN (n FULL JOIN c ON c.tenant = n.tenant AND c.day = n.day) ON true;
$$;

-- For programs from before `rows_portion`: all in one statement, which a large log does not allow.
CREATE OR REPLACE FUNCTION recount_accounts(p_from text, p_to text) RETURNS bigint LANGUAGE sql AS $$
    WITH counted AS (
        SELECT l.tenant, (l.recorded_at AT TIME ZONE 'UTC')::date AS day, count(*) AS rows
        FROM (SELECT g.tenant, g.kind, g.recorded_at FROM log g UNION ALL SELECT a.tenant, a.kind, a.recorded_at FROM archive a) AS l
        WHERE l.kind = 'run' AND l.recorded_at >= p_from::timestamp AT TIME ZONE 'UTC'
          AND l.recorded_at < (p_to::timestamp + interval '1 day') AT TIME ZONE 'UTC'
        GROUP BY 1, 2
    ), put AS (
        INSERT INTO accounts AS a (tenant, day, decide_seconds, project_seconds, rows, sends, actions)
        SELECT c.tenant, c.day, 0, 0, c.rows, 0, 0 FROM counted c ORDER BY 1, 2
        ON CONFLICT (tenant, day) DO UPDATE SET rows = excluded.rows WHERE a.rows <> excluded.rows RETURNING 1
    )
    SELECT count(*) FROM put;
$$;
