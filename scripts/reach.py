"""How verbs reach the engine: over HTTP, and only over HTTP, so that a command and an API call are the same thing.

    UNWIND_API_URL set            that address, with UNWIND_TOKEN
    an `up` holds the data dir    its address, with the admin token of the data dir
    nobody does                   the web role alone is started in this process for as long as the verb runs

The third way leaves durable inputs behind that the next engine acts on. Nothing here decides anything about a run.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

import orjson

from contracts.problems import PayloadInvalid, Problem, Unauthenticated, Unavailable

if TYPE_CHECKING:
    from aiohttp import ClientSession

    from engine.settings import Settings

TIMEOUT_SECONDS: Final = 60.0
_EXIT_CODES: Final = {400: 2, 413: 2, 422: 2, 401: 5, 403: 5, 404: 3, 409: 4, 412: 4, 429: 6, 502: 7, 503: 7, 504: 7}


class Refused(Problem):
    """What the API refused, with the code, status and exit code that it named."""

    def __init__(self, status: int, document: Mapping[str, Any]) -> None:
        context = {name: value for name, value in document.items() if name not in _MEMBERS}
        super().__init__(
            str(document.get("detail") or document.get("title") or f"HTTP {status}"),
            field=document.get("field"),
            **context,
        )
        self.document = {**document, "status": status}
        # The class attributes are the defaults of a whole class; a refusal from afar brings its own.
        self.__dict__.update(
            code=str(document.get("code", "problem")), status=status, exit_code=_EXIT_CODES.get(status, 1)
        )

    def to_document(self) -> dict[str, Any]:
        return dict(self.document)


_MEMBERS: Final = frozenset({"type", "title", "status", "detail", "code", "field", "instance"})


class Api:
    """The engine's HTTP API as verbs use it: paths and JSON in, JSON out, problems raised."""

    def __init__(self, session: ClientSession, url: str, token: str | None) -> None:
        self._session = session
        self.url = url.rstrip("/")
        self._token = token

    async def get(self, path: str, **query: object) -> Any:
        return await self._ask("GET", path, query=query)

    async def items(self, path: str, **query: object) -> AsyncIterator[Any]:
        """The items of a list, page after page."""
        cursor = None
        while True:
            page = await self.get(path, **query, cursor=cursor)
            for item in page["items"]:
                yield item
            cursor = page.get("next")
            if not cursor:
                return

    async def post(
        self, path: str, body: object = None, *, key: str | None = None, act_for: str | None = None, **query: object
    ) -> Any:
        """`key` travels as Idempotency-Key, `act_for` as X-Tenant."""
        given = {"Idempotency-Key": key, "X-Tenant": act_for}
        return await self._ask("POST", path, body=body if body is not None else {}, headers=given, query=query)

    async def put(self, path: str, body: object, *, act_for: str | None = None) -> Any:
        return await self._ask("PUT", path, body=body, headers={"X-Tenant": act_for})

    async def patch(self, path: str, body: object, *, act_for: str | None = None) -> Any:
        return await self._ask("PATCH", path, body=body, headers={"X-Tenant": act_for})

    async def delete(self, path: str, **query: object) -> Any:
        return await self._ask("DELETE", path, query=query)

    async def _ask(
        self,
        method: str,
        path: str,
        *,
        body: object = None,
        headers: Mapping[str, str | None] | None = None,
        query: Mapping[str, object] | None = None,
    ) -> Any:
        import aiohttp

        sent = {"Accept": "application/json"} | {name: value for name, value in (headers or {}).items() if value}
        if self._token:
            sent["Authorization"] = f"Bearer {self._token}"
        data = None
        if body is not None:
            try:
                data = orjson.dumps(body)
            except TypeError as error:
                raise PayloadInvalid(f"the data cannot be sent as JSON ({error}); flatten it", field="data") from None
            sent["Content-Type"] = "application/json"
        params = {name: str(value) for name, value in (query or {}).items() if value is not None}
        try:
            async with self._session.request(
                method, self.url + path, data=data, headers=sent, params=params
            ) as response:
                content = await response.read()
                status = response.status
        except (aiohttp.ClientConnectionError, TimeoutError) as error:
            raise Unavailable(
                f"{self.url} does not answer ({type(error).__name__}); start `unwind up`, or correct UNWIND_API_URL",
                field="UNWIND_API_URL",
            ) from None
        document = _parse(content)
        if status >= 400:
            raise Refused(
                status, document if isinstance(document, dict) else {"detail": f"{method} {path}: HTTP {status}"}
            )
        return document


def _parse(content: bytes) -> Any:
    try:
        return orjson.loads(content) if content else None
    except orjson.JSONDecodeError:
        return content.decode("utf-8", "replace")


def segment(value: object) -> str:
    """A value as one segment of a path."""
    return quote(str(value), safe="")


@asynccontextmanager
async def reach(*, alone: bool = True) -> AsyncIterator[Api]:
    """The API of the engine that this environment means. With `alone` False an engine must be running. Raises
    `Unauthenticated` when no token is at hand.
    """
    import aiohttp

    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=TIMEOUT_SECONDS)) as session:
        url = os.environ.get("UNWIND_API_URL")
        if url:
            yield Api(session, url, _token(None))
            return
        from engine.settings import load
        from scripts.residence import resident

        settings = load()
        holder = resident(settings.data_dir)
        if holder is not None:
            if holder.url is None:
                raise Unavailable(
                    f"the engine that holds {settings.data_dir} is still starting; try again", field="data_dir"
                )
            yield Api(session, holder.url, _token(settings.admin_token_path))
            return
        if not alone:
            raise Unavailable(f"no engine runs in {settings.data_dir}; start `unwind up --demo`", field="data_dir")
        async with _web_alone(settings) as own_url:
            yield Api(session, own_url, _token(settings.admin_token_path))


def _token(file: Path | None) -> str:
    """UNWIND_TOKEN, else the admin token in its file."""
    token = os.environ.get("UNWIND_TOKEN")
    if token:
        return token
    if file is None:
        raise Unauthenticated(
            "UNWIND_API_URL is set but UNWIND_TOKEN is not; set it to an API token", field="UNWIND_TOKEN"
        )
    try:
        return file.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        raise Unauthenticated(
            f"{file} does not exist; make it with `unwind keys init`, or set UNWIND_TOKEN", field="admin_token_file"
        ) from None
    except OSError as error:
        raise Unauthenticated(
            f"{file} cannot be read: {error.strerror}; set UNWIND_TOKEN instead", field="admin_token_file"
        ) from None


@asynccontextmanager
async def _web_alone(settings: Settings) -> AsyncIterator[str]:
    from consumers.assembly import Assembly

    quiet = settings.model_copy(update={"http": settings.http.model_copy(update={"host": "127.0.0.1", "port": 0})})
    assembly = Assembly(quiet, roles=("web",))
    await assembly.start()
    try:
        await assembly.ready()
        assert assembly.url is not None
        yield assembly.url
    finally:
        await assembly.stop()
