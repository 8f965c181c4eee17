-- What each tenant has cost, per UTC day (`YYYY-MM-DD`).

-- name: account
SELECT account(:day, :tenants, :decide, :project, :rows, :sends, :actions)

-- name: accounts
SELECT * FROM accounts(:tenant, :first, :last, :limit)

-- name: rows_counted
SELECT * FROM rows_portion(:lane, :after, :first, :last, :most)
