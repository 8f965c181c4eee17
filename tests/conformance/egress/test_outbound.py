"""The rules of one tenant: what is opened to it and to nobody else, and how many requests it may begin, over the real
stores and as if in several processes.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from contracts.problems import PayloadInvalid, Unavailable
from engine.clock import VirtualClock
from engine.guards.addresses import SafeUrl, parse_target
from engine.guards.egress import Egress, EgressFailed, EgressRefused
from engine.guards.outbound import SETTING, EgressLimited, Outbound, Rate, Rules
from engine.store import Store, open_store
from tests.conformance.egress.serving import Serve, echo
from tests.stories.wire import CutWire

USUAL = Rate(1_000, 60.0)


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return f"sqlite://{tmp_path}/unwind.db" if request.param == "sqlite" else request.getfixturevalue("postgres_url")


@pytest.fixture
async def store(store_url: str) -> AsyncIterator[Store]:
    store = open_store(store_url)
    await store.migrate()
    await store.start()
    yield store
    await store.stop()


class Turned:
    """A clock that sleepers turn: whoever sleeps moves it on, and is woken at once."""

    def __init__(self) -> None:
        self.clock = VirtualClock()
        self.begun: list[float] = []
        self._start = self.clock.now()

    def monotonic(self) -> float:
        return (self.clock.now() - self._start).total_seconds()

    async def sleep(self, seconds: float) -> None:
        self.clock.forward(seconds=seconds)

    def outbound(self, store: Store, usual: Rate = USUAL) -> Outbound:
        return Outbound(store, self.clock, usual, monotonic=self.monotonic, sleep=self.sleep)

    def note(self) -> None:
        self.begun.append(self.monotonic())

    def most_in(self, seconds: float) -> int:
        """The most that began in any stretch of so many seconds."""
        return max(sum(since <= at < since + seconds for at in self.begun) for since in self.begun)


@pytest.mark.parametrize("rate", [Rate(5, 10.0), Rate(1, 1.0), Rate(37, 60.0), Rate(250, 7.0)], ids=str)
async def test_no_stretch_of_time_holds_more_than_the_rate_over_all_processes(store: Store, rate: Rate) -> None:
    turned = Turned()
    processes = [turned.outbound(store) for _ in range(3)]
    rules = Rules(rate=rate)
    count = rate.requests * 3 + 7
    for number in range(count):
        await processes[number % 3].permit("acme", rules, seconds=1e6)
        turned.note()
        turned.clock.forward(seconds=rate.seconds / 1_000 * (number % 4))
    assert turned.most_in(rate.seconds) <= rate.requests
    # It is a rate, not a stop: three times as many take little more than three times as long.
    assert turned.monotonic() <= rate.seconds * (1 + 1.3 * count / rate.requests)


async def test_a_lease_is_good_in_its_slot_only(store: Store) -> None:
    turned = Turned()
    outbound, rules = turned.outbound(store), Rules(rate=Rate(1_000, 10.0))
    await outbound.permit("acme", rules, seconds=1.0)
    turned.clock.forward(seconds=9.0)
    for _ in range(990):
        await outbound.permit("acme", rules, seconds=1.0)
    # Nine of the first lease are lost, and count as if they had been made.
    with pytest.raises(EgressLimited):
        await outbound.permit("acme", rules, seconds=0.01)


async def test_who_has_no_time_left_is_told_when_it_is_worth_trying_again(store: Store) -> None:
    turned = Turned()
    outbound, rules = turned.outbound(store), Rules(rate=Rate(2, 100.0))
    for _ in range(2):
        await outbound.permit("acme", rules, seconds=1.0)
    with pytest.raises(EgressLimited) as limited:
        await outbound.permit("acme", rules, seconds=1.0)
    assert 0 < limited.value.seconds <= 10.0
    assert limited.value.retryable
    await outbound.permit("globex", rules, seconds=1.0)


async def test_those_who_wait_go_in_the_order_of_asking(store: Store) -> None:
    turned, order = Turned(), []
    outbound, rules = turned.outbound(store), Rules(rate=Rate(1, 10.0))

    async def ask(number: int) -> None:
        await outbound.permit("acme", rules, seconds=1e6)
        order.append(number)

    await asyncio.gather(*(ask(number) for number in range(4)))
    assert order == [0, 1, 2, 3]


async def test_a_new_rate_holds_within_two_seconds_and_begins_anew(store: Store) -> None:
    turned = Turned()
    outbound = turned.outbound(store, Rate(3, 100.0))

    async def ask() -> None:
        await outbound.permit("acme", await outbound.rules("acme"), seconds=0.5)

    for _ in range(3):
        await ask()
    with pytest.raises(EgressLimited):
        await ask()
    await store.put_setting("acme", SETTING, Rules(rate=Rate(5, 50.0)).to_setting())
    with pytest.raises(EgressLimited):
        await ask()
    turned.clock.forward(seconds=2.1)
    for _ in range(5):
        await ask()
    with pytest.raises(EgressLimited):
        await ask()


async def test_rules_are_held_on_to_while_the_database_is_away_and_without_any_nothing_goes_out(store: Store) -> None:
    class Cut:
        """The store behind a wire that is cut."""

        away = False

        async def egress_rules(self, tenant: str) -> Any:
            if self.away:
                raise Unavailable("the database does not answer")
            return await store.egress_rules(tenant)

        lease_egress, egress_taken = store.lease_egress, store.egress_taken

    turned, cut = Turned(), Cut()
    outbound = Outbound(cut, turned.clock, USUAL, monotonic=turned.monotonic)
    await store.put_setting("acme", SETTING, Rules(allow=("10.1.2.3",)).to_setting())
    assert (await outbound.rules("acme")).allow == ("10.1.2.3",)
    cut.away = True
    turned.clock.forward(seconds=60)
    assert (await outbound.rules("acme")).allow == ("10.1.2.3",)
    with pytest.raises(Unavailable):
        await outbound.rules("globex")


async def test_a_call_over_the_rate_waits_within_its_own_time(serve: Serve, store: Store) -> None:
    turned = Turned()
    port = await serve(echo)
    egress = Egress(sandbox=[f"127.0.0.1:{port}"], outbound=turned.outbound(store, Rate(1, 20.0)))
    url = SafeUrl.parse(f"http://127.0.0.1:{port}/")
    assert (await egress.request("GET", url, tenant="acme")).status == 200
    assert (await egress.request("GET", url, tenant="globex")).status == 200
    with pytest.raises(EgressLimited):
        await egress.request("GET", url, tenant="acme", seconds=0.5)
    assert (await egress.request("GET", url, tenant="acme", seconds=15.0)).status == 200


# ------------------------------------------------------------------------------------------------------------- openings


@pytest.mark.parametrize(
    ("allow", "target", "address", "opened"),
    [
        ("10.1.2.3:8443", "10.1.2.3:8443", "10.1.2.3", True),
        ("10.1.2.3:8443", "10.1.2.3:443", "10.1.2.3", False),
        ("10.1.2.3", "10.1.2.3:443", "10.1.2.3", True),
        ("10.1.2.3", "10.1.2.4:443", "10.1.2.4", False),
        ("erp.example:8443", "erp.example:8443", "192.168.7.1", True),
        ("erp.example:8443", "other.example:8443", "192.168.7.1", False),
        ("erp.example", "erp.example:80", "127.0.0.1", False),
        ("erp.example", "erp.example:80", "169.254.169.254", False),
        ("erp.example", "erp.example:80", "100.100.100.200", False),
        ("erp.example", "erp.example:80", "::1", False),
        ("erp.example", "erp.example:80", "fd00:ec2::254", False),
        ("erp.example", "erp.example:80", "fd12:3456::1", True),
        ("erp.example", "erp.example:80", "::ffff:10.0.0.1", True),
        ("erp.example", "erp.example:80", "::ffff:127.0.0.1", False),
        ("10.20.0.0/16", "any.example:80", "10.20.255.1", True),
        ("10.20.0.0/16", "any.example:80", "10.21.0.1", False),
        ("fd00::/8", "any.example:80", "fd00:ec2::254", False),
    ],
)
def test_a_rule_opens_one_host_or_network_and_never_loopback_or_metadata(
    allow: str, target: str, address: str, opened: bool
) -> None:
    host, _, port = target.rpartition(":")
    found = ip_address(address)
    mapped = getattr(found, "ipv4_mapped", None)
    rules = Rules.parse([allow], None, None)
    assert Rules.of(rules.to_setting()) == rules
    assert rules.opens(parse_target(host, int(port)), mapped or found) is opened


@pytest.mark.parametrize(
    "allow",
    [
        "127.0.0.1:8080", "[::1]:80", "169.254.169.254", "8.8.8.8", "100.64.0.1", "0.0.0.0/0", "127.0.0.0/8",
        "10.0.0.0/7", "169.254.0.0/16", "10.0.0.1/8", "::/0", "fe80::/10", "*.example", "http://x.example",
        "10.0.0.0/8/8", "/", "",
    ],
)  # fmt: skip
def test_what_can_never_be_opened_is_refused_by_its_field(allow: str) -> None:
    with pytest.raises(PayloadInvalid) as refused:
        Rules.parse([allow], None, None)
    assert refused.value.field == "allow"


async def test_what_is_opened_is_open_to_its_tenant_alone(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    class Private:
        async def resolve(self, host: str, port: int) -> list[str]:
            return ["10.1.2.3"]

    turned, wire = Turned(), CutWire(monkeypatch)
    await store.put_setting("acme", SETTING, Rules(allow=("erp.example:8443",)).to_setting())
    egress = Egress(outbound=turned.outbound(store), resolver=Private())
    opened, other_port = SafeUrl.parse("https://erp.example:8443/"), SafeUrl.parse("https://erp.example/")
    for tenant, url in (("globex", opened), ("acme", other_port), (None, opened)):
        with pytest.raises(EgressRefused):
            await egress.request("GET", url, tenant=tenant)
    assert wire.tried == []
    with pytest.raises(EgressFailed):
        await egress.request("GET", opened, tenant="acme")
    assert wire.tried == ["10.1.2.3:8443"]


async def test_mail_of_a_tenant_goes_by_its_rules_and_counts_as_its_request(
    serve: Serve, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    turned, wire, port = Turned(), CutWire(monkeypatch), await serve(echo)
    await store.put_setting("acme", SETTING, Rules(allow=("10.1.2.3:25",), rate=Rate(2, 100.0)).to_setting())
    egress = Egress(sandbox=[f"127.0.0.1:{port}"], outbound=turned.outbound(store, Rate(9, 100.0)))
    for tenant in ("globex", None):
        with pytest.raises(EgressRefused):
            await egress.dial("10.1.2.3", 25, tenant=tenant)
    assert wire.tried == []
    with pytest.raises(EgressFailed):
        await egress.dial("10.1.2.3", 25, tenant="acme")
    assert wire.tried == ["10.1.2.3:25"]
    url = SafeUrl.parse(f"http://127.0.0.1:{port}/")
    assert (await egress.request("GET", url, tenant="acme")).status == 200
    with pytest.raises(EgressLimited) as limited:
        await egress.dial("127.0.0.1", port, tenant="acme", turn_seconds=0.3)
    assert 0.3 < limited.value.seconds <= 10.0
    for tenant in ("globex", None):
        (await egress.dial("127.0.0.1", port, tenant=tenant)).close()
