"""Every route of the API, once. The app is built from it, the OpenAPI document is written from it, and the tests for
roles and for tenant isolation walk it.
"""

from __future__ import annotations

from typing import Final

from consumers.web import (
    acting,
    archive,
    asked,
    asked_outlets,
    asked_people,
    backfilling,
    bulks,
    egress,
    endpoints,
    hooks,
    offboarding,
    oidc,
    outlets,
    pausing,
    people,
    policies,
    quotas,
    runs,
    secrets,
    showing,
    sign_in,
    subjects,
    tokens,
    told,
    told_outlets,
    told_people,
    told_platform,
)
from consumers.web.routes import Route

ROUTES: Final[tuple[Route, ...]] = (
    Route(
        method="POST", path="/v1/events", handler=acting.publish_event, tag="events", permission="events.publish",
        summary="Publish an event: a whole envelope, or a type and its data",
        body=asked.PublishEvent, answer=told.Published, status=202, key=True,
    ),
    Route(
        method="GET", path="/v1/workflows", handler=showing.list_workflows, tag="workflows",
        permission="workflows.read", summary="Workflows that this engine can run",
        query=asked.Query, answer=told_platform.Workflows,
    ),
    Route(
        method="POST", path="/v1/workflows/{workflow}/runs", handler=acting.start_run, tag="runs",
        permission="runs.start", summary="Start a run; the same Idempotency-Key answers with the original run",
        body=asked.StartRun, query=asked.Query, answer=told.RunBegun, status=202, key=True,
    ),
    Route(
        method="POST", path="/v1/workflows/{workflow}/backfill", handler=backfilling.backfill, tag="runs",
        permission="runs.start", summary="Start a workflow on past events of the journal, a page at a time",
        body=asked.Backfill, query=asked.Query, answer=told.Backfilled,
    ),
    Route(
        method="POST", path="/v1/bulks", handler=bulks.begin_bulk, tag="runs", permission="runs.read",
        summary="Record that one word is about to be told to many; needs the word's own permission, too",
        body=asked.BeginBulk, query=asked.Query, answer=told.BulkRecorded, status=201,
    ),
    Route(
        method="POST", path="/v1/bulks/{bulk_id}/addressed", handler=bulks.address_bulk, tag="runs",
        permission="runs.read", summary="Record which runs, or dead letters, of the tenant a bulk tells next",
        body=asked.AddressBulk, query=asked.Query, answer=told.BulkRecorded,
    ),
    Route(
        method="POST", path="/v1/bulks/{bulk_id}/ended", handler=bulks.end_bulk, tag="runs", permission="runs.read",
        summary="Record what a bulk did, and whether it was stopped part-way",
        body=asked.EndBulk, query=asked.Query, answer=told.BulkRecorded,
    ),
    Route(
        method="POST", path="/v1/commands", handler=acting.order_command, tag="runs", permission="runs.start",
        summary="Order one command of a module, recorded and audited as a run of one step",
        body=asked.OrderCommand, query=asked.Query, answer=told.RunBegun, status=202, key=True,
    ),
    Route(
        method="GET", path="/v1/events/{event_id}/explain", handler=runs.explain_event, tag="events",
        permission="runs.read", summary="What an event started, woke or answered, and why it did not",
        query=asked.EventQuery, answer=told.EventExplanation,
    ),
    Route(
        method="GET", path="/v1/runs", handler=runs.list_runs, tag="runs", permission="runs.read",
        summary="Runs, newest first", query=asked.RunsQuery, answer=told.Runs, view="history",
    ),
    Route(
        method="GET", path="/v1/runs/{run_id}", handler=runs.get_run, tag="runs", permission="runs.read",
        summary="One run with its data, output and error",
        query=asked.Reading, answer=told.RunDetail, view="history",
    ),
    Route(
        method="GET", path="/v1/runs/{run_id}/timeline", handler=runs.get_timeline, tag="runs", permission="runs.read",
        summary="Everything that happened to a run, in order",
        query=asked.TimelineQuery, answer=told.Timeline, view="history",
    ),
    Route(
        method="GET", path="/v1/runs/{run_id}/steps", handler=runs.get_steps, tag="runs", permission="runs.read",
        summary="The steps of a run: input, output, error, attempts, duration, cost, undo",
        query=asked.Reading, answer=told.Steps, view="history",
    ),
    Route(
        method="GET", path="/v1/runs/{run_id}/explain", handler=runs.explain_run, tag="runs", permission="runs.read",
        summary="Why a run is not moving, and what will move it", query=asked.Query, answer=told.Explanation,
    ),
    Route(
        method="GET", path="/v1/runs/{run_id}/replay", handler=runs.replay_run, tag="runs", permission="runs.read",
        summary="Decide a run again from its events, without any effect, and name the first difference",
        query=asked.Query, answer=told.Replay,
    ),
    Route(
        method="POST", path="/v1/runs/{run_id}/cancel", handler=acting.cancel_run, tag="runs", permission="runs.cancel",
        summary="Stop a run and undo what it did", body=asked.Reason, query=asked.Query, answer=told.Accepted,
        status=202,
    ),
    Route(
        method="POST", path="/v1/runs/{run_id}/terminate", handler=acting.terminate_run, tag="runs",
        permission="runs.terminate", summary="Close a run at once, undo nothing, list what is left",
        body=asked.Reason, query=asked.Query, answer=told.Accepted, status=202,
    ),
    Route(
        method="POST", path="/v1/runs/{run_id}/retry", handler=acting.retry_run, tag="runs", permission="runs.retry",
        summary="Try what is parked again",
        body=asked.RetryRun, query=asked.Query, answer=told.Accepted, status=202,
    ),
    Route(
        method="POST", path="/v1/runs/{run_id}/rerun", handler=acting.rerun_run, tag="runs", permission="runs.rerun",
        summary="Run an ended run once more, as a run of its own that does not repeat effects that stand",
        body=asked.RerunRun, query=asked.Query, answer=told.Follower, status=202,
    ),
    Route(
        method="POST", path="/v1/runs/{run_id}/undo", handler=acting.undo_run, tag="runs", permission="runs.rerun",
        summary="Undo what an ended run did, as a run of its own with the receipts of that one",
        body=asked.Reason, query=asked.Query, answer=told.Follower, status=202,
    ),
    Route(
        method="POST", path="/v1/runs/{run_id}/skip", handler=acting.skip_step, tag="runs", permission="runs.skip",
        summary="Go on as if a parked step had answered this output",
        body=asked.SkipStep, query=asked.Query, answer=told.Accepted, status=202,
    ),
    Route(
        method="POST", path="/v1/runs/{run_id}/abandon", handler=acting.abandon_run, tag="runs",
        permission="runs.abandon", summary="Give a parked run up and undo what it did",
        body=asked.Reason, query=asked.Query, answer=told.Accepted, status=202,
    ),
    Route(
        method="GET", path="/v1/effects", handler=runs.list_effects, tag="runs", permission="runs.read",
        summary="The ledger of effects: key, what is known of it, cost; page by page of the list of runs",
        query=asked.EffectsQuery, answer=told.Effects, view="history",
    ),
    Route(
        method="GET", path="/v1/approvals", handler=showing.list_approvals, tag="approvals",
        permission="approvals.read", summary="Approvals, open ones unless asked otherwise",
        query=asked.ApprovalsQuery, answer=told.Approvals, view="approvals",
    ),
    Route(
        method="POST", path="/v1/runs/{run_id}/approvals/{name}", handler=acting.decide_approval, tag="approvals",
        permission="approvals.decide", summary="Approve or reject",
        body=asked.Decide, query=asked.Query, answer=told.Accepted, status=202,
    ),
    Route(
        method="GET", path="/v1/causation/{correlation_id}", handler=runs.get_story, tag="runs", permission="runs.read",
        summary="The causal tree of one correlation id", query=asked.Reading, answer=told.Story, view="history",
    ),
    Route(
        method="GET", path="/v1/dead-letters", handler=showing.list_dead_letters, tag="dead letters",
        permission="deadletters.read", summary="Messages that nobody could use",
        query=asked.DeadLettersQuery, answer=told.DeadLetters,
    ),
    Route(
        method="GET", path="/v1/dead-letters/{letter_id}", handler=showing.get_dead_letter, tag="dead letters",
        permission="deadletters.read", summary="One dead letter with its message, redacted",
        query=asked.Query, answer=told.DeadLetterDetail,
    ),
    Route(
        method="POST", path="/v1/dead-letters/{letter_id}/redrive", handler=showing.redrive_dead_letter,
        tag="dead letters", permission="deadletters.redrive", summary="Send it again, byte for byte; once only",
        body=asked.Reason, query=asked.Query, answer=told.Settled,
    ),
    Route(
        method="POST", path="/v1/dead-letters/{letter_id}/discard", handler=showing.discard_dead_letter,
        tag="dead letters", permission="deadletters.discard", summary="Give it up",
        body=asked.Reason, query=asked.Query, answer=told.Settled,
    ),
    Route(
        method="GET", path="/v1/usage", handler=showing.get_usage, tag="reports", permission="usage.read",
        summary="Quota usage per tenant: now and per day", query=asked.SpanQuery, answer=told_platform.Usage,
        view="usage",
    ),
    Route(
        method="GET", path="/v1/quotas/use", handler=quotas.show_use, tag="reports", permission="usage.read",
        summary="How much of each quota the tenant has used, from the counts that are enforced", query=asked.Query,
        answer=told_platform.QuotaUse,
    ),
    Route(
        method="GET", path="/v1/accounting", handler=showing.get_accounting, tag="reports",
        permission="accounting.read",
        summary="What each tenant used, per day: CPU time, rows, messages, local attempts",
        query=asked.SpanQuery, answer=told_platform.Accounting,
    ),
    Route(
        method="GET", path="/v1/stats", handler=showing.get_stats, tag="reports", permission="stats.read",
        summary="Runs per workflow by outcome, durations, cost",
        query=asked.StatsQuery, answer=told_platform.Statistics, view="stats",
    ),
    Route(
        method="GET", path="/v1/policies", handler=policies.show_policies, tag="policies", permission="tenants.read",
        summary="What the tenant forbids itself", query=asked.Query, answer=told_platform.Policies,
    ),
    Route(
        method="POST", path="/v1/policies", handler=policies.change_policies, tag="policies",
        permission="policies.write", summary="Change what the tenant forbids itself",
        body=asked.ChangePolicies, query=asked.Query, answer=told_platform.Policies,
    ),
    Route(
        method="GET", path="/v1/audit", handler=showing.list_audit, tag="audit", permission="audit.read",
        summary="Who did what, newest first", query=asked.AuditQuery, answer=told_platform.AuditEntries, view="audit",
    ),
    Route(
        method="GET", path="/v1/audit/head", handler=showing.get_audit_head, tag="audit", permission="audit.read",
        summary="The end of the tenant's chain", query=asked.Reading, answer=told_platform.AuditHead, view="audit",
    ),
    Route(
        method="GET", path="/v1/audit/verify", handler=showing.verify_audit, tag="audit", permission="audit.read",
        summary="Walk the tenant's chain and say whether it holds",
        query=asked.VerifyQuery, answer=told_platform.AuditVerdict, view="audit",
    ),
    Route(
        method="POST", path="/v1/tenants", handler=acting.register_tenant, tag="tenants", permission="tenants.create",
        summary="Register a tenant and begin its onboarding",
        body=asked.RegisterTenant, answer=told.RunBegun, status=202,
    ),
    Route(
        method="POST", path="/v1/subjects/erase", handler=subjects.erase_subject, tag="subjects",
        permission="subjects.erase", summary="Erase a data subject: what it sealed is gone for good",
        body=asked.EraseSubject, query=asked.Query, answer=told_platform.Erasure,
    ),
    Route(
        method="POST", path="/v1/subjects/export", handler=subjects.export_subject, tag="subjects",
        permission="subjects.export", summary="Everything that runs hold of a data subject, opened",
        body=asked.ExportSubject, query=asked.Query, answer=told_platform.SubjectExport,
    ),
    Route(
        method="GET", path="/v1/erasures", handler=subjects.list_erasures, tag="subjects", permission="audit.read",
        summary="Data subjects that were erased, by scope",
        query=asked.ErasuresQuery, answer=told_platform.PastErasures, view="audit",
    ),
    Route(
        method="POST", path="/v1/erasures", handler=subjects.apply_erasures, tag="subjects",
        permission="subjects.erase", summary="Erase by scope what was erased before the database was restored",
        body=asked.ApplyErasures, query=asked.Query, answer=told_platform.AppliedErasures,
    ),
    Route(
        method="GET", path="/v1/archive", handler=archive.list_archive, tag="archive", permission="archive.manage",
        summary="Months of archived runs", answer=told_platform.ArchiveMonths,
    ),
    Route(
        method="POST", path="/v1/archive", handler=archive.archive_runs, tag="archive", permission="archive.manage",
        summary="Archive runs that ended before a moment, or count them",
        body=asked.ArchiveRuns, query=asked.Query, answer=told_platform.RunsArchived,
    ),
    Route(
        method="GET", path="/v1/archive/{month}/events", handler=archive.list_archived_events, tag="archive",
        permission="archive.manage", summary="The events of a month's runs, masked, in the order of the log",
        query=asked.ArchivedEventsQuery, answer=told_platform.ArchivedEvents,
    ),
    Route(
        method="DELETE", path="/v1/archive/{month}", handler=archive.drop_archived, tag="archive",
        permission="archive.manage", summary="Delete a month of the archive for good",
        query=asked.DropQuery, answer=told_platform.MonthDropped,
    ),
    Route(
        method="GET", path="/v1/pauses", handler=pausing.list_pauses, tag="pauses", permission="runs.read",
        summary="Who is paused, and whether the platform is under maintenance",
        query=asked.Query, answer=told_platform.Pauses,
    ),
    Route(
        method="POST", path="/v1/pauses", handler=pausing.pause, tag="pauses", permission="runs.pause",
        summary="Let the tenant's runs, or everybody's, begin no new step",
        body=asked.Pause, query=asked.Query, answer=told_platform.Held, always=True,
    ),
    Route(
        method="DELETE", path="/v1/pauses", handler=pausing.resume, tag="pauses", permission="runs.pause",
        summary="Let the tenant's runs, or everybody's, go on", query=asked.ResumeQuery, answer=told_platform.Released,
        always=True,
    ),
    Route(
        method="GET", path="/v1/hooks", handler=endpoints.list_hooks, tag="webhooks", permission="hooks.read",
        summary="Webhook endpoints of the tenant; never their secrets", query=asked.Query, answer=told_platform.Hooks,
    ),
    Route(
        method="POST", path="/v1/hooks", handler=endpoints.add_hook, tag="webhooks", permission="hooks.manage",
        summary="Make a webhook endpoint; its secret is told this once",
        body=asked.AddHook, query=asked.Query, answer=told_platform.HookSecret, status=201,
    ),
    Route(
        method="POST", path="/v1/hooks/{hook}/rotate", handler=endpoints.rotate_hook, tag="webhooks",
        permission="hooks.manage", summary="Give an endpoint a new secret; the one before is taken for a while",
        body=asked.RotateHook, query=asked.Query, answer=told_platform.HookSecret,
    ),
    Route(
        method="DELETE", path="/v1/hooks/{hook}", handler=endpoints.remove_hook, tag="webhooks",
        permission="hooks.manage", summary="Remove a webhook endpoint: nothing is taken there any more",
        query=asked.Query, answer=told_platform.HookRemoved,
    ),
    Route(
        method="GET", path="/v1/outlets", handler=outlets.list_outlets, tag="outlets", permission="outlets.read",
        summary="Where notices are delivered to outside; never the secrets", query=asked.Query,
        answer=told_outlets.Outlets,
    ),
    Route(
        method="POST", path="/v1/outlets", handler=outlets.add_outlet, tag="outlets", permission="outlets.manage",
        summary="Make an outlet; its secret is told this once",
        body=asked_outlets.AddOutlet, query=asked.Query, answer=told_outlets.OutletSecret, status=201,
    ),
    Route(
        method="POST", path="/v1/outlets/{outlet}/rotate", handler=outlets.rotate_outlet, tag="outlets",
        permission="outlets.manage", summary="Give an outlet a new secret; the one before signs, too, for a while",
        body=asked_outlets.RotateOutlet, query=asked.Query, answer=told_outlets.OutletSecret,
    ),
    Route(
        method="POST", path="/v1/outlets/{outlet}/switch", handler=outlets.switch_outlet, tag="outlets",
        permission="outlets.manage", summary="Enable or disable an outlet",
        body=asked_outlets.SwitchOutlet, query=asked.Query, answer=told_outlets.Outlet,
    ),
    Route(
        method="POST", path="/v1/outlets/{outlet}/test", handler=outlets.test_outlet, tag="outlets",
        permission="outlets.manage", summary="Have a test delivered", query=asked.Query,
        answer=told_outlets.OutletTest, status=202,
    ),
    Route(
        method="GET", path="/v1/outlets/{outlet}/deliveries", handler=outlets.list_deliveries, tag="outlets",
        permission="outlets.read", summary="What was delivered, waits, or failed for good, newest first",
        query=asked_outlets.DeliveriesQuery, answer=told_outlets.Deliveries,
    ),
    Route(
        method="POST", path="/v1/outlets/{outlet}/redeliver", handler=outlets.redeliver_notices, tag="outlets",
        permission="outlets.redeliver", summary="Send one notice again, or all since a time that were not taken",
        body=asked_outlets.Redeliver, query=asked.Query, answer=told_outlets.Redelivered, status=202,
    ),
    Route(
        method="DELETE", path="/v1/outlets/{outlet}", handler=outlets.remove_outlet, tag="outlets",
        permission="outlets.manage", summary="Remove an outlet with its deliveries", query=asked.Query,
        answer=told_outlets.OutletRemoved,
    ),
    Route(
        method="POST", path="/v1/maintenance", handler=pausing.begin_maintenance, tag="pauses",
        permission="settings.write", summary="Take no work and no orders until it ends", body=asked.Reason,
        answer=told_platform.Held, always=True,
    ),
    Route(
        method="DELETE", path="/v1/maintenance", handler=pausing.end_maintenance, tag="pauses",
        permission="settings.write", summary="Take work again", answer=told_platform.Released, always=True,
    ),
    Route(
        method="GET", path="/v1/egress", handler=egress.get_egress, tag="egress", permission="egress.read",
        summary="What the tenant's outbound calls may do beyond the usual", query=asked.Query,
        answer=told_platform.Egress,
    ),
    Route(
        method="PUT", path="/v1/egress", handler=egress.put_egress, tag="egress", permission="egress.write",
        summary="Open private hosts and networks to one tenant, and set its rate; replaces what was there",
        body=asked.PutEgress, query=asked.Query, answer=told_platform.Egress,
    ),
    Route(
        method="GET", path="/v1/secrets", handler=secrets.list_secrets, tag="secrets", permission="secrets.read",
        summary="The tenant's secrets: names, kinds, versions, hosts; no value", query=asked.Query,
        answer=told_platform.Secrets,
    ),
    Route(
        method="GET", path="/v1/secrets/{secret}", handler=secrets.get_secret, tag="secrets",
        permission="secrets.read", summary="What may be known of one secret", query=asked.Query,
        answer=told_platform.Secret,
    ),
    Route(
        method="PUT", path="/v1/secrets/{secret}", handler=secrets.put_secret, tag="secrets",
        permission="secrets.write", summary="Set a secret, or replace all of it; its value is never answered again",
        body=asked.PutSecret, query=asked.Query, answer=told_platform.Secret,
    ),
    Route(
        method="POST", path="/v1/secrets/{secret}/rotate", handler=secrets.rotate_secret, tag="secrets",
        permission="secrets.write", summary="Give a secret a new value of the same kind, for the same hosts",
        body=asked.RotateSecret, query=asked.Query, answer=told_platform.Secret,
    ),
    Route(
        method="DELETE", path="/v1/secrets/{secret}", handler=secrets.remove_secret, tag="secrets",
        permission="secrets.write", summary="Delete a secret for good, with its data key", query=asked.Query,
        answer=told_platform.Secret,
    ),
    Route(
        method="GET", path="/v1/tokens", handler=tokens.list_tokens, tag="tokens", permission="tokens.manage",
        summary="API tokens by prefix, with roles and last use; no text", query=asked.Query,
        answer=told_platform.Tokens,
    ),
    Route(
        method="POST", path="/v1/tokens", handler=tokens.create_token, tag="tokens", permission="tokens.manage",
        summary="Make an API token with roles that hold no more than the caller may; its text is told this once",
        body=asked.CreateToken, query=asked.Query, answer=told_platform.NewToken, status=201,
    ),
    Route(
        method="DELETE", path="/v1/tokens/{prefix}", handler=tokens.revoke_token, tag="tokens",
        permission="tokens.manage", summary="Make a token worthless from now on", query=asked.Query,
        answer=told_platform.TokenRevoked,
    ),
    Route(
        method="GET", path="/v1/tenants/{tenant}/quotas", handler=quotas.show_quotas, tag="tenants",
        permission="tenants.read", summary="What the tenant's runs may use: its own word, and what bounds it",
        answer=told_platform.TenantQuotas,
    ),
    Route(
        method="PUT", path="/v1/tenants/{tenant}/quotas", handler=quotas.put_quotas, tag="tenants",
        permission="settings.write", summary="Say what the tenant's runs may use; for tenant * everybody's",
        body=asked.PutQuotas, answer=told_platform.QuotasPut, always=True,
    ),
    Route(
        method="GET", path="/v1/tenants/{tenant}", handler=showing.show_tenant, tag="tenants",
        permission="tenants.read", summary="A tenant's state and what holds it, as the tenancy module says now",
        answer=told_platform.Tenant,
    ),
    Route(
        method="POST", path="/v1/tenants/{tenant}/suspend", handler=acting.suspend_tenant, tag="tenants",
        permission="tenants.manage", summary="Suspend a tenant: nobody signs in, nothing is sent",
        body=asked.MoveTenant, answer=told.RunBegun, status=202, key=True,
    ),
    Route(
        method="POST", path="/v1/tenants/{tenant}/reinstate", handler=acting.reinstate_tenant, tag="tenants",
        permission="tenants.manage", summary="Reinstate a suspended tenant, whatever holds it",
        body=asked.MoveTenant, answer=told.RunBegun, status=202, key=True,
    ),
    Route(
        method="POST", path="/v1/tenants/{tenant}/close", handler=acting.close_tenant, tag="tenants",
        permission="tenants.manage", summary="Close a tenant that is Active or Suspended, for good",
        body=asked.MoveTenant, answer=told.RunBegun, status=202, key=True,
    ),
    Route(
        method="POST", path="/v1/tenants/{tenant}/offboard", handler=offboarding.offboard_tenant, tag="tenants",
        permission="tenants.offboard", summary="Make all that the engine knows of a closed tenant unreadable, for good",
        body=asked.OffboardTenant, answer=told_platform.Offboarded,
    ),
    Route(
        method="POST", path="/v1/session", handler=sign_in.sign_in, tag="session", permission=None,
        summary="Sign in by e-mail address and password; the session is in the cookie of the answer",
        body=asked_people.SignIn, answer=told_people.SessionTold, status=201, always=True,
    ),
    Route(
        method="GET", path="/v1/session", handler=sign_in.show_session, tag="session", permission=None, session=True,
        summary="Who is signed in, where he may act, and the token that his page sends", answer=told_people.SessionTold,
    ),
    Route(
        method="GET", path="/v1/session/providers", handler=oidc.list_providers, tag="session", permission=None,
        summary="The identity provider that people may sign in by, if there is one", answer=told_people.Providers,
    ),
    Route(
        method="GET", path=oidc.BEGIN, handler=oidc.begin_oidc, tag="session", permission=None,
        summary="Go to the identity provider to sign in there",
        query=asked_people.BeginOidc, answer=told_people.Onward, status=302,
    ),
    Route(
        method="GET", path=oidc.BACK, handler=oidc.finish_oidc, tag="session", permission=None,
        summary="Come back from the identity provider; the session is in the cookie of the answer",
        query=asked_people.FinishOidc, answer=told_people.Onward, status=302,
    ),
    Route(
        method="DELETE", path="/v1/session", handler=sign_in.sign_out, tag="session", permission=None, session=True,
        summary="Sign out", answer=told_people.SignedOut, always=True,
    ),
    Route(
        method="PUT", path="/v1/session/tenant", handler=sign_in.move_session, tag="session", permission=None,
        session=True, summary="Act in another tenant from now on", body=asked_people.MoveSession,
        answer=told_people.SessionTold, always=True,
    ),
    Route(
        method="POST", path="/v1/session/password", handler=sign_in.change_password, tag="session", permission=None,
        session=True, summary="Change one's own password", body=asked_people.ChangePassword,
        answer=told_people.SignedOut,
    ),
    Route(
        method="GET", path="/v1/sessions", handler=sign_in.list_sessions, tag="session", permission=None, session=True,
        summary="One's own sessions", answer=told_people.SessionEntries,
    ),
    Route(
        method="DELETE", path="/v1/sessions", handler=sign_in.end_other_sessions, tag="session", permission=None,
        session=True, summary="Sign out everywhere else", answer=told_people.SignedOut, always=True,
    ),
    Route(
        method="POST", path="/v1/invitations/accept", handler=sign_in.accept_invitation, tag="session", permission=None,
        summary="Accept an invitation; proven by its token, and by the password of a user who is known",
        body=asked_people.AcceptInvitation, answer=told_people.SessionTold, status=201,
    ),
    Route(
        method="GET", path="/v1/invitations", handler=people.list_invitations, tag="users", permission="users.read",
        summary="Invitations; never their tokens", query=asked.Query, answer=told_people.Invitations,
    ),
    Route(
        method="POST", path="/v1/invitations", handler=people.invite_user, tag="users", permission="users.manage",
        summary="Invite somebody; the token is told this once", body=asked_people.Invite, query=asked.Query,
        answer=told_people.InvitationToken, status=201,
    ),
    Route(
        method="DELETE", path="/v1/invitations/{invitation_id}", handler=people.revoke_invitation, tag="users",
        permission="users.manage", summary="Revoke an invitation", query=asked.Query, answer=told_people.Invitation,
    ),
    Route(
        method="GET", path="/v1/users", handler=people.list_users, tag="users", permission="users.read",
        summary="Users: members of the tenant, or everybody", query=asked_people.UsersQuery, answer=told_people.Users,
    ),
    Route(
        method="GET", path="/v1/users/{user_id}", handler=people.get_user, tag="users", permission="users.read",
        summary="One user", query=asked.Query, answer=told_people.User,
    ),
    Route(
        method="PATCH", path="/v1/users/{user_id}", handler=people.change_user, tag="users", permission="users.manage",
        summary="Change a user's roles, or whether he may act; it holds at once", body=asked_people.ChangeUser,
        query=asked.Query, answer=told_people.User, always=True,
    ),
    Route(
        method="DELETE", path="/v1/users/{user_id}/sessions", handler=people.sign_user_out, tag="users",
        permission="users.manage", summary="End a user's sessions", query=asked.Query, answer=told_people.SignedOut,
        always=True,
    ),
    Route(
        method="DELETE", path="/v1/users/{user_id}/identities", handler=oidc.unlink_identities, tag="users",
        permission="users.erase", summary="Forget who a user is to the identity provider; a sign-in may link anew",
        answer=told_people.IdentitiesUnlinked, always=True,
    ),
    Route(
        method="DELETE", path="/v1/users/{user_id}", handler=people.erase_user, tag="users", permission="users.erase",
        summary="Delete all that is kept of a user, for good", answer=told_people.UserErased,
    ),
    Route(
        method="POST", path="/hooks/{tenant}/{path:.+}", handler=hooks.start_by_hook, tag="webhooks", permission=None,
        summary="Start the workflow of this endpoint; proven by a token or a signature over the body",
        answer=told.RunBegun, status=202, signed=True, key=True,
    ),
    Route(
        method="POST", path="/signup", handler=hooks.start_by_signup, tag="webhooks", permission=None,
        summary="Start the sign-up workflow; proven by a token or a signature over the body",
        answer=told.RunBegun, status=202, signed=True, key=True,
    ),
)  # fmt: skip

ALIASES: Final = {"/tenants": "/v1/tenants"}
"""Addresses that mean another one."""
