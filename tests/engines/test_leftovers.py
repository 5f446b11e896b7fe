"""What a worker leaves behind, in the keeper, which becomes the parent of a process whose own parent has ended."""

from __future__ import annotations

import sys

from tests.support import run_program


def test_s73_what_is_adopted_while_the_keeper_looks_is_asked_to_stop_before_the_exit_is_reported() -> None:
    code = """
import os, signal, subprocess, sys, time
from suitkaise.engines import leftovers
from suitkaise.engines.protocol import ProcessExited
from suitkaise.platform.marks import Mark
from suitkaise.platform.processes import OwnChildren, become_subreaper, children, has_ended

become_subreaper()
Mark(1, 7, False).put_on(0)
start = "import subprocess, time; print(subprocess.Popen(['sleep', '600']).pid, flush=True); time.sleep(600)"
parent = subprocess.Popen([sys.executable, "-c", start], stdout=subprocess.PIPE)
daemon = int(parent.stdout.readline())
pidfd = os.pidfd_open(parent.pid)

def children_while_the_parent_ends():
    found = list(children())
    if found == [parent.pid]:
        os.kill(parent.pid, signal.SIGKILL)
        assert has_ended(pidfd, 30.0)
    return found

leftovers.children = children_while_the_parent_ends
sent = []
left = leftovers.Leftovers(1, False, set, dict, sent.append, OwnChildren())
left.report(ProcessExited(7, 0), 600.0)
left.look()
print([type(answer).__name__ for answer in sent])
if ProcessExited(7, 0) in sent:
    os.kill(daemon, signal.SIGKILL)
print(signal.Signals(os.waitid(os.P_PID, daemon, os.WEXITED | os.WNOWAIT).si_status).name)
left.look()
print(sent[-1] == ProcessExited(7, 0), list(children()))
"""
    assert run_program([sys.executable, "-c", code]).check().stdout.splitlines() == [
        "['CleaningUp']",
        "SIGTERM",
        "True []",
    ]
