"""Sign-in by a provider of OpenID Connect: the authorization code flow with PKCE, state and nonce, as a client.

    begin   --302-->  the provider  --302-->  finish: the answer is this attempt's, the code is exchanged, the ID token
    verified  -->  Vouched

It knows no users and no sessions: it says who signed in there (`Vouched`), or one `OidcRefused` for whatever is
wrong, with a cause for the log. All requests go through an egress client (`engine.guards.egress`) of its own, which
reaches private addresses only where the operator opened them (`oidc.private_hosts`). Called by the routes of sessions.
"""

from __future__ import annotations

import base64
import hmac
import re
import time
from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import quote_plus, urlencode

from joserfc.jwk import KeySet

from engine.clock import Clock
from engine.guards.egress import Egress
from engine.guards.oidc.attempts import Attempt, Used, is_path
from engine.guards.oidc.discovery import Directory, Metadata
from engine.guards.oidc.id_tokens import KeyUnknown, verify, with_profile
from engine.guards.oidc.vouched import OidcRefused, ProviderUnavailable, Vouched
from engine.guards.oidc.wire import Wire
from engine.metrics import Metrics
from engine.settings import EgressSettings, OidcSettings

__all__ = ["Attempt", "OidcRefused", "Provider", "ProviderUnavailable", "Vouched", "is_path"]

ERRORS: Final = frozenset(
    {
        "invalid_request", "unauthorized_client", "access_denied", "unsupported_response_type", "invalid_scope",
        "server_error", "temporarily_unavailable", "interaction_required", "login_required",
        "account_selection_required", "consent_required", "invalid_client", "invalid_grant", "unsupported_grant_type",
    }
)  # fmt: skip
"""RFC 6749, 4.1.2.1 and 5.2, and OpenID Connect Core, 3.1.2.6: the only words of a refusal that reach the log."""

_CODE: Final = re.compile(r"[\x20-\x7e]{1,4096}")
_TOKEN: Final = re.compile(r"[\x21-\x7e]{1,8000}")


class Provider:
    """The one provider of an installation; one per process."""

    def __init__(
        self,
        settings: OidcSettings,
        egress: Egress,
        clock: Clock,
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`settings` name an issuer and a client."""
        assert settings.issuer is not None
        assert settings.client_id is not None
        self.issuer, self.name = settings.issuer, settings.name
        self._client_id, self._secret, self._scopes = settings.client_id, settings.client_secret, settings.scopes
        self._clock = clock
        self._wire = Wire(egress)
        self._directory = Directory(settings.issuer, self._wire, monotonic=monotonic)
        self._used = Used()

    @classmethod
    def from_settings(
        cls,
        settings: OidcSettings,
        egress: EgressSettings,
        clock: Clock,
        metrics: Metrics,
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> Provider | None:
        """None where no issuer is set. Its egress client is its own: what is open to it is open to no tenant."""
        if settings.issuer is None:
            return None
        way_out = Egress.from_settings(egress, metrics=metrics, sandbox=settings.private_hosts)
        return cls(settings, way_out, clock, monotonic=monotonic)

    async def begin(self, attempt: Attempt, redirect_uri: str) -> str:
        """Where to send the browser. Raises `ProviderUnavailable`."""
        metadata = await self._directory.metadata()
        asked = {
            "response_type": "code",
            "client_id": self._client_id,
            "redirect_uri": redirect_uri,
            "scope": self._scopes,
            "state": attempt.state,
            "nonce": attempt.nonce,
            "code_challenge": attempt.challenge,
            "code_challenge_method": "S256",
        }
        address = str(self._wire.address(metadata.authorization_endpoint))
        return f"{address}{'&' if '?' in address else '?'}{urlencode(asked)}"

    async def finish(self, attempt: Attempt, answer: Mapping[str, str], redirect_uri: str) -> Vouched:
        """Who signed in. `answer` are the parameters that came back; an attempt is over with the first that is its own.
        Raises `OidcRefused` or `ProviderUnavailable`.
        """
        if not hmac.compare_digest(answer.get("state", "").encode(), attempt.state.encode()):
            raise OidcRefused("the answer belongs to no sign-in of this browser (state)")
        self._used.take(attempt, self._clock.now())
        metadata = await self._directory.metadata()
        self._check_issuer(metadata, answer.get("iss"))
        if "error" in answer:
            raise OidcRefused(f"the provider refused: {_word(answer['error'])}")
        code = answer.get("code", "")
        if not _CODE.fullmatch(code):
            raise OidcRefused("the answer holds no code")
        tokens = await self._exchange(metadata, code, attempt, redirect_uri)
        token = tokens.get("id_token")
        if not isinstance(token, str):
            raise OidcRefused("the provider gave no ID token; scopes must hold openid")
        return await self._profile(metadata, await self._verify(token, attempt), tokens.get("access_token"))

    def _check_issuer(self, metadata: Metadata, told: str | None) -> None:
        """RFC 9207: an answer of another provider must not be taken to this one."""
        if told is None and not metadata.authorization_response_iss_parameter_supported:
            return
        if told != self.issuer:
            raise OidcRefused("the answer is not the configured provider's (iss)")

    async def _exchange(self, metadata: Metadata, code: str, attempt: Attempt, redirect_uri: str) -> Mapping[str, Any]:
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": redirect_uri,
            "code_verifier": attempt.verifier,
        }
        basic = None
        methods = metadata.token_endpoint_auth_methods_supported
        if self._secret is None:
            form["client_id"] = self._client_id
        elif "client_secret_basic" in methods:
            # Both parts encoded, as RFC 6749 says in section 2.3.1.
            pair = f"{quote_plus(self._client_id)}:{quote_plus(self._secret.get_secret_value())}"
            basic = base64.b64encode(pair.encode()).decode()
        elif "client_secret_post" in methods:
            form |= {"client_id": self._client_id, "client_secret": self._secret.get_secret_value()}
        else:
            raise ProviderUnavailable("the provider takes a client secret neither by header nor in the body")
        status, tokens = await self._wire.post(metadata.token_endpoint, form, basic=basic)
        if status != 200:
            raise OidcRefused(f"the code was not exchanged: {status} {_word(tokens.get('error'))}")
        return tokens

    async def _verify(self, token: str, attempt: Attempt) -> Vouched:
        keys = await self._directory.keys()
        try:
            return self._judge(token, keys, attempt)
        except KeyUnknown:
            keys = await self._directory.keys(newer_than=keys)
        try:
            return self._judge(token, keys, attempt)
        except KeyUnknown as unknown:
            raise OidcRefused(f"ID token: {unknown}") from None

    def _judge(self, token: str, keys: KeySet, attempt: Attempt) -> Vouched:
        now = self._clock.now()
        return verify(token, keys, issuer=self.issuer, client_id=self._client_id, nonce=attempt.nonce, now=now)

    async def _profile(self, metadata: Metadata, vouched: Vouched, access_token: Any) -> Vouched:
        """With the address that the provider tells at its UserInfo endpoint, where the ID token has none: with
        response type code that is what the specification expects (Core, section 5.4).
        """
        if vouched.email is not None or metadata.userinfo_endpoint is None:
            return vouched
        if not isinstance(access_token, str) or not _TOKEN.fullmatch(access_token):
            return vouched
        status, claims = await self._wire.get(metadata.userinfo_endpoint, bearer=access_token)
        if status != 200:
            return vouched
        if claims.get("sub") != vouched.subject:
            raise OidcRefused("the profile is another person's (sub)")
        return with_profile(vouched, claims)


def _word(error: Any) -> str:
    return error if isinstance(error, str) and error in ERRORS else "for a reason of its own"
