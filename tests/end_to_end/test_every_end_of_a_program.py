"""However a program ends, every worker of its tree ends too, whatever it is doing, and nothing is left.

`on_finish` runs in those that finish when asked; the others are killed when their shutdown time (0.3 s) is over.
"""

import os
import signal

import pytest

from tests.end_to_end.scene import KINDS, OBEDIENT, scene, stop

pytestmark = pytest.mark.parametrize("kind", KINDS)


def test_the_block_of_the_tree_ends(kind):
    with scene("with", [kind]) as it:
        it.program.send_signal(signal.SIGUSR1)
        assert it.program.wait() == 0
        it.all_gone()
        assert "end of main" in it.program.stdout
        assert it.finished(kind) or kind not in OBEDIENT


def test_the_main_program_ends_without_stop(kind):
    with scene("leave", [kind]) as it:
        it.program.send_signal(signal.SIGUSR1)
        assert it.program.wait() == 0
        it.all_gone()
        assert it.finished(kind) or kind not in OBEDIENT


def test_the_main_program_ends_with_an_exception(kind):
    with scene("raise", [kind]) as it:
        it.program.send_signal(signal.SIGUSR1)
        assert it.program.wait() == 1
        it.all_gone()
        assert "the main program's own trouble" in it.program.stderr
        assert it.finished(kind) or kind not in OBEDIENT


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_a_signal_to_the_whole_group_while_it_runs(kind, number):
    with scene("run", [kind]) as it:
        it.signal_group(number)
        assert it.program.wait() == 0
        it.all_gone()
        assert it.finished(kind) or kind not in OBEDIENT


def test_sigterm_to_the_hub_while_it_runs(kind):
    with scene("run", [kind]) as it:
        it.program.send_signal(signal.SIGTERM)
        assert it.program.wait() == 0
        it.all_gone()
        assert it.finished(kind) or kind not in OBEDIENT


def test_a_second_signal_kills(kind):
    with scene("run", [kind, "lingers"], "--shutdown", "infinity") as it:
        it.program.send_signal(signal.SIGINT)
        it.program.expect("finished lingers")
        it.program.send_signal(signal.SIGTERM)
        assert it.program.wait(15) == 128 + signal.SIGTERM
        it.all_gone()


def test_sigterm_to_a_hub_that_does_not_handle_it(kind):
    with scene("wait", [kind]) as it:
        it.program.send_signal(signal.SIGTERM)
        assert it.program.wait() == -signal.SIGTERM
        it.all_gone()
        assert it.finished(kind) or kind not in OBEDIENT


def test_s65_sigkill_of_the_hub(kind):
    with scene("wait", [kind]) as it:
        it.program.send_signal(signal.SIGKILL)
        assert it.program.wait() == -signal.SIGKILL
        it.all_gone()
        assert it.finished(kind) or kind not in OBEDIENT


def test_sigkill_of_hub_and_keeper_together(kind):
    if kind == "holds_the_gil":
        kind = "holds_the_gil_for_1s"  # nobody is left who could kill it before it lets go
    with scene("wait", [kind]) as it:
        stop(it.hub)  # it would start a new keeper
        os.kill(it.keeper, signal.SIGKILL)
        it.program.send_signal(signal.SIGKILL)
        if kind == "stopped":
            os.kill(it.workers[kind], signal.SIGCONT)
        it.all_gone()
        if kind != "holds_the_gil_for_1s":  # whether there is time enough left is chance
            assert it.finished(kind) or kind not in OBEDIENT
