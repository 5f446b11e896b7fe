"""A prefork HTTP server: workers share one listening socket, and are renewed after some requests or growth.

    suitkaise run supervisors/pool.py [--app MODULE:NAME] [--port 8000] [--workers 4] [--requests N] [--mib N]

Each worker is a process that serves a WSGI application in threads. After N requests, or when it has grown beyond N MiB,
it asks the recycler to recall it: one at a time, so the others always serve. A worker that dies is restarted.

Only the requests inside a killed worker are lost: connections that no worker has accepted wait in the listening socket,
which belongs to the program and all its workers. A worker that is recalled accepts no more connections and finishes the
accepted ones; only a client that keeps silent for a second, without or within a request, does not hold it up.

A worker that cannot start (its application cannot be imported, say) is logged, and tried again after a pause.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

import psutil

from suitkaise import Backoff, Child, ChildStartFailed, Process, Supervisor, Thread, WorkerDead

MIB = 1024 * 1024

SILENCE = 1.0
"""Seconds after which a client that sends nothing no longer holds up the end of its worker."""

PATIENCE = 10.0
"""Seconds for the line and the headers of a request, between two parts of its body, and for a part of the answer."""

AGAIN = 1.0
"""Seconds between two looks whether a worker that has failed to start serves again."""


def hello(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """The default application: it names the process that serves."""
    start_response("200 OK", [("Content-Type", "text/plain; charset=utf-8")])
    return [f"hello from process {os.getpid()}: {environ['PATH_INFO']}\n".encode()]


class Server(ThreadingMixIn, WSGIServer):
    """Serves on a socket that it shares with other processes. `server_close` waits for the accepted requests."""

    daemon_threads = False

    def __init__(self, listener: socket.socket, app: Any, done: Callable[[], None]) -> None:
        WSGIServer.__init__(self, ("", 0), _Handler, bind_and_activate=False)
        self.socket.close()
        self.socket = listener.dup()
        self.socket.setblocking(False)  # another process may have accepted the connection first
        host, port = self.socket.getsockname()[:2]
        self.server_name, self.server_port = host, port
        self.setup_environ()
        self.set_app(app)
        self.done = done
        self.ending = False
        self.arriving: set[_Arriving] = set()
        self.open = 0  # accepted connections
        self.changed = threading.Condition()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Begin a thread for the request."""
        with self.changed:
            self.open += 1
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Serve one request, in its own thread."""
        try:
            super().process_request_thread(request, client_address)
            self.done()
        finally:
            with self.changed:
                self.open -= 1
                self.changed.notify()

    def service_actions(self) -> None:
        """Give up the requests that do not arrive in time; `serve_forever` calls this several times a second."""
        now = time.monotonic()
        for request in list(self.arriving):
            request.cut_if_late(now, ending=self.ending)

    def end(self) -> None:
        """Accept nothing more, and finish the accepted requests."""
        self.ending = True
        self.shutdown()
        with self.changed:
            while self.open:
                self.service_actions()
                self.changed.wait(SILENCE / 4)
        self.server_close()


class _Arriving(io.RawIOBase):
    """What a client sends. A client that takes too long is cut off: the read raises ConnectionAbortedError.

    It is no end of file, or the half of a request would be served as a whole one.
    """

    def __init__(self, connection: socket.socket) -> None:
        self.in_body = False
        self._connection = connection
        self._began = time.monotonic()
        self._silent_since: float | None = None  # while the server waits for the client
        self._cut = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._silent_since = time.monotonic()
        try:
            count = self._connection.recv_into(buffer)
        except TimeoutError:
            count, self._cut = 0, True
        self._silent_since = None
        if self._cut:
            raise ConnectionAbortedError("the rest of the request did not come in time")
        return count

    def cut_if_late(self, now: float, *, ending: bool) -> None:
        """End the read that waits for the client, if the client has kept silent, or begun its request, too long ago."""
        since = self._silent_since
        if since is None:
            return
        if (ending and now - since > SILENCE) or (not self.in_body and now - self._began > PATIENCE):
            self._cut = True
            with contextlib.suppress(OSError):  # the client is gone
                self._connection.shutdown(socket.SHUT_RD)


class _Handler(WSGIRequestHandler):
    timeout = PATIENCE
    server: Server

    def setup(self) -> None:
        super().setup()
        self.rfile.close()
        self.arriving = _Arriving(self.connection)
        self.rfile = io.BufferedReader(self.arriving)
        self.server.arriving.add(self.arriving)

    def parse_request(self) -> bool:
        whole = super().parse_request()
        self.arriving.in_body = True
        return whole

    def handle(self) -> None:
        """Serve one request, if it comes."""
        with contextlib.suppress(ConnectionAbortedError):
            super().handle()

    def finish(self) -> None:
        self.server.arriving.discard(self.arriving)
        with contextlib.suppress(OSError):  # the client does not take its answer
            super().finish()

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing: a line for each request would be most of the work."""


class Serve(Process):
    """One worker process. It has no loop: its threads serve until the worker is asked to stop."""

    shutdown = 30.0

    def __init__(self, listener: socket.socket, app: str, requests: int, mib: float) -> None:
        self.listener = listener
        self.app = app
        self.requests = requests
        self.mib = mib

    def on_start(self) -> None:
        self.served = 0
        self.lock = threading.Lock()
        self.server = Server(self.listener, load(self.app), self.count)
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.1,), daemon=True)
        self.thread.start()

    def count(self) -> None:
        with self.lock:
            self.served += 1
            old = self.served == self.requests or (self.mib and psutil.Process().memory_info().rss > self.mib * MIB)
            if old:
                self.mib = 0.0  # ask once
        if old:
            recycler = f"{self.ref.path.rpartition('/')[0]}/recycler"
            self.whereis(recycler).tell(self.ref)

    def on_receive(self, message: Any) -> Any:
        """Answer `served` with the number of served requests."""
        return self.served if message == "served" else None

    def on_finish(self) -> None:
        self.server.end()


class Recycle(Thread):
    """Recalls the workers that ask for it, one at a time. A recall is not counted as a restart.

    If the new start fails (a broken application, say), the supervisor tries again as after a crash; the other workers
    are renewed only when that one serves again.
    """

    def on_receive(self, ref: Any) -> None:
        try:
            ref.recall()
        except WorkerDead:  # the whole pool is being stopped
            return
        except ChildStartFailed as error:
            self.log.warning("not renewed yet", worker=ref.path, error=str(error))
            while ref.status != "running":
                if self.wait(AGAIN):
                    return
        self.log.info("renewed", worker=ref.path)


def load(app: str) -> Any:
    """Import the application `module:name`; the default is `hello`."""
    if not app:
        return hello
    module, _, name = app.partition(":")
    sys.path.insert(0, os.getcwd())
    return getattr(importlib.import_module(module), name or "application")


def pool(
    listener: socket.socket, *, app: str = "", workers: int = 4, requests: int = 0, mib: float = 0.0
) -> Supervisor:
    """Declare the tree: `workers` processes on one listening socket, and the worker that renews them."""
    serve = Child(
        Serve(listener, app, requests, mib),
        copies=workers,
        backoff=Backoff(initial=0.05, maximum=2.0, reset_after=1.0),  # 9 restarts in 10 s at most
    )
    return Supervisor("pool", Child(Recycle, id="recycler"), serve, max_restarts=20 * workers, max_seconds=10.0)


def main(arguments: list[str]) -> Supervisor:
    """Declare the tree for these command line arguments."""
    parser = argparse.ArgumentParser(
        prog="pool", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--app", default="", metavar="MODULE:NAME", help="a WSGI application (default: it says hello)")
    parser.add_argument("--host", default="127.0.0.1", help="where to listen (default 127.0.0.1)")
    parser.add_argument("--port", type=int, default=8000, help="the port (default 8000; 0: any)")
    parser.add_argument("--workers", type=int, default=4, help="how many processes (default 4)")
    parser.add_argument("--requests", type=int, default=0, help="renew a process after so many (default: never)")
    parser.add_argument("--mib", type=float, default=0.0, help="renew a process beyond so many MiB (default: never)")
    options = parser.parse_args(arguments)
    load(options.app)  # an error in it is reported here, and not by every worker
    listener = socket.create_server((options.host, options.port), backlog=1024)
    print(f"serving on http://{options.host}:{listener.getsockname()[1]}/", flush=True)
    return pool(
        listener, app=options.app, workers=options.workers, requests=options.requests, mib=options.mib
    )  # fmt: skip


if __name__ == "__main__":
    tree = main(sys.argv[1:])
