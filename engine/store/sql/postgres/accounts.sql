-- What each tenant has cost, per UTC day (`YYYY-MM-DD`).

-- name: account
SELECT account(:day, :tenants, :decide, :project, :rows, :sends, :actions)

-- name: accounts
SELECT * FROM accounts(:tenant, :first, :last, :limit)

-- name: recount_accounts
SELECT recount_accounts(:first, :last) AS changed
