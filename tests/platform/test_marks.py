"""The mark of a worker is on everything that the worker starts, whatever that does."""

from __future__ import annotations

import os
import subprocess
import sys

from suitkaise.platform.marks import Mark, mark_of, program_number, worker_mark

PUT_ON = """
import subprocess, sys
from suitkaise.platform.marks import Mark
Mark(int(sys.argv[1]), 7, sys.argv[2] == "keep").put_on(0)
subprocess.run(["setsid", "--wait", "sh", "-c", "echo $$; read line"], env={"PATH": "/usr/bin:/bin"})
"""


def started(program: int, keep: str) -> tuple[subprocess.Popen[str], int]:
    argv = [sys.executable, "-c", PUT_ON, str(program), keep]
    process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, int(process.stdout.readline())


def test_a_process_without_a_mark_has_none() -> None:
    assert mark_of(1) is None


def test_a_process_that_is_gone_has_none() -> None:
    process = subprocess.Popen(["true"])
    process.wait()
    assert mark_of(process.pid) is None


def test_s73_a_mark_is_inherited_by_another_session_with_another_environment() -> None:
    process, pid = started(5, "keep")
    with process:
        assert mark_of(pid) == Mark(5, 7, True)
        process.communicate("\n")


def test_the_processes_of_one_worker_or_of_all_are_found_but_those_that_are_kept() -> None:
    directory = f"/{os.getpid()}"
    for keep in ("keep", "end"):
        process, pid = started(program_number(directory), keep)
        with process:
            found = [worker_mark(directory)(pid), worker_mark(directory, 7)(pid)]
            assert found == [keep == "end"] * 2
            assert not worker_mark(directory, 8)(pid)
            assert not worker_mark("/another", 7)(pid)
            process.communicate("\n")
