"""The one way out: every outbound call that a tenant can direct goes through `Egress` (HTTP) or `Egress.dial` (SMTP).

    parse once -> resolve once -> every answer must be public -> connect to that very address -> check the peer ->
    caps

The name in the URL is used for TLS and the Host header only; the connection goes to the address that was judged, so a
name that resolves differently the next time gains nothing. No redirects, no proxies from the environment, no cookies,
one connection per request. An operator may open a sandbox of exact host:port targets, and private targets for one
tenant (`engine.guards.outbound`, which also bounds how many requests and mails a tenant sends); a tenant never can. It
knows no actions and no retries: it says what happened (`EgressRefused`, `EgressTimeout`, `EgressFailed`) and whether
the request may have left. Called by `engine.actions.http` and the notifications module.
"""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
import time
import zlib
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any, Final, Protocol

import aiohttp
from yarl import URL

from contracts.problems import Unavailable
from engine.guards.addresses import Address, EgressRefused, SafeUrl, Target, parse_target, refusal, sandboxed, unmapped
from engine.guards.outbound import EgressLimited, Rules
from engine.metrics import Metrics
from engine.settings import EgressSettings

__all__ = [
    "Egress",
    "EgressFailed",
    "EgressLimited",
    "EgressRefused",
    "EgressTimeout",
    "Limits",
    "Resolver",
    "Response",
    "SafeUrl",
    "SystemResolver",
]


MAX_ADDRESSES: Final = 4
"""How many of a name's addresses are tried."""


class EgressTimeout(Unavailable):
    """No answer in time. `sent` says whether the request may have reached the other side."""

    code = "egress_timeout"
    title = "The other side did not answer in time"
    status = 504

    def __init__(self, detail: str, *, sent: bool) -> None:
        super().__init__(detail, sent=sent)
        self.sent = sent


class EgressFailed(Unavailable):
    """The connection failed, or the answer could not be taken. `sent` as above."""

    code = "egress_failed"
    title = "The outbound call failed"
    status = 502

    def __init__(self, detail: str, *, sent: bool) -> None:
        super().__init__(detail, sent=sent)
        self.sent = sent


class Resolver(Protocol):
    """Names to addresses; the only place where a name is looked up, and only once per call."""

    async def resolve(self, host: str, port: int) -> list[str]: ...


class TenantRules(Protocol):
    """What one tenant's calls may do, and whose turn it is (`engine.guards.outbound.Outbound`)."""

    async def rules(self, tenant: str) -> Rules: ...

    async def permit(self, tenant: str, rules: Rules, seconds: float) -> None: ...


class SystemResolver:
    """The machine's own resolver."""

    async def resolve(self, host: str, port: int) -> list[str]:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        return list(dict.fromkeys(str(address[0]) for _, _, _, _, address in found))


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Caps of one call: seconds in all and for the name, bytes of request, of header lines, of the unpacked body."""

    seconds: float = 15.0
    dns_seconds: float = 5.0
    request_bytes: int = 262_144
    header_bytes: int = 8_190
    headers: int = 100
    response_bytes: int = 1_048_576


@dataclass(frozen=True, slots=True)
class Response:
    """The answer, whole and within the caps. Redirects are answers too; nothing follows them."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Egress:
    """The outbound client of a process. `sandbox` are exact `host:port` targets that an operator opened."""

    def __init__(
        self,
        *,
        limits: Limits | None = None,
        sandbox: Iterable[str] = (),
        resolver: Resolver | None = None,
        metrics: Metrics | None = None,
        tls: ssl.SSLContext | None = None,
        outbound: TenantRules | None = None,
    ) -> None:
        """`outbound` brings the rules of tenants; without it no tenant has any."""
        self._limits = limits or Limits()
        self._sandbox = frozenset(_canonical(target) for target in sandbox)
        self._resolver = resolver or SystemResolver()
        self._metrics = metrics
        self._outbound = outbound
        self._tls = tls or ssl.create_default_context()

    @classmethod
    def from_settings(
        cls,
        settings: EgressSettings,
        *,
        metrics: Metrics | None = None,
        sandbox: Iterable[str] = (),
        outbound: TenantRules | None = None,
    ) -> Egress:
        """With the operator's caps; `sandbox` adds targets that the operator configured elsewhere, such as a mail
        relay.
        """
        limits = Limits(
            seconds=settings.timeout_seconds,
            dns_seconds=settings.dns_seconds,
            response_bytes=settings.max_response_bytes,
        )
        return cls(limits=limits, sandbox=(*settings.sandbox, *sandbox), metrics=metrics, outbound=outbound)

    async def request(
        self,
        method: str,
        url: SafeUrl,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        seconds: float | None = None,
        tenant: str | None = None,
    ) -> Response:
        """One request and its whole answer. Raises `EgressRefused` before anything is sent, else `EgressTimeout` or
        `EgressFailed` with `sent`. `seconds` can only shorten the cap. A request of a `tenant` goes by its rules and
        waits, within its time, when it has made as many as it may: `EgressLimited`.
        """
        checked = _checked_headers(headers or {}, method, self._limits)
        if len(body) > self._limits.request_bytes:
            raise EgressRefused(
                f"body is larger than {self._limits.request_bytes} bytes; send a reference", field="body"
            )
        allowed = min(seconds or self._limits.seconds, self._limits.seconds)
        rules, waited = await self._permitted("http", tenant, allowed)
        progress = _Progress()
        try:
            async with asyncio.timeout(max(0.0, allowed - waited)):
                addresses = await self._judge(url.target, rules)
                response = await self._exchange_any(method, url, addresses, checked, body, progress)
        except EgressRefused:
            self._count("http", "refused")
            raise
        except EgressTimeout:
            self._count("http", "timeout")
            raise
        except TimeoutError:
            self._count("http", "timeout")
            raise EgressTimeout(f"{url.shown} did not answer within {allowed:g} s", sent=progress.connected) from None
        except (aiohttp.ClientError, OSError, zlib.error) as error:
            self._count("http", "failed")
            raise EgressFailed(f"{url.shown}: {type(error).__name__}", sent=progress.connected) from None
        except EgressFailed:
            self._count("http", "failed")
            raise
        self._count("http", "ok")
        return response

    async def _permitted(self, kind: str, tenant: str | None, allowed: float) -> tuple[Rules, float]:
        """The tenant's rules, once it may make a request, and the seconds that it waited for that."""
        if tenant is None or self._outbound is None:
            return Rules(), 0.0
        began = time.monotonic()
        try:
            rules = await self._outbound.rules(tenant)
            await self._outbound.permit(tenant, rules, allowed)
        except EgressLimited:
            self._count(kind, "limited")
            raise
        return rules, time.monotonic() - began

    def opens(self, target: Target) -> bool:
        """Whether an operator opened this very target."""
        return target.text in self._sandbox

    async def dial(
        self,
        host: str,
        port: int,
        *,
        seconds: float | None = None,
        tenant: str | None = None,
        turn_seconds: float | None = None,
    ) -> socket.socket:
        """A connected, checked, non-blocking TCP socket for another protocol (SMTP: give it to aiosmtplib as `sock`
        with `hostname=host`). The caller closes it. One that is meant for a `tenant` goes by its rules and counts as
        one of its requests; for its turn it waits no longer than `turn_seconds`, else `EgressLimited`.
        """
        target = parse_target(host.strip("[]"), port)
        allowed = min(seconds or self._limits.seconds, self._limits.seconds)
        patience = allowed if turn_seconds is None else min(turn_seconds, allowed)
        rules, waited = await self._permitted("smtp", tenant, patience)
        try:
            async with asyncio.timeout(max(0.0, allowed - waited)):
                connected = await _connect_any(await self._judge(target, rules), target.port)
        except EgressRefused:
            self._count("smtp", "refused")
            raise
        except (EgressTimeout, EgressFailed) as failure:
            self._count("smtp", "timeout" if isinstance(failure, EgressTimeout) else "failed")
            raise
        except TimeoutError:
            self._count("smtp", "timeout")
            raise EgressTimeout(f"{target.text} did not answer within {allowed:g} s", sent=False) from None
        except OSError as error:
            self._count("smtp", "failed")
            raise EgressFailed(f"{target.text}: {type(error).__name__}", sent=False) from None
        self._count("smtp", "ok")
        return connected

    async def _judge(self, target: Target, rules: Rules) -> list[Address]:
        """The addresses to connect to, in order. Refuses when any answer is not allowed: a mixed answer is an attack,
        not luck.
        """
        if target.literal is not None:
            answers = [target.literal]
        else:
            answers = await self._resolve(target)
        opened = target.text in self._sandbox
        for answer in answers:
            why = refusal(answer)
            if why is not None and not (opened and sandboxed(answer)) and not rules.opens(target, unmapped(answer)):
                # The address itself stays unsaid: it would tell a tenant about the inside of the network.
                raise EgressRefused(f"{target.text} leads to an address that is not public ({why})", field="url")
        return [unmapped(answer) for answer in answers[:MAX_ADDRESSES]]

    async def _resolve(self, target: Target) -> list[Address]:
        try:
            async with asyncio.timeout(self._limits.dns_seconds):
                found = await self._resolver.resolve(target.host, target.port)
        except TimeoutError:
            raise EgressTimeout(
                f"the name {target.host} was not resolved within {self._limits.dns_seconds:g} s", sent=False
            ) from None
        except (OSError, UnicodeError):
            raise EgressFailed(f"the name {target.host} does not resolve", sent=False) from None
        answers: list[Address] = []
        for text in found:
            try:
                answers.append(ip_address(text))
            except ValueError:
                raise EgressRefused(f"{target.text} leads to an address that is not understood", field="url") from None
        if not answers:
            raise EgressFailed(f"the name {target.host} has no address", sent=False)
        return answers

    async def _exchange_any(
        self,
        method: str,
        url: SafeUrl,
        addresses: list[Address],
        headers: dict[str, str],
        body: bytes,
        progress: _Progress,
    ) -> Response:
        """Tries the next address only while nothing can have been sent."""
        for address in addresses[:-1]:
            try:
                return await self._exchange(method, url, address, headers, body, progress)
            except (aiohttp.ClientConnectorError, OSError):
                if progress.connected:
                    raise
        return await self._exchange(method, url, addresses[-1], headers, body, progress)

    async def _exchange(
        self, method: str, url: SafeUrl, address: Address, headers: dict[str, str], body: bytes, progress: _Progress
    ) -> Response:
        sockets: list[socket.socket] = []

        def only_that_address(info: tuple[Any, Any, int, str, tuple[Any, ...]]) -> socket.socket:
            family, kind, protocol, _, where = info
            if ip_address(where[0]) != address or where[1] != url.target.port:
                raise OSError("the client asked for another address than the one that was judged")
            made = socket.socket(family, kind, protocol)
            made.setblocking(False)
            sockets.append(made)
            return made

        async def connected(*_: Any) -> None:
            progress.connected = True
            _check_peer(sockets[-1], address, url.target.port)

        tracing = aiohttp.TraceConfig()
        tracing.on_connection_create_end.append(connected)
        connector = aiohttp.TCPConnector(
            force_close=True, limit=1, use_dns_cache=False, ssl=self._tls, socket_factory=only_that_address
        )
        async with aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
            auto_decompress=False,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=None, sock_read=None),
            max_line_size=self._limits.header_bytes,
            max_field_size=self._limits.header_bytes,
            max_headers=self._limits.headers,
            trace_configs=[tracing],
            requote_redirect_url=False,
        ) as session:
            literal = f"[{address}]" if address.version == 6 else str(address)
            async with session.request(
                method,
                URL(f"{url.scheme}://{literal}:{url.target.port}{url.path_and_query}", encoded=True),
                headers={**headers, "Host": url.host_header, "Accept-Encoding": "identity"},
                data=body or None,
                allow_redirects=False,
                server_hostname=url.target.host if url.scheme == "https" else None,
            ) as answer:
                content = await _read(answer, self._limits.response_bytes)
                return Response(answer.status, {name.lower(): value for name, value in answer.headers.items()}, content)

    def _count(self, kind: str, result: str) -> None:
        if self._metrics is not None:
            self._metrics.egress_requests.of(kind, result).inc()


@dataclass(slots=True)
class _Progress:
    connected: bool = False


def _canonical(target: str) -> str:
    host, _, port = target.rpartition(":")
    return parse_target(host.strip("[]"), int(port)).text


async def _connect_any(addresses: list[Address], port: int) -> socket.socket:
    for address in addresses[:-1]:
        with suppress(OSError):
            return await _connect(address, port)
    return await _connect(addresses[-1], port)


async def _connect(address: Address, port: int) -> socket.socket:
    family = socket.AF_INET6 if address.version == 6 else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        made.setblocking(False)
        await asyncio.get_running_loop().sock_connect(made, (str(address), port))
        _check_peer(made, address, port)
    except BaseException:
        made.close()
        raise
    return made


def _check_peer(connected: socket.socket, address: Address, port: int) -> None:
    peer = connected.getpeername()
    if unmapped(ip_address(peer[0])) != address or peer[1] != port:
        raise EgressRefused("the connection ended at another address than the one that was judged", field="url")


async def _read(answer: aiohttp.ClientResponse, limit: int) -> bytes:
    """The unpacked body. The cap is on what comes out: 49 kB of gzip can hold 50 MB."""
    encoding = answer.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding in ("", "identity"):
        unpack = None
    elif encoding in ("gzip", "x-gzip", "deflate"):
        unpack = zlib.decompressobj(zlib.MAX_WBITS | 32)
    else:
        raise EgressFailed(f"the answer is packed as {encoding[:20]!r}, which was not asked for", sent=True)
    parts: list[bytes] = []
    size = 0
    async for chunk in answer.content.iter_chunked(16_384):
        part = chunk if unpack is None else unpack.decompress(chunk, limit - size + 1)
        size += len(part)
        if size > limit or (unpack is not None and unpack.unconsumed_tail):
            raise EgressFailed(f"the answer is larger than {limit} bytes", sent=True)
        parts.append(part)
    if unpack is not None and parts and not unpack.eof:
        raise EgressFailed("the answer ends in the middle of its packed body", sent=True)
    return b"".join(parts)


_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}")
_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
_OURS: Final = frozenset(
    {
        "host", "content-length", "transfer-encoding", "connection", "keep-alive", "upgrade", "te", "trailer", "expect",
        "accept-encoding", "proxy-authorization", "proxy-connection",
    }
)  # fmt: skip


def _checked_headers(headers: Mapping[str, str], method: str, limits: Limits) -> dict[str, str]:
    if method not in _METHODS:
        raise EgressRefused(f"method must be one of {', '.join(sorted(_METHODS))}", field="method")
    if len(headers) > limits.headers:
        raise EgressRefused(f"more than {limits.headers} headers", field="headers")
    for name, value in headers.items():
        if not _NAME.fullmatch(name) or name.lower() in _OURS:
            raise EgressRefused(
                f"header {name[:40]!r} is not allowed; the client sets it, or it is malformed", field="headers"
            )
        if len(value) > limits.header_bytes or not _VALUE.fullmatch(value):
            raise EgressRefused(f"header {name} holds a line break, a control character or too much", field="headers")
    return dict(headers)
