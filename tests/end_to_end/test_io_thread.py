"""Code of the user's that blocks holds up neither the I/O thread nor those that have nothing to do with it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from suitkaise import Child, Process, Supervisor
from tests.support import eventually

LOUD = logging.getLogger("loud")


class Loud(Process):
    """Logs what it is told, and its own end."""

    def on_receive(self, message: Any) -> Any:
        if isinstance(message, str):
            LOUD.warning(message)
        if message == "crash":
            raise RuntimeError("it was told to")
        return message

    def on_finish(self) -> None:
        LOUD.warning("last words")


@contextmanager
def handler(emit: Callable[[str], object]) -> Iterator[None]:
    """What is logged as `loud` goes to `emit`, and nowhere else."""

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            emit(record.getMessage())

    own = Handler()
    LOUD.addHandler(own)
    LOUD.propagate = False
    try:
        yield
    finally:
        LOUD.removeHandler(own)
        LOUD.propagate = True


def test_a_logging_handler_that_blocks_holds_up_neither_messages_nor_restarts() -> None:
    blocked, release = threading.Event(), threading.Event()

    def block(text: str) -> None:
        blocked.set()
        release.wait(30)

    with handler(block), Supervisor("app", Child(Loud, id="a"), Child(Loud, id="b")).start() as running:
        try:
            running["a"].tell("hello")
            assert blocked.wait(10)
            assert running["b"].ask(1) == 1
            before = running["b"].incarnation
            running["b"].kill()
            eventually(lambda: running["b"].is_alive() and running["b"].incarnation > before, timeout=10)
            assert running["b"].ask(2) == 2
        finally:
            release.set()


def test_what_workers_log_arrives_in_order_and_is_all_there_when_the_tree_has_stopped() -> None:
    heard: list[str] = []
    with handler(heard.append), Supervisor("other").start():
        with Supervisor("app", Child(Loud, id="a")).start() as running:
            for number in range(1000):
                running["a"].tell(str(number))
            running["a"].ask(0)
        assert heard == [*map(str, range(1000)), "last words"]


def test_the_last_lines_of_a_worker_that_crashed_are_there_when_the_tree_has_stopped() -> None:
    heard: list[str] = []
    with handler(heard.append):
        with Supervisor("app", Child(Loud, id="a", restart="temporary")).start() as running:
            running["a"].tell("crash")
            running["a"].join(10)
        assert heard[0] == "crash"


def test_a_tree_can_be_stopped_by_a_logging_handler() -> None:
    stopped = threading.Event()

    def stop(text: str) -> None:
        running.stop()
        stopped.set()

    with handler(stop):
        running = Supervisor("app", Child(Loud, id="a", restart="temporary", shutdown="brutal_kill")).start()
        running["a"].tell("hello")
        assert stopped.wait(20)
