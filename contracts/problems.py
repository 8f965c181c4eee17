"""Every refusal a user can meet, once, as data: code, HTTP status, exit code, whether trying again can help.

    Problem
    ├── EnvelopeInvalid        a message is malformed                      dead letter / 400
    ├── ContractUnknown        no installed module declares this type     dead letter / 400
    ├── PayloadInvalid         `data` does not fit the declared model     dead letter / 422
    ├── ManifestInvalid        a module declares something impossible      the module does not load
    ├── TopicUnknown · EventNewer · EventBroken   a stored event that cannot be read    upgrade / restore
    ├── DuplicateMismatch      a known id came again with another body    dead letter / 409
    ├── Unauthenticated · Forbidden · NotFound · Conflict · TooLarge · RateLimited · QuotaExceeded · Unavailable
    └── (engine floors add their own subclasses; `code` stays unique, a test checks it)

Rendered as RFC 9457 problem+json over HTTP, as one line and an exit code on the CLI, as the reason of a dead letter on
the bus.
"""

from __future__ import annotations

from typing import Any, ClassVar


class Problem(Exception):
    """A refusal with a stable `code`, an HTTP `status`, a CLI `exit_code` and a remedy in its message."""

    code: ClassVar[str] = "problem"
    title: ClassVar[str] = "Something was refused"
    status: ClassVar[int] = 500
    exit_code: ClassVar[int] = 1
    retryable: ClassVar[bool] = False

    def __init__(self, detail: str, *, field: str | None = None, **context: Any) -> None:
        super().__init__(detail)
        self.detail = detail
        self.field = field
        self.context = context

    def to_document(self) -> dict[str, Any]:
        """The RFC 9457 members, plus `code`, `field` when one is to blame, and the context."""
        # The context goes first: a name in it may never stand in for a member that readers decide by.
        document: dict[str, Any] = {
            **self.context,
            "type": f"urn:unwind:problem:{self.code}",
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
            "code": self.code,
        }
        if self.field is not None:
            document["field"] = self.field
        return document


class EnvelopeInvalid(Problem):
    code = "envelope_invalid"
    title = "The envelope is malformed"
    status = 400
    exit_code = 2

    def __init__(self, field: str, remedy: str) -> None:
        super().__init__(f"{field} {remedy}", field=field)


class ContractUnknown(Problem):
    code = "contract_unknown"
    title = "No installed module declares this type"
    status = 400
    exit_code = 2


class PayloadInvalid(Problem):
    code = "payload_invalid"
    title = "The payload does not fit its declared model"
    status = 422
    exit_code = 2


class ManifestInvalid(Problem):
    code = "manifest_invalid"
    title = "A module's manifest is wrong"
    status = 500
    exit_code = 2


class TopicUnknown(Problem):
    code = "topic_unknown"
    title = "A stored event has a topic this version does not know"
    status = 500
    exit_code = 8


class EventNewer(Problem):
    code = "event_newer"
    title = "A stored event was written by a newer version"
    status = 500
    exit_code = 8


class EventBroken(Problem):
    code = "event_broken"
    title = "A stored event does not fit its shape"
    status = 500
    exit_code = 8


class DuplicateMismatch(Problem):
    code = "duplicate_mismatch"
    title = "This id was used before with another body"
    status = 409
    exit_code = 4


class Unauthenticated(Problem):
    code = "unauthenticated"
    title = "Authentication is required"
    status = 401
    exit_code = 5


class Forbidden(Problem):
    code = "forbidden"
    title = "Your token does not permit this"
    status = 403
    exit_code = 5


class NotFound(Problem):
    code = "not_found"
    title = "There is no such thing here"
    status = 404
    exit_code = 3


class Conflict(Problem):
    code = "conflict"
    title = "The current state does not allow this"
    status = 409
    exit_code = 4


class TenantOffboarded(Problem):
    code = "tenant_offboarded"
    title = "This tenant was offboarded, or is being so"
    status = 409
    exit_code = 4


class TooLarge(Problem):
    code = "too_large"
    title = "The content is too large"
    status = 413
    exit_code = 2


class RateLimited(Problem):
    code = "rate_limited"
    title = "Too many requests"
    status = 429
    exit_code = 6
    retryable = True


class QuotaExceeded(Problem):
    """What a tenant may use is used up: context `cap`, `limit` and, where it is one workflow's, `workflow`."""

    code = "quota_exceeded"
    title = "A quota of the tenant is used up"
    status = 429
    exit_code = 6


class PayloadOverQuota(QuotaExceeded):
    """It is larger than the tenant's quota `payload_bytes`: to come later does not help. The code is that of every
    quota.
    """

    title = "Larger than the tenant may send"
    status = 413
    exit_code = 2


class Unavailable(Problem):
    code = "unavailable"
    title = "A part the engine depends on does not answer"
    status = 503
    exit_code = 7
    retryable = True
