"""A prefork HTTP server: workers that share one listening socket, and are renewed before they grow old.

    suitkaise run supervisors/pool.py [--app MODULE:NAME] [--port 8000] [--workers 4] [--requests N] [--mib N]

Each worker is a process that serves a WSGI application in threads. After N requests, or when it has grown beyond N MiB,
it asks the recycler to recall it: one at a time, so the others always serve. A worker that dies is restarted.

Why no request is lost but those in the killed worker: connections that nobody has accepted yet wait in the listening
socket, which belongs to all of them, and to the program above them. A worker that is recalled accepts nothing more
and finishes what it has accepted.
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
"""Seconds after which a worker that could not be started when it was to be renewed is tried again."""


def hello(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """The application, if you bring none: it says who serves."""
    start_response("200 OK", [("Content-Type", "text/plain; charset=utf-8")])
    return [f"hello from process {os.getpid()}: {environ['PATH_INFO']}\n".encode()]


class Server(ThreadingMixIn, WSGIServer):
    """Serves on a socket that others serve on, too. Closing it waits for the requests that it has accepted."""

    daemon_threads = False

    def __init__(self, listener: socket.socket, app: Any, done: Callable[[], None]) -> None:
        WSGIServer.__init__(self, ("", 0), _Handler, bind_and_activate=False)
        self.socket.close()
        self.socket = listener.dup()
        self.socket.setblocking(False)  # another one may have been quicker
        host, port = self.socket.getsockname()[:2]
        self.server_name, self.server_port = host, port
        self.setup_environ()
        self.set_app(app)
        self.done = done
        self.stopping = False

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """One request, in its own thread."""
        super().process_request_thread(request, client_address)
        self.done()


class _Handler(WSGIRequestHandler):
    def handle(self) -> None:
        """One request; but who has connected and asks for nothing (browsers do, in advance) is not waited for at the
        end."""
        poll = select.poll()
        poll.register(self.connection, select.POLLIN)
        while not poll.poll(SILENCE * 1000):
            if self.server.stopping:  # type: ignore[attr-defined]
                return
        super().handle()

    def log_message(self, format: str, *args: Any) -> None:
        """A line a request would be most of the work."""


class Serve(Process):
    """One of the processes. It has no loop: it waits to be told to stop, while its threads serve."""

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
                self.mib = 0.0  # said once
        if old:
            recycler = f"{str(self.path).rpartition('/')[0]}/recycler"
            self.whereis(recycler).tell(self.ref)

    def on_receive(self, message: Any) -> Any:
        """`served`: how many requests it has served."""
        return self.served if message == "served" else None

    def on_finish(self) -> None:
        self.server.stopping = True
        self.server.shutdown()
        self.server.server_close()  # waits for the threads


class Recycle(Thread):
    """Recalls workers that ask for it, one at a time. A recall is an order: it is not counted as a restart.

    Nor is it tried again if the worker does not start (its application is broken, say). So that is done here: it does
    not stay down, and the others are not renewed before they can be.
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
    """The application that `module:name` names; `hello` without a name."""
    if not app:
        return hello
    module, _, name = app.partition(":")
    sys.path.insert(0, os.getcwd())
    return getattr(importlib.import_module(module), name or "application")


def pool(
    listener: socket.socket, *, app: str = "", workers: int = 4, requests: int = 0, mib: float = 0.0
) -> Supervisor:
    """The tree: `workers` processes on one listening socket, and who renews them."""
    serve = Serve(listener, app, requests, mib)
    return Supervisor(
        "pool", Child(Recycle, id="recycler"), Child(serve, copies=workers), max_restarts=10 * workers, max_seconds=10.0
    )


def main(arguments: list[str]) -> Supervisor:
    """The tree for these command line arguments."""
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
    load(options.app)  # what is wrong with it is told here, and not by every worker
    listener = socket.create_server((options.host, options.port), backlog=1024)
    print(f"serving on http://{options.host}:{listener.getsockname()[1]}/", flush=True)
    return pool(
        listener, app=options.app, workers=options.workers, requests=options.requests, mib=options.mib
    )  # fmt: skip


if __name__ == "__main__":
    tree = main(sys.argv[1:])
