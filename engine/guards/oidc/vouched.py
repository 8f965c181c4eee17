"""Who an identity provider says has signed in, and how a sign-in ends badly. Used by all of `engine.guards.oidc`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from contracts.problems import Unauthenticated, Unavailable

REFUSED: Final = (
    "you were not signed in; begin again, and if that does not help ask for an invitation to an address that your "
    "identity provider has verified"
)
NOT_NOW: Final = "the identity provider cannot be asked now; try again"


@dataclass(frozen=True, slots=True, kw_only=True)
class Vouched:
    """`issuer` and `subject` together name one account for ever; an address may move to somebody else. `email` is worth
    something only when it is `email_verified`, which the provider said in so many words.
    """

    issuer: str
    subject: str
    email: str | None = None
    email_verified: bool = False
    name: str | None = None

    @property
    def verified_email(self) -> str | None:
        return self.email if self.email_verified else None


class OidcRefused(Unauthenticated):
    """One answer for whatever is wrong. `cause` is for the log: it never leaves the house."""

    code = "oidc_refused"
    title = "Nobody was signed in by the identity provider"

    def __init__(self, cause: str) -> None:
        super().__init__(REFUSED)
        self.cause = cause


class ProviderUnavailable(Unavailable):
    """The provider does not answer, or not as it must. `cause` is for the log."""

    code = "identity_provider_unavailable"
    title = "The identity provider does not answer"

    def __init__(self, cause: str) -> None:
        super().__init__(NOT_NOW)
        self.cause = cause
