"""A keeper without file descriptors refuses a start with the reason, and goes on."""

from __future__ import annotations

import os
import resource
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from suitkaise import Child, ChildStartFailed, Command, Supervisor
from suitkaise.exits import Signaled
from tests.end_to_end.kinds import keeper_pid, next_exit
from tests.sample_workers import Echo
from tests.support import eventually, run_program, send_signal, wait_gone


def files_of(pid: int) -> list[int]:
    return sorted(map(int, os.listdir(f"/proc/{pid}/fd")))


def wait_until_idle(pid: int, *, children: int) -> None:
    """Wait until the keeper has `children` processes, its reserve included, and waits for a request.

    While it forks its reserve it has files open for a moment.
    """
    eventually(
        lambda: len(children_of(pid)) == children and psutil.Process(pid).status() == psutil.STATUS_SLEEPING,
        what=f"the keeper is idle with {children} processes",
    )


@contextmanager
def no_descriptor_left(pid: int) -> Iterator[None]:
    """Keep the keeper `pid`, which has one child beside its reserve, from opening more files than it has open now."""
    wait_until_idle(pid, children=2)
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    files = files_of(pid)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (min(set(range(len(files) + 1)) - set(files)), before[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)


def test_a_keeper_without_descriptors_refuses_a_start_and_goes_on() -> None:
    with Supervisor("app", Child(Echo), max_restarts=0).start() as running:
        pid = keeper_pid()
        with no_descriptor_left(pid), pytest.raises(ChildStartFailed, match="keeper has no file descriptor left"):
            running.start_child(Child(Echo, id="second"))
        assert running.start_child(Child(Echo, id="third")).ask("hello") == "hello"
        assert keeper_pid() == pid


def test_a_keeper_with_one_free_descriptor_starts_a_worker_from_the_reserve() -> None:
    with Supervisor("app", max_restarts=0).start() as running:
        pid = keeper_pid()
        wait_until_idle(pid, children=1)
        limits = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        highest = files_of(pid)[-1]
        free = min(set(range(highest + 2)) - set(files_of(pid)))
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (free + 1, limits[1]))
        assert running.start_child(Child(Echo)).ask("hello") == "hello"
        with running.events() as events:
            send_signal(running["echo"], signal.SIGKILL)
            assert next_exit(events) == Signaled(9)
        assert keeper_pid() == pid


def children_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


ORPHANS = """
import os, sys, time
for _ in range(3):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.write(1, f"{os.getpid()}\\n".encode())  # one write: three processes write into the same file
            time.sleep(1000)
        os._exit(0)
os.wait(), os.wait(), os.wait()
os.write(1, b"all\\n")
time.sleep(1000)
"""


def test_a_keeper_without_descriptors_kills_all_processes_of_a_command(tmp_path: Path) -> None:
    (tmp_path / "orphans.py").write_text(ORPHANS)
    out = tmp_path / "out"
    command = Command("sh", "-c", f"exec {sys.executable} orphans.py > {out}", cwd=str(tmp_path))
    with Supervisor("app", Child(command, id="c", restart="temporary")).start() as running, running.events() as events:
        eventually(lambda: out.exists() and len(out.read_text().split()) == 4, timeout=15)
        orphans = [int(line) for line in out.read_text().split() if line.isdecimal()]
        pid = keeper_pid(for_commands=True)
        with no_descriptor_left(pid):
            send_signal(running["c"], signal.SIGKILL)
            assert next_exit(events) == Signaled(9)
            for orphan in orphans:
                wait_gone(orphan, 0.0)
        assert len(orphans) == 3
        assert keeper_pid(for_commands=True) == pid


PROGRAM = """
import errno, gc, os, socket
from suitkaise.engines.keeper import Keeper
from suitkaise.engines.protocol import QuitKeeper, encode

def refuse(*args):
    raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

class Poll:
    def poll(self, timeout=None):
        waits.append(timeout)
        if len(waits) < 3:
            return []
        hub.send(encode(QuitKeeper()))
        return [(theirs.fileno(), 1)]

hub, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
waits = []
keeper = Keeper(theirs, ".", None, 1.0, -1, False)
keeper._poll = Poll()
socket.socketpair = refuse
keeper.run([])
print([wait is not None for wait in waits])
"""


def test_the_keeper_tries_to_fork_a_reserve_again_only_after_the_next_request() -> None:
    assert run_program(PROGRAM).check().stdout == "[True, False, False]\n"
