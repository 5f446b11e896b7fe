"""Any program as a child: the next child waits until it is ready, and it is restarted when it dies."""

import os
import signal
import socket
import sys
import urllib.request

from suitkaise import Child, Command, Process, Supervisor

with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    port = free.getsockname()[1]

server = Command(sys.executable, "-m", "http.server", str(port), "--bind", "127.0.0.1", ready=port, cwd="/", name="web")


class Visitor(Process):
    def on_start(self) -> None:  # called once the server answers, and again after each restart of the server
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/") as answer:
            self.status = answer.status

    def on_receive(self, message: str) -> int:
        return self.status


tree = Supervisor("app", server, Child(Visitor), strategy="rest_for_one")
with tree.start() as running:
    print("the server answers:", running["visitor"].ask("how was it?"))
    with running.events() as events:
        os.kill(running["web"].pid, signal.SIGKILL)
        next(event for event in events if event.kind == "child_started" and event.path == "app/visitor")
    print("it answers again:", running["visitor"].ask("and now?"))

# prints: the server answers: 200
# prints: it answers again: 200
