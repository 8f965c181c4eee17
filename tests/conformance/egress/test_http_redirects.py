"""http.request: what is added to an address and a body, and where an answer may send it on to."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from contracts.calls import ActionFailed
from engine.actions.http import http_request
from engine.guards.egress import Egress
from engine.guards.secrets import Secrets
from tests.conformance.egress.test_http_request import attempt
from tests.conformance.egress.test_http_secrets import action, box, failure, put  # noqa: F401
from tests.conformance.egress.test_http_secrets import attempt as proven
from tests.stories.keeper import Keeper, api_key


@pytest.fixture
async def keeper() -> AsyncIterator[Keeper]:
    async with Keeper() as keeper:
        yield keeper


@pytest.fixture
async def other() -> AsyncIterator[Keeper]:
    async with Keeper() as keeper:
        yield keeper


async def test_query_and_form_are_encoded_and_lists_repeat(keeper: Keeper) -> None:
    spec = http_request(Egress(sandbox=[keeper.address]))
    fields: dict[str, object] = {"a b": "c&d=é", "n": [1, 2.5], "yes": True}
    await attempt(spec, url=keeper.url("/echo?x=1#part"), query=fields, form=fields)
    [seen] = keeper.seen
    assert seen["query"] == "x=1&a+b=c%26d%3D%C3%A9&n=1&n=2.5&yes=true"
    assert seen["body"] == "a+b=c%26d%3D%C3%A9&n=1&n=2.5&yes=true"
    assert seen["headers"]["Content-Type"] == "application/x-www-form-urlencoded"


@pytest.mark.parametrize("bodies", [{"json": 1, "form": {}}, {"form": {}, "text": ""}, {"json": 1, "text": "x"}])
async def test_a_request_has_one_body(keeper: Keeper, bodies: dict[str, object]) -> None:
    with pytest.raises(ActionFailed, match="one of json, form and text"):
        await attempt(http_request(Egress(sandbox=[keeper.address])), url=keeper.url("/echo"), **bodies)
    assert keeper.seen == []


@pytest.mark.parametrize(
    ("status", "method", "then", "body"),
    [
        (301, "POST", "GET", ""),
        (302, "POST", "GET", ""),
        (303, "POST", "GET", ""),
        (303, "PUT", "GET", ""),
        (303, "HEAD", "HEAD", ""),
        (301, "PUT", "PUT", "what was sent"),
        (302, "DELETE", "DELETE", "what was sent"),
        (307, "POST", "POST", "what was sent"),
        (308, "PATCH", "PATCH", "what was sent"),
    ],
)
async def test_a_redirect_is_followed_as_the_standard_says(
    keeper: Keeper, status: int, method: str, then: str, body: str
) -> None:
    spec = http_request(Egress(sandbox=[keeper.address]))
    text = None if method == "HEAD" else "what was sent"
    output = await attempt(
        spec, url=keeper.url(f"/to/{status}//echo/200"), method=method, text=text, follow_redirects=True
    )
    first, second = keeper.seen
    assert output["status"] == 200
    assert (second["method"], second["path"], second["body"]) == (then, "/echo/200", body)
    assert ("Content-Type" in second["headers"]) == bool(body)
    assert first["headers"]["Idempotency-Key"] == second["headers"]["Idempotency-Key"]


async def test_a_redirect_is_not_followed_unless_it_is_asked_for_nor_for_ever(keeper: Keeper) -> None:
    spec = http_request(Egress(sandbox=[keeper.address]))
    with pytest.raises(ActionFailed) as failed:
        await attempt(spec, url=keeper.url("/to/302//echo/200"))
    assert (failed.value.code, failed.value.retryable, len(keeper.seen)) == ("http_302", False, 1)
    again = keeper.url("/to/307/") * 6 + keeper.url("/echo")
    with pytest.raises(ActionFailed) as failed:
        await attempt(spec, url=again, follow_redirects=True)
    assert (failed.value.code, failed.value.retryable, len(keeper.seen)) == ("too_many_redirects", False, 7)


@pytest.mark.parametrize(
    "target",
    [
        "http://169.254.169.254/latest",
        "http://127.0.0.1:1/",
        "http://[::ffff:10.0.0.1]/",
        "file:///etc/passwd",
        "//10.1/",
    ],
)
async def test_a_redirect_is_judged_as_the_first_address_was(keeper: Keeper, target: str) -> None:
    for status, ambiguous in ((303, True), (307, False)):
        with pytest.raises(ActionFailed) as failed:
            await attempt(
                http_request(Egress(sandbox=[keeper.address])),
                url=keeper.url(f"/to/{status}/{target}"),
                follow_redirects=True,
            )
        assert (failed.value.code, failed.value.retryable) == ("egress_refused", False)
        # 303 says that the first request was carried out.
        assert failed.value.ambiguous is ambiguous


async def test_secrets_stay_with_the_origin_they_were_meant_for(
    box: Secrets,  # noqa: F811
    keeper: Keeper,
    other: Keeper,
) -> None:
    await put(box, "key", api_key(keeper) | {"hosts": [keeper.address, other.address]})
    spec = action(box, keeper, other)
    await proven(
        spec,
        url=keeper.url(f"/to/307/{other.url('/to/307/' + keeper.url('/echo/200'))}"),
        auth={"secret": "key"},
        headers={"Authorization": "Bearer mine", "cookie": "mine", "X-Mine": "kept"},
        follow_redirects=True,
    )
    at_home, away, back = keeper.seen[0]["headers"], other.seen[0]["headers"], keeper.seen[1]["headers"]
    assert (at_home["X-Key"], at_home["Authorization"]) == (f"Key {keeper.key}", "Bearer mine")
    for later in (away, back):
        assert not {"X-Key", "Authorization", "Cookie", "cookie"} & later.keys()
        assert later["X-Mine"] == "kept"
    await proven(spec, url=keeper.url("/to/307//key"), auth={"secret": "key"}, follow_redirects=True)
    assert keeper.seen[-1]["headers"]["X-Key"] == f"Key {keeper.key}"
    assert (await failure(spec, url=other.url("/key"), auth={"secret": "key"})).code == "http_401"
