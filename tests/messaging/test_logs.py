"""The log lines of workers and trees; nothing is printed unless the application configures it."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Iterator

import msgspec
import pytest

from suitkaise.events import ChildExited
from suitkaise.exits import Signaled
from suitkaise.messaging import logs
from suitkaise.messaging.logs import ForwardingHandler, handle_forwarded, log_event, worker_logger
from suitkaise.platform.log_queue import LogQueue
from suitkaise.platform.reactor import Reactor
from tests.support import eventually


def test_a_log_line_has_the_workers_path_and_its_arguments_filled_in(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        worker_logger("app/count").info("did %d of %s", 3, "them", speed=1.5)
    assert caplog.messages == ["app/count: did 3 of them speed=1.5"]


def test_a_worker_can_log_the_exception_it_handles(caplog: pytest.LogCaptureFixture) -> None:
    try:
        raise ValueError("odd")
    except ValueError:
        worker_logger("app/count").exception("went wrong")
    (message,) = caplog.messages
    assert message.startswith("app/count: went wrong\nTraceback")
    assert message.endswith("ValueError: odd")


def test_a_level_that_is_off_costs_no_record(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        worker_logger("app/count").info("quiet")
    assert caplog.messages == []


def test_an_event_is_one_line_indented_by_depth_and_an_attribute_of_the_record(
    caplog: pytest.LogCaptureFixture,
) -> None:
    event = ChildExited("app/inner/count", 1.0, reason=Signaled(9), pid=7)
    log_event(event)
    (record,) = caplog.records
    assert record.getMessage() == "    count ended (pid 7): signal 9 (SIGKILL)"
    assert record.levelname == "WARNING"
    assert vars(record)["event"] is event


def test_a_forwarded_record_arrives_unchanged(caplog: pytest.LogCaptureFixture) -> None:
    sent: list[dict[str, object]] = []
    logger = logging.Logger("my.library")  # noqa: LOG001  (not the one that caplog hears)
    logger.addHandler(ForwardingHandler(sent.append))
    logger.warning("lost %s", "it")
    handle_forwarded(sent[0])
    (record,) = caplog.records
    assert (record.name, record.getMessage(), record.levelno) == ("my.library", "lost it", logging.WARNING)


class Stays:
    """An object that cannot be pickled."""

    def __reduce__(self) -> str:
        raise TypeError("not me")

    def __str__(self) -> str:
        return "stays here"


class Mute(Stays):
    def __str__(self) -> str:
        raise ValueError("no words")


def test_a_forwarded_record_keeps_time_file_and_line(caplog: pytest.LogCaptureFixture) -> None:
    sent: list[dict[str, object]] = []
    logger = logging.Logger("my.library")  # noqa: LOG001
    logger.addHandler(ForwardingHandler(sent.append))
    logger.addFilter(lambda record: here.append(record) or True)
    here: list[logging.LogRecord] = []
    logger.warning("look")
    handle_forwarded(dict(sent[0]))
    layout = (
        "%(asctime)s %(msecs)s %(filename)s %(module)s %(funcName)s %(lineno)d %(thread)d %(processName)s %(message)s"
    )
    formatter = logging.Formatter(layout)
    assert formatter.format(caplog.records[0]) == formatter.format(here[0])


def test_a_forwarded_record_keeps_the_fields_of_extra(caplog: pytest.LogCaptureFixture) -> None:
    sent: list[dict[str, object]] = []
    logger = logging.Logger("my.library")  # noqa: LOG001
    logger.addHandler(ForwardingHandler(sent.append))
    logger.warning("sold", extra={"order": 7, "at": (1, 2.5), "lock": Stays(), "mute": Mute(), "path": "a/b"})
    msgspec.msgpack.encode(sent[0])  # so it goes on its way
    handle_forwarded(sent[0])
    (record,) = caplog.records
    assert {name: vars(record)[name] for name in ("order", "at", "lock", "mute", "path")} == {
        "order": 7, "at": (1, 2.5), "lock": "stays here", "mute": "(Mute, without a text: ValueError)", "path": "a/b",
    }  # fmt: skip


def test_a_field_of_extra_that_cannot_be_decoded_is_an_error_text(caplog: pytest.LogCaptureFixture) -> None:
    handle_forwarded({**fields(0), "extra": {"order": b"no pickle"}})
    assert vars(caplog.records[0])["order"].startswith("(cannot be decoded here: UnpicklingError(")


def test_a_forwarded_record_may_name_a_file_whose_name_is_no_utf_8(caplog: pytest.LogCaptureFixture) -> None:
    sent: list[dict[str, object]] = []
    logger = logging.Logger("my.library")  # noqa: LOG001
    logger.addHandler(ForwardingHandler(sent.append))
    logger.handle(logger.makeRecord("my.library", logging.WARNING, "caf\udce9.py", 1, "é %s", ("caf\udce9",), None))
    handle_forwarded(msgspec.msgpack.decode(msgspec.msgpack.encode(sent[0])))
    (record,) = caplog.records
    assert (record.getMessage(), record.pathname) == (r"é caf\udce9", r"caf\udce9.py")


def test_a_forwarded_record_keeps_its_stack(caplog: pytest.LogCaptureFixture) -> None:
    sent: list[dict[str, object]] = []
    logger = logging.Logger("my.library")  # noqa: LOG001
    logger.addHandler(ForwardingHandler(sent.append))
    logger.warning("how did I get here?", stack_info=True)
    handle_forwarded(sent[0])
    text = caplog.records[0].getMessage()
    assert text.startswith("how did I get here?\nStack (most recent call last):\n")
    assert "test_a_forwarded_record_keeps_its_stack" in text


def test_without_configuration_the_library_prints_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    logger = logging.getLogger("suitkaise")
    assert any(isinstance(handler, logging.NullHandler) for handler in logger.handlers)
    assert capfd.readouterr().err == ""


def test_records_beyond_the_limit_are_dropped_and_that_is_logged_once(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, reactor: Reactor
) -> None:
    source = Source()
    monkeypatch.setattr(logs, "ROOM", 4)
    busy, release = threading.Event(), threading.Event()

    def hold_up(record: logging.LogRecord) -> bool:
        busy.set()
        return release.wait(10)

    target = logging.getLogger("my.slow.library")
    target.addFilter(hold_up)
    forwarded = logs.Forwarded(reactor, LogQueue())
    try:
        forwarded.put(fields(0), source)
        assert busy.wait(10)
        for number in range(1, 10):
            forwarded.put(fields(number), source)
        release.set()
        forwarded.flush(10)
        forwarded.put(fields(10), source)
        forwarded.close(10)
    finally:
        target.removeFilter(hold_up)
    assert [record.getMessage() for record in caplog.records if record.name == target.name] == [
        "0",
        "1",
        "2",
        "3",
        "4",
        "10",
    ]
    eventually(lambda: source.calls == ["pause", "resume"])
    (warning,) = [record for record in caplog.records if record.name == "suitkaise.logs"]
    assert warning.getMessage().startswith("5 log records were dropped")


def test_a_logging_handler_that_fails_costs_no_other_record(caplog: pytest.LogCaptureFixture, reactor: Reactor) -> None:
    def fail(record: logging.LogRecord) -> bool:
        sys.exit(3)

    target = logging.getLogger("my.broken.library")
    target.addFilter(fail)
    forwarded = logs.Forwarded(reactor, LogQueue())
    forwarded.put(fields(0, target.name), Source())
    forwarded.flush(10)
    target.removeFilter(fail)
    forwarded.put(fields(1, target.name), Source())
    forwarded.close(10)
    assert [record.getMessage() for record in caplog.records if record.name == target.name] == ["1"]
    assert "SystemExit" in caplog.text


@pytest.fixture
def reactor() -> Iterator[Reactor]:
    reactor = Reactor()
    yield reactor
    reactor.close()


class Source:
    """A worker that logs, and the calls to it."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def resume_reading(self) -> None:
        self.calls.append("resume")

    def pause_reading(self) -> None:
        self.calls.append("pause")


def fields(number: int, name: str = "my.slow.library") -> dict[str, object]:
    return {"name": name, "levelno": logging.WARNING, "levelname": "WARNING", "msg": str(number)}
