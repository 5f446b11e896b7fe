"""The protocol between hub, keeper and workers: each struct survives the way, and nothing else is taken."""

from __future__ import annotations

import typing
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from suitkaise.engines import protocol
from suitkaise.engines.protocol import (
    AcceptConnection,
    AdoptProcesses,
    Announce,
    BackgroundReport,
    CheckpointReport,
    CleaningUp,
    DeliverMessage,
    EndOfMessages,
    ExitReport,
    GiveDirectory,
    KeeperReady,
    KeeperWarning,
    LogReport,
    MessageAnswered,
    MessageTraced,
    OutputReport,
    PreloadModules,
    PreloadReport,
    PrepareSpare,
    ProcessExited,
    QuitKeeper,
    ReturnMessage,
    RoomReport,
    SetLogLevels,
    SignalProcess,
    SpareReady,
    SpawnFailed,
    SpawnProcess,
    StartWorker,
    StopWorker,
    SuspendWorker,
    TailReport,
    TraceMessages,
    WorkerReady,
    decode_keeper_answer,
    decode_keeper_request,
    decode_worker_order,
    decode_worker_report,
    encode,
)
from suitkaise.messaging import wire

DIRECTIONS: dict[str, tuple[Callable[[Any], Any], Any, list[Any]]] = {
    "hub to keeper": (
        decode_keeper_request,
        protocol.KeeperRequest,
        [
            SpawnProcess(1, 5.0, False, False),
            SpawnProcess(2, float("inf"), True, True),
            AdoptProcesses([(0.5, False), (5.0, True)]),
            PreloadModules([b"/a", b"/b\xe9"], ["json"]),
            QuitKeeper(),
            SignalProcess(6, 9),
            GiveDirectory(1000, 100),
        ],
    ),
    "keeper to hub": (
        decode_keeper_answer,
        protocol.KeeperAnswer,
        [KeeperReady(), KeeperWarning("careful"), CleaningUp(3), ProcessExited(4, -9), SpawnFailed(5, "no room")],
    ),
    "hub to worker": (
        decode_worker_order,
        protocol.WorkerOrder,
        [
            PrepareSpare(b"context", {"": 30}),
            StartWorker(b"incarnation", b"context", 7, {"": 30}, True),
            *(DeliverMessage(kind, number) for kind in ("message", "call", "get", "signal") for number in (None, 8)),
            StopWorker(0.0),
            StopWorker(2.5),
            SuspendWorker(True),
            EndOfMessages(),
            AcceptConnection("app/asker", 3),
            TraceMessages(True),
            SetLogLevels({"": 30, "app.db": 10}),
        ],
    ),
    "worker to hub": (
        decode_worker_report,
        protocol.WorkerReport,
        [
            Announce(1234),
            SpareReady(),
            WorkerReady(1234),
            MessageAnswered(9, False),
            BackgroundReport(),
            CheckpointReport(),
            PreloadReport(["json"]),
            LogReport({"msg": "hello", "levelno": 20}),
            OutputReport(1234, "sh", [("stdout", 1.5, ["one", "two"], False), ("stderr", 2.5, ["Password: "], True)]),
            TailReport(4096, b"\0o1.5\0one\n"),
            MessageTraced({"number": 1}),
            ExitReport(b"reason", True, False, True),
            ReturnMessage("call", None),
            ReturnMessage("message", 9),
            RoomReport(3),
        ],
    ),
}
ALL = [(direction, struct) for direction, (_, _, structs) in DIRECTIONS.items() for struct in structs]


@pytest.mark.parametrize("direction, struct", ALL)
def test_every_struct_survives_the_way(direction: str, struct: Any) -> None:
    decode = DIRECTIONS[direction][0]
    assert decode(encode(struct)) == struct


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_every_struct_of_a_direction_is_tried(direction: str) -> None:
    _, union, structs = DIRECTIONS[direction]
    assert set(typing.get_args(union)) == {type(struct) for struct in structs}


def test_every_struct_is_listed_and_has_a_docstring() -> None:
    structs = {
        name: kind
        for name, kind in vars(protocol).items()
        if isinstance(kind, type) and issubclass(kind, msgspec.Struct)
    }
    assert set(structs) == {type(struct).__name__ for _, struct in ALL}
    assert set(structs) <= set(protocol.__all__)
    assert all(kind.__doc__ for kind in structs.values())


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize(
    "wrong", [b"", b"rubbish", msgspec.msgpack.encode([99]), msgspec.msgpack.encode({"a": 1})],
    ids=["nothing", "rubbish", "an unknown tag", "a map"],
)  # fmt: skip
def test_data_that_is_no_struct_of_the_direction_is_refused(direction: str, wrong: bytes) -> None:
    with pytest.raises(msgspec.MsgspecError):
        DIRECTIONS[direction][0](wrong)


@pytest.mark.parametrize(
    "decode, wrong",
    [
        (decode_keeper_request, [0, "one", 5.0, False]),
        (decode_keeper_request, [0, 1]),
        (decode_keeper_answer, [3, 1, None]),
        (decode_worker_order, [2, "no kind of message", None]),
        (decode_worker_report, [0, "1234"]),
        (decode_worker_report, [7, "reason", False, False]),
    ],
)
def test_a_field_that_is_missing_or_of_another_type_is_refused(decode: Callable[[bytes], Any], wrong: Any) -> None:
    with pytest.raises(msgspec.ValidationError):
        decode(msgspec.msgpack.encode(wrong))


def test_a_frame_that_does_not_decode_is_an_error_of_the_connection() -> None:
    parser = wire.Parser(decode=decode_worker_report)
    with pytest.raises(wire.WireError, match="header"):
        parser.feed(wire.encode(("no such frame",)))


def test_a_frame_keeps_its_payload() -> None:
    parser = wire.Parser(decode=decode_worker_report)
    assert parser.feed(wire.encode(MessageAnswered(1, True), b"payload")) == [(MessageAnswered(1, True), b"payload")]
