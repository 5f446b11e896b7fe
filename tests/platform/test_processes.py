"""Finding and killing the descendants of a process, whatever they did to escape."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from suitkaise.platform import processes as descendants
from suitkaise.platform.processes import (
    MARK,
    children,
    environment_of,
    is_at_work,
    kill_children,
    kill_group_of,
    kill_marked,
    signal_groups,
)
from tests.support import run_program, wait_gone


@contextmanager
def sleeper(**options: Any) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(["sleep", "1000"], **options)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def no_lists(path: str, mode: str) -> Any:
    if path.endswith("/children"):
        raise FileNotFoundError(path)
    return open(path, mode)


@pytest.mark.parametrize("lists", [True, False])
def test_the_children_of_this_process_are_known(lists: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not lists:  # a kernel without them
        monkeypatch.setattr(descendants, "open", no_lists, raising=False)
    with sleeper() as one, sleeper(start_new_session=True) as two:
        assert {one.pid, two.pid} <= set(children())
        assert len(list(children())) == len(set(children()))
    assert not {one.pid, two.pid} & set(children())


def test_the_children_of_this_process_are_its_own_also_where_a_test_has_patched_getpid(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with sleeper() as one:
        own = set(children())
        monkeypatch.setattr(os, "getpid", lambda: 1)
        assert one.pid in own == set(children())


def test_a_process_that_is_no_subreaper_kills_no_children() -> None:
    with sleeper() as one:
        kill_children()
        assert one.poll() is None


def test_kill_group_of_spares_its_own_group_and_reports_what_it_may_not_kill(monkeypatch: pytest.MonkeyPatch) -> None:
    with sleeper() as one, sleeper(start_new_session=True) as two:
        assert kill_group_of(one.pid)
        assert one.wait() == -9

        def refuse(pid: int, number: int) -> None:
            raise PermissionError

        monkeypatch.setattr(os, "kill", refuse)
        monkeypatch.setattr(os, "killpg", refuse)
        assert not kill_group_of(two.pid)
        monkeypatch.undo()
        assert two.poll() is None


def test_a_mark_names_one_incarnation_or_a_whole_program() -> None:
    directory = f"/nowhere/{uuid.uuid4().hex}"

    def marked(mark: str) -> dict[str, Any]:
        return {"env": {**os.environ, MARK: mark}, "start_new_session": True}

    with sleeper(**marked(f"{directory}:a#1")) as one, sleeper(**marked(f"{directory}:a#11")) as eleven:
        with sleeper(**marked(f"{directory}0:a#1")) as other:
            kill_marked(f"{directory}:a#1")
            assert one.wait() == -9
            assert eleven.poll() is None
            kill_marked(directory)
            assert eleven.wait() == -9
            assert other.poll() is None


def test_a_mark_is_seen_in_the_midst_of_exec_too(tmp_path: Path) -> None:
    again = tmp_path / "again"
    again.write_text('#!/bin/sh\nexec "$0"\n')
    again.chmod(0o755)
    for turn in range(60):  # a tenth of the time it has no environment
        mark = f"{tmp_path}:a#{turn}"
        with subprocess.Popen([again], env={**os.environ, MARK: mark}) as process:
            kill_marked(mark)
            found = process.poll()
            process.kill()
        assert found == -9


def test_the_environment_of_a_process_may_be_empty_or_out_of_sight() -> None:
    with sleeper(env={}) as process:
        assert environment_of(process.pid) == b""
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        with pytest.raises(OSError):
            environment_of(process.pid)
    with pytest.raises(OSError):
        environment_of(process.pid)


FAMILY = """
import os, signal, sys
from suitkaise.platform.processes import become_subreaper, kill_children

def fork(depth):
    if os.fork() == 0:
        os.setsid()
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        if depth:
            fork(depth - 1)
        os.write(1, f"{os.getpid()}\\n".encode())
        os.write(output, b".")
        if depth % 2:
            os._exit(0)
        while True:
            signal.pause()

become_subreaper()
source, output = os.pipe()
fork(9)
received = b""
while len(received) < 10:
    received += os.read(source, 10)
kill_children()
try:
    os.waitpid(-1, 0)
except ChildProcessError:
    print("none is left")
"""

BOMB = """
import os, signal
from suitkaise.platform.processes import become_subreaper, children, kill_children

become_subreaper()
source, output = os.pipe()
if os.fork() == 0:
    os.setsid()
    for _ in range(30):
        if os.fork() == 0:
            os.write(output, b".")
            for _ in range(20):  # a chain: a process that is killed has a child already
                if os.fork():
                    os.wait()
                    os._exit(0)
            signal.pause()
    signal.pause()
os.read(source, 1)
kill_children()
print("left:", list(children()))
"""


def test_no_descendant_is_left_at_any_depth_in_any_session() -> None:
    out = run_program(FAMILY).check().stdout.split("\n")
    assert "none is left" in out
    for pid in filter(str.isdecimal, out):
        wait_gone(int(pid), 0.0)


ADOPTS = """
import os, signal, subprocess, sys
from suitkaise.platform.processes import become_subreaper, children, descendants, in_other_sessions, reap_adopted

become_subreaper()
own = subprocess.Popen(["true"])
script = "sleep 1000 & (sh -c 'exit 3' & echo) ; setsid sh -c 'echo; exec sleep 1000' & exec cat"
program = subprocess.Popen(["sh", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)
program.stdout.readline(), program.stdout.readline()
os.waitid(os.P_PID, own.pid, os.WEXITED | os.WNOWAIT)
theirs = set(in_other_sessions(descendants()))
print("below:", len(theirs - {program.pid}) >= 2, program.pid in theirs, own.pid in theirs)
for pid in theirs - {program.pid}:
    os.kill(pid, signal.SIGKILL)
program.stdin.close()
os.waitid(os.P_PID, program.pid, os.WEXITED | os.WNOWAIT)
while set(children()) != {own.pid, program.pid}:
    os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)
    reap_adopted(program.pid)
print("codes:", own.wait(), program.wait())
"""


def test_s77_a_subreaper_reaps_what_a_program_has_left_behind_and_nothing_else() -> None:
    assert run_program(ADOPTS).check().stdout == "below: True True False\ncodes: 0 0\n"


OWN_CHILDREN = """
import os, signal, subprocess
from suitkaise.platform.processes import OwnChildren, become_subreaper, children

become_subreaper()
own = OwnChildren()
one = subprocess.Popen(["cat"], stdin=subprocess.PIPE)
print(own.are({one.pid}), own.are(set()), own.are({one.pid, 1}))
script = "sleep 1000 >&2 & echo $!"
orphan = int(subprocess.run(["sh", "-c", script], stdout=subprocess.PIPE).stdout)
print(own.are({one.pid}), own.are({one.pid, orphan}), set(children()) == {one.pid, orphan})
os.kill(orphan, signal.SIGKILL)
os.waitpid(orphan, 0)
one.communicate()
print(own.are(set()))
"""


def test_a_process_knows_whether_it_has_other_children_than_these() -> None:
    assert run_program(OWN_CHILDREN).check().stdout == "True False False\nFalse True True\nTrue\n"


MANY_CHILDREN = """
import os, subprocess
from suitkaise.platform.processes import OwnChildren

own = OwnChildren()
one, other = (subprocess.Popen(["cat"], stdin=subprocess.PIPE) for _ in range(2))
pread, page = os.pread, len(f"{one.pid} ")
os.pread = lambda file, size, offset: pread(file, min(size, page), offset)
print(own.are({one.pid}), own.are({one.pid, other.pid}))
one.communicate(), other.communicate()
"""


def test_children_of_which_the_kernel_tells_only_the_first_page_are_not_taken_for_all() -> None:
    assert run_program(MANY_CHILDREN).check().stdout == "False False\n"


def test_s74_a_signal_reaches_each_group_once() -> None:
    script = "trap 'echo got' USR1; echo up; while read line; do :; done"
    with subprocess.Popen(
        ["sh", "-c", script], start_new_session=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as one:
        assert one.stdin is not None
        assert one.stdout is not None
        assert one.stdout.readline() == b"up\n"
        signal_groups([one.pid, one.pid, 1 << 22], signal.SIGSTOP, signal.SIGUSR1, signal.SIGCONT)
        one.stdin.close()
        assert one.stdout.read() == b"got\n"


def test_processes_that_fork_while_they_are_killed_do_not_escape() -> None:
    assert "left: []" in run_program(BOMB).check().stdout


def test_a_process_is_at_work_only_while_it_computes() -> None:
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as process:
        try:
            assert is_at_work(process.pid)
            process.send_signal(signal.SIGSTOP)
            os.waitid(os.P_PID, process.pid, os.WSTOPPED)
            assert not is_at_work(process.pid)
        finally:
            process.kill()
    assert not is_at_work(process.pid)


AFTER_FORK = """
import os
from suitkaise.platform.processes import after_fork_in_child

after_fork_in_child(lambda: print("reset in the child:", os.getpid() != parent, flush=True))
parent = os.getpid()
if os.fork() == 0:
    os._exit(0)
os.wait()
print("parent", flush=True)
"""


def test_a_forked_child_resets_what_belongs_to_its_parent() -> None:
    assert run_program(AFTER_FORK).check().stdout == "reset in the child: True\nparent\n"
