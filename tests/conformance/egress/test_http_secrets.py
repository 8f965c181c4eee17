"""Secrets in http.request: what reaches the other side, where it must not go, and what comes back of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import quote
from uuid import UUID

import orjson
import pytest

from contracts.calls import ActionCall, ActionFailed, ActionSpec
from engine.actions.http import http_request
from engine.clock import SystemClock
from engine.guards.egress import Egress
from engine.guards.secrets import OAuth2, Secrets
from engine.store import open_store
from engine.store.key_ring import create_key_ring
from engine.store.keys import Vault
from engine.store.mapper import Mapper
from engine.tenant_log import TenantLog
from tests.stories.keeper import Keeper, api_key, basic, oauth2


@pytest.fixture
async def box(tmp_path: Path) -> AsyncIterator[Secrets]:
    store = open_store(f"sqlite://{tmp_path}/unwind.db")
    await store.migrate()
    await store.start()
    vault, clock = Vault(store, create_key_ring(tmp_path / "keys.json")), SystemClock()
    epoch = await store.register("test", ("worker",))
    yield Secrets(store, vault, TenantLog(store, vault, Mapper(), clock, epoch=lambda: epoch), clock)
    await store.stop()


@pytest.fixture
async def keeper() -> AsyncIterator[Keeper]:
    async with Keeper() as keeper:
        yield keeper


@pytest.fixture
async def other() -> AsyncIterator[Keeper]:
    async with Keeper() as keeper:
        yield keeper


class Time:
    """Seconds, moved by hand."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


async def put(box: Secrets, name: str, given: dict[str, Any], tenant: str = "acme") -> None:
    await box.put(tenant, name, given["kind"], given["hosts"], given["value"], by="ann")


def action(box: Secrets, *keepers: Keeper, monotonic: Time | None = None) -> ActionSpec:
    egress = Egress(sandbox=[keeper.address for keeper in keepers])
    return http_request(egress, None, lambda: box, monotonic=monotonic or Time())


async def attempt(spec: ActionSpec, tenant: str = "acme", **given: object) -> dict[str, Any]:
    call = ActionCall(
        tenant=tenant, run_id=UUID(int=1), key="run/step/1", action="http.request", input=given, attempt=1
    )
    assert spec.perform is not None
    answer: dict[str, Any] = await spec.perform(call)
    return answer


async def failure(spec: ActionSpec, **given: Any) -> ActionFailed:
    with pytest.raises(ActionFailed) as failed:
        await attempt(spec, **given)
    assert "canary" not in f"{failed.value} {failed.value.message}"
    return failed.value


async def test_each_kind_proves_the_call_and_no_value_comes_back(box: Secrets, keeper: Keeper) -> None:
    spec = action(box, keeper)
    for name, given in (("key", api_key(keeper)), ("basic", basic(keeper)), ("bearer", oauth2(keeper))):
        await put(box, name, given)
        output = await attempt(spec, url=keeper.url(f"/{name}"), auth={"secret": name}, method="GET")
        assert output["status"] == 200
        said = orjson.dumps(output).decode()
        assert "[redacted]" in output["json"]["sent"]["headers"].get("Authorization", said)
        assert keeper.canary not in said
        assert "[redacted]" in output["headers"]["etag"]
    assert keeper.granted == [{"grant_type": "client_credentials"}]


async def test_a_header_names_an_api_key(box: Secrets, keeper: Keeper) -> None:
    await put(box, "key", api_key(keeper))
    output = await attempt(action(box, keeper), url=keeper.url("/key"), headers={"X-Key": {"secret": "key"}})
    assert output["status"] == 200
    await put(box, "basic", basic(keeper))
    failed = await failure(action(box, keeper), url=keeper.url("/key"), headers={"X-Key": {"secret": "basic"}})
    assert (failed.code, failed.retryable) == ("input_invalid", False)


async def test_what_a_server_says_again_is_masked_in_every_form(box: Secrets, keeper: Keeper) -> None:
    await put(box, "basic", basic(keeper))
    await put(box, "key", api_key(keeper))
    spec = action(box, keeper)
    forms = [keeper.key, quote(keeper.key, safe=""), quote(keeper.key), orjson.dumps(keeper.key).decode()]
    output = await attempt(
        spec,
        url=keeper.url("/echo/200"),
        auth={"secret": "key"},
        query={"a": keeper.key},
        text=" | ".join(forms),
    )
    said = orjson.dumps(output).decode()
    assert "canary" not in said
    assert output["json"]["sent"]["body"].count("[redacted]") == len(forms)
    output = await attempt(
        spec, url=keeper.url("/echo/200"), auth={"secret": "basic"}, json={keeper.password: [keeper.password]}
    )
    assert keeper.password not in orjson.dumps(output).decode()


async def test_a_secret_goes_to_its_hosts_only_and_in_clear_nowhere(
    box: Secrets, keeper: Keeper, other: Keeper
) -> None:
    await put(box, "key", api_key(keeper))
    elsewhere = await failure(action(box, keeper, other), url=other.url("/echo/200"), auth={"secret": "key"})
    assert (elsewhere.code, elsewhere.retryable, elsewhere.ambiguous) == ("secret_not_sent", False, False)
    await put(box, "public", api_key(keeper) | {"hosts": ["example.org"]})
    plain = await failure(action(box, keeper), url="http://example.org/", auth={"secret": "public"})
    assert (plain.code, "https" in plain.message) == ("secret_not_sent", True)
    assert other.seen == keeper.seen == []


async def test_another_tenants_secret_is_not_there(box: Secrets, keeper: Keeper) -> None:
    await put(box, "key", api_key(keeper))
    spec = action(box, keeper)
    theirs = await failure(spec, tenant="globex", url=keeper.url("/key"), auth={"secret": "key"})
    nobodys = await failure(spec, tenant="acme", url=keeper.url("/key"), auth={"secret": "nothing"})
    assert theirs.code == nobodys.code == "secret_unknown"
    assert not theirs.retryable
    assert keeper.seen == []


async def test_a_rotated_secret_is_used_from_the_next_call_on(box: Secrets, keeper: Keeper) -> None:
    await put(box, "key", api_key(keeper))
    spec = action(box, keeper)
    keeper.key = "the new key"
    assert (await failure(spec, url=keeper.url("/key"), auth={"secret": "key"})).code == "http_401"
    await box.rotate("acme", "key", {"key": keeper.key, "header": "X-Key", "prefix": "Key "}, by="ann")
    assert (await attempt(spec, url=keeper.url("/key"), auth={"secret": "key"}))["status"] == 200


# --------------------------------------------------------------------------------------------------------------- tokens


async def test_a_token_is_fetched_once_and_anew_shortly_before_it_expires(box: Secrets, keeper: Keeper) -> None:
    await put(box, "bearer", oauth2(keeper, scope="charges"))
    time = Time()
    spec = action(box, keeper, monotonic=time)

    def ask() -> Any:
        return attempt(spec, url=keeper.url("/bearer"), auth={"secret": "bearer"})

    await asyncio.gather(*(ask() for _ in range(5)))
    time.seconds = 3569.0
    await ask()
    assert keeper.granted == [{"grant_type": "client_credentials", "scope": "charges"}]
    time.seconds = 3571.0
    await ask()
    assert keeper.handed == 2
    await box.rotate("acme", "bearer", oauth2(keeper)["value"], by="ann")
    await ask()
    assert keeper.handed == 3


async def test_a_refused_token_is_replaced_once(box: Secrets, keeper: Keeper) -> None:
    await put(box, "bearer", oauth2(keeper))
    spec = action(box, keeper)
    await attempt(spec, url=keeper.url("/bearer"), auth={"secret": "bearer"})
    keeper.revoke()
    assert (await attempt(spec, url=keeper.url("/bearer"), auth={"secret": "bearer"}))["status"] == 200
    assert keeper.handed == 2
    failed = await failure(spec, url=keeper.url("/echo/401"), auth={"secret": "bearer"})
    assert (failed.code, failed.ambiguous, keeper.handed) == ("http_401", False, 3)


async def test_a_refresh_token_that_the_server_replaces_becomes_the_next_version(box: Secrets, keeper: Keeper) -> None:
    await put(box, "bearer", oauth2(keeper, refresh_token=keeper.refresh))
    spec = action(box, keeper)
    for turn in (1, 2, 3):
        await attempt(spec, url=keeper.url("/bearer"), auth={"secret": "bearer"})
        opened = await box.open("acme", "bearer")
        assert isinstance(opened.value, OAuth2)
        assert opened.value.refresh_token is not None
        assert opened.value.refresh_token.get_secret_value() == keeper.refresh == f"refresh-{keeper.canary}-{turn}"
        assert (opened.version, (await box.note("acme", "bearer")).changed_by) == (turn + 1, "engine")
        keeper.revoke()
    assert [form["refresh_token"] for form in keeper.granted] == [f"refresh-{keeper.canary}-{n}" for n in range(3)]


async def test_a_server_of_tokens_is_left_alone_as_long_as_it_asks(box: Secrets, keeper: Keeper) -> None:
    await put(box, "bearer", oauth2(keeper))
    keeper.busy_seconds = 90
    failed = await failure(action(box, keeper), url=keeper.url("/bearer"), auth={"secret": "bearer"})
    assert (failed.code, failed.retryable, failed.retry_after_seconds) == ("oauth2_unavailable", True, 90.0)


async def test_another_process_that_was_faster_with_a_refresh_token_is_followed(box: Secrets, keeper: Keeper) -> None:
    await put(box, "bearer", oauth2(keeper, refresh_token=keeper.refresh))
    one, two = action(box, keeper), action(box, keeper)
    told = await asyncio.gather(
        *(attempt(spec, url=keeper.url("/bearer"), auth={"secret": "bearer"}) for spec in (one, two)),
        return_exceptions=True,
    )
    # Whoever asked between its use and the storing of its successor is told to try again.
    assert all(isinstance(answer, dict) or (isinstance(answer, ActionFailed) and answer.retryable) for answer in told)
    for spec in (one, two):
        assert (await attempt(spec, url=keeper.url("/bearer"), auth={"secret": "bearer"}))["status"] == 200
    opened = await box.open("acme", "bearer")
    assert isinstance(opened.value, OAuth2)
    assert opened.value.refresh_token is not None
    assert opened.value.refresh_token.get_secret_value() == keeper.refresh


@pytest.mark.parametrize(
    ("value", "code", "retryable"),
    [
        ({"client_secret": "wrong secret"}, "oauth2_refused", False),
        ({"refresh_token": "unknown"}, "oauth2_refused", True),
        ({"token_url": "/token/careless"}, "oauth2_refused", False),
        ({"token_url": "/token/careless", "client_auth": "body"}, "oauth2_refused", False),
        ({"token_url": "/echo/503"}, "oauth2_unavailable", True),
        ({"token_url": "/echo/200"}, "oauth2_refused", False),
        ({"token_url": "https://10.0.0.1/token"}, "egress_refused", False),
        ({"token_url": "http://tokens.example.org/token"}, "secret_not_sent", False),
    ],
)
async def test_a_token_that_is_not_given_fails_the_step_and_says_no_secret(
    box: Secrets, keeper: Keeper, value: dict[str, str], code: str, retryable: bool
) -> None:
    if value.get("token_url", "").startswith("/"):
        value = value | {"token_url": keeper.url(value["token_url"])}
    await put(box, "bearer", oauth2(keeper, **value))
    failed = await failure(action(box, keeper), url=keeper.url("/bearer"), auth={"secret": "bearer"})
    assert (failed.code, failed.retryable, failed.ambiguous) == (code, retryable, False)
    assert not any(seen["path"] == "/bearer" for seen in keeper.seen)
