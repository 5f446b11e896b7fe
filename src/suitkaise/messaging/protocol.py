"""Everything that workers send through `hub.sock` and to each other: typed headers of frames, see `wire`.

A worker's process connects to `hub.sock` when it uses a ref for the first time. It sends `Tell`, `Ask`, `HubRequest`,
`AdminRequest`, `Connect` and `Withdraw`, numbered in ascending order per connection; the hub sends one `HubAnswer` for
each number, in any order (none for `Withdraw`). The payloads are values that `codec` has encoded. In the hub's own
process refs use the same requests without frames, see `router.Router`.

A frame that does not decode ends the connection: hub and workers are of one program, so nothing is negotiated.
"""

# Without `from __future__ import annotations`: msgspec compiles each annotation that is a text, 1 ms at each start.
import enum
from collections.abc import Callable
from typing import Literal, TypeAlias

import msgspec

__all__ = [
    "AdminAction",
    "AdminRequest",
    "Ask",
    "Connect",
    "ControlKind",
    "DirectAnswer",
    "DirectFrame",
    "DirectKind",
    "DirectMessage",
    "DirectReturn",
    "GroupAction",
    "HubAnswer",
    "HubRequest",
    "MessageKind",
    "RequestKind",
    "Tell",
    "TopicAction",
    "UserMessageKind",
    "Withdraw",
    "WorkerFrame",
    "decode_answer",
    "decode_direct",
    "decode_direct_answer",
    "decode_request",
    "decode_several",
    "encode_several",
]

MessageKind: TypeAlias = Literal["message", "call", "get", "signal"]
"""A message for `on_receive`, a method call or attribute access of a proxy, or the report of a link or monitor."""

UserMessageKind: TypeAlias = Literal["message", "call", "get"]
"""The kinds of messages that a worker may send through the hub.

The fourth, `signal`, comes from the hub: the report of a link or monitor, or what is published. A thread that publishes
sends it itself to a worker with which it has a direct connection.
"""


DirectKind: TypeAlias = Literal["message", "call", "get", "signal", "several"]
"""What goes over a direct connection: a message, or several, see `DirectMessage`."""


class RequestKind(enum.StrEnum):
    """What a ref or a worker can request about the worker or supervisor at a path; each with argument and answer."""

    INFO = "info"  # -> (status, pid, incarnation, kind), at once
    FIND = "find"  # -> (path, kind), at once
    JOIN = "join"  # -> the exit reason, after the last incarnation has ended
    RESULT = "result"  # -> what the worker's `result()` returned, after the last incarnation has ended
    STATS = "stats"  # -> (pid, incarnation, seconds since its start, the last view of its slot), at once
    DOING = "doing"  # -> a `Doing`: its status, phase and waiting messages, at once
    DOWN = "down"  # -> a `Down`, after the incarnation that lives now has ended
    WAIT = "wait"  # owner, verb, time, token -> the next token, if workers wait for each other, see `deadlocks`
    ENDED = "ended"  # a serial number -> the exit reason, after the incarnation of that number has ended

    KILL = "kill"  # -> None, at once; a fault, so the supervisor may restart the worker
    REJOIN = "rejoin"  # the `drain` -> None, at once; the worker finishes and stays stopped
    RECALL = "recall"  # -> the ref, after the worker has started again

    MONITOR = "monitor"  # a `Monitor` -> None; the `Down` comes later as a message
    DEMONITOR = "demonitor"  # a `Monitor` -> None
    LINK = "link"  # the owner of the calling incarnation -> None
    UNLINK = "unlink"  # the owner of the calling incarnation -> None
    TRAP_EXITS = "trap_exits"  # the owner of the calling incarnation, whether -> None; the path is the caller's

    NAMES = "names"  # -> a list of (path, kind) of all that the path, a pattern, names, at once
    DEAD_LETTER = "dead letter"  # (why, how many) told messages did not get to the worker at the path -> None
    GROUP = "group"  # a `GroupAction` and its argument -> as listed there, at once; the path is the group's name
    TOPIC = "topic"  # a `TopicAction` and its argument -> as listed there, at once; the path is the topic or pattern

    RESOURCE_TRACKER = "resource tracker"  # -> pid and descriptor of the program's, see `engines.shared_tracker`
    OVERVIEW = "overview"  # -> what the program and its trees are doing, see `runtime.overview`; the path is empty
    EVENTS = "events"  # a number -> the events after it, see `runtime.event_history`; the path is empty
    LOGS = "logs"  # which lines -> those at the path and below it, see `runtime.log_requests`
    PROFILE = "profile"  # seconds, looks a second -> a profile, after them, see `runtime.threads`
    STACKS = "stacks"  # -> where the threads of the program are that belong to the path, at once, see `runtime.threads`
    INSPECT = "inspect"  # what, its arguments -> the answer of a process on a node, see `engines.inspection`
    TRACE = "trace"  # a number, or None -> the messages handled after it, when there are some, see `runtime.traces`
    STORAGE_READ = "storage read"  # what is read, and of what -> what is there, see `storage.backends.remote_reader`
    STORAGE_ADDRESS = "storage address"  # -> what leads another machine to its server, if there is one; no path
    STORAGE = "storage"  # -> the directory of the program's storage, after its start; the path is empty


ControlKind: TypeAlias = Literal[RequestKind.KILL, RequestKind.REJOIN, RequestKind.RECALL]
"""The requests that the supervisor of the worker at the path carries out."""


class GroupAction(enum.StrEnum):
    """What can be requested of a group, see `groups`."""

    JOIN = "join"  # the owner of the calling incarnation -> None
    LEAVE = "leave"  # the owner of the calling incarnation -> None
    MEMBERS = "members"  # -> the paths of the members
    NEXT = "next"  # the path of the calling worker -> the path of another member, each in turn
    TELL = "tell"  # the message, paths in use -> to how many members it was sent, and the paths left to the caller


class TopicAction(enum.StrEnum):
    """What can be requested of a topic, see `topics`."""

    SUBSCRIBE = "subscribe"  # the owner of the calling incarnation, how many messages may wait for it -> None
    UNSUBSCRIBE = "unsubscribe"  # the owner of the calling incarnation -> None
    PUBLISH = "publish"  # the message, paths in use -> how many have got it, those left: (owner, how many may wait)
    OFFER = "offer"  # the message, owner, how many may wait -> whether it was sent to this subscriber


class AdminAction(enum.StrEnum):
    """What can be requested of the supervisor at a path, see `supervisor_ref.Administration`."""

    START_CHILD = "start_child"  # a `Child` -> its ref, after its start
    TERMINATE_CHILD = "terminate"  # an id, or an id and the `drain` -> None, after the child's end
    KILL_CHILD = "kill"  # an id -> None, after the child's end
    RESTART_CHILD = "restart"  # an id -> the ref, after the child's start
    RECALL_CHILD = "recall"  # an id -> the ref, after the child's start
    DELETE_CHILD = "delete"  # an id -> None
    SUSPEND = "suspend"  # an id -> None
    RESUME = "resume"  # an id -> None
    WHICH_CHILDREN = "which_children"  # -> a list of `ChildLine`, at once
    COUNT_CHILDREN = "count_children"  # -> `Counts`, at once
    GET_CHILD_SPEC = "get_child_spec"  # an id -> the `Child`, at once


# ------------------------------------------------------------ worker -> hub
class Tell(msgspec.Struct, array_like=True, tag=0, gc=False):
    """Worker -> hub: deliver the payload, a message, to the worker at `path`.

    Answered with True when the hub has accepted the message, with False when it was dropped for lack of room, or with
    the error why it has not.
    """

    number: int
    kind: UserMessageKind
    path: str
    carrier: dict[str, str] | None = None  # the sender's tracing context
    waits: bool = True  # while the mailbox of the worker has no room; `Withdraw` ends that
    awaited: bool = True  # by the sender, who learns of a refusal; else it is a dead letter


class Ask(msgspec.Struct, array_like=True, tag=1, gc=False):
    """Worker -> hub: deliver the payload, a message, to the worker at `path`, and pass its answer back.

    Answered with what the handler of the message returned or raised, or with the error why it was not delivered.
    """

    number: int
    kind: UserMessageKind
    path: str
    carrier: dict[str, str] | None = None  # the sender's tracing context
    deadline: float | None = None  # the time (monotonic) after which the asker waits no longer


class HubRequest(msgspec.Struct, array_like=True, tag=2, gc=False):
    """Worker -> hub: carry out a request about the worker at `path`; the payload is the argument.

    Answered as `RequestKind` lists it, at once or later.
    """

    number: int
    kind: RequestKind
    path: str


class AdminRequest(msgspec.Struct, array_like=True, tag=3, gc=False):
    """Worker -> hub: have the supervisor at `path` carry out `action`; the payload is the argument.

    Answered as `AdminAction` lists it. The hub decodes the payload, which may hold a declaration of the user's, in a
    thread of its own, since user code may block.
    """

    number: int
    action: AdminAction
    path: str
    carrier: dict[str, str] | None = None  # the sender's tracing context, for a child that is started


class Withdraw(msgspec.Struct, array_like=True, tag=4, gc=False):
    """Worker -> hub: the answer to request `number` is no longer wanted, forget the request.

    Not answered; but a `Tell` that waits for room is answered with the error that there is none.
    """

    number: int


class Connect(msgspec.Struct, array_like=True, tag=5, gc=False):
    """Worker -> hub: connect this process directly with the worker at `path`.

    Answered with None if that is not possible now; else with the index of the worker's slot on the status board, the
    serial number of its incarnation and the number of the connection (see `ConnectionCounts`), and with the answer
    goes one end of a connection. The other end goes to the worker (`AcceptConnection`), behind all messages that the
    hub has accepted for it.
    """

    number: int
    path: str


WorkerFrame: TypeAlias = Tell | Ask | HubRequest | AdminRequest | Withdraw | Connect
"""What a worker's process sends to the hub."""


# ------------------------------------------------------------ hub -> worker
class HubAnswer(msgspec.Struct, array_like=True, gc=False):
    """Hub -> worker: the answer to request `number`. The payload is the value, or the error if not `ok`."""

    number: int
    ok: bool
    connected: bool = False  # a connection goes with this frame


# ------------------------------------------------------------ worker -> worker, over a connection that the hub has made
class DirectMessage(msgspec.Struct, array_like=True, gc=False):
    """Asker -> asked: handle the payload, a message. With a number, `DirectAnswer` or `DirectReturn` answers it.

    The payload of `several` are the small messages of a burst that were told one after the other (`encode_several`):
    each is a payload of the kind `message`.
    """

    kind: DirectKind
    number: int | None
    carrier: dict[str, str] | None = None
    deadline: float | None = None  # the time (monotonic) after which the asker waits no longer


class DirectAnswer(msgspec.Struct, array_like=True, tag=0, gc=False):
    """Asked -> asker: the answer to message `number`. The payload is the value, or the error if not `ok`."""

    number: int
    ok: bool


class DirectReturn(msgspec.Struct, array_like=True, tag=1, gc=False):
    """Asked -> asker: this incarnation ends and has not handled the message, which is for the next one (rule 72).

    The sender sends it again through the hub. Messages without a number come back only behind one with a number: the
    others the hub gets (`ReturnMessage`).
    """

    kind: UserMessageKind
    number: int | None
    carrier: dict[str, str] | None = None
    deadline: float | None = None  # the time (monotonic) after which the asker waits no longer


DirectFrame: TypeAlias = DirectAnswer | DirectReturn
"""What a worker sends back to a worker that has sent it messages."""

encode_several: Callable[[list[bytes]], bytes] = msgspec.msgpack.Encoder().encode
decode_several: Callable[[bytes], list[bytes]] = msgspec.msgpack.Decoder(list[bytes]).decode
decode_request: Callable[[memoryview], WorkerFrame] = msgspec.msgpack.Decoder(WorkerFrame).decode
decode_answer: Callable[[memoryview], HubAnswer] = msgspec.msgpack.Decoder(HubAnswer).decode
decode_direct: Callable[[memoryview], DirectMessage] = msgspec.msgpack.Decoder(DirectMessage).decode
decode_direct_answer: Callable[[memoryview], DirectFrame] = msgspec.msgpack.Decoder(DirectFrame).decode
