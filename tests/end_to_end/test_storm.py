"""A hundred SIGKILLs to random workers of eight: each kill is followed by one restart, and nothing leaks."""

import functools
import math
import os
import random
import signal
import threading

import psutil
import pytest

from suitkaise import Child, Supervisor
from tests.sample_workers import CountingProcess, Echo
from tests.support import eventually

KILLS = 100


@pytest.mark.chaos
@pytest.mark.parametrize("seed", [1])
def test_each_of_a_hundred_kills_is_followed_by_one_restart_and_nothing_leaks(seed):
    earlier = {child.pid for child in psutil.Process().children(recursive=True)}  # such as a resource tracker
    chance = random.Random(seed)
    children = [Child((Echo, CountingProcess)[n % 2], id=f"w{n}", shutdown=1.0) for n in range(8)]
    with Supervisor("storm", *children, max_restarts=math.inf).start() as running:
        refs = [running[f"w{n}"] for n in range(8)]
        eventually(lambda: footprint(earlier)[2] == 1 + 8 + 1, what="keeper, workers, and one process in reserve")
        before = footprint(earlier)
        killed = dict.fromkeys(refs, 0)
        for _ in range(KILLS):
            ref = chance.choice(refs)
            pid = eventually(functools.partial(alive_pid, ref, killed[ref]))
            os.kill(pid, signal.SIGKILL)
            killed[ref] += 1
        for ref in refs:
            eventually(functools.partial(alive_pid, ref, killed[ref]))
            assert ref.ask("hello", timeout=10) is not None
        assert sum(ref.incarnation - 1 for ref in refs) == KILLS
        assert sum(line.restarts for line in running.which_children()) == KILLS
        eventually(lambda: footprint(earlier) == before, what=f"{before}, not {footprint(earlier)}")


def alive_pid(ref, kills):
    """Return the pid of the incarnation after that many kills, or None before it is up."""
    return ref.pid if ref.incarnation == kills + 1 else None


def footprint(earlier):
    """Count descriptors, threads and new processes of this program, and descriptors of its keeper."""
    me = psutil.Process()
    children = [child for child in me.children(recursive=True) if child.pid not in earlier]
    [keeper] = [child for child in me.children() if child.pid not in earlier]
    return me.num_fds(), threading.active_count(), len(children), keeper.num_fds()
