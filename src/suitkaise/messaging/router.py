"""How refs reach the program that owns the trees: its registry, or one connection of a worker process to it."""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import threading
from typing import TYPE_CHECKING, Any, Protocol

from suitkaise.errors import RuntimeGone
from suitkaise.messaging import codec, wire
from suitkaise.messaging.connection import FrameWriter
from suitkaise.messaging.messages import DEFAULT_TIMEOUT, Answer, Message, Payload, Reply

if TYPE_CHECKING:
    pass

__all__ = ["HubClient", "Router", "router", "set_router"]


class HubClient:
    """Passes everything that refs ask for on to the hub's socket at `path`.

    The connection is made at the first use, and made anew in a forked child.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._lines: list[_Connection] = []
        self._renew_lock()
        os.register_at_fork(after_in_child=self._renew_lock)

    def _renew_lock(self) -> None:
        """Of a forked child: a thread of its parent may have held the other one."""
        self._lock = threading.RLock()

    def post(self, what: str, path: str, argument: Any = None) -> Answer[Any]:
        """Ask the hub for something."""
        answer: Answer[Any] = Answer()
        line = self._current()
        number = line.ask(("post", what, path), codec.dumps(argument), answer.settle)
        answer.add_done_callback(lambda done: line.withdraw(number) if done.cancelled() else None)
        return answer

    def send(self, path: str, message: Message) -> None:
        """Have the hub deliver a message; returns when it has accepted it."""
        payload = message.body.data
        line = self._current()
        if message.reply is None:
            accepted: Answer[Any] = Answer()
            line.ask(("tell", message.kind, path), payload, accepted.settle)
            accepted.get(DEFAULT_TIMEOUT)
        else:
            line.ask(("ask", message.kind, path), payload, message.reply)

    def _current(self) -> _Connection:
        """The line to use. A signal handler that has interrupted the sending on one gets another: it may wait."""
        with self._lock:
            for line in self._lines[:]:
                if line.pid != os.getpid() or line.closed:
                    self._lines.remove(line)
                elif not line.outlet.interrupted:
                    return line
            self._lines.append(_Connection(self._path))
            return self._lines[-1]


class _Connection:
    """One connection to the hub."""

    def __init__(self, path: str) -> None:
        self.pid = os.getpid()
        self.closed = False
        self._numbers = itertools.count(1)
        self._waiting: dict[int, Reply] = {}
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._sock.connect(path)
        except OSError as error:
            self._sock.close()
            raise RuntimeGone(f"the program that owns the tree cannot be reached: {error}") from error
        self.outlet = FrameWriter(self._sock)
        threading.Thread(target=self._read, name="suitkaise-answers", daemon=True).start()

    def ask(self, header: tuple[Any, ...], payload: bytes, reply: Reply) -> int:
        """Send a request; `reply` will be called with the answer, in another thread. Returns its number."""
        number = next(self._numbers)
        self._waiting[number] = reply
        try:
            self.outlet.send((*header, number), payload)
        except BaseException as error:
            self._waiting.pop(number, None)
            if not isinstance(error, OSError):
                raise
            raise RuntimeGone(f"the program that owns the tree is gone: {error}") from error
        return number

    def withdraw(self, number: int) -> None:
        """Nobody waits for that answer any more."""
        if self._waiting.pop(number, None) is not None and self.pid == os.getpid():
            with contextlib.suppress(OSError):
                self.outlet.send(("withdraw", number))

    def _read(self) -> None:
        parser = wire.Parser()
        try:
            while True:
                for (number, ok), payload in parser.receive(self._sock):
                    reply = self._waiting.pop(number, None)
                    if reply is not None:
                        reply(ok, Payload(data=payload))
        except (OSError, wire.WireError):
            self.closed = True
        self._sock.close()
        while self._waiting:  # who comes later cannot send any more
            _, reply = self._waiting.popitem()
            reply(False, Payload(RuntimeGone("the program that owns the tree is gone")))


class Router(Protocol):
    """Takes what refs ask for: the registry in the hub, a connection to it elsewhere."""

    def post(self, what: str, path: str, argument: Any = None) -> Answer[Any]:
        """Carry out a request and give the answer, when it is there."""
        ...

    def send(self, path: str, message: Message) -> None:
        """Send a message to the worker at `path`."""
        ...


_post: Router | None = None


def set_router(post: Router | None) -> None:
    """Say how refs in this process reach the program that owns the trees."""
    global _post
    _post = post


def router() -> Router:
    """How refs in this process reach the program that owns the trees.

    Raises:
        RuntimeGone: no tree runs, and this is not a worker.
    """
    if _post is None:
        raise RuntimeGone("no supervision tree runs in this program")
    return _post


def in_worker_process() -> bool:
    """Whether this process is a worker of a program elsewhere."""
    return _post is not None and isinstance(_post, HubClient)
