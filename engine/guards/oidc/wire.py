"""Requests to an identity provider: through the egress client, over https, with answers that are bounded JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlencode

from contracts.envelope import load_json
from contracts.problems import EnvelopeInvalid
from engine.guards.egress import Egress, EgressFailed, EgressRefused, EgressTimeout, Response, SafeUrl
from engine.guards.oidc.vouched import ProviderUnavailable

MAX_ANSWER: Final = 262_144
"""Bytes of a document of a provider: its description, its keys, its tokens."""

Document = dict[str, Any]


class Wire:
    """One provider's. What it raises says which address failed, in words for the log alone."""

    def __init__(self, egress: Egress) -> None:
        self._egress = egress

    def address(self, text: str) -> SafeUrl:
        """An address that may be called, or sent to a browser. Raises `ProviderUnavailable` for one without TLS that no
        operator opened.
        """
        try:
            url = SafeUrl.parse(text)
        except EgressRefused as refused:
            raise ProviderUnavailable(f"{text[:200]!r}: {refused.detail}") from None
        if url.scheme != "https" and not self._egress.opens(url.target):
            raise ProviderUnavailable(f"{url.shown} is not https")
        return url

    async def get(self, text: str, *, bearer: str | None = None) -> tuple[int, Document]:
        headers = {"Accept": "application/json"}
        if bearer is not None:
            headers["Authorization"] = f"Bearer {bearer}"
        return await self._ask("GET", text, headers, b"")

    async def post(self, text: str, form: Mapping[str, str], *, basic: str | None) -> tuple[int, Document]:
        headers = {"Accept": "application/json", "Content-Type": "application/x-www-form-urlencoded"}
        if basic is not None:
            headers["Authorization"] = f"Basic {basic}"
        return await self._ask("POST", text, headers, urlencode(form).encode())

    async def _ask(self, method: str, text: str, headers: Mapping[str, str], body: bytes) -> tuple[int, Document]:
        """The status and the object. Raises `ProviderUnavailable` when there is neither."""
        url = self.address(text)
        try:
            response = await self._egress.request(method, url, headers=headers, body=body)
        except (EgressRefused, EgressTimeout, EgressFailed) as failed:
            raise ProviderUnavailable(f"{failed.code}: {failed.detail}") from None
        if response.status == 429 or response.status >= 500:
            raise ProviderUnavailable(f"{url.shown} answered {response.status}")
        return response.status, _document(url, response)


def _document(url: SafeUrl, response: Response) -> Document:
    try:
        found = load_json(response.body, max_bytes=MAX_ANSWER)
    except EnvelopeInvalid as invalid:
        if response.status != 200:
            return {}  # a refusal may be a page for people
        raise ProviderUnavailable(f"{url.shown}: {invalid.detail}") from None
    if not isinstance(found, dict):
        raise ProviderUnavailable(f"{url.shown} answered JSON that is no object")
    return found
