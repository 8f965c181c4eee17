"""What goes in over HTTP about outlets."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from consumers.web.asked import Asked, Query, Remark, Text

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


class SwitchOutlet(Asked):
    enabled: bool
    reason: Remark = ""
