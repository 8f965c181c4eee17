"""ID tokens: the signature by one of the provider's keys, then every claim that OpenID Connect Core 1.0, section
3.1.3.7, asks for. Pure: time comes in, nothing is fetched.

Algorithms are ours to choose, never the token's: asymmetric ones alone, so that neither `none` nor a MAC under the
provider's public key can pass. A key serves the algorithms of its own kind only (RFC 8725).
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from joserfc import jws
from joserfc.errors import InvalidKeyIdError, JoseError, SecurityWarning
from joserfc.jwk import JWKRegistry, Key, KeySet, OctKey, RSAKey
from joserfc.jwt import JWTClaimsRegistry

from contracts.envelope import load_json
from contracts.problems import EnvelopeInvalid
from engine.guards.oidc.vouched import OidcRefused, Vouched

ALGORITHMS: Final = ("RS256", "PS256", "ES256", "EdDSA", "Ed25519")
LEEWAY_SECONDS: Final = 60
"""How far the provider's clock may be from ours."""
MAX_TOKEN: Final = 32_768
MAX_KEYS: Final = 100
RSA_BITS: Final = 2_048
_MALFORMED: Final = (JoseError, ValueError, TypeError, KeyError, AttributeError)
"""What the library raises of input that nobody signed."""

# RFC 9864 gives EdDSA two new names; providers go on with the old one.
warnings.filterwarnings("ignore", message="EdDSA is deprecated", category=SecurityWarning)


class KeyUnknown(Exception):
    """The token names a key that is not among those known: the provider may have a new one."""


class _Registry(jws.JWSRegistry):
    max_header_length = 8_192
    max_payload_length = MAX_TOKEN


# Providers put names of their own into the header; only those of `crit` must be understood.
_REGISTRY: Final = _Registry(algorithms=ALGORITHMS, strict_check_header=False)


def keys_of(document: Mapping[str, Any]) -> KeySet | None:
    """The keys of a JWK Set (RFC 7517) that may sign; those that are not understood are passed over. None: there are
    none.
    """
    listed = document.get("keys")
    keys = [key for one in (listed if isinstance(listed, list) else [])[:MAX_KEYS] if (key := _key(one)) is not None]
    return KeySet(keys) if keys else None


def _key(document: Any) -> Key | None:
    if not isinstance(document, dict) or document.get("use", "sig") != "sig":
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SecurityWarning)  # of short keys, which are left out below
            key = JWKRegistry.import_key(document)
    except _MALFORMED:
        return None
    if isinstance(key, OctKey) or (isinstance(key, RSAKey) and key.raw_value.key_size < RSA_BITS):
        return None
    return key


def verify(token: str, keys: KeySet, *, issuer: str, client_id: str, nonce: str, now: datetime) -> Vouched:
    """Whom the token names. Raises `OidcRefused`, or `KeyUnknown` when newer keys may help."""
    if len(token) > MAX_TOKEN:
        raise OidcRefused(f"the ID token is longer than {MAX_TOKEN} characters")
    claims = _signed(token, keys)
    rules = JWTClaimsRegistry(
        int(now.timestamp()),
        LEEWAY_SECONDS,
        iss={"essential": True, "value": issuer},
        sub={"essential": True},
        aud={"essential": True, "value": client_id},
        exp={"essential": True},
        iat={"essential": True},
    )
    try:
        rules.validate(claims)
    except _MALFORMED as wrong:
        raise OidcRefused(f"ID token: {wrong}") from None
    if claims.get("nonce") != nonce:
        raise OidcRefused("ID token: it belongs to another sign-in (nonce)")
    several = isinstance(claims["aud"], list) and len(claims["aud"]) > 1
    if claims.get("azp", None if several else client_id) != client_id:
        raise OidcRefused("ID token: it was issued to another client (azp)")
    subject = claims["sub"]
    if not subject or len(subject) > 255 or not subject.isprintable():
        raise OidcRefused("ID token: sub must be 1 to 255 printable characters")
    return with_profile(Vouched(issuer=issuer, subject=subject), claims)


def with_profile(vouched: Vouched, claims: Mapping[str, Any]) -> Vouched:
    """The same with what these claims say of the person."""
    email, name = claims.get("email"), claims.get("name")
    return Vouched(
        issuer=vouched.issuer,
        subject=vouched.subject,
        email=email if isinstance(email, str) and 3 <= len(email) <= 320 and email.isprintable() else None,
        # The JSON value true: a text "false" would pass for it otherwise.
        email_verified=claims.get("email_verified") is True,
        name=name if isinstance(name, str) and 1 <= len(name) <= 200 and name.isprintable() else None,
    )


def _signed(token: str, keys: KeySet) -> dict[str, Any]:
    """The claims, once the signature holds."""
    try:
        payload = jws.deserialize_compact(token, keys, registry=_REGISTRY).payload
        claims = load_json(payload, max_bytes=MAX_TOKEN)
    except InvalidKeyIdError as unknown:
        raise KeyUnknown(str(unknown)) from None
    except EnvelopeInvalid as invalid:
        raise OidcRefused(f"ID token: {invalid.detail}") from None
    except _MALFORMED as wrong:
        raise OidcRefused(f"ID token: {type(wrong).__name__}: {wrong}") from None
    if not isinstance(claims, dict):
        raise OidcRefused("ID token: its claims are no object")
    return claims
