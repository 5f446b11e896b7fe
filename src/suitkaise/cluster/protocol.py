"""Everything that the program and its nodes send each other: typed headers of frames, see `messaging.wire`.

A program has one connection to each node. Times do not travel, as each machine has a clock of its own: a deadline is
sent as the seconds that are left, and a time of the past as the seconds since then.

Data that does not decode is an error of the sender, since program and node are of one version: the connection ends.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import msgspec

from suitkaise.engines.inspection import Inspection
from suitkaise.messaging.protocol import HubAnswer, MessageKind, WorkerFrame

__all__ = [
    "AnswerOfHub",
    "Beat",
    "Buried",
    "Bury",
    "Checkpoint",
    "Deliver",
    "DropUpTo",
    "Exited",
    "Figures",
    "Finish",
    "Forget",
    "HubFrame",
    "Inspect",
    "Inspected",
    "Kill",
    "LinesRead",
    "Listen",
    "LogLevels",
    "LogLines",
    "LogOutput",
    "LogRecord",
    "LogsTaken",
    "MessageDone",
    "News",
    "NodeFrame",
    "Pulse",
    "Quit",
    "ReadLines",
    "Ready",
    "Recycle",
    "RequestOfWorker",
    "Returned",
    "Room",
    "Spawn",
    "StreamData",
    "StreamEnd",
    "StreamOpen",
    "Suspend",
    "Trace",
    "Traced",
    "View",
    "Welcome",
    "WorkerGone",
    "decode_hub_frame",
    "decode_node_frame",
]


# ------------------------------------------------------------ program -> node
class Spawn(msgspec.Struct, array_like=True, tag=0, gc=False):
    """Start a worker; the payload is its recipe. `Ready` or `Exited` answers it. `worker` is its serial number."""

    worker: int
    what: bytes  # a pickled `Child` without its code, and an `Incarnation`
    carrier: dict[str, str] | None = None  # the tracing context of the caller that has started the child


class Deliver(msgspec.Struct, array_like=True, tag=1, gc=False):
    """A message for the worker; the payload is its encoded body. With a number, `MessageDone` answers it."""

    worker: int
    kind: MessageKind
    number: int | None
    accepted: bool
    carrier: dict[str, str] | None = None
    left: float | None = None  # seconds for which the asker waits still
    sender: str = ""


class Finish(msgspec.Struct, array_like=True, tag=2, gc=False):
    """Finish, after `drain` seconds in which messages are handled (None: as its child says). `Exited` answers it."""

    worker: int
    drain: float | None


class Suspend(msgspec.Struct, array_like=True, tag=3, gc=False):
    """Pause after the current loop (`on`), or resume. No answer."""

    worker: int
    on: bool


class Kill(msgspec.Struct, array_like=True, tag=4, gc=False):
    """End the worker now. `Exited` answers it."""

    worker: int
    why: str


class Trace(msgspec.Struct, array_like=True, tag=5, gc=False):
    """Report each message that is handled from now on (`on`) with `Traced`, or no more."""

    worker: int
    on: bool


class Listen(msgspec.Struct, array_like=True, tag=6, gc=False):
    """Send each line that the worker prints at once (`on`), or only when it is asked for."""

    worker: int
    on: bool


class ReadLines(msgspec.Struct, array_like=True, tag=7, gc=False):
    """Send what the worker has printed so far: `LogLines`, then `LinesRead`."""

    worker: int


class DropUpTo(msgspec.Struct, array_like=True, tag=14, gc=False):
    """Drop what the worker with a bounded mailbox has got up to this number and has not begun to handle."""

    worker: int
    number: int


class Inspect(msgspec.Struct, array_like=True, tag=15, gc=False):
    """Ask the worker's process for something, see `engines.inspection`. `Inspected` with the number answers it."""

    worker: int
    number: int
    what: Inspection
    arguments: list[float]


class LogLevels(msgspec.Struct, array_like=True, tag=8, gc=False):
    """The levels of the program's loggers, now and when they change; the root logger has the name ''."""

    levels: dict[str, int]


class LogsTaken(msgspec.Struct, array_like=True, tag=16, gc=False):
    """So much of what the node has sent of its workers' logging is handled, or dropped: it may send more."""

    weight: int


class Forget(msgspec.Struct, array_like=True, tag=9, gc=False):
    """The child at this path will not be started here again."""

    path: str


class AnswerOfHub(msgspec.Struct, array_like=True, tag=10, gc=False):
    """The answer to a `RequestOfWorker` of this connection; the payload is that of the answer."""

    connection: int
    answer: HubAnswer


class Beat(msgspec.Struct, array_like=True, tag=11, gc=False):
    """The program is alive. Sent a few times in each lease: there is always something to hear, if the node is heard."""


class Quit(msgspec.Struct, array_like=True, tag=12, gc=False):
    """End. Workers that are left have to finish first, in the time that they have when a program is gone."""


class Bury(msgspec.Struct, array_like=True, tag=13, gc=False):
    """Wait until nothing uses the directory of a node that has ended on this machine, then report `Buried`."""

    directory: str


# ------------------------------------------------------------ both ways: the clients of the storage, see `tunnel`
class StreamOpen(msgspec.Struct, array_like=True, tag=20, gc=False):
    """Node -> program: a client has connected."""

    stream: int


class StreamData(msgspec.Struct, array_like=True, tag=21, gc=False):
    """The payload is what the client has sent, or what the storage actor has."""

    stream: int


class StreamEnd(msgspec.Struct, array_like=True, tag=22, gc=False):
    """The connection has ended at the sender's end."""

    stream: int


# ------------------------------------------------------------ node -> program
class Welcome(msgspec.Struct, array_like=True, tag=0, gc=False):
    """The first frame of a node: what it is."""

    host: str
    machine: str  # its id in the cluster
    pid: int
    directory: str
    home: str  # another node that names the same sees the same directories and processes
    version: str  # of suitkaise
    python: str


class Ready(msgspec.Struct, array_like=True, tag=1, gc=False):
    """`on_start` has returned, in the process of this pid."""

    worker: int
    pid: int


class Exited(msgspec.Struct, array_like=True, tag=2, gc=False):
    """The worker has ended, and nothing of it is left. The payload is its encoded result, if it has one."""

    worker: int
    exit: bytes  # a pickled `Exit`, without result, view and returned messages
    has_result: bool
    view: View | None
    delivered: int = 0  # how many messages have come for it: those under way are not handled


class MessageDone(msgspec.Struct, array_like=True, tag=3, gc=False):
    """The answer to message `number`; the payload is the encoded answer, or the encoded error if not `ok`."""

    worker: int
    number: int
    ok: bool


class Returned(msgspec.Struct, array_like=True, tag=4, gc=False):
    """A message that the worker has not handled, for its next incarnation; the payload is its body. `Exited` follows.

    A message with a number that is not in the payload is as the program knows it.
    """

    worker: int
    kind: MessageKind
    number: int | None
    carrier: dict[str, str] | None = None


class Checkpoint(msgspec.Struct, array_like=True, tag=5, gc=False):
    """The worker has saved a checkpoint: the payload."""

    worker: int


class LogRecord(msgspec.Struct, array_like=True, tag=6, gc=False):
    """One record of the worker's logging; 0: of the node's own."""

    worker: int
    fields: dict[str, Any]


class LogOutput(msgspec.Struct, array_like=True, tag=7, gc=False):
    """Some output of a command."""

    worker: int
    pid: int
    program: str
    runs: list[tuple[str, float, list[str], bool]]


class LogLines(msgspec.Struct, array_like=True, tag=8, gc=False):
    """Lines that the worker has printed, of one stream; the time is Unix time."""

    worker: int
    stream: str
    time: float
    lines: list[str]


class LinesRead(msgspec.Struct, array_like=True, tag=16, gc=False):
    """All that the worker had printed was sent."""

    worker: int


class Inspected(msgspec.Struct, array_like=True, tag=18, gc=False):
    """The answer to `Inspect`: the payload is it, or the encoded error if not `ok`."""

    worker: int
    number: int
    ok: bool


class Figures(msgspec.Struct, array_like=True, tag=19, gc=False):
    """What the machine of the node and the workers use, measured every few seconds."""

    cpu: float | None  # processors at work since the last time; None: it is the first time
    cpus: int
    memory: int  # bytes in use
    memory_total: int
    workers: list[tuple[int, float | None, int]]  # number, CPU as above and memory of the worker and all below it


class News(msgspec.Struct, array_like=True, tag=9, gc=False):
    """News of a background thread, or a worker over its memory: the payload is a pickled `Event` or `CrashReport`.

    `age`: the seconds since then.
    """

    age: float


class Traced(msgspec.Struct, array_like=True, tag=10, gc=False):
    """The worker has handled a message, and messages are traced."""

    worker: int
    fields: dict[str, Any]


class Room(msgspec.Struct, array_like=True, tag=17, gc=False):
    """A worker with a bounded mailbox has taken messages out."""

    worker: int
    dropped: int  # of the told messages since the last report, those that were dropped
    taken: int  # all that it has taken out so far
    own: int  # all that its own timers have put in so far


class Recycle(msgspec.Struct, array_like=True, tag=11, gc=False):
    """The worker uses more memory than it may: restart it."""

    worker: int


class RequestOfWorker(msgspec.Struct, array_like=True, tag=12, gc=False):
    """What the process of the worker at `path` requests of the program, over its connection of this number."""

    connection: int
    path: str
    request: WorkerFrame


class WorkerGone(msgspec.Struct, array_like=True, tag=13, gc=False):
    """A connection of a worker's process has ended."""

    connection: int


class View(msgspec.Struct, array_like=True, gc=False):
    """What is on a worker's slot of the status board; the times are ages in seconds."""

    worker: int
    pid: int
    phase: int
    since: float | None
    loops: int
    last_loop_time: float
    total_loop_time: float
    messages: int
    queued: int
    looping: bool
    started: float | None
    skipped: int
    oldest: float | None


class Pulse(msgspec.Struct, array_like=True, tag=14, gc=False):
    """The node is alive, and those of its workers look like that whose slots have changed. Sent all the time."""

    views: list[View]
    dropped: int  # of the log records of workers, those that were dropped since the last time, for lack of room


class Buried(msgspec.Struct, array_like=True, tag=15, gc=False):
    """Nothing is left on this machine of a node that has ended, whose directory this was."""

    directory: str


HubFrame: TypeAlias = (
    Spawn
    | Deliver
    | Finish
    | Suspend
    | Kill
    | Trace
    | Listen
    | ReadLines
    | DropUpTo
    | Inspect
    | LogLevels
    | LogsTaken
    | Forget
    | AnswerOfHub
    | Beat
    | Quit
    | Bury
    | StreamData
    | StreamEnd
)
NodeFrame: TypeAlias = (
    Welcome
    | Ready
    | Exited
    | MessageDone
    | Returned
    | Checkpoint
    | LogRecord
    | LogOutput
    | LogLines
    | LinesRead
    | Inspected
    | Figures
    | News
    | Traced
    | Recycle
    | Room
    | RequestOfWorker
    | WorkerGone
    | Pulse
    | Buried
    | StreamOpen
    | StreamData
    | StreamEnd
)

decode_hub_frame: Callable[[memoryview], HubFrame] = msgspec.msgpack.Decoder(HubFrame).decode
decode_node_frame: Callable[[memoryview], NodeFrame] = msgspec.msgpack.Decoder(NodeFrame).decode
