"""The secrets of one step of `http.request`: opened when the step begins, made into headers for one call at a time, and
taken out of whatever comes back.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, SecretStr

from contracts.calls import ActionFailed
from contracts.problems import NotFound, Problem
from engine.actions.oauth2 import AccessTokens
from engine.guards.egress import Egress, EgressRefused, SafeUrl
from engine.guards.secrets import ApiKey, Basic, Mask, OpenedSecret, Secrets


class SecretNamed(BaseModel):
    """A secret of the run's tenant, by name: never its value."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    secret: str = Field(min_length=1, max_length=100)


class StepSecrets:
    """Made by `open`. `mask` knows everything that was opened so far."""

    def __init__(
        self,
        auth: OpenedSecret | None,
        named: Mapping[str, OpenedSecret],
        secrets: Secrets | None,
        tokens: AccessTokens,
    ) -> None:
        self._auth, self._named, self._secrets, self._tokens = auth, named, secrets, tokens
        self._token: SecretStr | None = None
        self._renewed = False
        self._hidden = {
            hidden for opened in (auth, *named.values()) if opened is not None for hidden in opened.value.hidden
        }
        self.mask = Mask(self._hidden)

    @classmethod
    async def open(
        cls,
        tenant: str,
        auth: SecretNamed | None,
        headers: Mapping[str, Any],
        secrets: Callable[[], Secrets] | None,
        tokens: AccessTokens,
    ) -> StepSecrets:
        """Raises `ActionFailed` when one of them is not there, or does not open."""
        named = {name: value for name, value in headers.items() if isinstance(value, SecretNamed)}
        if auth is None and not named:
            return cls(None, {}, None, tokens)
        if secrets is None:
            raise ActionFailed("secrets_missing", "secrets are opened by a worker only", retryable=False)
        box = secrets()
        opened: dict[str, OpenedSecret] = {}
        for name in dict.fromkeys(asked.secret for asked in (auth, *named.values()) if asked is not None):
            try:
                opened[name] = await box.open(tenant, name)
            except Problem as problem:
                code = "secret_unknown" if isinstance(problem, NotFound) else problem.code
                raise ActionFailed(code, problem.detail, retryable=problem.retryable) from None
        for header, value in named.items():
            if not isinstance(opened[value.secret].value, ApiKey):
                raise ActionFailed(
                    "input_invalid", f"headers.{header}: only a secret of kind api_key can stand here", retryable=False
                )
        return cls(
            None if auth is None else opened[auth.secret],
            {header: opened[value.secret] for header, value in named.items()},
            box,
            tokens,
        )

    async def headers(self, url: SafeUrl, egress: Egress) -> dict[str, str]:
        """What proves the call to this address. Raises `ActionFailed` when a secret may not be sent there."""
        try:
            for opened in (self._auth, *self._named.values()):
                if opened is None:
                    continue
                opened.require(url.target)
                if url.scheme != "https" and not egress.opens(url.target):
                    raise EgressRefused(f"secret {opened.name} is sent over https only", field="url")
        except EgressRefused as refused:
            raise ActionFailed("secret_not_sent", refused.detail, retryable=False) from None
        proof = {}
        for header, opened in self._named.items():
            assert isinstance(opened.value, ApiKey)
            proof[header] = opened.value.prefix + opened.value.key.get_secret_value()
        if self._auth is not None:
            name, content = await self._proven(self._auth)
            proof[name] = content
        return proof

    async def renew(self) -> bool:
        """Another access token in the place of the one that was refused. False: there is none to renew, or it was
        renewed before.
        """
        if self._token is None or self._auth is None or self._secrets is None or self._renewed:
            return False
        self._renewed = True
        # Another process may have stored another refresh token meanwhile.
        opened = await self._secrets.open(self._auth.tenant, self._auth.name)
        self._auth = opened if opened.kind == self._auth.kind else self._auth
        self._know(await self._tokens.token(self._secrets, self._auth, refused=self._token))
        return True

    async def _proven(self, opened: OpenedSecret) -> tuple[str, str]:
        found = opened.value
        if isinstance(found, ApiKey):
            return found.header, found.prefix + found.key.get_secret_value()
        if isinstance(found, Basic):
            return "Authorization", f"Basic {found.credentials.get_secret_value()}"
        if self._token is None:
            assert self._secrets is not None
            self._know(await self._tokens.token(self._secrets, opened))
        assert self._token is not None
        return "Authorization", f"Bearer {self._token.get_secret_value()}"

    def _know(self, token: SecretStr) -> None:
        self._token = token
        self._hidden.add(token.get_secret_value())
        self.mask = Mask(self._hidden)
