"""A web application with background jobs: each accepted job gets its result, whichever process is killed.

    python examples/apps/web.py [--port 8000] [--seconds N]

    curl -d 300000 http://127.0.0.1:8000/jobs    # count the primes below 300,000; answers with the number of the job
    curl http://127.0.0.1:8000/jobs/1            # the result, or whether the job runs or has failed
    curl http://127.0.0.1:8000/status            # the tree: what runs, where, how often it was restarted

Each job is a process of its own under a dynamic supervisor. A job whose process dies is started again; one that dies
too often is given up alone. The web worker can die, too: its socket belongs to the program, so clients wait in it.
"""

import argparse
import json
import socket
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from suitkaise import Child, DynamicSupervisor, MaxChildren, Process, Supervisor, sktree, whereis

JOBS = "web/jobs"  # the path of the supervisor, and of the container of the results


class Job(Process):
    """Counts primes, stores the result and ends."""

    restart = "transient"  # again after a crash or a kill, not after its end
    max_restarts = 5  # in 60 seconds; then it has failed

    def __init__(self, below: int) -> None:
        self.below = below

    def loop(self) -> None:
        print(f"{self.name} counts in process {self.pid}", flush=True)
        composite = bytearray(self.below)
        for n in range(2, self.below):
            if not composite[n]:
                composite[n * n :: n] = b"\1" * len(range(n * n, self.below, n))
        self.tree.add(self.name, composite[2:].count(0), path=JOBS)
        self.rejoin()


class Web(Process):
    """Serves requests, each in a thread."""

    restart = "transient"
    significant = True

    def __init__(self, listener: socket.socket) -> None:
        self.listener = listener

    def on_start(self) -> None:
        self.server = ThreadingHTTPServer(("", 0), Handler, bind_and_activate=False)
        self.server.socket.close()
        self.server.socket = self.listener
        self.server.timeout = 0.1
        print(f"web serves in process {self.pid}", flush=True)

    def loop(self) -> None:
        self.server.handle_request()


class Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        try:
            below = int(self.rfile.read(int(self.headers["Content-Length"])))
            number = sktree.connect().increment("last", path="web")
            whereis(JOBS).start_child(Child(Job(below), id=f"job-{number}"))
            self.answer(202, {"job": number})
        except ValueError as error:
            self.answer(400, {"error": str(error)})
        except MaxChildren:
            self.answer(503, {"error": "too many jobs; try again later"})

    def do_GET(self) -> None:
        if self.path == "/status":
            self.answer(200, children("web"))
        else:
            self.answer(200, {"state": state(self.path.removeprefix("/jobs/"))})

    def answer(self, code: int, value: Any) -> None:
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps(value).encode() + b"\n")

    def log_request(self, *_: object) -> None:
        """Keep quiet."""


def state(number: str) -> Any:
    running = {child.id for child in whereis(JOBS).which_children()}
    results = sktree.connect().get_all_from(JOBS)  # read last: a job stores its result before it ends
    job = f"job-{number}"
    return results.get(job, "running" if job in running else "failed, or never accepted")


def children(path: str) -> list[dict[str, Any]]:
    return [
        {"id": child.id, "status": child.status, "pid": child.ref.pid, "restarts": child.restarts}
        | ({"children": children(child.ref.path)} if child.kind == "supervisor" else {})
        for child in whereis(path).which_children()
    ]


parser = argparse.ArgumentParser(description="Serve jobs over HTTP.")
parser.add_argument("--port", type=int, default=0)
parser.add_argument("--seconds", type=float, help="end after so many (default: endless)")
options = parser.parse_args()

listener = socket.create_server(("127.0.0.1", options.port), backlog=128)
print(f"http://127.0.0.1:{listener.getsockname()[1]}/status", flush=True)
Supervisor(
    "web",
    DynamicSupervisor("jobs", max_children=20),
    Child(Web(listener), join_in=options.seconds),
    auto_shutdown="any_significant",
    max_restarts=20,
).run()
