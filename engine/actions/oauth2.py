"""Access tokens of OAuth 2.0 for `http.request`: fetched through the egress client, kept in memory until they expire.

It knows two grants, client credentials and refresh token (RFC 6749, sections 4.4 and 6). What a server hands out anew
as refresh token becomes the next version of the secret. Nothing of an answer but its registered error code is told.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final, TypeGuard
from urllib.parse import urlencode

import orjson
from pydantic import SecretStr

from contracts.calls import ActionFailed
from contracts.problems import Conflict, NotFound
from contracts.values import value
from engine.actions.retry_after import retry_after
from engine.guards.egress import Egress, EgressFailed, EgressLimited, EgressRefused, EgressTimeout, Response, SafeUrl
from engine.guards.secrets import OAuth2, OpenedSecret, Secrets

MOST: Final = 10_000
"""Tokens in memory; the oldest makes room."""
EARLY_SECONDS: Final = 30.0
"""A token is fetched anew so long before it expires, or at half of its life when that is shorter."""
LIFE_SECONDS: Final = 300.0
"""Of a token whose server does not say."""

ERRORS: Final = frozenset(
    {
        "invalid_request", "invalid_client", "invalid_grant", "unauthorized_client", "unsupported_grant_type",
        "invalid_scope",
    }
)  # fmt: skip
"""Section 5.2: the only words of a refusal that are repeated."""

_TOKEN: Final = re.compile(r"[\x21-\x7e]{1,8000}")


@value(kw_only=True)
class _Held:
    token: SecretStr
    seal: bytes
    until: float


class AccessTokens:
    """One per process. However many steps wait for a token, it is fetched once."""

    def __init__(self, egress: Egress, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._egress = egress
        self._monotonic = monotonic
        self._held: dict[tuple[str, str], _Held] = {}
        self._fetching: dict[tuple[str, str], asyncio.Future[SecretStr]] = {}

    async def token(self, secrets: Secrets, opened: OpenedSecret, *, refused: SecretStr | None = None) -> SecretStr:
        """A token for this secret; another one than the `refused`. Raises `ActionFailed`."""
        place = opened.tenant, opened.name
        held = self._held.get(place)
        if (
            held is not None
            and held.seal == opened.seal
            and held.until > self._monotonic()
            and (refused is None or held.token != refused)
        ):
            return held.token
        fetching = self._fetching.get(place)
        if fetching is None:
            # Goes on when the step that asked is over: a refresh token that was used must not be lost.
            fetching = self._fetching[place] = asyncio.ensure_future(self._fetch(secrets, opened))
            fetching.add_done_callback(lambda done: self._fetched(place, done))
        return await asyncio.shield(fetching)

    def _fetched(self, place: tuple[str, str], done: asyncio.Future[SecretStr]) -> None:
        self._fetching.pop(place, None)
        if not done.cancelled():
            done.exception()  # told to whoever waits; nobody may be left

    async def _fetch(self, secrets: Secrets, opened: OpenedSecret) -> SecretStr:
        assert isinstance(opened.value, OAuth2)
        try:
            answer = await self._ask(opened, opened.value)
        except _Refused as refused:
            later = await self._later(secrets, opened)
            if later is None:
                # Whoever used up the refresh token may be about to store the one that came for it.
                spent = refused.code == "invalid_grant" and opened.value.refresh_token is not None
                raise ActionFailed("oauth2_refused", refused.message, retryable=spent) from None
            opened = later
            assert isinstance(opened.value, OAuth2)
            try:
                answer = await self._ask(opened, opened.value)
            except _Refused as again:
                raise ActionFailed("oauth2_refused", again.message, retryable=False) from None
        assert isinstance(opened.value, OAuth2)
        given = opened.value.refresh_token
        handed = answer.get("refresh_token")
        if given is not None and _is_another(handed, given):
            try:
                await secrets.replace_refresh_token(opened, SecretStr(handed))
                opened = await secrets.open(opened.tenant, opened.name)
            except (Conflict, NotFound):
                pass  # the secret was changed meanwhile: what stands there now is what is asked with next
        token = SecretStr(answer["access_token"])
        life = _life(answer.get("expires_in"))
        if len(self._held) >= MOST:
            del self._held[next(iter(self._held))]
        self._held[opened.tenant, opened.name] = _Held(
            token=token, seal=opened.seal, until=self._monotonic() + life - min(EARLY_SECONDS, life / 2)
        )
        return token

    async def _later(self, secrets: Secrets, opened: OpenedSecret) -> OpenedSecret | None:
        """The secret as it stands now, when another process has replaced what this one asked with."""
        try:
            found = await secrets.open(opened.tenant, opened.name)
        except NotFound:
            return None
        return found if found.seal != opened.seal and isinstance(found.value, OAuth2) else None

    async def _ask(self, opened: OpenedSecret, client: OAuth2) -> dict[str, Any]:
        form: dict[str, str] = {"grant_type": "client_credentials"}
        if client.refresh_token is not None:
            form = {"grant_type": "refresh_token", "refresh_token": client.refresh_token.get_secret_value()}
        if client.scope:
            form["scope"] = client.scope
        headers = {"Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json"}
        if client.client_auth == "basic":
            headers["Authorization"] = f"Basic {client.credentials.get_secret_value()}"
        else:
            form |= {"client_id": client.client_id, "client_secret": client.client_secret.get_secret_value()}
        url = SafeUrl.parse(client.token_url)
        if url.scheme != "https" and not self._egress.opens(url.target):
            raise ActionFailed("secret_not_sent", f"secret {opened.name} is sent over https only", retryable=False)
        try:
            response = await self._egress.request(
                "POST", url, headers=headers, body=urlencode(form).encode(), tenant=opened.tenant
            )
        except EgressRefused as refused:
            raise ActionFailed(refused.code, refused.detail, retryable=False) from None
        except EgressLimited as limited:
            raise ActionFailed(limited.code, limited.detail, put_off_seconds=limited.seconds) from None
        except (EgressTimeout, EgressFailed) as failed:
            raise ActionFailed(failed.code, failed.detail) from None
        return _read(url, response)


class _Refused(Exception):
    def __init__(self, message: str, code: str = "") -> None:
        super().__init__(message)
        self.message, self.code = message, code


def _read(url: SafeUrl, response: Response) -> dict[str, Any]:
    status = response.status
    try:
        answer = orjson.loads(response.body)
    except orjson.JSONDecodeError:
        answer = None
    if not isinstance(answer, dict):
        answer = {}
    if status == 429 or status >= 500:
        raise ActionFailed(
            "oauth2_unavailable",
            f"{url.shown} answered {status} to the request for a token",
            retry_after_seconds=retry_after(status, response.headers, now=datetime.now(UTC)),
        )
    if not 200 <= status < 300:
        code = answer.get("error")
        if not isinstance(code, str) or code not in ERRORS:
            raise _Refused(f"{url.shown} answered {status} to the request for a token")
        raise _Refused(f"{url.shown} answered {status} to the request for a token ({code})", code)
    token, kind = answer.get("access_token"), answer.get("token_type", "bearer")
    if not isinstance(token, str) or not _TOKEN.fullmatch(token) or str(kind).lower() != "bearer":
        raise _Refused(f"{url.shown} answered {status} without a bearer token")
    return answer


def _is_another(handed: Any, given: SecretStr) -> TypeGuard[str]:
    return isinstance(handed, str) and bool(_TOKEN.fullmatch(handed)) and handed != given.get_secret_value()


def _life(seconds: Any) -> float:
    if isinstance(seconds, int | float) and not isinstance(seconds, bool) and 0 < seconds < 1e9:
        return float(seconds)
    return LIFE_SECONDS
