"""Everything that the hub, the keeper and the workers' processes send each other: typed structs, one module for all.

Hub and keeper exchange single datagrams (SOCK_SEQPACKET), each of which is one encoded struct; file descriptors go
along with some. Hub and worker exchange frames (see `messaging.wire`) over the worker's control connection: the struct
is the frame's header, and some frames carry a payload.

Data that does not decode is an error of the sender, since all of them are of one program and nothing is negotiated:
the hub kills a worker or replaces a keeper that sends such data.
"""

# Without `from __future__ import annotations`: msgspec compiles each annotation that is a text, 1 ms at each start.
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeAlias

import msgspec

from suitkaise.messaging.protocol import MessageKind
from suitkaise.platform.inheritance import Inheritance
from suitkaise.records import dataclass

__all__ = [
    "MAX_DATAGRAM",
    "MAX_DESCRIPTORS",
    "AcceptConnection",
    "AdoptProcesses",
    "Announce",
    "BackgroundReport",
    "CheckpointReport",
    "CleaningUp",
    "DeliverMessage",
    "EndOfMessages",
    "ExitReport",
    "GiveDirectory",
    "KeeperAnswer",
    "KeeperReady",
    "KeeperRequest",
    "KeeperWarning",
    "LogReport",
    "MessageAnswered",
    "MessageTraced",
    "OutputReport",
    "PreloadModules",
    "PreloadReport",
    "PrepareSpare",
    "ProcessContext",
    "ProcessExited",
    "QuitKeeper",
    "ReturnMessage",
    "RoomReport",
    "SetLogLevels",
    "SignalProcess",
    "SpareReady",
    "SpawnFailed",
    "SpawnProcess",
    "StartWorker",
    "StopWorker",
    "SuspendWorker",
    "TailReport",
    "TraceMessages",
    "WorkerOrder",
    "WorkerReady",
    "WorkerReport",
    "decode_keeper_answer",
    "decode_keeper_request",
    "decode_worker_order",
    "decode_worker_report",
    "encode",
]

MAX_DATAGRAM = 1 << 16
"""The longest datagram in bytes."""

MAX_DESCRIPTORS = 253
"""How many file descriptors can go with one datagram."""


# ------------------------------------------------------------ hub -> keeper: datagrams
class SpawnProcess(msgspec.Struct, array_like=True, tag=0, gc=False):
    """Fork a process. With it goes one descriptor: the process's end of its control connection.

    Sent at each start of a worker or spare. The new process sends `Announce` to the hub. The keeper answers when the
    process has ended (`ProcessExited`) or cannot be forked (`SpawnFailed`).
    """

    number: int  # identifies the request in the answers
    grace: float  # seconds that the process may take to end when the hub is gone
    stops_last: bool  # ends after all others when the hub is gone: the storage
    keep_children: bool  # leave alone what the process has started, when it ends
    slot: int = -1  # of the worker on the status board, for the time of the fork; -1: a spare, which has none yet


class AdoptProcesses(msgspec.Struct, array_like=True, tag=1, gc=False):
    """Adopt processes that an earlier keeper has forked. With it goes the pidfd of each.

    Sent to a new keeper that replaces one that died. No answer: only the parent learns an exit status.
    """

    processes: list[tuple[float, bool]]  # `grace` and `stops_last` of each


class PreloadModules(msgspec.Struct, array_like=True, tag=2, gc=False):
    """Import these modules, from this search path, for all processes that are forked from now on.

    Sent when `preload` was called. The keeper answers with `KeeperWarning` for each module that is unfit, then with
    `KeeperReady`.
    """

    search_path: list[bytes]  # a path may hold any bytes
    modules: list[str]


class QuitKeeper(msgspec.Struct, array_like=True, tag=3, gc=False):
    """End without touching the forked processes: there are none any more. Sent at the program's end; no answer."""


class SignalProcess(msgspec.Struct, array_like=True, tag=4, gc=False):
    """Send process `number` a signal; if it has ended, kill what it has left behind. No answer.

    Sent where the hub cannot do that itself: it has given up the user as which the process runs, or knows no pid.
    """

    number: int
    signal: int


class GiveDirectory(msgspec.Struct, array_like=True, tag=5, gc=False):
    """Make this user and group the owner of the runtime directory and of all in it. With it goes the end of a pipe.

    Sent when the hub has given up its user and starts a keeper as another one. The keeper answers by closing the pipe.
    """

    uid: int
    gid: int


# ------------------------------------------------------------ keeper -> hub: datagrams
class KeeperReady(msgspec.Struct, array_like=True, tag=0, gc=False):
    """The keeper has imported its modules and serves requests. Sent after its start and after `PreloadModules`."""


class KeeperWarning(msgspec.Struct, array_like=True, tag=1, gc=False):
    """Something went wrong that stops nothing; the hub logs the text. Sent at any time."""

    text: str


class CleaningUp(msgspec.Struct, array_like=True, tag=2, gc=False):
    """A process has ended, and the keeper ends what that process has left behind. `ProcessExited` follows."""

    number: int


class ProcessExited(msgspec.Struct, array_like=True, tag=3, gc=False):
    """The process of request `number` has ended with this exit code (negative: signal). Nothing follows."""

    number: int
    code: int


class SpawnFailed(msgspec.Struct, array_like=True, tag=4, gc=False):
    """There is no process for request `number`, and there will be none. Nothing follows."""

    number: int
    error: str


# ------------------------------------------------------------ hub -> worker: frames
@dataclass(frozen=True, slots=True)
class ProcessContext:
    """What a new process takes over from the hub as the hub is now. Pickled: a path may hold any bytes."""

    owner: str  # the process's identity towards the storage
    directory: str  # the current working directory
    search_path: list[str]
    argv: list[str]
    program: str  # whose `__main__` the worker takes part in
    main_names: dict[str, str]  # of that `__main__`: its file, its package, and its text
    changed: Inheritance  # environment, limits and umask, where they differ from what the keeper has

    def agrees_with(self, other: "ProcessContext | None") -> bool:
        """Return whether the two differ in nothing but their owners."""
        return other is not None and replace(other, owner=self.owner) == self


class PrepareSpare(msgspec.Struct, array_like=True, tag=0, gc=False):
    """The first frame to a spare: unpickle the recipe (the payload) and wait. `SpareReady` answers it.

    Sockets and pipe ends among the recipe's arguments go with the frame's first bytes.
    """

    context: bytes  # a pickled `ProcessContext`
    log_levels: dict[str, int]  # see `StartWorker`
    tells_end: bool = False  # likewise


class StartWorker(msgspec.Struct, array_like=True, tag=1, gc=False):
    """Start the worker of the recipe (the payload; a spare has it already). `WorkerReady` or `ExitReport` answers it.

    The first frame to a process, with the descriptors in the arguments of the recipe; or the second one to a spare.
    """

    incarnation: bytes  # a pickled `Incarnation`
    context: bytes  # a pickled `ProcessContext`; empty: the one that the spare has got is still right
    slot: int  # the worker's slot on the status board
    log_levels: dict[str, int]  # of the hub's loggers that have one; the root logger has the name ''
    stops_last: bool  # ends after all others when the hub is gone, and ignores SIGTERM: the storage
    supervise: bytes = b""  # a pickled `SuperviseThreads`, for background threads
    carrier: dict[str, str] | None = None  # the tracing context of the caller that has started the child
    tells_end: bool = False  # holds the lock in its slot, see `platform.death_lock`


class DeliverMessage(msgspec.Struct, array_like=True, tag=2, gc=False):
    """A message for the worker; the payload is its encoded body. With a number, `MessageAnswered` answers it."""

    kind: MessageKind
    number: int | None
    carrier: dict[str, str] | None = None  # the sender's tracing context
    deadline: float | None = None  # the time (monotonic) after which the asker waits no longer
    sender: str = ""  # the sender's path, as far as it is known, while the messages are traced


class StopWorker(msgspec.Struct, array_like=True, tag=3, gc=False):
    """Finish, ahead of all messages that wait, or after `drain` seconds in which they are handled.

    `ExitReport` answers it.
    """

    drain: float = 0.0


class SuspendWorker(msgspec.Struct, array_like=True, tag=4, gc=False):
    """Pause after the current loop (`on`), or resume. No answer."""

    on: bool


class SetLogLevels(msgspec.Struct, array_like=True, tag=6, gc=False):
    """The levels of the hub's loggers have changed. No answer."""

    levels: dict[str, int]


class AcceptConnection(msgspec.Struct, array_like=True, tag=7, gc=False):
    """Another worker, or a thread of the program, sends messages over the connection that goes with this frame.

    No answer.
    """

    sender: str  # its path
    connection: int  # its number, see `ConnectionCounts`


class TraceMessages(msgspec.Struct, array_like=True, tag=15, gc=False):
    """Report each message that is handled from now on (`on`) with `MessageTraced`, or no more. No other answer."""

    on: bool


class EndOfMessages(msgspec.Struct, array_like=True, tag=5, gc=False):
    """No message follows. Sent when the worker has reported its exit, and `returns_messages`."""


# ------------------------------------------------------------ worker -> hub: frames
class Announce(msgspec.Struct, array_like=True, tag=0, gc=False):
    """The process exists. The first frame of every process; its own pidfd goes with it.

    Until then the hub sends nothing but the first frame.
    """

    pid: int


class SpareReady(msgspec.Struct, array_like=True, tag=1, gc=False):
    """A spare has unpickled its recipe and waits. `StartWorker` follows when the spare is needed."""


class WorkerReady(msgspec.Struct, array_like=True, tag=2, gc=False):
    """`on_start` has returned. `pid` is the worker's, or that of the program which a command worker runs."""

    pid: int


class MessageAnswered(msgspec.Struct, array_like=True, tag=3, gc=False):
    """The answer to message `number`; the payload is the encoded answer, or the encoded error if not `ok`."""

    number: int
    ok: bool


class CheckpointReport(msgspec.Struct, array_like=True, tag=4, gc=False):
    """The worker has saved a checkpoint: the payload, which replaces the one before. No answer."""


class PreloadReport(msgspec.Struct, array_like=True, tag=5, gc=False):
    """The worker has called `preload`: all modules wanted so far. The hub hands them on to the keeper."""

    modules: list[str]


class LogReport(msgspec.Struct, array_like=True, tag=6, gc=False):
    """One record of the worker's logging, for the hub's logging. No answer."""

    fields: dict[str, Any]


class OutputReport(msgspec.Struct, array_like=True, tag=9, gc=False):
    """Some output of a command, for the hub's logging. No answer."""

    pid: int
    program: str
    runs: list[tuple[str, float, list[str], bool]]  # see `workers.output.Runs`


class TailReport(msgspec.Struct, array_like=True, tag=11, gc=False):
    """Bytes that the worker has appended to its tail, from this position on, while the program listens. No answer."""

    position: int
    data: bytes


class BackgroundReport(msgspec.Struct, array_like=True, tag=10, gc=False):
    """News of a background thread: the payload is a pickled `Event` or `CrashReport`. No answer."""


class MessageTraced(msgspec.Struct, array_like=True, tag=15, gc=False):
    """The worker has handled a message, and messages are traced. No answer."""

    fields: dict[str, Any]  # see `workers.message_trace`


class ExitReport(msgspec.Struct, array_like=True, tag=7, gc=False):
    """How the worker's incarnation ended. The payload is the encoded result, if there is one.

    The process ends after it; before that, a worker that `returns_messages` sends each message that it has not handled
    with `ReturnMessage`, once it has got `EndOfMessages`.
    """

    reason: bytes  # a pickled `ExitReason`
    ignored: bool  # `on_start` raised `Ignore`
    has_result: bool
    returns_messages: bool


class RoomReport(msgspec.Struct, array_like=True, tag=12, gc=False):
    """The worker, whose mailbox is bounded, has taken messages out, and the hub wants to know. No answer."""

    dropped: int  # of the told messages since the last report, those that were dropped


class ReturnMessage(msgspec.Struct, array_like=True, tag=8, gc=False):
    """A message that the worker has not handled, for its next incarnation. Follows `ExitReport`; no answer.

    The payload is its encoded body. It is empty if the message has a number, as the hub knows that one, and is not in
    pieces: their memory may have changed there.
    """

    kind: MessageKind
    number: int | None
    carrier: dict[str, str] | None = None


KeeperRequest: TypeAlias = SpawnProcess | AdoptProcesses | PreloadModules | QuitKeeper | SignalProcess | GiveDirectory
KeeperAnswer: TypeAlias = KeeperReady | KeeperWarning | CleaningUp | ProcessExited | SpawnFailed
WorkerOrder: TypeAlias = (
    PrepareSpare
    | StartWorker
    | DeliverMessage
    | StopWorker
    | SuspendWorker
    | EndOfMessages
    | SetLogLevels
    | AcceptConnection
    | TraceMessages
)
WorkerReport: TypeAlias = (
    Announce
    | SpareReady
    | WorkerReady
    | MessageAnswered
    | CheckpointReport
    | PreloadReport
    | LogReport
    | OutputReport
    | TailReport
    | BackgroundReport
    | MessageTraced
    | ExitReport
    | ReturnMessage
    | RoomReport
)

encode: Callable[[KeeperRequest | KeeperAnswer], bytes] = msgspec.msgpack.Encoder().encode
"""Encode one datagram. Frames are encoded by `wire.encode`."""

decode_keeper_request: Callable[[bytes], KeeperRequest] = msgspec.msgpack.Decoder(KeeperRequest).decode
decode_keeper_answer: Callable[[bytes], KeeperAnswer] = msgspec.msgpack.Decoder(KeeperAnswer).decode
decode_worker_order: Callable[[memoryview], WorkerOrder] = msgspec.msgpack.Decoder(WorkerOrder).decode
decode_worker_report: Callable[[memoryview], WorkerReport] = msgspec.msgpack.Decoder(WorkerReport).decode
