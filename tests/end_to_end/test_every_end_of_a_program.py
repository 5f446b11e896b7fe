"""Every worker of a tree ends with its program, however the program ends and whatever the worker does.

`on_finish` runs in workers that obey a stop request; the others are killed after their shutdown time (0.3 s).
"""

import os
import signal

import pytest

from tests.end_to_end.scene import KINDS, OBEDIENT, scene, stop

pytestmark = pytest.mark.parametrize("kind", KINDS)


def test_every_worker_ends_when_the_with_block_ends(kind):
    with scene("with", [kind]) as it:
        it.program.send_signal(signal.SIGUSR1)
        assert it.program.wait() == 0
        it.all_gone()
        assert "end of main" in it.program.stdout
        assert it.finished(kind) or kind not in OBEDIENT


def test_every_worker_ends_when_the_main_program_ends_without_stop(kind):
    with scene("leave", [kind]) as it:
        it.program.send_signal(signal.SIGUSR1)
        assert it.program.wait() == 0
        it.all_gone()
        assert it.finished(kind) or kind not in OBEDIENT


def test_every_worker_ends_when_the_main_program_raises_an_exception(kind):
    with scene("raise", [kind]) as it:
        it.program.send_signal(signal.SIGUSR1)
        assert it.program.wait() == 1
        it.all_gone()
        assert "the main program's own trouble" in it.program.stderr
        assert it.finished(kind) or kind not in OBEDIENT


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_every_worker_ends_at_a_signal_to_the_whole_process_group(kind, number):
    with scene("run", [kind]) as it:
        it.signal_group(number)
        assert it.program.wait() == 0
        it.all_gone()
        assert it.finished(kind) or kind not in OBEDIENT


def test_every_worker_ends_when_sigquit_ends_the_program_at_once(kind):
    """Ctrl-\\ in a terminal: the keeper asks the workers to finish."""
    with scene("run", [kind]) as it:
        it.signal_group(signal.SIGQUIT)
        assert it.program.wait() == -signal.SIGQUIT
        it.all_gone()
        assert it.finished(kind) or kind not in OBEDIENT


def test_every_worker_ends_at_sigterm_to_the_hub(kind):
    with scene("run", [kind]) as it:
        it.program.send_signal(signal.SIGTERM)
        assert it.program.wait() == 0
        it.all_gone()
        assert it.finished(kind) or kind not in OBEDIENT


def test_every_worker_is_killed_at_a_second_signal(kind):
    with scene("run", [kind, "lingers"], "--shutdown", "infinity") as it:
        it.program.send_signal(signal.SIGINT)
        it.program.expect("finished lingers")
        it.program.send_signal(signal.SIGTERM)
        assert it.program.wait(15) == 128 + signal.SIGTERM
        it.all_gone()


def test_every_worker_ends_when_sigterm_kills_a_hub_that_does_not_handle_it(kind):
    with scene("wait", [kind]) as it:
        it.program.send_signal(signal.SIGTERM)
        assert it.program.wait() == -signal.SIGTERM
        it.all_gone()
        assert it.finished(kind) or kind not in OBEDIENT


def test_s65_every_worker_ends_when_the_hub_is_killed(kind):
    with scene("wait", [kind]) as it:
        it.program.send_signal(signal.SIGKILL)
        assert it.program.wait() == -signal.SIGKILL
        it.all_gone()
        assert it.finished(kind) or kind not in OBEDIENT


def test_every_worker_ends_when_hub_and_keeper_are_killed_together(kind):
    if kind == "holds_the_gil":
        kind = "holds_the_gil_for_1s"  # no process is left that could kill it earlier
    with scene("wait", [kind]) as it:
        stop(it.hub)  # a running hub would start a new keeper
        os.kill(it.keeper, signal.SIGKILL)
        it.program.send_signal(signal.SIGKILL)
        if kind == "stopped":
            os.kill(it.workers[kind], signal.SIGCONT)
        it.all_gone()
        if kind != "holds_the_gil_for_1s":  # a worker that holds the GIL may be killed before it can finish
            assert it.finished(kind) or kind not in OBEDIENT
