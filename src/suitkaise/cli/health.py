"""`suitkaise run --health [HOST:]PORT`: a small server for the probes of a container, and for Prometheus.

`/healthz` tells whether the supervision works, `/readyz` whether all permanent children run, `/metrics` (with the
extra `metrics`) what the trees are doing. It reads what the program knows anyway, and can change nothing.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from socketserver import ThreadingTCPServer
from typing import Any, ClassVar
from urllib.parse import urlsplit

from suitkaise.cli.command import UsageError
from suitkaise.cli.programs import walk
from suitkaise.platform.log_queue import QueuedLogger
from suitkaise.platform.threads import OwnThread
from suitkaise.runtime import runtime as runtimes
from suitkaise.runtime.health import trouble
from suitkaise.status import Status

__all__ = ["checked_address", "serving"]

logger: QueuedLogger = QueuedLogger("suitkaise.health")

PATIENCE = 2.0
"""Seconds within which the supervision of a tree has to answer."""

CONNECTIONS = 32
"""Clients that are served at the same time; a further one is turned away."""


def checked_address(text: str) -> tuple[str, int]:
    """Return the host (by default this machine alone) and the port.

    >>> checked_address("8080"), checked_address("0.0.0.0:8080"), checked_address("[::1]:0")
    (('127.0.0.1', 8080), ('0.0.0.0', 8080), ('::1', 0))
    """
    host, _, port = text.rpartition(":")
    if not port.isascii() or not port.isdecimal() or int(port) > 65535:
        raise UsageError(f"health takes [HOST:]PORT, such as 8080 or 0.0.0.0:8080, not {text!r}")
    return host.removeprefix("[").removesuffix("]") or "127.0.0.1", int(port)


@contextmanager
def serving(address: str) -> Iterator[None]:
    """Serve the pages at `address`, `[HOST:]PORT`, during the block."""
    host, port = checked_address(address)
    try:
        server = _Server((host, port), _Handler)
    except (OSError, OverflowError) as error:
        raise UsageError(f"--health {address}: cannot listen there: {error}") from error
    thread = OwnThread(server.serve_forever, "suitkaise-health", (0.05,))
    thread.start()
    shown = f"[{host}]" if ":" in host else host
    logger.info("health is served at http://%s:%d/healthz, /readyz and /metrics", shown, server.server_address[1])
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Server(ThreadingTCPServer):
    """Not an `HTTPServer`, which asks a name server for the name of this machine, and waits for one that is silent."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        if ":" in address[0]:
            import socket

            self.address_family = socket.AF_INET6
        self._places = threading.BoundedSemaphore(CONNECTIONS)
        super().__init__(address, handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._places.acquire(blocking=False):
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except BaseException:  # no thread can be started
            self._places.release()
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._places.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Do nothing: the client has gone away."""


class _Handler(BaseHTTPRequestHandler):
    timeout: ClassVar[float] = 5.0
    server_version = "suitkaise"
    sys_version = ""

    def do_GET(self) -> None:
        try:
            path = urlsplit(self.path).path
        except ValueError as error:
            self.send_error(HTTPStatus.BAD_REQUEST, str(error))
            return
        try:
            match path:
                case "/healthz":
                    status, kind, body = _answer("healthy", health())
                case "/readyz":
                    status, kind, body = _answer("ready", readiness())
                case "/metrics":
                    status, kind, body = _metrics()
                case _:
                    status, kind = HTTPStatus.NOT_FOUND, "text/plain; charset=utf-8"
                    body = b"there are /healthz, /readyz and /metrics\n"
        except Exception as error:  # the runtime may end at this moment
            status, kind, body = _answer("ready" if path == "/readyz" else "healthy", {"": str(error)})
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_HEAD = do_GET  # noqa: N815

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing: a probe comes every few seconds."""


def health() -> dict[str, str]:
    """Return what of the supervision does not answer, by the name of the tree; nothing if it works."""
    runtime = runtimes.current()
    if runtime is None:
        return {}
    troubles = {
        name: trouble(runtime.reactor, root, PATIENCE)
        for name, root in runtimes.running_trees().items()
        if not root.exited.done()
    }
    return {name: text for name, text in troubles.items() if text is not None}


def readiness() -> dict[str, str]:
    """Return the status of each root and each permanent child that does not run; nothing if all do.

    What runs on a node that is lost is not ready either, whether it still runs there or not. A child that has declined
    to run is as it should be.
    """
    runtime = runtimes.current()
    trees = [] if runtime is None else runtime.overview()["trees"]
    if not trees:
        return {"": "no tree has been started"}
    return {
        one["path"]: "its node is lost" if one.get("node_lost") else one["status"]
        for tree in trees
        for one in walk(tree)
        if one.get("restart", "permanent") == "permanent"
        and (one["status"] not in (Status.RUNNING, Status.IGNORED) or one.get("node_lost"))
    }


def _answer(what: str, down: dict[str, str]) -> tuple[HTTPStatus, str, bytes]:
    text = json.dumps({what: not down, "down": down})
    status = HTTPStatus.SERVICE_UNAVAILABLE if down else HTTPStatus.OK
    return status, "application/json", f"{text}\n".encode()


def _metrics() -> tuple[HTTPStatus, str, bytes]:
    try:
        from suitkaise.metrics import page
    except ImportError:
        hint = "there are no metrics without prometheus-client: pip install 'suitkaise-xprocess[metrics]'\n"
        return HTTPStatus.NOT_FOUND, "text/plain; charset=utf-8", hint.encode()
    return HTTPStatus.OK, *page()
