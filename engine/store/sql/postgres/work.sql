-- What processes claim: leases by epoch, inputs, outbox rows, timers.

-- name: register
SELECT register_process(:name, :roles, :version, :now) AS epoch

-- name: heartbeat
SELECT heartbeat(:epoch, :now) AS epoch

-- name: declare_dead
SELECT epoch FROM declare_dead_but(:silent_seconds, :now, :but) AS d(epoch)

-- name: retire
SELECT retire(:epoch)

-- name: restored
SELECT restored()

-- name: processes
SELECT * FROM processes()

-- name: claim_runs
SELECT * FROM claim_runs(:epoch, :workflows, :versions, :limit)

-- name: claim_named
SELECT * FROM claim_named(:epoch, :tenants, :runs)

-- name: release_runs
SELECT release_runs(:epoch, :runs)

-- name: hand_over
SELECT hand_over(:epoch, :runs, :now)

-- name: open_run
SELECT * FROM open_run(:tenant, :run)

-- name: open_runs
SELECT * FROM open_runs(:tenant, :after, :limit)

-- name: queued_runs
SELECT * FROM queued_runs_but(:epoch, :limit, :tenants, :of, :workflows)

-- name: slots_held
SELECT * FROM slots_held(:tenants)

-- name: claim_inputs
SELECT * FROM claim_inputs_but(:epoch, :limit, :now, :but)

-- name: claim_outbox
SELECT * FROM claim_outbox(:epoch, :limit, :now)

-- name: settle_outbox
SELECT settle_outbox(:sent, :returned, :retry_at)

-- name: due_timers
SELECT * FROM due_timers(:epoch, :limit, :now)

-- name: wakes
SELECT * FROM wakes(:tenant, :run)

-- name: runs_without_wake
SELECT * FROM runs_without_wake(:older_than_seconds, :limit, :now)

-- name: census
SELECT * FROM census(:most, :now)
