"""A program as a child of its guard: its end is noticed, whatever happens around it."""

from __future__ import annotations

import textwrap

from tests.support import run_program

DIES_BETWEEN_TWO_TURNS = textwrap.dedent("""
    import os, signal
    from suitkaise.platform.processes import become_subreaper
    from suitkaise.workers.command_process import Program

    become_subreaper()
    script = "sleep 1000 & echo up; exec sleep 1000"  # who is left holds its output open
    program = Program(("sh", "-c", script), dict(os.environ), None, lambda stream, line: print(line))
    program.wait(None)
    os.kill(program.pid, signal.SIGKILL)
    os.waitid(os.P_PID, program.pid, os.WEXITED | os.WNOWAIT)
    program.signal(signal.SIGCONT)
    program.wait(None)
    print(program.code, program.clean_up())
""")


def test_an_end_between_two_turns_is_noticed_by_the_next_one() -> None:
    assert run_program(DIES_BETWEEN_TWO_TURNS, timeout=20).check().stdout.split() == ["up", "-9", "-9"]


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


def test_a_time_that_is_months_away_is_waited_for_in_parts() -> None:
    assert run_program(MONTHS, timeout=20).check().stdout.split() == ["0"]
