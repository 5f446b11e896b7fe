"""How a program ends that Ctrl-C ends, or that has handled a Ctrl-C, when functions run at its end."""

from __future__ import annotations

import signal

import pytest

from tests.support import run_program, start_program

AT_THE_END = """
import atexit
import os
import signal
import sys
import suitkaise.platform.exit_functions

@atexit.register
def import_a_module():
    exec("a = 1")  # as an import of a module does that makes a namedtuple

"""


def test_ctrl_c_ends_a_program_by_sigint_though_code_is_run_at_its_end() -> None:
    ended = run_program(AT_THE_END + "os.kill(os.getpid(), signal.SIGINT)\n")
    assert (ended.returncode, "KeyboardInterrupt" in ended.stderr) == (-signal.SIGINT, True)


@pytest.mark.parametrize(
    "end, code",
    [
        ("", 0),
        ("sys.exit(3)", 3),
        ("raise ValueError", 1),
        ("try:\n    raise KeyboardInterrupt\nexcept KeyboardInterrupt:\n    sys.exit(4)", 4),
        ("import code\ncode.InteractiveInterpreter().runsource('raise KeyboardInterrupt')", 0),
    ],
)
def test_a_program_that_no_ctrl_c_ends_keeps_its_exit_code(end: str, code: int) -> None:
    assert run_program(AT_THE_END + end + "\n").returncode == code


def test_ctrl_c_ends_a_program_by_sigint_that_writes_a_crash_report_at_its_end() -> None:
    with start_program("""
import time
from suitkaise import Child, Supervisor

def sleep():
    print("sleeps", flush=True)
    time.sleep(3600)

running = Supervisor("app", Child(sleep, shutdown=0.1)).start()
print("started", flush=True)
while True:
    time.sleep(0.1)  # a longer wait: Python would not notice a signal that arrives just before
""") as program:
        program.expect("sleeps")
        program.expect("started")
        program.send_signal(signal.SIGINT)
        assert program.wait() == -signal.SIGINT
    assert "did not stop cleanly" in program.stderr
