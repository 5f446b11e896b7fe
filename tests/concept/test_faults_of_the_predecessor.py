"""What suitkaise 0.4.14 on PyPI gets wrong: each of its faults, as a test of what happens here instead."""

from __future__ import annotations

import os
import signal
import time
from typing import Any, ClassVar

import psutil
import pytest

from suitkaise import Child, Process, Supervisor, WorkerFailed
from suitkaise.exits import Hung, Signaled
from tests.end_to_end.kinds import next_exit
from tests.sample_workers import Echo
from tests.support import eventually, send_signal, start_program, wait_gone


def test_a_killed_process_has_no_result() -> None:
    """There, it returned None, as if it had succeeded."""
    with Supervisor("app", Child(Echo, restart="temporary")).start() as running:
        ref = running["echo"]
        send_signal(ref, signal.SIGKILL)
        with pytest.raises(WorkerFailed) as failed:
            ref.result(timeout=15.0)
        assert failed.value.reason == Signaled(9)


class Mixin:
    """A mixin that is no worker."""

    def __beforeloop__(self) -> None:
        self.hooks = [*getattr(self, "hooks", []), "mixin before"]


class Base(Process):
    restart = "transient"
    num_loops: ClassVar[Any] = 2
    hooks: list[str]

    def __onstart__(self) -> None:
        self.hooks = ["base start"]

    def __afterloop__(self) -> None:
        self.hooks.append("base after")

    def result(self) -> list[str]:
        return self.hooks


class Derived(Mixin, Base):
    def __loop__(self) -> None:
        self.hooks.append("loop")


def test_hooks_of_base_classes_and_of_mixins_are_called() -> None:
    """There, a hook counted only in the class itself."""
    with Supervisor("app", Child(Derived)).start() as running:
        one_loop = ["mixin before", "loop", "base after"]
        assert running["derived"].result(timeout=15.0) == ["base start", *one_loop, *one_loop]


class SwallowsEverything(Process):
    loop_timeout = 0.3
    restart = "temporary"

    def loop(self) -> None:
        while True:
            try:
                time.sleep(1000)
            except Exception:
                continue


def test_a_hung_hook_that_catches_every_exception_is_killed_after_a_fraction_of_a_second() -> None:
    """There, the time-out was an exception, which the hook swallowed; and it was rounded to whole seconds."""
    with Supervisor("app", Child(SwallowsEverything), Supervisor("others")).start() as running:
        reason = running["swallows_everything"].join(15.0)
        assert isinstance(reason, Hung)
        assert reason.phase == "loop"
        assert reason.seconds < 10.0


PROGRAM = """
from suitkaise import Process, xprocess

class Sleeper(Process):
    def loop(self):
        print(self.pid, flush=True)
        self.wait(1000)

xp = xprocess.CrossProcessing()
for _ in range(3):
    xp.create_process(Sleeper())
"""


@pytest.mark.filterwarnings("ignore")
def test_no_process_outlives_a_program_that_was_killed() -> None:
    """There, the processes went on as orphans."""
    with start_program(PROGRAM) as program:
        eventually(lambda: len(program.stdout.split()) == 3)
        pids = [int(pid) for pid in program.stdout.split()]
        os.kill(program.pid, signal.SIGKILL)
        for pid in pids:
            wait_gone(pid, 15.0)


class StopsItself(Process):
    restart = "transient"
    after = False

    def loop(self) -> None:
        self.rejoin()

    def after_loop(self) -> None:
        self.after = True

    def result(self) -> bool:
        return self.after


def test_a_loop_that_stops_its_worker_is_followed_by_after_loop() -> None:
    """There, `stop()` inside of a loop skipped the hook."""
    with Supervisor("app", Child(StopsItself)).start() as running:
        assert running["stops_itself"].result(timeout=15.0) is True


class LoopsOften(Process):
    """Measures the memory of its process after 20,000 and after 220,000 loops."""

    restart = "transient"
    num_loops: ClassVar[Any] = 220_000
    memory = 0

    def before_loop(self) -> None: ...

    def loop(self) -> None:
        if self.current_loop == 20_000:
            self.memory = psutil.Process().memory_info().rss

    def after_loop(self) -> None: ...

    def result(self) -> int:
        return psutil.Process().memory_info().rss - self.memory


def test_a_loop_leaves_no_memory_behind() -> None:
    """There, each loop left 290 bytes; 200,000 loops would leave 58 MB."""
    with Supervisor("app", Child(LoopsOften)).start() as running:
        assert running["loops_often"].result(timeout=60.0) < 2_000_000


def leave() -> None:
    os._exit(3)


def test_a_pool_goes_on_when_a_task_ends_its_process() -> None:
    """There, `map` waited for ever."""
    from suitkaise.pools import ProcessPool

    with ProcessPool(2, retries=0) as pool:
        broken = pool.submit(leave)
        assert list(pool.map(abs, range(-10, 0))) == list(range(10, 0, -1))
        assert broken.exception(timeout=30.0) is not None
