"""What all engines share: the order to start an incarnation, and the future of its exit."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any

import pytest

from suitkaise import Child
from suitkaise.engines.engine import Exit, Launch, settle
from suitkaise.exits import Killed, Normal
from suitkaise.workers.incarnation import Recalled


def work() -> None: ...


def test_a_launch_tells_the_worker_all_that_its_child_declares_about_it() -> None:
    recalled = Recalled(1, Killed("before"), 0.5)
    launch = Launch.of(Child(work, join_in=3.0, shutdown=7.0, restart="transient"), "tree/work", 2, 41, recalled)
    incarnation = launch.incarnation
    assert (launch.path, launch.number) == (incarnation.path, incarnation.number) == ("tree/work", 2)
    assert (incarnation.owner, incarnation.join_in, incarnation.grace, incarnation.recalled) == (
        "tree/work#41",
        3.0,
        7.0,
        recalled,
    )


@pytest.mark.parametrize("shutdown, grace", [(2.5, 2.5), ("brutal_kill", 0.0), ("infinity", float("inf"))])
def test_the_grace_of_a_worker_follows_from_its_shutdown(shutdown: Any, grace: float) -> None:
    assert Launch.of(Child(work, shutdown=shutdown), "tree/work", 1, 1).incarnation.grace == grace


def test_an_exit_is_settled_once() -> None:
    exited: Future[Exit] = Future()
    first = Exit(Normal())
    assert settle(exited, first)
    assert not settle(exited, Exit(Killed("later")))
    assert exited.result(0) is first
