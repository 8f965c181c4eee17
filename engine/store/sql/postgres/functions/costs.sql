-- Costs of a batch come as JSON, one object per commit that has any or that a budget bounds: ord, tenant, workflow, micros, and whether it begins
-- something. Asked and written by `append_with_costs` under the lane lock; a tenant has one lane, so that nobody else counts at the same time.

-- Commits that begin something though a budget is spent: 12 of the tenant's day, 13 of its month, 14 and 15 of the workflow's (num: the budget).
-- What the batch itself has cost up to a commit counts for it, also where a commit before it is refused: that will be recorded all the same.
CREATE OR REPLACE FUNCTION over_budgets(p_day date, p_costs jsonb, p_refused boolean[])
RETURNS TABLE (ord integer, code smallint, num bigint) LANGUAGE sql STABLE AS $$
    WITH asked AS (
        SELECT c.ord, c.tenant, c.workflow, c.begins,
               sum(c.micros) OVER (PARTITION BY c.tenant ORDER BY c.ord) AS micros,
               sum(c.micros) OVER (PARTITION BY c.tenant, c.workflow ORDER BY c.ord) AS workflow_micros
        FROM jsonb_to_recordset(p_costs) AS c(ord integer, tenant text, workflow text, micros bigint, begins boolean)
        WHERE p_refused[c.ord] IS NOT TRUE
    ), spent AS (
        SELECT n.tenant, n.workflow, CASE WHEN n.day = p_day THEN n.day_micros ELSE 0 END AS today,
               CASE WHEN n.month = date_trunc('month', p_day)::date THEN n.month_micros ELSE 0 END AS this_month
        FROM cost_counters n WHERE n.tenant = ANY (ARRAY(SELECT a.tenant FROM asked a WHERE a.begins))
    ), budgets AS MATERIALIZED (
        SELECT w.tenant, w.workflow,
               coalesce(own.value ->> 'daily_cost_micros', everyone.value ->> 'daily_cost_micros')::bigint AS daily,
               coalesce(own.value ->> 'monthly_cost_micros', everyone.value ->> 'monthly_cost_micros')::bigint AS monthly,
               coalesce(
                   own.value -> 'workflows' -> w.workflow ->> 'daily_cost_micros', own.value -> 'workflows' -> '*' ->> 'daily_cost_micros',
                   everyone.value -> 'workflows' -> w.workflow ->> 'daily_cost_micros', everyone.value -> 'workflows' -> '*' ->> 'daily_cost_micros'
               )::bigint AS workflow_daily,
               coalesce(
                   own.value -> 'workflows' -> w.workflow ->> 'monthly_cost_micros', own.value -> 'workflows' -> '*' ->> 'monthly_cost_micros',
                   everyone.value -> 'workflows' -> w.workflow ->> 'monthly_cost_micros', everyone.value -> 'workflows' -> '*' ->> 'monthly_cost_micros'
               )::bigint AS workflow_monthly,
               coalesce(t.today, 0) AS today, coalesce(t.this_month, 0) AS this_month,
               coalesce(s.today, 0) AS workflow_today, coalesce(s.this_month, 0) AS workflow_month
        FROM (SELECT DISTINCT a.tenant, a.workflow FROM asked a WHERE a.begins) w
        LEFT JOIN settings own ON own.tenant = ANY (ARRAY[w.tenant]) AND own.name = 'quotas'
        LEFT JOIN settings everyone ON everyone.tenant = '*' AND everyone.name = 'quotas'
        LEFT JOIN (SELECT z.tenant, sum(z.today) AS today, sum(z.this_month) AS this_month FROM spent z GROUP BY z.tenant) t ON t.tenant = w.tenant
        LEFT JOIN spent s ON s.tenant = w.tenant AND s.workflow = w.workflow
    )
    SELECT a.ord, f.code::smallint, f.num
    FROM asked a
    JOIN budgets b ON b.tenant = a.tenant AND b.workflow = a.workflow
    CROSS JOIN LATERAL (
        SELECT v.code, v.num FROM (VALUES
            (12, b.daily, b.today + a.micros), (13, b.monthly, b.this_month + a.micros),
            (14, b.workflow_daily, b.workflow_today + a.workflow_micros), (15, b.workflow_monthly, b.workflow_month + a.workflow_micros)
        ) AS v(code, num, spent)
        WHERE v.spent >= v.num ORDER BY v.code LIMIT 1
    ) f
    WHERE a.begins;
$$;

CREATE OR REPLACE FUNCTION add_costs(p_day date, p_costs jsonb, p_refused boolean[]) RETURNS void LANGUAGE sql AS $$
    INSERT INTO cost_counters AS n (tenant, workflow, day, day_micros, month, month_micros)
    SELECT c.tenant, c.workflow, p_day, sum(c.micros), date_trunc('month', p_day)::date, sum(c.micros)
    FROM jsonb_to_recordset(p_costs) AS c(ord integer, tenant text, workflow text, micros bigint)
    WHERE p_refused[c.ord] IS NOT TRUE AND c.micros <> 0
    GROUP BY c.tenant, c.workflow
    ON CONFLICT (tenant, workflow) DO UPDATE
    SET day_micros = CASE WHEN n.day = excluded.day THEN n.day_micros ELSE 0 END + excluded.day_micros, day = excluded.day,
        month_micros = CASE WHEN n.month = excluded.month THEN n.month_micros ELSE 0 END + excluded.month_micros, month = excluded.month;
$$;
