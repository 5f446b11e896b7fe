"""Starting the observer: its address, its one-time token, and its process. Imports nothing of the extra `web`."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import logging
import os
import secrets
import select
import socket
import subprocess
import sys
from collections.abc import Callable
from typing import NoReturn

from suitkaise.engines.keeper_process import search_path
from suitkaise.errors import SpecError, SuitkaiseError
from suitkaise.platform.runtime_directory import HUB_SOCKET
from suitkaise.platform.sockets import connect_own

__all__ = ["Place", "child_main"]

logger: logging.Logger = logging.getLogger("suitkaise.observer")

HOST = "127.0.0.1"

PATIENCE = 4.0
"""Seconds that the observer gets to tell its pages that the program has ended."""

COURTESY = 10
"""The niceness of the observer's process: on a busy machine the tree goes first."""

_PROGRAM = (
    "import json, sys; settings = json.loads(sys.stdin.readline()); sys.path[:] = settings.pop('path'); "
    "from suitkaise.observer.launch import child_main; child_main(settings)"
)


class Place:
    """Where an observer listens, and its one-time token.

    Args:
        address: `HOST:PORT`, `HOST` or `PORT`; empty for a free port of 127.0.0.1.
        actions: whether pages may steer the tree.
        hide_values: whether pages see of the storage names and facts alone.

    Raises:
        SpecError: the address is no address.
        SuitkaiseError: the extra is not installed, or the system refuses the address.
    """

    def __init__(self, address: str = "", *, actions: bool = False, hide_values: bool = False) -> None:
        require_extra()
        host, port = parse(address)
        self.actions: bool = actions
        self.hide_values: bool = hide_values
        self.token: str = secrets.token_urlsafe(24)
        try:
            family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
            self.listener: socket.socket = socket.create_server((host, port), family=family, backlog=1024)
        except OSError as error:
            raise SuitkaiseError(f"the observer cannot listen at {host}:{port}: {error.strerror}") from None
        name, self._port = self.listener.getsockname()[:2]
        wild = name in ("0.0.0.0", "::")
        self.is_local: bool = name in (HOST, "::1")
        self._name = "localhost" if wild else f"[{name}]" if ":" in name else name

    @property
    def url(self) -> str:
        """The URL to open, with the one-time token."""
        return f"http://{self._name}:{self._port}/?token={self.token}"

    def start_process(self, directory: str) -> Callable[[], None]:
        """Start the observer of the program that uses this directory; return the function that ends it."""
        settings = {
            "path": search_path(), "descriptor": self.listener.fileno(), "directory": directory, "token": self.token,
            "actions": self.actions, "hide_values": self.hide_values,
        }  # fmt: skip
        try:
            process = subprocess.Popen(
                [sys.executable, "-c", _PROGRAM],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                cwd=os.sep,
                pass_fds=[self.listener.fileno()],
                start_new_session=True,  # Ctrl-C is for the tree: the page shows how it stops
            )
        except OSError as error:  # no process is left, for example: that is no fault of the tree
            logger.warning("the observer could not be started: %s", error)
            return lambda: None
        with contextlib.suppress(BrokenPipeError):
            assert process.stdin is not None
            process.stdin.write(f"{json.dumps(settings)}\n".encode())
            process.stdin.close()

        def end() -> None:
            process.terminate()
            try:
                process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

        return end

    def close(self) -> None:
        """Stop listening."""
        self.listener.close()


def child_main(settings: dict[str, object]) -> NoReturn:
    """Serve the page, in the observer's process, from the first visit on."""
    from suitkaise.platform.processes import set_process_name

    set_process_name("observer")
    os.nice(COURTESY)
    listener = socket.socket(fileno=int(str(settings["descriptor"])))
    with listener:
        if not _visited(listener, str(settings["directory"])):
            sys.exit()
        from suitkaise.observer.serve import serve  # half a second, which nobody needs who opens no page

        serve(
            listener, str(settings["directory"]), str(settings["token"]),
            actions=bool(settings["actions"]), hide_values=bool(settings["hide_values"]),
        )  # fmt: skip
    sys.exit()


def _visited(listener: socket.socket, directory: str) -> bool:
    """Wait for the first connection; return False if the program ends before."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as program:
        try:
            connect_own(program, os.path.join(directory, HUB_SOCKET))
        except OSError:
            return False
        poll = select.poll()
        poll.register(listener, select.POLLIN)
        poll.register(program, select.POLLIN)
        return any(descriptor == listener.fileno() for descriptor, _ in poll.poll())


def require_extra() -> None:
    """Raise SuitkaiseError, with the line that installs it, if the extra `web` is not installed."""
    missing = [name for name in ("starlette", "uvicorn") if importlib.util.find_spec(name) is None]
    if missing:
        raise SuitkaiseError(f"the observer needs {' and '.join(missing)}: pip install 'suitkaise-xprocess[web]'")


def parse(address: str) -> tuple[str, int]:
    """Return host and port of an address; port 0 is any free port.

    Raises:
        SpecError: it is none.

    >>> parse(""), parse("8000"), parse("localhost:8000"), parse("[::1]:80"), parse("::1")
    (('127.0.0.1', 0), ('127.0.0.1', 8000), ('localhost', 8000), ('::1', 80), ('::1', 0))
    """
    host, colon, port = address.rpartition(":")
    if address.isdecimal():
        host, port = HOST, address
    elif address.startswith("["):
        host, _, port = address[1:].partition("]")
        port = port.removeprefix(":")
    elif not colon or address.count(":") > 1:
        host, port = address, ""
    port = port or "0"
    if not port.isdecimal() or int(port) > 65535:
        raise SpecError(f"the observer listens at HOST:PORT, HOST or PORT, not at {address!r}")
    return host or HOST, int(port)
