"""What goes in over HTTP about outlets."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from consumers.web.asked import Asked, Instant, Query, Remark, Text

Secret = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=r"^[^\x00]*$")]


class DeliveriesQuery(Query):
    state: Literal["waiting", "delivered", "failed"] | None = None
    limit: int = Field(50, ge=1, le=500)


class AddOutlet(Asked):
    name: Text = Field(description="1 to 64 letters, digits, dots, dashes or underscores")
    url: Annotated[str, StringConstraints(min_length=1, max_length=2_048)] = Field(description="Where to, by https")
    types: list[Text] = Field(
        default_factory=list, max_length=100, description="Types of notices, such as unwind.RunParkedV1; none: all"
    )
    secret: Secret | None = Field(None, description="whsec_ and 24 to 64 bytes in base64; one is made otherwise")


class RotateOutlet(Asked):
    overlap_seconds: int = Field(
        86_400, ge=0, le=2_592_000, description="How long the secret before signs, too, for at most 30 days"
    )
    secret: Secret | None = Field(None, description="whsec_ and 24 to 64 bytes in base64; one is made otherwise")


class Redeliver(Asked):
    """Exactly one of `message_id` and `since` says what."""

    message_id: Text | None = Field(None, description="This notice, whatever became of it")
    since: Instant | None = Field(
        None, description="All notices made from then on that have failed, for good or so far; the oldest 10 000"
    )

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.message_id is None) == (self.since is None):
            raise ValueError("say what by message_id or by since, one of them")
        return self


class SwitchOutlet(Asked):
    enabled: bool
    reason: Remark = ""
