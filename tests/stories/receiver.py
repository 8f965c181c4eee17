"""An outside service that notices are delivered to: it keeps what came, and answers as its path says."""

from __future__ import annotations

from typing import Any

import orjson
from aiohttp import web
from standardwebhooks import Webhook, WebhookVerificationError

from tests.stories.outside import OutsideService


class Came:
    """One request as it came."""

    def __init__(self, headers: dict[str, str], body: bytes) -> None:
        self.headers, self.body = headers, body

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    @property
    def document(self) -> dict[str, Any]:
        found: dict[str, Any] = orjson.loads(self.body)
        return found

    def proven_by(self, secret: str, body: bytes | None = None) -> bool:
        """By the public library; `body` stands in for what was signed."""
        try:
            Webhook(secret).verify(self.body if body is None else body, self.headers)
        except WebhookVerificationError:
            return False
        return True


class Receiver(OutsideService):
    """`/<place>` takes; `/flaky` fails at each id's first coming; `/broken` always does; `/gone` is gone for good.
    What is in `mended` takes.
    """

    def __init__(self) -> None:
        super().__init__()
        self.came: dict[str, list[Came]] = {}
        self.mended: set[str] = set()

    def at(self, place: str) -> list[Came]:
        return self.came.get(place, [])

    async def _answer(self, request: web.Request) -> web.Response:
        place = request.path.strip("/")
        headers = {name.lower(): value for name, value in request.headers.items()}
        came = Came(headers, await request.read())
        self.came.setdefault(place, []).append(came)
        first = sum(one.id == came.id for one in self.came[place]) == 1
        status = {"broken": 500, "gone": 410, "flaky": 500 if first else 204}.get(place, 200)
        return web.Response(status=200 if place in self.mended else status)
