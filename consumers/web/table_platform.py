"""Routes of what a tenant has and what the platform does about it: its life, quotas, policies, secrets, tokens,
webhooks, subjects, audit, archive, pauses and figures.
"""

from __future__ import annotations

from typing import Final

from consumers.web import (
    acting,
    archive,
    asked,
    egress,
    endpoints,
    hooks,
    offboarding,
    pausing,
    policies,
    quotas,
    secrets,
    showing,
    subjects,
    tokens,
    told,
    told_platform,
)
from consumers.web.routes import Route

ROUTES: Final[tuple[Route, ...]] = (
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
