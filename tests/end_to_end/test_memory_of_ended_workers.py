"""A program keeps no ended worker in memory until the limits of that worker are over."""

from __future__ import annotations

import gc
from typing import Any

from suitkaise import Child, DynamicSupervisor, Process, Supervisor, Thread
from suitkaise.engines.process_handle import ProcessHandle
from suitkaise.engines.threads import ThreadHandle
from tests.support import eventually


class BriefThread(Thread):
    def loop(self) -> None:
        self.rejoin()


class BriefProcess(Process):
    def __init__(self, ballast: bytes) -> None:
        self.ballast = ballast

    def loop(self) -> None:
        self.rejoin()


def alive(kind: type[Any]) -> int:
    gc.collect()
    return sum(isinstance(one, kind) for one in gc.get_objects())


def test_timers_with_long_limits_keep_no_ended_worker_in_memory() -> None:
    before = alive(ThreadHandle) + alive(ProcessHandle)
    with Supervisor("app", DynamicSupervisor("pool")).start() as running:
        for _ in range(20):
            running.start_child(Child(BriefThread, restart="temporary", loop_timeout=3600.0), under="pool")
        for _ in range(3):
            child = Child(BriefProcess(bytes(1000)), restart="temporary", shutdown=3600.0, receive_timeout=3600.0)
            running.start_child(child, under="pool")
        eventually(lambda: not running.which_children("pool"), timeout=15)
        eventually(lambda: alive(ThreadHandle) + alive(ProcessHandle) <= before)
