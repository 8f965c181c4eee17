"""What the store refuses, one class per thing a caller can do about it. Raised by both drivers, caught by the
coordinator and the consumers; expected answers to an append (duplicate, stale, limited, fenced) are outcomes, not
errors.

    Problem
    ├── Unavailable      the database does not answer: wait, make the same call again
    ├── CommitRefused    the database rejects one commit of a batch: bury that one, the others are settled
    ├── ContentRefused   the database rejects a value: correct it, the same call fails every time
    ├── TenantRefused    a caller bound to one tenant named another
    ├── SchemaNewer      the database was migrated by a later version: run that version
    ├── SchemaOlder      the database lacks migrations: run `unwind migrate`
    └── SchemaChanged    an applied migration differs from the file: restore the file
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from contracts.problems import Problem, Unavailable

if TYPE_CHECKING:
    from engine.store import Outcome

__all__ = [
    "CommitRefused",
    "ContentRefused",
    "SchemaChanged",
    "SchemaNewer",
    "SchemaOlder",
    "TenantRefused",
    "Unavailable",
]


class CommitRefused(Problem):
    """`ordinal` (0-based) is the first guilty commit, `causes` has every one; `outcomes` has the answers of all
    others, None where refused."""

    code = "commit_refused"
    title = "The database refuses this commit"
    status = 422
    exit_code = 4

    def __init__(self, causes: Mapping[int, str], outcomes: Sequence[Outcome | None]) -> None:
        self.causes = dict(causes)
        self.ordinal = min(self.causes)
        self.outcomes = tuple(outcomes)
        super().__init__(
            f"commit {self.ordinal} of {len(self.outcomes)} cannot be stored: {self.causes[self.ordinal]}; "
            "correct or bury it",
            ordinal=self.ordinal,
        )


class ContentRefused(Problem):
    """Inside an append the batch is then halved until the guilty commits stand alone."""

    code = "content_refused"
    title = "The database refuses this content"
    status = 422
    exit_code = 4


class TenantRefused(Problem):
    code = "tenant_refused"
    title = "This belongs to another tenant"
    status = 403
    exit_code = 5


class SchemaNewer(Problem):
    code = "schema_newer"
    title = "The database is newer than this program"
    status = 500
    exit_code = 8

    def __init__(self, unknown: Sequence[str]) -> None:
        super().__init__(
            f"the database has migrations this program does not know: {', '.join(unknown)}; run a version that has them"
        )


class SchemaOlder(Problem):
    code = "schema_older"
    title = "The database is older than this program"
    status = 500
    exit_code = 8

    def __init__(self, missing: Sequence[str]) -> None:
        super().__init__(f"the database lacks the migrations {', '.join(missing)}; run `unwind migrate`")


class SchemaChanged(Problem):
    code = "schema_changed"
    title = "An applied migration was changed"
    status = 500
    exit_code = 8

    def __init__(self, name: str) -> None:
        super().__init__(
            f"migration {name} was applied with another content; restore the file and add a new migration instead"
        )
