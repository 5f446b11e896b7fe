"""A program that has set SIGPIPE to its default action, as command-line tools do, and loses a peer."""

from __future__ import annotations

import os

import pytest

from tests.support import ROOT, run_program

PATH = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))

BEGIN = """
import os, signal
signal.signal(signal.SIGPIPE, signal.SIG_DFL)
from suitkaise import *
from suitkaise import sktree
from suitkaise.messaging import wire
from suitkaise.runtime import runtime
from tests.support import eventually, wait_gone

class Echo(Process):
    def on_start(self):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)

    def on_receive(self, message):
        return message
"""

PROGRAMS = {
    "storage": """
if __name__ == "__main__":
    tree = sktree.connect()
    tree.add("a", 1, path="x")
    actor = runtime.current().storage._root.handles["storage"].process.pid
    os.kill(actor, signal.SIGKILL)
    wait_gone(actor)
    tree.add("a", 2, path="x")
    print("still runs", tree.get("a", path="x"))
    sktree.disconnect()
""",
    "worker": """
if __name__ == "__main__":
    with Supervisor("app", Echo, max_restarts=100).start() as running:
        for number in range(20):
            pid = running["echo"].pid
            os.kill(pid, signal.SIGKILL)
            running["echo"].tell("x")  # perhaps into a connection whose reader is gone
            wait_gone(pid)
            assert eventually(lambda: running["echo"].pid not in (None, pid), timeout=20)
    print("still runs")
""",
    "keeper": """
if __name__ == "__main__":
    with Supervisor("app", Echo, max_restarts=100).start() as running:
        for number in range(3):
            os.kill(runtime.current().processes.keeper.pid, signal.SIGKILL)
            running["echo"].kill()
            running["echo"].ask(number, timeout=20)
    print("still runs")
""",
    "hub": """
import socket
if __name__ == "__main__":
    ours, theirs = socket.socketpair()
    theirs.close()
    try:
        wire.send(ours, ("x",))
    except OSError:
        print("an error")
    print("still runs")
""",
}


@pytest.mark.parametrize("loses", PROGRAMS)
def test_a_broken_connection_kills_no_process_whatever_its_sigpipe_handler_is(loses: str) -> None:
    finished = run_program(BEGIN + PROGRAMS[loses], env={"PYTHONPATH": PATH}, timeout=50).check()
    assert "still runs" in finished.stdout
