"""User code that blocks delays neither the I/O thread nor workers that do not use it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from suitkaise import Child, Crashed, Process, Reject, Supervisor, whereis
from tests.end_to_end.kinds import next_exit
from tests.support import eventually, in_background

LOUD = logging.getLogger("loud")


class Loud(Process):
    """Logs its messages and its end."""

    def on_receive(self, message: Any) -> Any:
        if isinstance(message, str):
            LOUD.warning(message)
        if message == "crash":
            raise RuntimeError("a crash on request")
        return message

    def on_finish(self) -> None:
        LOUD.warning("last words")


hold: Callable[[], object] | None = None  # a test sets it in the program; it is None in workers


class Held:
    """Calls `hold` when it is decoded."""

    def __repr__(self) -> str:
        return "Held()"

    def __getstate__(self) -> int:
        return 1

    def __setstate__(self, state: int) -> None:
        if hold is not None:
            hold()


class Holder(Process):
    def __init__(self, held: Any = None) -> None:
        self.held = held

    def on_receive(self, message: Any) -> Any:
        match message:
            case "answer":
                return Held()
            case "fail":
                raise Reject(ValueError(Held()))
            case "crash":
                raise ValueError(Held())
            case "start_child":
                return whereis("app").start_child(Child(Holder(Held()), id="new"))
        return message

    def result(self) -> Any:
        return Held()


class Asker(Process):
    def on_receive(self, message: str) -> Any:
        holder = whereis("app/a")
        return type(holder.result(10) if message == "result" else holder.ask("answer")).__name__


@contextmanager
def decoding_blocks() -> Iterator[tuple[threading.Event, threading.Event]]:
    """Make the decoding of `Held` wait for the second event; the first event is set when a decoding begins."""
    global hold
    blocked, release = threading.Event(), threading.Event()

    def block() -> None:
        blocked.set()
        release.wait(20)

    hold = block
    try:
        yield blocked, release
    finally:
        release.set()
        hold = None


@contextmanager
def handler(emit: Callable[[str], object]) -> Iterator[None]:
    """Send the records of the logger `loud` to `emit` alone."""

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


def test_a_logging_handler_that_blocks_delays_neither_messages_nor_restarts() -> None:
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


def test_s76_a_callback_of_an_answer_that_blocks_delays_neither_messages_nor_restarts_but_the_next_callback() -> None:
    blocked, release = threading.Event(), threading.Event()
    called: list[int] = []

    def block(answer: Any) -> None:
        blocked.set()
        release.wait(30)
        called.append(answer.result())

    with Supervisor("app", Child(Loud, id="a"), Child(Loud, id="b")).start() as running:
        try:
            running["a"].ask_future(1).add_done_callback(block)
            assert blocked.wait(10)
            running["a"].ask_future(2).add_done_callback(lambda answer: called.append(answer.result()))
            before = running["b"].incarnation
            running["b"].kill()
            eventually(lambda: running["b"].is_alive() and running["b"].incarnation > before, timeout=10)
            assert running["a"].ask(3) == 3
            assert called == []
        finally:
            release.set()
        eventually(lambda: called == [1, 2])


def test_log_records_of_workers_arrive_in_order_and_completely_before_the_tree_has_stopped() -> None:
    logged: list[str] = []
    with handler(logged.append), Supervisor("other").start():
        with Supervisor("app", Child(Loud, id="a")).start() as running:
            for number in range(1000):
                running["a"].tell(str(number))
            running["a"].ask(0)
        assert logged == [*map(str, range(1000)), "last words"]


def test_the_last_log_lines_of_a_crashed_worker_arrive_before_the_tree_has_stopped() -> None:
    logged: list[str] = []
    with handler(logged.append):
        with Supervisor("app", Child(Loud, id="a", restart="temporary")).start() as running:
            running["a"].tell("crash")
            running["a"].join(10)
        assert logged[0] == "crash"


def test_a_tree_can_be_stopped_by_a_logging_handler() -> None:
    stopped = threading.Event()

    def stop(text: str) -> None:
        running.stop()
        stopped.set()

    with handler(stop):
        running = Supervisor("app", Child(Loud, id="a", restart="temporary", shutdown="brutal_kill")).start()
        running["a"].tell("hello")
        assert stopped.wait(20)


@pytest.mark.parametrize("what", ["answer", "fail"])
def test_an_answer_whose_decoding_blocks_delays_its_asker_only(what: str) -> None:
    with Supervisor("app", Child(Holder, id="a"), Child(Holder, id="b")).start() as running:
        with decoding_blocks() as (blocked, release):
            asked = in_background(lambda: running["a"].ask(what, timeout=30))
            assert blocked.wait(10)
            assert running["b"].ask(1) == 1
            assert running["a"].ask(2) == 2
            release.set()
            assert isinstance(asked.exception(10) or asked.result(), Held if what == "answer" else ValueError)


def test_the_error_of_a_crash_is_decoded_when_it_is_read_or_logged_and_delays_no_restart() -> None:
    with Supervisor("app", Child(Holder, id="a")).start() as running:
        with decoding_blocks() as (blocked, release), running.events() as events:
            before = running["a"].incarnation
            running["a"].tell("crash")
            reason = next_exit(events)
            eventually(lambda: running["a"].incarnation > before and running["a"].is_alive(), timeout=10)
            assert running["a"].ask(1) == 1
            assert isinstance(reason, Crashed)
            assert (reason.phase, str(reason)) == ("on_receive", "ValueError in on_receive: Held()")
            assert "raise ValueError" in reason.traceback
            reading = in_background(lambda: reason.error)
            assert blocked.wait(10)
            release.set()
            assert isinstance(reading.result(10), ValueError)
            assert reason.error is reading.result()


def test_a_declaration_whose_decoding_blocks_delays_its_sender_only() -> None:
    with Supervisor("app", Child(Holder, id="a"), Child(Holder, id="b")).start() as running:
        with decoding_blocks() as (blocked, release):
            asked = running["a"].ask_future("start_child")
            assert blocked.wait(10)
            assert running["b"].ask(1) == 1
            release.set()
            assert asked.get(20).path == "app/new"


def test_a_message_between_workers_is_not_decoded_in_the_program() -> None:
    with Supervisor("app", Child(Holder, id="a"), Child(Asker, id="b")).start() as running:
        with decoding_blocks() as (blocked, _):
            assert running["b"].ask("ask") == "Held"
            running["a"].rejoin()
            assert running["b"].ask("result") == "Held"
            assert not blocked.is_set()
