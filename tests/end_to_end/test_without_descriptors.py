"""A program whose own code has used up all file descriptors starts and restarts its workers nevertheless."""

from __future__ import annotations

from tests.support import run_program

BEGINNING = """
import os, resource
from suitkaise import Child, ChildStartFailed, Process, Supervisor
from suitkaise.events import ChildStarted

resource.setrlimit(resource.RLIMIT_NOFILE, (200, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))

class Echo(Process):
    def on_receive(self, message):
        return message

def take_all(taken):
    try:
        while True:
            taken.append(os.open(os.devnull, os.O_RDONLY))
    except OSError:
        return taken

def restarted(events, id):
    while not (isinstance(event := events.get(timeout=20), ChildStarted) and event.path == f"app/{id}"):
        pass

"""

PROGRAM = (
    BEGINNING
    + """
with Supervisor("app", Child(Echo), max_restarts=10).start() as running, running.events() as events:
    taken = take_all([])
    print(running.start_child(Child(Echo, id="second")).ask("started", timeout=20))
    restarted(events, "second")
    take_all(taken)
    for id in ("echo", "second", "echo"):
        os.kill(running[id].pid, 9)
        restarted(events, id)
        print(running[id].ask("is back", timeout=20))
    os.close(taken.pop())
    for descriptor in taken[10:]:
        os.close(descriptor)
    print(running.start_child(Child(Echo, id="third")).ask("started", timeout=20))
"""
)

WITH_A_CONNECTION = (
    BEGINNING
    + """
from suitkaise import WorkerDead

class Fragile(Echo):
    def on_receive(self, message):
        return os._exit(3) if message == "die" else message

with Supervisor("app", Child(Fragile, id="echo"), max_restarts=10).start() as running, running.events() as events:
    echo = running["echo"]
    for _ in range(3):
        echo.ask("the second ask makes a direct connection")
    taken = take_all([])
    try:
        echo.ask("die")
    except WorkerDead as error:
        print(error)
    restarted(events, "echo")
    print(echo.ask("is back", timeout=20))
"""
)


def test_a_program_without_a_free_descriptor_starts_and_restarts_workers_with_those_that_are_kept_for_it() -> None:
    assert run_program(PROGRAM, timeout=60.0).check().stdout.splitlines() == [
        "started", "is back", "is back", "is back", "started",
    ]  # fmt: skip


def test_a_program_without_a_free_descriptor_learns_why_a_worker_died_that_it_was_asking_directly() -> None:
    assert run_program(WITH_A_CONNECTION, timeout=60.0).check().stdout.splitlines() == [
        "'app/echo' died before it answered: exit code 3", "is back",
    ]  # fmt: skip
