"""A program as a child process: its exit is noticed."""

from __future__ import annotations

import textwrap

from tests.support import run_program

DIES_BETWEEN_TWO_WAITS = textwrap.dedent("""
    import os, signal
    from suitkaise.platform.processes import become_subreaper
    from suitkaise.workers.command_process import Program

    become_subreaper()
    script = "sleep 1000 & echo up; exec sleep 1000"  # the process that is left holds the output open
    program = Program(("sh", "-c", script), dict(os.environ), None, lambda stream, line: print(line))
    program.wait(None)
    os.kill(program.pid, signal.SIGKILL)
    os.waitid(os.P_PID, program.pid, os.WEXITED | os.WNOWAIT)
    program.signal(signal.SIGCONT)
    program.wait(None)
    print(program.code, program.clean_up())
""")


def test_an_exit_between_two_waits_is_noticed_by_the_next_wait() -> None:
    assert run_program(DIES_BETWEEN_TWO_WAITS, timeout=20).check().stdout.split() == ["up", "-9", "-9"]


MONTHS = textwrap.dedent("""
    import os
    from suitkaise.platform.processes import become_subreaper
    from suitkaise.workers.command_process import Program

    become_subreaper()
    program = Program(("true",), dict(os.environ), None, print)
    while program.code is None:
        program.wait(90 * 86_400.0)
    print(program.clean_up())
""")


def test_a_wait_of_months_is_made_in_parts() -> None:
    assert run_program(MONTHS, timeout=20).check().stdout.split() == ["0"]
