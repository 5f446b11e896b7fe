"""The observer's process: serves the page until the program ends, or a signal ends it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import resource
import signal
import socket
from collections.abc import Iterator

import uvicorn

from suitkaise.observer.feed import Feed
from suitkaise.observer.program import ObservedProgram
from suitkaise.observer.security import Security
from suitkaise.observer.storage import StorageView
from suitkaise.observer.web import make_app

__all__ = ["serve"]

DESCRIPTORS = 4_096
"""Open files that the observer wants, so that a thousand pages can be open."""

UNREAD = 20_000
"""Milliseconds after which the system ends a connection whose other end takes no data."""

LAST_WORDS = 1.0
"""Seconds that pages have to read that the program has ended."""


def serve(listener: socket.socket, directory: str, token: str, *, actions: bool, hide_values: bool) -> bool:
    """Serve the page on a listening socket; return whether the program has ended, rather than the observer."""
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        with contextlib.suppress(OSError):
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNREAD)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, DESCRIPTORS)), hard))
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
    return asyncio.run(_serve(listener, directory, token, actions, StorageView(hide_values=hide_values)))


async def _serve(listener: socket.socket, directory: str, token: str, actions: bool, storage: StorageView) -> bool:
    host, port = listener.getsockname()[:2]
    security = Security(host, port, token)
    program = ObservedProgram(directory)
    feed = Feed(program, {"csrf": security.csrf, "actions": actions, "observer": os.getpid()})
    over = asyncio.Event()
    by_signal: list[int] = []

    def on_signal(number: int) -> None:
        by_signal.append(number)
        over.set()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, on_signal, number)
    try:
        program.watch(over.set)
    except OSError:
        program.close()
        return True
    app = make_app(program, feed, storage, security, actions=actions)
    server = _Server(
        uvicorn.Config(
            app, lifespan="off", ws="none", http="h11", log_config=None, access_log=False, server_header=False,
            proxy_headers=False, timeout_graceful_shutdown=2, backlog=1024,
        )
    )  # fmt: skip
    serving = asyncio.ensure_future(server.serve(sockets=[listener]))
    looking = asyncio.ensure_future(feed.run())
    try:
        await over.wait()
        await feed.end()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LAST_WORDS):
                await feed.all_closed()
        server.should_exit = True
        await serving
    finally:
        looking.cancel()
        feed.close()
        program.close()
    return not by_signal


class _Server(uvicorn.Server):
    """A server that leaves signals to `_serve`."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield
