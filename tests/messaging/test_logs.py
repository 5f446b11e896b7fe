"""The log lines of workers and trees."""

from __future__ import annotations

import itertools
import json
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
import pytest
import structlog

from suitkaise.events import (
    ChildExited,
    ChildRestarting,
    ChildStarted,
    ChildStopped,
    Event,
    KeeperLost,
    SupervisorGaveUp,
    SupervisorStarted,
)
from suitkaise.exits import Normal, Shutdown, Signaled
from suitkaise.messaging import logs
from suitkaise.messaging.logs import (
    CommandOutput,
    ForwardingHandler,
    handle_forwarded,
    handle_output,
    log_event,
    worker_logger,
)
from suitkaise.platform.log_queue import LogQueue
from suitkaise.platform.reactor import Reactor
from tests.support import eventually


def test_a_log_line_has_the_workers_path_and_its_arguments_filled_in(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        worker_logger("app/count").info("did %d of %s", 3, "them", speed=1.5)
    assert caplog.messages == ["app/count: did 3 of them speed=1.5"]


def test_the_keys_of_a_log_call_are_attributes_of_its_record(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        worker_logger("app/count").bind(run=7).info("done", answer=42, path_of_result="out", pathname="/tmp/x")
    (record,) = caplog.records
    found = {name: vars(record)[name] for name in ("path", "run", "answer", "path_of_result")}
    assert found == {"path": "app/count", "run": 7, "answer": 42, "path_of_result": "out"}
    assert record.pathname != "/tmp/x"  # an attribute of every record: this key is in the text alone
    assert record.getMessage() == "app/count: done run=7 answer=42 path_of_result='out' pathname='/tmp/x'"


def test_a_key_of_a_log_call_does_not_displace_the_workers_own_path_and_pid(caplog: pytest.LogCaptureFixture) -> None:
    lines: list[str] = []
    with caplog.at_level(logging.INFO):
        worker_logger("app/count", lines.append).info("started", path="/tmp/x", pid=5)
    (record,) = caplog.records
    assert record.getMessage() == "app/count: started path='/tmp/x' pid=5"
    assert lines == ["info: app/count: started path='/tmp/x' pid=5"]
    assert (vars(record)["path"], record.process) == ("app/count", os.getpid())


def test_a_log_call_has_the_context_variables_that_structlog_has_bound(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with structlog.contextvars.bound_contextvars(tenant="acme", path="/tmp/x", run=1):
        worker_logger("app/count").bind(run=7).info("done")
    worker_logger("app/count").info("done")
    first, second = caplog.records
    assert (vars(first)["tenant"], vars(first)["run"], vars(first)["path"]) == ("acme", 7, "app/count")
    assert second.getMessage() == "app/count: done"


def test_a_worker_can_log_the_exception_it_handles(caplog: pytest.LogCaptureFixture) -> None:
    try:
        raise ValueError("odd")
    except ValueError:
        lines: list[str] = []
        worker_logger("app/count", lines.append).exception("went wrong", order=7)
    (record,) = caplog.records
    assert record.getMessage() == "app/count: went wrong order=7"
    assert record.exc_info is not None
    assert repr(record.exc_info[1]) == "ValueError('odd')"
    (line,) = lines
    assert line.startswith("exception: app/count: went wrong order=7\nTraceback")
    assert line.count("Traceback") == 1
    assert line.endswith("ValueError: odd")


@pytest.mark.parametrize("queued", [False, True])
def test_a_record_of_a_worker_has_the_place_where_it_logged(caplog: pytest.LogCaptureFixture, queued: bool) -> None:
    queue = LogQueue()
    if queued:
        queue.open()
    try:
        with caplog.at_level(logging.INFO):
            worker_logger("app/count").bind(run=7).info("done")
            queue.flush()
    finally:
        queue.close()
    (record,) = caplog.records
    assert (record.filename, record.funcName) == (
        "test_logs.py",
        "test_a_record_of_a_worker_has_the_place_where_it_logged",
    )


def test_a_level_that_is_off_costs_no_record(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        worker_logger("app/count").info("quiet")
    assert caplog.messages == []


def test_an_event_is_one_line_with_the_whole_path_and_an_attribute_of_the_record(
    caplog: pytest.LogCaptureFixture,
) -> None:
    event = ChildExited("app/inner/count", 1.0, reason=Signaled(9), pid=7)
    log_event(event)
    (record,) = caplog.records
    assert record.getMessage() == "app/inner/count ended (pid 7): signal 9 (SIGKILL)"
    assert record.levelname == "ERROR"
    assert vars(record)["event"] is event


REPORTS: list[tuple[Event, str, dict[str, Any]]] = [
    (SupervisorStarted("app", 1.0), "progress", {}),
    (ChildStarted("app/count", 1.0, pid=7, restarts=2), "progress", {"pid": 7, "restarts": 2}),
    (ChildExited("app/count", 1.0, reason=Signaled(9), pid=7), "crash", {"reason": "signal 9 (SIGKILL)", "pid": 7}),
    (ChildExited("app/count", 1.0, reason=Normal()), "exit", {"reason": "normal"}),
    (ChildRestarting("app/count", 1.0, delay=0.5, used=1, allowed=3), "restart", {"used": 1, "delay": 0.5}),
    (ChildStopped("app/count", 1.0, reason=Shutdown()), "shutdown", {"reason": "shutdown"}),
    (SupervisorGaveUp("app", 1.0, reason=Signaled(9), child="count", max_restarts=3), "gave_up", {"child": "count"}),
    (KeeperLost("keeper", 1.0), "notice", {}),
]


@pytest.mark.parametrize("queued", [False, True])
@pytest.mark.parametrize("event, report_type, fields", REPORTS)
def test_a_record_of_an_event_has_its_fields_as_plain_attributes(
    caplog: pytest.LogCaptureFixture, event: Event, report_type: str, fields: dict[str, Any], queued: bool
) -> None:
    caplog.set_level(logging.INFO)
    queue = LogQueue()
    if queued:
        queue.open()
    log_event(event)
    queue.close()
    (record,) = caplog.records
    assert vars(record).items() >= {"report_type": report_type, "path": event.path, **fields}.items()


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


@pytest.mark.parametrize("created", [float("nan"), float("inf"), 1e30, -1.0, "2024-01-01", None])
def test_a_forwarded_record_without_a_time_gets_that_of_now(created: Any) -> None:
    sent: list[dict[str, Any]] = []
    before = time.time()
    ForwardingHandler(sent.append).handle(logging.makeLogRecord({"msg": "odd", "created": created}))
    assert before <= sent[0]["created"] <= time.time()


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


def test_a_forwarded_record_may_have_a_field_whose_name_is_no_utf_8(caplog: pytest.LogCaptureFixture) -> None:
    sent: list[bytes] = []
    handler = ForwardingHandler(lambda fields: sent.append(msgspec.msgpack.encode(fields)))
    handler.handle(logging.makeLogRecord({"name": "x", "levelno": 40, "msg": "odd", "n\udcff": 5}))
    handle_forwarded(msgspec.msgpack.decode(sent[0]))
    assert vars(caplog.records[0])["n\\udcff"] == 5


def test_a_forwarded_record_keeps_its_stack(caplog: pytest.LogCaptureFixture) -> None:
    sent: list[dict[str, object]] = []
    logger = logging.Logger("my.library")  # noqa: LOG001
    logger.addHandler(ForwardingHandler(sent.append))
    logger.warning("how did I get here?", stack_info=True)
    handle_forwarded(sent[0])
    text = caplog.records[0].getMessage()
    assert text.startswith("how did I get here?\nStack (most recent call last):\n")
    assert "test_a_forwarded_record_keeps_its_stack" in text


def test_the_library_adds_no_handler() -> None:
    loggers = [logging.getLogger(name) for name in logging.root.manager.loggerDict if name.startswith("suitkaise")]
    assert [logger for logger in loggers if logger.handlers or not logger.propagate] == []


@contextmanager
def held_up(target: logging.Logger) -> Iterator[tuple[threading.Event, threading.Event]]:
    """Hold up all records of a logger until the second event is set; the first is set when the first is held up."""
    busy, release = threading.Event(), threading.Event()

    def hold_up(record: logging.LogRecord) -> bool:
        busy.set()
        return release.wait(10)

    target.addFilter(hold_up)
    try:
        yield busy, release
    finally:
        target.removeFilter(hold_up)


def messages(caplog: pytest.LogCaptureFixture, name: str) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == name]


def test_s76_when_the_handlers_make_no_progress_all_workers_are_read_from_and_the_dropped_records_are_counted(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, reactor: Reactor
) -> None:
    source = Source()
    monkeypatch.setattr(logs.Forwarded, "room", 4)
    monkeypatch.setattr(logs, "LONGEST_PAUSE", 0.01)
    queue = LogQueue()
    forwarded = logs.Forwarded(reactor, queue)
    with held_up(logging.getLogger("my.slow.library")) as (busy, release):
        forwarded.put(fields(0), source)
        assert busy.wait(10)
        for number in range(1, 4):
            forwarded.put(fields(number), source)
        eventually(lambda: source.calls == ["pause", "resume"])
        for number in range(4, 10):
            forwarded.put(fields(number), source)
        release.set()
        queue.flush(10)
        forwarded.put(fields(10), source)
        queue.close(10)
    assert messages(caplog, "my.slow.library") == ["0", "1", "2", "3", "4", "10"]
    (warning,) = messages(caplog, "suitkaise.logs")
    assert warning.startswith("5 log records were dropped")
    assert source.calls == ["pause", "resume"]


def test_s76_a_worker_that_was_asked_to_stop_is_read_from_although_the_handlers_are_slow(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, reactor: Reactor
) -> None:
    source, other = Source(), Source()
    monkeypatch.setattr(logs.Forwarded, "room", 4)
    monkeypatch.setattr(logs, "LONGEST_PAUSE", 1000.0)
    queue = LogQueue()
    forwarded = logs.Forwarded(reactor, queue)
    with held_up(logging.getLogger("my.slow.library")) as (busy, release):
        for number in range(4):
            forwarded.put(fields(number), source)
        assert busy.wait(10)
        forwarded.put(fields(4), other)
        assert (source.calls, other.calls) == (["pause"], ["pause"])
        source.stopping = True
        forwarded.release(source)
        assert (source.calls, other.calls) == (["pause", "resume"], ["pause"])
        for number in range(5, 10):
            forwarded.put(fields(number), source)
        release.set()
        queue.close(10)
    assert messages(caplog, "my.slow.library") == ["0", "1", "2", "3", "4"]
    (warning,) = messages(caplog, "suitkaise.logs")
    assert warning.startswith("5 log records were dropped")


def test_the_output_of_a_command_becomes_one_record_for_each_line(caplog: pytest.LogCaptureFixture) -> None:
    runs = [("stdout", 1_000_000.25, ["one", "two"], False), ("stderr", 1_000_001.5, ["Password: "], True)]
    with caplog.at_level(logging.INFO):
        handle_output(CommandOutput("app/redis", 7, "/usr/bin/redis-server", runs))
    shown = [(one.created, one.process, one.filename, vars(one)["partial"], one.getMessage()) for one in caplog.records]
    assert shown == [
        (1_000_000.25, 7, "redis-server", False, "app/redis stdout: one"),
        (1_000_000.25, 7, "redis-server", False, "app/redis stdout: two"),
        (1_000_001.5, 7, "redis-server", True, "app/redis stderr: Password: "),
    ]
    assert (
        logging.Formatter("%(asctime)s %(name)s %(path)s")
        .format(caplog.records[0])
        .endswith(",250 suitkaise.worker app/redis")
    )


def test_a_record_factory_of_the_application_makes_each_record_of_a_commands_output(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Numbered(logging.LogRecord):
        """A record with a number."""

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.number = next(numbers)

    numbers = itertools.count()
    before = logging.getLogRecordFactory()
    logging.setLogRecordFactory(Numbered)
    try:
        with caplog.at_level(logging.INFO):
            handle_output(CommandOutput("app/sh", 7, "sh", [("stdout", 0.5, ["one", "two"], False)]))
    finally:
        logging.setLogRecordFactory(before)
    assert all(isinstance(record, Numbered) for record in caplog.records)
    assert len(caplog.records) == 2


def test_a_logging_handler_that_fails_costs_no_other_record(caplog: pytest.LogCaptureFixture, reactor: Reactor) -> None:
    def fail(record: logging.LogRecord) -> bool:
        sys.exit(3)

    target = logging.getLogger("my.broken.library")
    target.addFilter(fail)
    queue = LogQueue()
    forwarded = logs.Forwarded(reactor, queue)
    forwarded.put(fields(0, target.name), Source())
    queue.flush(10)
    target.removeFilter(fail)
    forwarded.put(fields(1, target.name), Source())
    queue.close(10)
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
        self.stopping = False

    def resume_reading(self) -> None:
        self.calls.append("resume")

    def pause_reading(self) -> None:
        self.calls.append("pause")


def fields(number: int, name: str = "my.slow.library") -> dict[str, object]:
    return {"name": name, "levelno": logging.WARNING, "levelname": "WARNING", "msg": str(number)}


def forwarded(log: Callable[[logging.Logger], object]) -> dict[str, Any]:
    """Return what a worker sends of the record that `log` makes, after its way to the program."""
    sent: list[bytes] = []
    logger = logging.Logger("my.library")  # noqa: LOG001
    logger.addHandler(ForwardingHandler(lambda fields: sent.append(msgspec.msgpack.encode(fields))))
    log(logger)
    found: dict[str, Any] = msgspec.msgpack.decode(sent[0])
    return found


def through_structlog(logger: logging.Logger) -> structlog.stdlib.BoundLogger:
    bound: structlog.stdlib.BoundLogger = structlog.wrap_logger(
        logger, processors=[structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.stdlib.BoundLogger,
    )  # fmt: skip
    return bound


def fail(logger: logging.Logger) -> None:
    try:
        raise ValueError("odd")
    except ValueError:
        through_structlog(logger).exception("went wrong", order=7, lock=Stays())


def test_a_forwarded_record_of_structlog_is_one_for_its_formatter_in_the_program(
    caplog: pytest.LogCaptureFixture,
) -> None:
    got = forwarded(fail)
    text = got["msg"]
    handle_forwarded(got)
    (record,) = caplog.records
    formatter = structlog.stdlib.ProcessorFormatter(
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, structlog.processors.JSONRenderer()]
    )
    shown = json.loads(formatter.format(record))
    assert (shown["event"], shown["order"], shown["lock"]) == ("went wrong", 7, "stays here")
    assert shown["exception"].startswith("Traceback (most recent call last):\n")
    assert shown["exception"].endswith("ValueError: odd")
    assert text.startswith("{'order': 7,")
    assert text.endswith("ValueError: odd")
    assert text.count("Traceback") == 1


def test_a_forwarded_record_whose_message_is_a_dictionary_keeps_it_and_its_traceback(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def log(logger: logging.Logger) -> None:
        try:
            raise ValueError("odd")
        except ValueError:
            logger.exception({"event": "sold", "lock": Stays()}, stack_info=True)

    got = forwarded(log)
    assert "ValueError: odd" in got["msg"]
    handle_forwarded(got)
    (record,) = caplog.records
    assert record.msg == {"event": "sold", "lock": "stays here"}
    lines = logging.Formatter().format(record)
    assert lines.startswith("{'event': 'sold', 'lock': 'stays here'}\nTraceback")
    assert lines.count("ValueError: odd") == 1
    assert lines.count("Stack (most recent call last):") == 1


@pytest.mark.parametrize("message", [{7: "seven"}, ["event", "sold"], {}])
def test_a_forwarded_record_of_any_other_object_has_its_text(caplog: pytest.LogCaptureFixture, message: Any) -> None:
    handle_forwarded(forwarded(lambda logger: logger.warning(message)))
    assert caplog.messages == [str(message)]


def _error_of(text: str, arguments: tuple[object, ...]) -> str:
    """Return the error of formatting, in the words of this Python."""
    with pytest.raises(TypeError) as caught:
        _ = text % arguments
    return f"TypeError: {caught.value}"


class Broken:
    def __repr__(self) -> str:
        raise ValueError("no words")


@pytest.mark.parametrize(
    "log, text",
    [
        (lambda log: log.info("got", it=Broken()), "app/count: got it=(Broken, without a text: ValueError)"),
        (lambda log: log.info(Broken()), "app/count: (Broken, without a text: ValueError)"),
        (
            lambda log: log.info("%d of %d", "two", 3),
            f"app/count: %d of %d ('two', 3) ({_error_of('%d of %d', ('two', 3))})",
        ),
        (
            lambda log: log.info("got %s", Broken()),
            "app/count: got %s (tuple, without a text: ValueError) (ValueError: no words)",
        ),
        (lambda log: log.info("100 %"), "app/count: 100 %"),
    ],
)
def test_a_log_call_of_a_worker_whose_arguments_have_no_text_or_do_not_fit_raises_nothing(
    caplog: pytest.LogCaptureFixture, log: Callable[[Any], object], text: str
) -> None:
    caplog.set_level(logging.INFO)
    log(worker_logger("app/count"))
    assert caplog.messages == [text]


@pytest.mark.parametrize("queued", [False, True])
def test_a_worker_can_log_its_stack_and_the_place_of_its_caller(caplog: pytest.LogCaptureFixture, queued: bool) -> None:
    lines: list[str] = []
    queue = LogQueue()
    if queued:
        queue.open()

    def helper() -> None:
        worker_logger("app/count", lines.append).warning("here", stack_info=True, stacklevel=2)
        worker_logger("app/count").warning("far", stacklevel=10_000)

    try:
        helper()
    finally:
        queue.close()
    record, far = caplog.records
    assert (record.funcName, record.getMessage()) == (
        "test_a_worker_can_log_its_stack_and_the_place_of_its_caller", "app/count: here",
    )  # fmt: skip
    assert far.getMessage() == "app/count: far"
    assert record.stack_info is not None
    assert record.stack_info.startswith("Stack (most recent call last):\n")
    assert record.stack_info.endswith("helper()")
    (line,) = lines
    assert line.startswith("warning: app/count: here\nStack (most recent call last):\n")
