"""Where an outbound call may go: one parser for URLs and one table of addresses. Pure; no resolving, no connecting.

`SafeUrl.parse` is the only way to a `SafeUrl`, and `SafeUrl` is the only thing the egress client takes. The table is
our own because `ipaddress.is_global` and `is_private` both let through what must be refused (multicast, 6to4, NAT64,
carrier-grade NAT, ...). IPv6 passes only inside 2000::/3 and never with an IPv4 address embedded in it, except the
mapped form, which is unwrapped and judged as what it is. Called by `engine.guards.egress`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Final
from urllib.parse import quote

import idna

from contracts.problems import Problem

Address = IPv4Address | IPv6Address

MAX_URL: Final = 2_048


class EgressRefused(Problem):
    """This call will never be made; the destination or its form is not allowed."""

    code = "egress_refused"
    title = "This outbound call is not allowed"
    status = 422


REFUSED_V4: Final[tuple[tuple[IPv4Network, str], ...]] = tuple(
    (IPv4Network(network), why)
    for network, why in (
        ("0.0.0.0/8", "this network"),
        ("10.0.0.0/8", "private"),
        ("100.64.0.0/10", "carrier-grade NAT"),
        ("127.0.0.0/8", "loopback"),
        ("168.63.129.16/32", "cloud metadata"),
        ("169.254.0.0/16", "link-local, cloud metadata"),
        ("172.16.0.0/12", "private"),
        ("192.0.0.0/24", "protocol assignments, cloud metadata"),
        ("192.0.2.0/24", "documentation"),
        ("192.31.196.0/24", "AS112"),
        ("192.52.193.0/24", "multicast tunnelling"),
        ("192.88.99.0/24", "6to4 relay"),
        ("192.168.0.0/16", "private"),
        ("192.175.48.0/24", "AS112"),
        ("198.18.0.0/15", "benchmarking"),
        ("198.51.100.0/24", "documentation"),
        ("203.0.113.0/24", "documentation"),
        ("224.0.0.0/4", "multicast"),
        ("240.0.0.0/4", "reserved, broadcast"),
    )
)

ALLOWED_V6: Final = IPv6Network("2000::/3")

REFUSED_V6: Final[tuple[tuple[IPv6Network, str], ...]] = tuple(
    (IPv6Network(network), why)
    for network, why in (
        ("2001::/23", "protocol assignments, Teredo"),
        ("2001:db8::/32", "documentation"),
        ("2002::/16", "6to4, embeds an IPv4 address"),
        ("2620:4f:8000::/48", "AS112"),
        ("3ffe::/16", "returned test network"),
        ("3fff::/20", "documentation"),
    )
)

SANDBOX: Final = tuple(
    IPv4Network(network) for network in ("127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")
)
SANDBOX_V6: Final = (IPv6Network("::1/128"), IPv6Network("fd00::/8"))
"""What an operator may open by naming host and port. Link-local and metadata addresses are not among them."""

_NEVER_V6: Final = (IPv6Network("fd00:ec2::/32"), IPv6Network("fd20:ce::/32"))
"""Cloud metadata services inside the unique local range."""


OPENABLE: Final = tuple(network for network in SANDBOX if not network.is_loopback)
OPENABLE_V6: Final = tuple(network for network in SANDBOX_V6 if not network.is_loopback)
"""What the platform may open for one tenant: private networks, never loopback."""


def refusal(address: Address) -> str | None:
    """Why this address must not be called, or None when it is public by our table. A mapped IPv4 is judged as IPv4."""
    address = unmapped(address)
    if isinstance(address, IPv4Address):
        return next((why for network, why in REFUSED_V4 if address in network), None)
    if address not in ALLOWED_V6:
        return "outside the public IPv6 range"
    if (int(address) >> 32) & 0xFDFFFFFF == 0x00005EFE:
        return "ISATAP, embeds an IPv4 address"
    return next((why for network, why in REFUSED_V6 if address in network), None)


def sandboxed(address: Address) -> bool:
    """Whether an operator's exception can reach this address at all."""
    address = unmapped(address)
    if isinstance(address, IPv4Address):
        return any(address in network for network in SANDBOX)
    return any(address in network for network in SANDBOX_V6) and not any(address in never for never in _NEVER_V6)


def openable(address: Address) -> bool:
    """Whether an exception for one tenant can reach this address at all."""
    address = unmapped(address)
    if isinstance(address, IPv4Address):
        return any(address in network for network in OPENABLE)
    return any(address in network for network in OPENABLE_V6) and not any(address in never for never in _NEVER_V6)


def openable_network(network: IPv4Network | IPv6Network) -> bool:
    """Whether all of it is private space that can be opened for one tenant; what is never open in it stays closed."""
    if isinstance(network, IPv4Network):
        return any(network.subnet_of(allowed) for allowed in OPENABLE)
    return any(network.subnet_of(allowed) for allowed in OPENABLE_V6)


def unmapped(address: Address) -> Address:
    """The IPv4 address inside ::ffff:0:0/96, or the address itself."""
    return address.ipv4_mapped or address if isinstance(address, IPv6Address) else address


@dataclass(frozen=True, slots=True)
class Target:
    """A host as it was meant: a canonical literal address, or a name in lower-case ASCII; and a port."""

    host: str
    port: int
    literal: Address | None

    @property
    def text(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class HostRule:
    """One exact host, as a rule names it: `api.example.org:8443`, or without a port, which means every port."""

    host: str
    port: int | None

    @property
    def text(self) -> str:
        if self.port is None:
            return f"[{self.host}]" if ":" in self.host else self.host
        return Target(self.host, self.port, None).text

    @classmethod
    def parse(cls, text: str) -> HostRule:
        """Raises `EgressRefused`."""
        if not text or len(text) > 300 or _FORBIDDEN.search(text) or any(mark in text for mark in "/?#@*"):
            raise EgressRefused(f"{text[:60]!r} must be host or host:port, such as api.example.org:8443", field="host")
        host, port = _split_port(text, -1)
        target = parse_target(host, port if port >= 0 else 1)
        return cls(target.host, port if port >= 0 else None)

    def fits(self, target: Target) -> bool:
        return self.host == target.host and self.port in (None, target.port)


@dataclass(frozen=True, slots=True)
class SafeUrl:
    """A parsed http(s) URL whose every part is understood. It says nothing yet of where its name resolves to."""

    scheme: str
    target: Target
    path_and_query: str

    def __str__(self) -> str:
        return f"{self.scheme}://{self.host_header}{self.path_and_query}"

    @property
    def host_header(self) -> str:
        """The Host header: the port only when it is not the scheme's own."""
        host = f"[{self.target.host}]" if ":" in self.target.host else self.target.host
        return host if self.target.port == _PORTS[self.scheme] else f"{host}:{self.target.port}"

    @property
    def origin(self) -> tuple[str, str, int]:
        return self.scheme, self.target.host, self.target.port

    @property
    def shown(self) -> str:
        """For logs and errors: without path and query, which may carry secrets."""
        return f"{self.scheme}://{self.host_header}"

    @classmethod
    def parse(cls, text: str) -> SafeUrl:
        """Raises `EgressRefused` for whatever two parsers could read in two ways."""
        if not isinstance(text, str) or not text:
            raise EgressRefused("url must be text such as https://example.com/hook", field="url")
        if len(text) > MAX_URL:
            raise EgressRefused(f"url is longer than {MAX_URL} characters; shorten it", field="url")
        if _FORBIDDEN.search(text):
            raise EgressRefused("url holds a space, control character or backslash; percent-encode it", field="url")
        found = _URL.fullmatch(text)
        if found is None:
            raise EgressRefused("url must begin with http:// or https:// and name a host", field="url")
        scheme = found["scheme"].lower()
        authority = found["authority"]
        if "@" in authority:
            raise EgressRefused("url must not hold a user or password; send an Authorization header", field="url")
        host, port = _split_port(authority, _PORTS[scheme])
        path = quote(found["path"] or "/", safe=_PATH_SAFE)
        query = quote(found["query"] or "", safe=_PATH_SAFE + "?")
        return cls(scheme, parse_target(host, port), path + query)


def parse_target(host: str, port: int) -> Target:
    """A host and port, the host a name or a canonical address without brackets. Raises `EgressRefused`."""
    if not 0 < port < 65_536:
        raise EgressRefused("port must be between 1 and 65535", field="port")
    if ":" in host:
        if "%" in host:
            raise EgressRefused("host must not hold a zone or percent sign", field="host")
        try:
            v6 = IPv6Address(host)
        except ValueError:
            raise EgressRefused("host is not an IPv6 address", field="host") from None
        return Target(str(v6), port, v6)
    name = _ascii_name(host)
    last = name.rsplit(".", 1)[-1]
    if last.isdigit() or _HEX.fullmatch(last):
        # Resolvers read 2130706433, 0x7f.1 and 0177.0.0.1 as addresses; only the one canonical spelling is a number
        # to us.
        try:
            v4 = IPv4Address(name)
        except ValueError:
            raise EgressRefused(
                "host looks like a number but is not a dotted IPv4 address such as 93.184.216.34", field="host"
            ) from None
        return Target(str(v4), port, v4)
    return Target(name, port, None)


_PORTS: Final = {"http": 80, "https": 443}
_URL = re.compile(
    r"(?P<scheme>[Hh][Tt][Tt][Pp][Ss]?)://(?P<authority>[^/?#]+)(?P<path>/[^?#]*)?(?P<query>\?[^#]*)?(?:#.*)?"
)
_FORBIDDEN = re.compile(
    r"[\x00-\x20\x7f-\xa0\\\u1680\u2000-\u200f\u2028-\u202f\u205f-\u206f\u3000\ud800-\udfff\ufeff\ufff0-\uffff]"
)
_PATH_SAFE = "/%:@!$&'()*+,;=~-._"
_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)")
_OTHER_DOTS: Final = frozenset("\u3002\uff0e\uff61")
_HEX = re.compile(r"0x[0-9a-f]*")


def _split_port(authority: str, default: int) -> tuple[str, int]:
    if authority.startswith("["):
        host, bracket, rest = authority[1:].partition("]")
        if not bracket or ":" not in host:
            raise EgressRefused("host is not an IPv6 address in brackets", field="host")
    else:
        host, colon, port = authority.partition(":")
        rest = colon + port
    if not rest:
        return host, default
    port = rest[1:]
    if rest[0] != ":" or not port.isascii() or not port.isdigit() or len(port) > 5:
        raise EgressRefused("port must be a number between 1 and 65535", field="port")
    return host, int(port)


def _ascii_name(host: str) -> str:
    if not host or len(host) > 253:
        raise EgressRefused("host must be 1 to 253 characters", field="host")
    name = host.lower()
    if not _OTHER_DOTS.isdisjoint(name):
        raise EgressRefused("host must separate its labels by plain dots", field="host")
    if not name.isascii():
        try:
            # Strict IDNA 2008: digits in circles and full-width forms are refused here, where lenient parsers fold
            # them to ASCII.
            name = idna.encode(name, std3_rules=True).decode("ascii")
        except (idna.IDNAError, UnicodeError):
            raise EgressRefused("host is not a valid international name", field="host") from None
    if not all(_LABEL.fullmatch(label) for label in name.split(".")):
        raise EgressRefused("host must be labels of letters, digits and dashes between dots", field="host")
    return name
