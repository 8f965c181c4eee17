"""An outside service that asks for proof, in this process: by API key, by name and password, and by access tokens that
it hands out itself. It says again whatever it was sent, as careless services do.
"""

from __future__ import annotations

import asyncio
import base64
import secrets
from typing import Any
from urllib.parse import unquote_plus

from aiohttp import web

from tests.stories.outside import OutsideService

USER, CLIENT = "shop", "client one"


class Keeper(OutsideService):
    """`/key`, `/basic`, `/bearer` answer 200 to the right proof, else 401, with all that was sent. `/token` hands out
    an access token, and after a refresh another refresh token; `/token/careless` refuses and says the request
    again. `/echo/<status>` takes no proof. `/hold` answers after `release`; `/to/<status>/<address>` redirects.
    """

    def __init__(self) -> None:
        super().__init__()
        # Unlike any other keeper's, so that whoever finds one knows whose it was.
        self.canary = f"canary{secrets.token_hex(6)}"
        self.key = f"key/{self.canary}+of&the=story"
        self.password = f"pass:word {self.canary} \u00e9%"
        self.client_secret = f"client/{self.canary}+secret"
        self.refresh = f"refresh-{self.canary}-0"
        self.access: set[str] = set()
        self.handed = 0
        self.expires_in: int | None = 3600
        self.busy_seconds: int | None = None
        """While it is set, no token is handed out, and whoever asks is told to come again after so long."""
        self.seen: list[dict[str, Any]] = []
        """Method, path, query, headers, body of every request, `/token` apart."""
        self.granted: list[dict[str, str]] = []
        """The form of every request for a token."""
        self.held = asyncio.Event()
        """Set when a request is held."""

    def _route(self, app: web.Application) -> None:
        app.router.add_route("POST", "/token", self._token)
        app.router.add_route("POST", "/token/careless", self._careless)

    def revoke(self) -> None:
        """No access token that was handed out is good any more."""
        self.access.clear()

    async def _answer(self, request: web.Request) -> web.Response:
        body = (await request.read()).decode()
        sent = {
            "method": request.method,
            "path": request.path,
            "query": request.raw_path.partition("?")[2],
            "headers": dict(request.headers),
            "body": body,
        }
        self.seen.append(sent)
        place, _, rest = request.path.strip("/").partition("/")
        if place == "hold" and not self._released.is_set():
            self.held.set()
            await self._released.wait()
        if place == "to":
            code, _, target = rest.partition("/")
            return web.Response(status=int(code), headers={"Location": target})
        status = int(rest) if place == "echo" and rest else 200 if self._proven(place, request) else 401
        given = request.headers.get("Authorization", "") + request.headers.get("X-Key", "")
        return web.json_response({"sent": sent}, status=status, headers={"ETag": given, "X-Request-Id": given})

    def _proven(self, place: str, request: web.Request) -> bool:
        given = request.headers.get("Authorization", "")
        match place:
            case "key":
                return request.headers.get("X-Key") == f"Key {self.key}"
            case "basic":
                return given == "Basic " + base64.b64encode(f"{USER}:{self.password}".encode()).decode()
            case "bearer":
                return given.removeprefix("Bearer ") in self.access
            case _:
                return True

    async def _token(self, request: web.Request) -> web.Response:
        form = {name: str(value) for name, value in (await request.post()).items()}
        self.granted.append(form)
        if self.busy_seconds is not None:
            return web.json_response({}, status=503, headers={"Retry-After": str(self.busy_seconds)})
        pair = base64.b64decode(request.headers.get("Authorization", "").removeprefix("Basic ")).decode()
        client, _, secret = pair.partition(":")
        if (unquote_plus(client), unquote_plus(secret)) != (CLIENT, self.client_secret):
            return web.json_response({"error": "invalid_client"}, status=401)
        answer: dict[str, Any] = {"token_type": "Bearer"}
        if form["grant_type"] == "refresh_token":
            if form["refresh_token"] != self.refresh:
                return web.json_response({"error": "invalid_grant"}, status=400)
            self.refresh = f"refresh-{self.canary}-{self.handed + 1}"
            answer["refresh_token"] = self.refresh
        self.handed += 1
        answer["access_token"] = f"access-{self.canary}-{self.handed}"
        self.access.add(answer["access_token"])
        if self.expires_in is not None:
            answer["expires_in"] = self.expires_in
        return web.json_response(answer)

    async def _careless(self, request: web.Request) -> web.Response:
        sent = (await request.read()).decode() + request.headers.get("Authorization", "")
        return web.json_response({"error": self.client_secret, "error_description": sent}, status=400)


def api_key(keeper: Keeper) -> dict[str, Any]:
    """The body of `PUT /v1/secrets/...` for `/key`."""
    return {
        "kind": "api_key",
        "hosts": [keeper.address],
        "value": {"key": keeper.key, "header": "X-Key", "prefix": "Key "},
    }


def basic(keeper: Keeper) -> dict[str, Any]:
    return {"kind": "basic", "hosts": [keeper.address], "value": {"username": USER, "password": keeper.password}}


def oauth2(keeper: Keeper, **more: Any) -> dict[str, Any]:
    value = {"client_id": CLIENT, "client_secret": keeper.client_secret, "token_url": keeper.url("/token"), **more}
    return {"kind": "oauth2", "hosts": [keeper.address], "value": value}
