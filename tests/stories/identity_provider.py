"""A small identity provider in this process, which signs its one account in without asking and lies on request."""

from __future__ import annotations

import base64
import hashlib
import hmac
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

import orjson
from aiohttp import web
from joserfc import jws
from joserfc.jwk import ECKey, Key, KeySet, OKPKey, RSAKey

from tests.stories.outside import OutsideService

CLIENT_ID = "unwind"
CLIENT_SECRET = "a secret of the client: 100%"
KEYS: dict[str, Key] = {
    "RS256": RSAKey.generate_key(2048, {"kid": "rsa", "use": "sig"}),
    "ES256": ECKey.generate_key("P-256", {"kid": "ec", "alg": "ES256"}),
    "EdDSA": OKPKey.generate_key("Ed25519", {"kid": "ed"}),
}


class IdentityProvider(OutsideService):
    """It keeps to the rules of a provider: a code is good once, for its client, redirect address and verifier."""

    def __init__(self) -> None:
        super().__init__()
        self.account: dict[str, Any] = {"sub": "ann-1", "email": "ann@example.org", "email_verified": True}
        self.algorithm = "RS256"
        self.kid: str | None = None
        """Named in the header instead of the key's own."""
        self.claims: dict[str, Any] = {}
        """Of the ID token, instead of the true ones; None leaves one out."""
        self.described: dict[str, Any] = {}
        """Of the description, likewise."""
        self.answered: dict[str, Any] = {}
        """Of the answer to the browser, likewise."""
        self.forge: str | None = None
        """`none` or `HS256`: how the token is signed by somebody who does not have the key."""
        self.published: list[str] = ["RS256", "PS256", "ES256", "EdDSA"]
        """Algorithms whose keys are in the JWK Set."""
        self.own_profile = False
        """The address stands in the profile alone, not in the ID token."""
        self.down = False
        self.asked: list[str] = []
        self.proofs: list[str] = []
        """How each client proved itself at the token endpoint."""
        self._codes: dict[str, dict[str, str]] = {}
        self._tokens: set[str] = set()

    @property
    def issuer(self) -> str:
        return self.url("/realms/main")

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        place = request.path.removeprefix("/realms/main/")
        self.asked.append(place)
        if self.down:
            return web.Response(status=503)
        match place:
            case ".well-known/openid-configuration":
                return web.json_response(_changed(self._description(), self.described))
            case "keys":
                names = {"PS256": "RS256"}
                keys = [KEYS[names.get(name, name)] for name in dict.fromkeys(self.published)]
                return web.json_response(KeySet(keys).as_dict(private=False))
            case "authorize":
                return self._authorize(request)
            case "token":
                return await self._exchange(request)
            case "profile":
                good = request.headers.get("Authorization", "").removeprefix("Bearer ") in self._tokens
                return web.json_response(self.account) if good else web.Response(status=401)
        return web.Response(status=404)

    def _description(self) -> dict[str, Any]:
        return {
            "issuer": self.issuer,
            "authorization_endpoint": f"{self.issuer}/authorize?audience=staff",
            "token_endpoint": f"{self.issuer}/token",
            "jwks_uri": f"{self.issuer}/keys",
            "userinfo_endpoint": f"{self.issuer}/profile",
            "authorization_response_iss_parameter_supported": True,
            "token_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post", "none"],
        }

    def _authorize(self, request: web.Request) -> web.Response:
        asked = dict(request.query)
        right = asked["client_id"] == CLIENT_ID and asked["response_type"] == "code" and asked["audience"] == "staff"
        if not right or asked["code_challenge_method"] != "S256" or "openid" not in asked["scope"].split():
            return web.Response(status=400)
        code = base64.urlsafe_b64encode(hashlib.sha256(asked["nonce"].encode()).digest()).decode()
        self._codes[code] = asked
        answer = _changed({"code": code, "state": asked["state"], "iss": self.issuer}, self.answered)
        return web.Response(status=302, headers={"Location": f"{asked['redirect_uri']}?{urlencode(answer)}"})

    async def _exchange(self, request: web.Request) -> web.Response:
        form = {name: str(value) for name, value in (await request.post()).items()}
        self.proofs.append(_proof(request.headers.get("Authorization"), form))
        asked = self._codes.pop(form.get("code", ""), None)
        verifier = hashlib.sha256(form.get("code_verifier", "").encode()).digest()
        if (
            self.proofs[-1] == "wrong"
            or asked is None
            or form["grant_type"] != "authorization_code"
            or form["redirect_uri"] != asked["redirect_uri"]
            or base64.urlsafe_b64encode(verifier).rstrip(b"=").decode() != asked["code_challenge"]
        ):
            return web.json_response({"error": "invalid_grant"}, status=400)
        token = hashlib.sha256(form["code"].encode()).hexdigest()
        self._tokens.add(token)
        answer = {"access_token": token, "token_type": "Bearer", "id_token": self.id_token(asked["nonce"])}
        return web.json_response(answer)

    def id_token(self, nonce: str) -> str:
        now = int(time.time())
        person = {"sub": self.account["sub"]} if self.own_profile else self.account
        claims = {"iss": self.issuer, "aud": CLIENT_ID, "exp": now + 300, "iat": now, "nonce": nonce, **person}
        payload = orjson.dumps(_changed(claims, self.claims))
        if self.forge is not None:
            return _forged(self.forge, payload)
        key = KEYS["RS256" if self.algorithm == "PS256" else self.algorithm]
        header = {"alg": self.algorithm, "typ": "JWT", "kid": self.kid or key.kid}
        return jws.serialize_compact(header, payload, key, algorithms=[self.algorithm])


def _changed(true: Mapping[str, Any], lies: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in {**true, **lies}.items() if value is not None}


def _proof(header: str | None, form: Mapping[str, str]) -> str:
    if header is not None:
        right = base64.b64encode(f"{CLIENT_ID}:{'a+secret+of+the+client%3A+100%25'}".encode()).decode()
        return "basic" if header == f"Basic {right}" else "wrong"
    if form.get("client_id") != CLIENT_ID:
        return "wrong"
    if "client_secret" in form:
        return "post" if form["client_secret"] == CLIENT_SECRET else "wrong"
    return "none"


def _forged(algorithm: str, payload: bytes) -> str:
    """Signed by nobody, or with what everybody can read as the key."""
    header = orjson.dumps({"alg": algorithm, "kid": "rsa"})
    text = b".".join(base64.urlsafe_b64encode(part).rstrip(b"=") for part in (header, payload))
    key = KEYS["RS256"]
    assert isinstance(key, RSAKey)
    mac = hmac.digest(key.as_pem(private=False), text, "sha256") if algorithm == "HS256" else b""
    return f"{text.decode()}.{base64.urlsafe_b64encode(mac).rstrip(b'=').decode()}"
