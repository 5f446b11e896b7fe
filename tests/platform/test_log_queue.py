"""The queue between our own log records and the application's handlers."""

from __future__ import annotations

import copy
import logging
import os
import pickle
import threading
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from suitkaise.platform import log_queue
from suitkaise.platform.log_queue import LogQueue, QueuedLogger
from tests.support import interrupted_at_each_line

LOGGER = QueuedLogger("suitkaise.test")


@pytest.fixture
def records() -> Iterator[LogQueue]:
    """An open queue, closed at the end."""
    records = LogQueue()
    records.open()
    yield records
    records.close(10)
    log_queue._late.clear()


class Gate(logging.Handler):
    """Lets no record pass until it is opened."""

    def __init__(self) -> None:
        super().__init__()
        self.opened = threading.Event()
        self.blocks = threading.Event()
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.blocks.set()
        self.opened.wait(20)
        self.texts.append(record.getMessage())


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate()
    logging.getLogger("suitkaise").addHandler(gate)
    yield gate
    gate.opened.set()
    logging.getLogger("suitkaise").removeHandler(gate)


def fields(record: logging.LogRecord) -> dict[str, Any]:
    wanted = (
        "name",
        "levelno",
        "msg",
        "args",
        "pathname",
        "filename",
        "funcName",
        "threadName",
        "processName",
        "process",
    )
    return {name: vars(record)[name] for name in wanted}


def test_s76_a_queued_record_is_the_record_that_a_logger_makes(
    records: LogQueue, caplog: pytest.LogCaptureFixture
) -> None:
    plain = logging.getLogger("suitkaise.test")
    for logger in (LOGGER, plain):
        logger.error("lost %s", "it", extra={"order": 7})
        try:
            raise ValueError("odd")
        except ValueError as error:
            logger.warning("failed", exc_info=error)
            logger.exception("failed %d", 2)
        records.flush(10)
    ours, theirs = caplog.records[:3], caplog.records[3:]
    assert [fields(record) for record in ours] == [fields(record) for record in theirs]
    assert [type(record.exc_info) for record in ours] == [type(record.exc_info) for record in theirs]
    assert vars(ours[0])["order"] == 7
    assert "ValueError: odd" in caplog.text
    assert ours[0].created <= theirs[0].created


def test_s76_records_keep_their_order_and_the_time_at_which_they_were_made(records: LogQueue, gate: Gate) -> None:
    made: list[float] = []
    gate.addFilter(lambda record: made.append(record.created) or True)
    for number in range(100):
        LOGGER.warning("%d", number)
    gate.opened.set()
    records.flush(10)
    assert gate.texts == [str(number) for number in range(100)]
    assert made == sorted(made)


def test_s76_a_full_queue_drops_records_and_tells_their_number_when_there_is_room(
    records: LogQueue, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_queue, "ROOM", 4)
    LOGGER.warning("first")
    assert gate.blocks.wait(10)
    for number in range(10):
        LOGGER.warning("%d", number)
    gate.opened.set()
    records.flush(10)
    LOGGER.warning("last")
    records.flush(10)
    assert [text for text in gate.texts if "dropped" not in text] == ["first", "0", "1", "2", "3", "last"]
    (told,) = [text for text in gate.texts if "dropped" in text]
    assert told.startswith("6 log records were dropped")


def test_s76_the_end_waits_for_a_blocked_handler_once_and_the_rest_is_handled_later(gate: Gate) -> None:
    records = LogQueue()
    records.open()
    LOGGER.warning("one")
    assert not records.flush(0.01)
    records.close(1000)
    gate.opened.set()
    records._thread.join(10)
    assert gate.texts == ["one"]
    log_queue._late.remove(records)


def test_s76_at_the_end_of_the_program_the_rest_is_dropped_and_its_number_told(gate: Gate) -> None:
    records = LogQueue()
    records.open()
    for number in range(5):
        LOGGER.warning("%d", number)
    assert gate.blocks.wait(10)
    records.close(0)
    assert not records.discard()
    gate.opened.set()
    records._thread.join(10)
    assert gate.texts[0] == "0"
    assert gate.texts[1:] == [text for text in gate.texts if text.startswith("4 log records were dropped")]
    log_queue._late.remove(records)


def test_a_handler_that_raises_costs_no_other_record(records: LogQueue, caplog: pytest.LogCaptureFixture) -> None:
    def fail(record: logging.LogRecord) -> bool:
        raise SystemExit(3)

    LOGGER.target.addFilter(fail)
    LOGGER.warning("one")
    records.flush(10)
    LOGGER.target.removeFilter(fail)
    LOGGER.warning("two")
    records.flush(10)
    assert "two" in caplog.messages
    assert "SystemExit" in caplog.text


def test_a_handler_that_raises_for_each_record_is_told_on_standard_error(
    records: LogQueue, capsys: pytest.CaptureFixture[str]
) -> None:
    class Raises(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise RuntimeError("no room on the server")

    handler = Raises()
    logging.root.handlers.insert(0, handler)
    try:
        LOGGER.warning("an order is lost")
        assert records.flush(10)
    finally:
        logging.root.removeHandler(handler)
    told = capsys.readouterr().err
    assert "a logging handler has raised an exception" in told
    assert "RuntimeError: no room on the server" in told


def test_without_a_queue_a_record_is_handled_at_once(caplog: pytest.LogCaptureFixture) -> None:
    LOGGER.warning("direct")
    (record,) = caplog.records
    assert (record.filename, record.funcName) == (
        os.path.basename(__file__), "test_without_a_queue_a_record_is_handled_at_once",
    )  # fmt: skip


def test_a_forked_process_has_no_queue(records: LogQueue) -> None:
    pid = os.fork()
    if pid == 0:
        os._exit(0 if log_queue._open is None else 1)
    assert os.waitpid(pid, 0)[1] == 0
    assert log_queue._open is records


def test_a_level_that_is_off_leaves_no_record(records: LogQueue, caplog: pytest.LogCaptureFixture) -> None:
    LOGGER.debug("quiet")
    LOGGER.log(logging.CRITICAL, "loud")
    LOGGER.critical("louder")
    records.flush(10)
    assert caplog.messages == ["loud", "louder"]


def test_a_queued_logger_can_be_copied_and_has_the_attributes_of_the_logger_of_its_name() -> None:
    for again in (copy.copy(LOGGER), pickle.loads(pickle.dumps(LOGGER))):
        assert (again.name, again.handlers) == ("suitkaise.test", [])


@pytest.mark.timeout(60)
def test_a_signal_handler_may_flush_the_queue_at_any_moment_of_its_threads_flush(records: LogQueue) -> None:
    flush = partial(records.flush, 10.0)
    assert all(interrupted_at_each_line(lambda: flush, flush))
