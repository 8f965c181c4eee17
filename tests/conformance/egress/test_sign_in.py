"""The client of an identity provider: who it says has signed in, and every lie that it does not believe."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import aiohttp
import pytest
from joserfc.errors import SecurityWarning
from joserfc.jwk import RSAKey
from pydantic import SecretStr

from contracts.problems import Problem
from engine.clock import SystemClock
from engine.guards.oidc import Attempt, OidcRefused, Provider, ProviderUnavailable, Vouched, is_path
from engine.guards.oidc.attempts import LIFE_SECONDS
from engine.guards.oidc.discovery import AGAIN_SECONDS, FRESH_SECONDS, PAUSE_SECONDS, STALE_SECONDS
from engine.guards.oidc.id_tokens import LEEWAY_SECONDS, keys_of
from engine.metrics import Metrics
from engine.settings import EgressSettings, OidcSettings
from engine.store import open_store
from engine.store.key_ring import create_key_ring
from engine.store.keys import Vault
from tests.stories.house import MovableClock
from tests.stories.identity_provider import CLIENT_ID, CLIENT_SECRET, KEYS, IdentityProvider

BACK = "https://unwind.example.org/v1/session/oidc/callback"


class Time:
    """Seconds, moved by hand."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
async def there() -> AsyncIterator[IdentityProvider]:
    async with IdentityProvider() as there:
        yield there


def client(there: IdentityProvider, *, monotonic: Time | None = None, **more: Any) -> Provider:
    given = {"issuer": there.issuer, "client_id": CLIENT_ID, "client_secret": SecretStr(CLIENT_SECRET), **more}
    settings = OidcSettings(**{"private_hosts": (there.address,), **given})
    made = Provider.from_settings(settings, EgressSettings(), SystemClock(), Metrics(), monotonic=monotonic or Time())
    assert made is not None
    return made


async def travel(provider: Provider, attempt: Attempt) -> dict[str, str]:
    """What the browser brings back from the provider."""
    url = await provider.begin(attempt, BACK)
    async with aiohttp.ClientSession() as session, session.get(url, allow_redirects=False) as answer:
        assert answer.status == 302, await answer.text()
        back = urlsplit(answer.headers["Location"])
    assert f"{back.scheme}://{back.netloc}{back.path}" == BACK
    return dict(parse_qsl(back.query))


def attempt() -> Attempt:
    return Attempt.begin("/", SystemClock().now())


async def sign_in(provider: Provider) -> Vouched:
    begun = attempt()
    return await provider.finish(begun, await travel(provider, begun), BACK)


async def cause(provider: Provider) -> str:
    """Why it is refused; what a person is told is always the same."""
    with pytest.raises(OidcRefused) as refused:
        await sign_in(provider)
    assert refused.value.to_document() == OidcRefused("another cause").to_document()
    return refused.value.cause


@pytest.mark.filterwarnings("ignore:EdDSA is deprecated")
@pytest.mark.parametrize("algorithm", ["RS256", "PS256", "ES256", "EdDSA"])
async def test_who_signed_in_is_told(there: IdentityProvider, algorithm: str) -> None:
    there.algorithm = algorithm
    there.account["name"] = "Ann"
    assert await sign_in(client(there)) == Vouched(
        issuer=there.issuer, subject="ann-1", email="ann@example.org", email_verified=True, name="Ann"
    )


@pytest.mark.parametrize(
    ("secret", "methods", "proof"),
    [
        (CLIENT_SECRET, None, "basic"),
        (CLIENT_SECRET, ["client_secret_post", "private_key_jwt"], "post"),
        (None, ["none"], "none"),
    ],
)
async def test_a_client_proves_itself_as_the_provider_says(
    there: IdentityProvider, secret: str | None, methods: list[str] | None, proof: str
) -> None:
    there.described["token_endpoint_auth_methods_supported"] = methods
    await sign_in(client(there, client_secret=None if secret is None else SecretStr(secret)))
    assert there.proofs == [proof]


async def test_an_address_that_the_profile_alone_holds_is_asked_for(there: IdentityProvider) -> None:
    there.own_profile = True
    assert (await sign_in(client(there))).verified_email == "ann@example.org"
    there.claims["sub"] = "bob-1"
    assert "another person's" in await cause(client(there))
    there.described["userinfo_endpoint"] = None
    assert (await sign_in(client(there))).email is None


@pytest.mark.parametrize("verified", [False, None, "true", "false", 1])
async def test_an_address_is_verified_only_when_the_provider_says_true(there: IdentityProvider, verified: Any) -> None:
    there.account["email_verified"] = verified
    found = await sign_in(client(there))
    assert (found.email, found.verified_email) == ("ann@example.org", None)


NOW = int(time.time())


@pytest.mark.parametrize(
    ("claims", "why"),
    [
        ({"iss": "https://evil.example"}, "iss"),
        ({"iss": None}, "iss"),
        ({"aud": "another-client"}, "aud"),
        ({"aud": ["another-client", "a-third"]}, "aud"),
        ({"aud": None}, "aud"),
        ({"aud": [CLIENT_ID, "another-client"]}, "azp"),
        ({"azp": "another-client"}, "azp"),
        ({"nonce": "of another sign-in"}, "nonce"),
        ({"nonce": None}, "nonce"),
        ({"exp": NOW - LEEWAY_SECONDS - 5}, "expired"),
        ({"exp": None}, "exp"),
        ({"exp": "tomorrow"}, "exp"),
        ({"iat": NOW + LEEWAY_SECONDS + 600}, "in the future"),
        ({"iat": None}, "iat"),
        ({"nbf": NOW + 600}, "not yet valid"),
        ({"sub": ""}, "sub"),
        ({"sub": 7}, "sub"),
        ({"sub": "x" * 256}, "sub"),
        ({"sub": "ann\n1"}, "sub"),
    ],
)
async def test_a_token_with_a_wrong_claim_signs_nobody_in(
    there: IdentityProvider, claims: dict[str, Any], why: str
) -> None:
    there.claims = claims
    assert why in await cause(client(there))


async def test_a_token_for_several_clients_names_the_one_it_was_issued_to(there: IdentityProvider) -> None:
    there.claims = {"aud": [CLIENT_ID, "another-client"], "azp": CLIENT_ID}
    assert (await sign_in(client(there))).subject == "ann-1"


async def test_a_clock_may_be_wrong_by_a_little(there: IdentityProvider) -> None:
    there.claims = {"exp": int(time.time()) - LEEWAY_SECONDS + 30, "iat": int(time.time()) + LEEWAY_SECONDS - 30}
    assert (await sign_in(client(there))).subject == "ann-1"


@pytest.mark.parametrize("forge", ["none", "HS256"])
async def test_a_token_that_the_provider_did_not_sign_signs_nobody_in(there: IdentityProvider, forge: str) -> None:
    there.forge = forge
    assert "is not allowed" in await cause(client(there))


async def test_a_token_under_another_key_of_the_same_name_signs_nobody_in(
    there: IdentityProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider = client(there)
    await sign_in(provider)  # the keys are known now
    monkeypatch.setitem(KEYS, "RS256", RSAKey.generate_key(2048, {"kid": "rsa"}))
    assert "bad_signature" in await cause(provider)


async def test_a_new_key_is_fetched_once_and_an_invented_one_not_again_and_again(there: IdentityProvider) -> None:
    now = Time()
    provider = client(there, monotonic=now)
    there.published = ["RS256"]
    await sign_in(provider)
    there.algorithm, there.published = "ES256", ["RS256", "ES256"]
    now.seconds += AGAIN_SECONDS
    assert (await sign_in(provider)).subject == "ann-1"
    assert there.asked.count("keys") == 2
    there.kid = "invented"
    for _ in range(3):
        assert "invented" in await cause(provider)
    assert there.asked.count("keys") == 2
    now.seconds += AGAIN_SECONDS
    await cause(provider)
    assert there.asked.count("keys") == 3


async def test_what_a_provider_said_lasts_an_hour_and_longer_while_it_is_away(there: IdentityProvider) -> None:
    now = Time()
    provider = client(there, monotonic=now)
    await sign_in(provider)
    await sign_in(provider)
    assert there.asked.count(".well-known/openid-configuration") == 1
    now.seconds += FRESH_SECONDS
    there.down = True
    assert await provider.begin(attempt(), BACK)
    assert await provider.begin(attempt(), BACK)
    assert there.asked.count(".well-known/openid-configuration") == 2  # a failure is not repeated at once
    now.seconds += STALE_SECONDS
    with pytest.raises(ProviderUnavailable):
        await provider.begin(attempt(), BACK)
    there.down = False
    now.seconds += PAUSE_SECONDS
    assert (await sign_in(provider)).subject == "ann-1"


def test_keys_that_cannot_be_used_are_passed_over() -> None:
    with pytest.warns(SecurityWarning):
        short = RSAKey.generate_key(1024, {"kid": "short"})
    good = KEYS["ES256"].as_dict(private=False)
    useless: list[Any] = [
        {"kty": "oct", "k": "c2VjcmV0", "kid": "mac"},
        short.as_dict(private=False),
        {**good, "use": "enc"},
        {"kty": "AKP", "alg": "ML-DSA-44", "pub": "AA"},
        {"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"},
        {"kty": ["RSA"]},
        {},
        None,
        "key",
    ]
    assert keys_of({"keys": useless}) is None
    assert keys_of({"keys": "none"}) is None
    found = keys_of({"keys": [*useless, good]})
    assert found is not None
    assert [key.kid for key in found] == ["ec"]


@pytest.mark.parametrize(
    ("answered", "why"),
    [
        ({"state": "of another browser"}, "state"),
        ({"state": None}, "state"),
        ({"state": "ü"}, "state"),
        ({"iss": "https://evil.example"}, "iss"),
        ({"iss": None}, "iss"),
        ({"code": None}, "no code"),
        ({"code": "x" * 5_000}, "no code"),
        ({"code": "of another client"}, "invalid_grant"),
        ({"code": None, "error": "access_denied"}, "access_denied"),
        ({"error": "<script>"}, "of its own"),
    ],
)
async def test_an_answer_that_does_not_belong_here_signs_nobody_in(
    there: IdentityProvider, answered: dict[str, Any], why: str
) -> None:
    there.answered = answered
    assert why in await cause(client(there))


async def test_an_issuer_parameter_is_checked_even_when_it_was_not_announced(there: IdentityProvider) -> None:
    there.described["authorization_response_iss_parameter_supported"] = None
    there.answered = {"iss": None}
    assert (await sign_in(client(there))).subject == "ann-1"
    there.answered = {"iss": "https://evil.example"}
    assert "iss" in await cause(client(there))


async def test_an_attempt_and_its_code_are_used_once(there: IdentityProvider) -> None:
    provider, elsewhere = client(there), client(there)
    begun = attempt()
    answer = await travel(provider, begun)
    await provider.finish(begun, answer, BACK)
    for again, why in ((provider, "twice"), (elsewhere, "invalid_grant")):
        with pytest.raises(OidcRefused) as refused:
            await again.finish(begun, answer, BACK)
        assert why in refused.value.cause


async def test_a_code_is_good_with_its_own_verifier_only(there: IdentityProvider) -> None:
    provider, begun = client(there), attempt()
    answer = await travel(provider, begun)
    stolen = Attempt(state=begun.state, nonce=begun.nonce, verifier="another", return_to="/", until=begun.until)
    with pytest.raises(OidcRefused) as refused:
        await provider.finish(stolen, answer, BACK)
    assert "invalid_grant" in refused.value.cause


@pytest.mark.parametrize(
    ("described", "why"),
    [
        ({"issuer": "https://evil.example"}, "calls itself"),
        ({"issuer": None}, "issuer"),
        ({"jwks_uri": 7}, "jwks_uri"),
        ({"token_endpoint": "http://id.example.org/token"}, "is not https"),
        ({"authorization_endpoint": "javascript:alert(1)"}, "url"),
        ({"authorization_endpoint": "https://ann:pw@id.example.org/"}, "url"),
    ],
)
async def test_a_description_that_cannot_be_trusted_begins_nothing(
    there: IdentityProvider, described: dict[str, Any], why: str
) -> None:
    there.described = described
    with pytest.raises(ProviderUnavailable, match="cannot be asked now") as unavailable:
        await client(there).begin(attempt(), BACK)
    assert why in unavailable.value.cause


async def test_a_provider_inside_is_reached_only_where_the_operator_opened_it(there: IdentityProvider) -> None:
    with pytest.raises(ProviderUnavailable) as closed:
        await client(there, private_hosts=()).begin(attempt(), BACK)
    assert "is not https" in closed.value.cause
    there.described["jwks_uri"] = "https://10.0.0.1/keys"
    provider, begun = client(there), attempt()
    answer = await travel(provider, begun)
    with pytest.raises(ProviderUnavailable) as inside:
        await provider.finish(begun, answer, BACK)
    assert "not public" in inside.value.cause


# --------------------------------------------------------------------------------------------------- the sealed attempt


@pytest.fixture
async def vault(tmp_path: Path) -> AsyncIterator[Vault]:
    store = open_store(f"sqlite://{tmp_path}/unwind.db")
    await store.migrate()
    await store.start()
    yield Vault(store, create_key_ring(tmp_path / "keys.json"))
    await store.stop()


async def test_an_attempt_opens_in_time_for_its_issuer_and_unchanged(vault: Vault) -> None:
    clock = MovableClock()
    begun = Attempt.begin("/runs?status=parked", clock.now())
    sealed = await begun.seal(vault, "https://id.example.org")
    assert await Attempt.open(vault, "https://id.example.org", sealed, clock.now()) == begun
    assert begun.state not in sealed
    changed = sealed[:40] + ("A" if sealed[40] != "A" else "B") + sealed[41:]
    wrong = [
        ("https://evil.example", sealed),
        *(("https://id.example.org", text) for text in (changed, sealed[:-8], "", "A", "ü", "=" * 8, "A" * 5_000)),
        *(("https://id.example.org", text) for text in ("AQ" + "A" * 80, "Aw" + "A" * 80, "Ag" + "A" * 80)),
    ]
    for issuer, text in wrong:
        with pytest.raises(OidcRefused):
            await Attempt.open(vault, issuer, text, clock.now())
    clock.forward(seconds=LIFE_SECONDS + 1)
    with pytest.raises(OidcRefused, match="begin again"):
        await Attempt.open(vault, "https://id.example.org", sealed, clock.now())


@pytest.mark.parametrize("path", ["/", "/runs", "/runs?status=parked#last", "/a//b", "/%2f/x"])
def test_a_path_of_this_place_is_returned_to(path: str) -> None:
    assert is_path(path)


@pytest.mark.parametrize(
    "path",
    [
        "", "runs", " /", "/a b", "/a\nb", "/ü", "/" + "a" * 1_000, "\x00/", "//evil.example", "/\\evil.example",
        "\\\\evil.example", "/\t/evil.example", "https://evil.example", "javascript:x",
    ],
)  # fmt: skip
def test_nothing_else_is(path: str) -> None:
    assert not is_path(path)


def test_the_problem_says_nothing_of_its_cause() -> None:
    problem: Problem = OidcRefused("ID token: nonce")
    assert "nonce" not in str(problem.to_document())
