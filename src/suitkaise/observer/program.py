"""The observed program: what it tells over its hub's socket, and the requests that steer it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable
from typing import Any

from suitkaise.errors import SpecError
from suitkaise.messaging.log_reader import LogReader
from suitkaise.messaging.protocol import AdminAction, RequestKind
from suitkaise.messaging.router import HubClient
from suitkaise.platform.runtime_directory import HUB_SOCKET
from suitkaise.platform.sockets import connect_own

__all__ = ["ACTIONS", "ObservedProgram"]

PATIENCE = 5.0
"""Seconds within which the program has to answer what it is doing."""

FOR_CHANGES = 20.0
"""Seconds for which a page waits until a change is carried out; the change goes on beyond that."""

ACTIONS: dict[str, AdminAction] = {
    "restart": AdminAction.RECALL_CHILD,
    "stop": AdminAction.TERMINATE_CHILD,
    "start": AdminAction.RESTART_CHILD,
    "suspend": AdminAction.SUSPEND,
    "resume": AdminAction.RESUME,
}
"""What a page may request, and of a worker's supervisor this is requested then."""


class ObservedProgram:
    """A connection to the program that uses this private directory. The requests block, and raise RuntimeGone."""

    def __init__(self, directory: str) -> None:
        self.directory: str = directory
        self._socket: str = os.path.join(directory, HUB_SOCKET)
        self._client: HubClient = HubClient(self._socket)
        self._watch: socket.socket | None = None

    def overview(self) -> dict[str, Any]:
        """Return what the program is doing, see `runtime.overview`. Raises AskTimeout."""
        overview: dict[str, Any] = self._client.request(RequestKind.OVERVIEW, "").get(PATIENCE)
        return overview

    def events_after(self, number: int) -> dict[str, Any]:
        """Return the events after event `number`, see `runtime.event_history`. Raises AskTimeout."""
        events: dict[str, Any] = self._client.request(RequestKind.EVENTS, "", number).get(PATIENCE)
        return events

    def change(self, action: str, path: str) -> None:
        """Have a worker's supervisor carry out an action of `ACTIONS`; return when it is done.

        Raises:
            SpecError: there is no such action, or the path is that of a whole tree.
            AskTimeout: it takes longer than `FOR_CHANGES`, and goes on.
            SuitkaiseError: the supervisor has refused it.
        """
        supervisor, _, id = path.rpartition("/")
        if action not in ACTIONS:
            raise SpecError(f"{action!r} is no action; there are: {', '.join(ACTIONS)}")
        if not supervisor:
            raise SpecError(f"{path!r} is a whole tree; a page steers what is below one")
        self._client.administer(ACTIONS[action], supervisor, id).get(FOR_CHANGES)

    def signal(self, path: str, number: int) -> None:
        """Have the node of a worker send a signal to its process. Raises SuitkaiseError where that is not possible."""
        self._client.request(RequestKind.INSPECT, path, ("signal", (number,))).get(PATIENCE)

    def log(self, path: str, *, last: int) -> LogReader:
        """Return a reader of what the worker at `path`, or the workers below it, have printed and logged."""
        return LogReader(self._client, path, last=last)

    def watch(self, on_end: Callable[[], None]) -> None:
        """Call `on_end`, in the running event loop, when the program has ended. Raises OSError if it has already."""
        loop = asyncio.get_running_loop()
        watch = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connect_own(watch, self._socket)
        except BaseException:
            watch.close()
            raise
        watch.setblocking(False)
        self._watch = watch

        def readable() -> None:
            with contextlib.suppress(BlockingIOError, ConnectionError):
                if watch.recv(1):
                    return
            loop.remove_reader(watch)
            on_end()

        loop.add_reader(watch, readable)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()
        if self._watch is not None:
            with contextlib.suppress(RuntimeError):
                asyncio.get_running_loop().remove_reader(self._watch)
            self._watch.close()
