"""The web application: the page, its stream of changes, and the requests that a page makes."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.resources import files
from typing import Any

import h11
import msgspec
from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.requests import ClientDisconnect, Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from suitkaise.crashes import CrashReport
from suitkaise.errors import AskTimeout, RuntimeGone, StorageError, SuitkaiseError
from suitkaise.observer.feed import Feed, Page
from suitkaise.observer.program import ObservedProgram
from suitkaise.observer.security import HEADERS, Refused, Security
from suitkaise.observer.storage import StorageView

__all__ = ["make_app"]

logger: logging.Logger = logging.getLogger("suitkaise.observer")

LARGEST = 4_096
"""Bytes: the largest body of a request."""

LONGEST_NAME = 64
"""Characters that the name of a page has, at most."""

PATIENCE = 10.0
"""Seconds for which a page may leave its stream unread; it is dropped then."""

_TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
_FILES = {
    file.name: (file.read_bytes(), _TYPES[file.name.rpartition(".")[2]])
    for file in files("suitkaise.observer").joinpath("static").iterdir()
    if file.name.rpartition(".")[2] in _TYPES
}

Endpoint = Callable[[Request], Awaitable[Response]]


def make_app(
    program: ObservedProgram, feed: Feed, storage: StorageView, security: Security, *, actions: bool
) -> ASGIApp:
    """Return the application. `actions`: whether pages may steer the tree."""
    looks = ThreadPoolExecutor(1, "suitkaise-storage-view")

    async def page(request: Request) -> Response:
        token = request.query_params.get("token")
        if token is not None:
            session = security.exchange(token)
            if session is None:
                security.check_session(request.cookies)
            response = RedirectResponse("/", 303)
            if session is not None:
                response.set_cookie(security.cookie, session, httponly=True, samesite="strict", path="/")
            return response
        security.check_session(request.cookies)
        return _file("index.html")

    async def static(request: Request) -> Response:
        return _file(request.path_params["name"])  # they hold no secret: the page of an error uses them, too

    async def stream(request: Request) -> Response:
        opened = await feed.open(request.query_params.get("page", "")[:LONGEST_NAME])
        if opened is None:
            raise Refused(503, "too many pages are open")
        return _Stream(feed, opened)

    async def history(request: Request) -> Response:
        return _json(feed.history(request.query_params.get("path", "")))

    async def follow(request: Request) -> Response:
        query = request.query_params
        if not feed.follow(query.get("page", "none"), query.get("path", "")):
            raise Refused(404, "there is no such page; its stream is /events?page=NAME")
        return _json(None)

    async def stored(request: Request) -> Response:
        query = request.query_params
        path, name, seen = query.get("path", ""), query.get("name"), query.get("seen", "")
        try:
            async with asyncio.timeout(PATIENCE):
                if name is None:
                    known = int(seen) if seen.isdecimal() else None
                    return _json(await in_turn(lambda: storage.container(feed.storage, path, known)))
                entry = await in_turn(lambda: storage.entry(feed.storage, path, name))
        except (TypeError, ValueError) as error:
            raise Refused(400, str(error)) from None
        except TimeoutError:
            raise Refused(503, f"a value did not show itself within {PATIENCE:g} s") from None
        except StorageError as error:
            raise Refused(409, str(error)) from None
        if entry is None:
            raise Refused(404, f"there is no {name!r} in {path!r} any more")
        return _json(entry)

    def in_turn(look: Callable[[], Any]) -> Awaitable[Any]:
        """Look into the storage in a thread of its own: a value that blocks while it is shown stops nothing else."""
        return asyncio.get_running_loop().run_in_executor(looks, look)

    async def crash(request: Request) -> Response:
        report = feed.report(request.path_params["id"])
        if report is None:
            raise Refused(404, "there is no such crash report; `suitkaise crashes` lists all that are on disk")
        if not request.url.path.endswith(".txt"):
            return _json(report)
        name = re.sub(r"[^0-9a-z-]", "", report["id"])
        headers = {"Content-Disposition": f'attachment; filename="crash-{name}.txt"'}
        return Response(f"{CrashReport.from_dict(report)}\n", media_type="text/plain", headers=headers)

    async def change(request: Request) -> Response:
        security.check_change(request.headers)
        if not actions:
            raise Refused(403, "actions are off; start the observer with --observe-actions")
        try:
            order = msgspec.json.decode(await _body(request), type=dict[str, str])
            action, path = order["action"], order["path"]
        except (msgspec.MsgspecError, UnicodeDecodeError, KeyError):
            raise Refused(400, 'an action is {"action": "restart", "path": "app/worker"}') from None
        client = request.client.host if request.client is not None else "?"
        logger.warning("%s of %r is requested from the page, by %s", action, path, client)
        try:
            await asyncio.to_thread(program.change, action, path)
        except AskTimeout:
            return _json({"done": False, "text": f"{action} of {path}: it takes longer, and goes on"})
        except RuntimeGone:
            raise Refused(410, "the program has ended") from None
        except SuitkaiseError as error:
            raise Refused(409, str(error)) from None
        return _json({"done": True, "text": f"{path}: {action} is done"})

    def data(endpoint: Endpoint) -> Endpoint:
        async def checked(request: Request) -> Response:
            security.check_session(request.cookies)
            security.check_site(request.headers)
            return await endpoint(request)

        return checked

    app = Starlette(
        routes=[
            Route("/", page),
            Route("/static/{name}", static),
            Route("/events", data(stream)),
            Route("/api/history", data(history)),
            Route("/api/follow", data(follow)),
            Route("/api/storage", data(stored)),
            Route("/api/crashes/{id}.txt", data(crash)),
            Route("/api/crashes/{id}", data(crash)),
            Route("/api/change", data(change), methods=["POST"]),
        ],
        exception_handlers={Refused: _refusal},
    )
    return _Guard(app, security)


def _file(name: str) -> Response:
    if name not in _FILES:
        raise Refused(404, "there is no such file")
    content, kind = _FILES[name]
    return Response(content, media_type=kind)


def _json(value: Any) -> Response:
    return Response(msgspec.json.encode(value), media_type="application/json")


async def _refusal(request: Request, error: Exception) -> Response:
    """Answer a refused request: a page to a browser that loads a page, else JSON."""
    assert isinstance(error, Refused)
    if request.url.path == "/" and error.status == 401:
        content, kind = _FILES["denied.html"]
        return Response(content, error.status, media_type=kind)
    return Response(msgspec.json.encode({"error": str(error)}), error.status, media_type="application/json")


async def _body(request: Request) -> bytes:
    body = b""
    try:
        async for part in request.stream():
            body += part
            if len(body) > LARGEST:
                raise Refused(413, f"a request has at most {LARGEST} bytes")
    except ClientDisconnect:
        raise Refused(400, "the request was cut off") from None  # the client has gone, and reads no answer
    return body


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class _Guard:
    """Checks `Host` and `Origin` of every request, before anything else, and adds the headers to every answer."""

    def __init__(self, app: ASGIApp, security: Security) -> None:
        self._app = app
        self._security = security

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            try:
                await send(message)
            except h11.LocalProtocolError:  # the server has answered already that the rest of the request is no HTTP
                async with asyncio.timeout(PATIENCE):
                    await _until_gone(receive)

        if scope["type"] != "http":
            return
        request = Request(scope, receive)
        try:
            self._security.check_host(request.headers)
        except Refused as error:
            await (await _refusal(request, error))(scope, receive, with_headers)
            return
        await self._app(scope, receive, with_headers)


class _Stream(Response):
    """The stream of one page: server-sent events until the page is closed, dropped, or does not read."""

    def __init__(self, feed: Feed, page: Page) -> None:
        super().__init__(media_type="text/event-stream", headers={"X-Accel-Buffering": "no"})
        self._feed = feed
        self._page = page
        self.raw_headers = [one for one in self.raw_headers if one[0] != b"content-length"]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def until_gone() -> None:
            await _until_gone(receive)
            self._page.dropped = True
            self._page.close()

        gone = asyncio.ensure_future(until_gone())
        try:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            await send({"type": "http.response.body", "body": b"retry: 1000\n\n", "more_body": True})
            async for message in self._page.messages():
                async with asyncio.timeout(PATIENCE):
                    await send({"type": "http.response.body", "body": message, "more_body": True})
            if not self._page.dropped:
                await send({"type": "http.response.body", "body": b"", "more_body": False})
        except (TimeoutError, OSError):
            pass
        finally:
            gone.cancel()
            self._feed.forget(self._page)
