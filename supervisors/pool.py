"""A prefork HTTP server: workers share one listening socket, and are renewed after some requests or growth.

    suitkaise run supervisors/pool.py [--app MODULE:NAME] [--port 8000] [--workers 4] [--requests N] [--mib N]

Each worker is a process that serves a WSGI application in threads. After N requests, or when it has grown beyond N MiB,
it asks the recycler to recall it: one at a time, so the others always serve. A worker that dies is restarted.

Only the requests inside a killed worker are lost: connections that no worker has accepted wait in the listening socket,
which belongs to the program and all its workers. A worker that is recalled accepts no more connections and finishes the
accepted ones.
"""

from __future__ import annotations

import argparse
import importlib
import os
import select
import socket
import sys
import threading
from collections.abc import Callable, Iterable
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

import psutil

from suitkaise import Child, ChildStartFailed, Process, Supervisor, Thread, WorkerDead

MIB = 1024 * 1024

SILENCE = 1.0
"""Seconds after which a connection without a request no longer holds up the end of its worker."""

AGAIN = 1.0
"""Seconds between two tries to renew a worker that fails to start."""


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
        self.stopping = False

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Serve one request, in its own thread."""
        super().process_request_thread(request, client_address)
        self.done()


class _Handler(WSGIRequestHandler):
    def handle(self) -> None:
        """Serve one request; at the end of the worker, drop a connection without a request (browsers make some)."""
        poll = select.poll()
        poll.register(self.connection, select.POLLIN)
        while not poll.poll(SILENCE * 1000):
            if self.server.stopping:  # type: ignore[attr-defined]
                return
        super().handle()

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
        self.server.stopping = True
        self.server.shutdown()
        self.server.server_close()  # waits for the threads


class Recycle(Thread):
    """Recalls the workers that ask for it, one at a time. A recall is not counted as a restart.

    A supervisor does not repeat a recall whose start fails (a broken application, say). So this worker repeats it; the
    other workers are renewed only when a start works again.
    """

    def on_receive(self, ref: Any) -> None:
        while True:
            try:
                ref.recall()
            except WorkerDead:  # the whole pool is being stopped
                return
            except ChildStartFailed as error:
                self.log.warning("not renewed", worker=ref.path, error=str(error))
                if self.wait(AGAIN):
                    return
            else:
                self.log.info("renewed", worker=ref.path)
                return


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
    serve = Serve(listener, app, requests, mib)
    return Supervisor(
        "pool", Child(Recycle, id="recycler"), Child(serve, copies=workers), max_restarts=10 * workers, max_seconds=10.0
    )


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
