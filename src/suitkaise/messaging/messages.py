"""Messages and answers, as they travel between workers."""

from __future__ import annotations

import concurrent.futures
import contextlib
import re
import threading
import traceback
from collections.abc import Callable, Generator
from typing import Any, ClassVar, Generic, Literal, Protocol, TypeAlias, TypeVar, cast

from suitkaise.errors import AskTimeout, DeadlockError, WorkerFailed, with_note
from suitkaise.escapes import shortened
from suitkaise.exits import Crashed
from suitkaise.messaging import codec, wire
from suitkaise.messaging.bundle_tables import NOTHING, Known
from suitkaise.messaging.identity import awaits_alone, current_path, handles_alone, own_thread_of, reads_answers
from suitkaise.messaging.pieces import Pieces
from suitkaise.messaging.tracing import Carrier
from suitkaise.platform.callbacks import run_callback
from suitkaise.records import dataclass
from suitkaise.specs.options import is_number

__all__ = [
    "DEFAULT_TIMEOUT",
    "MOST",
    "MOST_BYTES",
    "STEP",
    "Answer",
    "Message",
    "MessageKind",
    "Origin",
    "Outcome",
    "Payload",
    "ReplyCallback",
    "Returned",
    "checked_timeout",
    "crash",
    "crash_and_answer",
    "portable_error",
    "undecodable",
    "value_of",
]


T = TypeVar("T")

MessageKind: TypeAlias = Literal["message", "call", "get", "signal"]
"""A message for `on_receive`, a method call or attribute access of a proxy, or the report of a link or monitor."""

MOST = 10_000
"""How many messages may wait for a worker that is being restarted."""

MOST_BYTES = 64 << 20
"""How many bytes of messages may wait for a process that is being restarted. (A thread gets the values themselves.)"""

DEFAULT_TIMEOUT = 5.0
"""Seconds."""

STEP = 0.1
"""Seconds after which a worker's wait for an answer may be a part of a deadlock, and after which it looks again."""

LARGEST_ERROR = 256 << 10
"""Bytes of an encoded error. An exit reason, which is kept, has only the text of a larger one; the asker gets it."""


def checked_timeout(timeout: float | None) -> float | None:
    """Validate a caller's timeout before any side effect (rule 45); return it in the form that locks accept.

    Raises:
        TypeError: it is neither a number nor None.
    """
    if timeout is None or timeout is DEFAULT_TIMEOUT:
        return timeout
    if not is_number(timeout):
        raise TypeError(f"timeout must be seconds, or None for ever, not {timeout!r}")
    return min(timeout, threading.TIMEOUT_MAX)


class Payload:
    """A value that is encoded and decoded only when the other form is needed."""

    __slots__ = ("_data", "_pieces", "_value")

    kind: ClassVar[str] = "message"
    """The first word of the path in an error about a part of the value that cannot be sent."""

    def __init__(self, value: Any = None, *, data: bytes | None = None) -> None:
        self._value = value
        self._data = data
        self._pieces: Pieces | None = None

    @property
    def encoded(self) -> bool:
        """Whether the value has to be decoded, which may run code of the user's."""
        return self._data is not None

    @property
    def size(self) -> int:
        """Bytes of the encoded form; 0 as long as there is none."""
        return len(self._data or self._pieces or b"")

    @property
    def value(self) -> Any:
        """The value itself.

        If it came as bytes, each access decodes them again. But a large one is decoded once: its buffers stay in the
        memory that they have arrived in.
        """
        data: Any = self._data
        if data is None:
            return self._value
        value = codec.loads(data)
        if type(data) is bytearray:
            self._value, self._data = value, None
        return value

    def peek(self) -> Any:
        """Return the value, for one who only looks: the message of a timer is not taken by that."""
        return self.value

    @property
    def data(self) -> bytes:
        """The encoded value.

        Raises:
            NotSerializable: it cannot be sent.
        """
        data = self.parts
        if isinstance(data, Pieces):
            data = bytes(data)
        self._data, self._pieces = data, None
        return data

    def keep(self) -> None:
        """Copy a value in pieces: from now on it may change."""
        if self._pieces is not None:
            self._data, self._pieces = bytes(self._pieces), None

    @property
    def parts(self) -> bytes | Pieces:
        """The encoded value; a large one in pieces that are its own memory: to be sent at once, before it may change.

        Raises:
            NotSerializable: it cannot be sent.
        """
        return self.parts_for(NOTHING)

    def parts_for(self, known: Known) -> bytes | Pieces:
        """Return the same for a connection whose ends both have the definitions that are `known`.

        Raises:
            NotSerializable: it cannot be sent.
        """
        data: bytes | Pieces | None = self._data or self._pieces
        if data is not None:
            return known.for_peer(data)
        if isinstance(self._value, BaseException):
            data = codec.dumps_error(self._value, root=self.kind)
        else:
            data = codec.dumps_in_pieces(self._value, root=self.kind, known=known)
        if len(data) > wire.MAX_PAYLOAD:
            wire.check_length(f"the {self.kind}", len(data))
        if isinstance(data, Pieces):
            self._pieces = data
        else:
            self._data = data
        return data


class Returned(Payload):
    """The answer that a handler has returned."""

    __slots__ = ()

    kind: ClassVar[str] = "answer"


ReplyCallback: TypeAlias = Callable[[bool, Payload], None]
"""Takes (True, the answer) or (False, the error)."""

Outcome: TypeAlias = tuple[bool, Payload]
"""(True, the answer) or (False, the error)."""


class Origin(Protocol):
    """A direct connection from another worker."""

    def send_back(self, message: Message) -> bool:
        """Send a message that was not handled back to its sender; return False for one that goes back to the hub."""
        ...


@dataclass(slots=True, eq=False)  # not frozen: that would double the time that making one takes
class Message:
    """A message of a tell (without `reply`) or an ask. A message is never changed. It is its own envelope in an inbox.

    `asker`: the path of the worker that has sent it, if another process than this one has. `carrier`: the sender's
    tracing context. `origin`: the direct connection by which it came. `deadline`: the time (monotonic) after which the
    asker waits no longer.
    """

    kind: MessageKind
    body: Payload
    reply: ReplyCallback | None = None
    asker: str = ""
    carrier: Carrier | None = None
    origin: Origin | None = None
    deadline: float | None = None

    reply_to: ClassVar[None] = None
    """What Pykka would set to the returned value: the worker's life cycle answers."""

    @property
    def message(self) -> Message:
        """What Pykka takes out of an envelope."""
        return self

    def fail(self, error: BaseException) -> None:
        """Answer with an error, if an answer is expected."""
        if self.reply is not None:
            self.reply(False, Payload(error))


class Asked(Protocol):
    """A ref to the worker that was asked."""

    path: str

    def _timed_out(self, timeout: float | None) -> AskTimeout:
        """Return the error for an answer that has not come in time, with what the worker is doing."""
        ...


class _Undecoded(Exception):
    """Stands for an answer, or an error, that is not decoded yet: `_Undecoded(payload)`."""

    @property
    def payload(self) -> Payload:
        """The encoded answer or error."""
        return cast("Payload", self.args[0])


_OPEN = ("PENDING", "RUNNING")
"""The states of a future without a result."""


class Answer(concurrent.futures.Future[T], Generic[T]):
    """The answer to an ask: wait for it with `get(timeout=...)`, or `await` it.

    It is a `concurrent.futures.Future`, so `result`, `add_done_callback` and `as_completed` work too. An answer from
    another process is decoded in the thread that first reads it.

    Callbacks of `add_done_callback` run one after the other, in a thread of their own: one that takes long delays
    others, and nothing else (rule 76). A callback that is added to a finished answer runs at once.

    >>> from suitkaise import Supervisor, Thread
    >>> class Count(Thread):
    ...     def on_receive(self, line: str) -> int:
    ...         return len(line.split())
    >>> with Supervisor("app", Count).start() as running:
    ...     answers = [running["count"].ask_future(line) for line in ("to be", "or not to be")]
    ...     print([answer.get(timeout=10.0) for answer in answers])
    [2, 4]
    """

    asked: Asked | None = None
    """The worker that was asked; None for another request."""

    waits_for: tuple[str, str] | None = None
    """For a request that waits for a worker: what the request does to it, and its path."""

    began: float | None = None
    """When it was asked for (monotonic), where a worker may wait for it."""

    def __init__(self) -> None:
        super().__init__()
        self._waiting: list[threading.Lock] = []  # each is released to wake a thread

    def done(self) -> bool:
        """Do what `concurrent.futures.Future.done` does, without its lock."""
        return self._state not in _OPEN

    def add_done_callback(self, fn: Callable[[concurrent.futures.Future[T]], object]) -> None:
        """Call `fn(answer)` in the thread for callbacks when the answer is there, or at once if it is there already."""
        if self.done() or getattr(fn, "__module__", "") == "asyncio.futures":  # which only wakes its event loop
            super().add_done_callback(fn)
        else:
            super().add_done_callback(lambda done: run_callback(lambda: fn(done)))

    def when_done(self, fn: Callable[[concurrent.futures.Future[T]], object]) -> None:
        """Call `fn(answer)`, which must not wait for anything, in the thread that sets the answer."""
        super().add_done_callback(fn)

    def get(self, timeout: float | None = DEFAULT_TIMEOUT) -> T:
        """Wait at most `timeout` seconds (default 5.0; None: for ever) for the answer.

        Raises:
            AskTimeout: no answer came in time; the error tells what the worker is doing.
            WorkerDead: the worker died before it answered.
            Exception: what the handler raised.
        """
        try:
            return self.result(checked_timeout(timeout))
        except concurrent.futures.TimeoutError:
            if self.done():  # the answer arrived just now, or is itself a TimeoutError
                return self.result(0)
            if self.asked is None:
                raise AskTimeout(f"no answer within {timeout} s") from None
            raise self.asked._timed_out(timeout) from None

    def __await__(self) -> Generator[Any, None, T]:
        import asyncio  # takes 35 ms: only an `await` pays for it

        self._refuse_deadlock(awaits=True)
        return asyncio.wrap_future(self).__await__()

    def _refuse_deadlock(self, timeout: float | None = None, *, awaits: bool = False) -> None:
        if reads_answers() and timeout != 0 and not self.done():
            raise DeadlockError("the thread that reads answers cannot wait for one; a `__del__` can only `tell`")
        if self.asked is not None and timeout != 0 and not self.done() and not (awaits and not awaits_alone()):
            refuse_own_ask(self.asked.path)

    def result(self, timeout: float | None = None) -> T:
        """Do what `concurrent.futures.Future.result` does. Raises TypeError if the timeout is no number."""
        timeout = checked_timeout(timeout)
        self._refuse_deadlock(timeout)
        if not self._wait(STEP if timeout is None or timeout > STEP else timeout):
            self._wait_after_step(timeout)
        self._decode_in_time()
        return super().result(0)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Do what `concurrent.futures.Future.exception` does. Raises TypeError if the timeout is no number."""
        timeout = checked_timeout(timeout)
        self._refuse_deadlock(timeout)
        if not self.done():
            self._wait(self._await(timeout))
        self._decode_in_time()
        return super().exception(0)

    def _decode_in_time(self) -> None:
        """Decode the answer. Raise TimeoutError if it is not there; it may come undecoded at any moment."""
        if not self.done():
            raise TimeoutError
        self._decode()

    def _wait(self, seconds: float | None) -> bool:
        """Wait at most `seconds` (None: for ever) until the answer is there; return whether it is.

        A wait of `concurrent.futures.Future` begins and ends with the future's lock. A signal handler that interrupts
        this thread there would hold up the thread that sets the answer, and with it all answers that come by that
        thread, also one for which the handler waits. So this takes no lock.
        """
        if self.done():
            return True
        woken = threading.Lock()
        woken.acquire()
        self._waiting.append(woken)  # first: an answer that comes from now on wakes this thread
        try:
            most = -1 if seconds is None else min(max(0.0, seconds), threading.TIMEOUT_MAX)
            return self.done() or woken.acquire(timeout=most) or self.done()
        finally:
            self._waiting.remove(woken)

    def _invoke_callbacks(self) -> None:  # called when the answer has been set
        for woken in tuple(self._waiting):
            with contextlib.suppress(RuntimeError):
                woken.release()
        super()._invoke_callbacks()  # type: ignore[misc]

    def _wait_after_step(self, timeout: float | None) -> bool:
        """Do the same after a first wait; only such a wait is looked at for a deadlock."""
        left = None if timeout is None else max(0.0, timeout - STEP)
        return self._wait(self._await(left) if left != 0.0 and not self.done() else left)

    def _await(self, timeout: float | None) -> float | None:
        """Wait where a deadlock is to be found; return the timeout that is left, or None for ever.

        Raises:
            DeadlockError: the answer cannot come, as workers wait for each other.
        """
        asked = ("asks", self.asked.path) if self.asked is not None else self.waits_for
        if asked is None or handles_alone() is None:
            return timeout
        from suitkaise.messaging.deadlocks import await_answer  # which needs the router, and that needs answers

        return None if await_answer(*asked, timeout, self._wait, self.began, 0.0) else 0.0

    def _get_snapshot(self) -> Any:  # asyncio calls it from Python 3.14 on
        if self.done() and not self.cancelled():
            self._decode()
        return super()._get_snapshot()  # type: ignore[misc]

    def _decode(self) -> None:
        """Decode the answer; if several threads do that at once, all of them use the first one's value."""
        ok = self._exception is None
        undecoded = self._result if ok else self._exception
        if not isinstance(undecoded, _Undecoded):
            return
        try:
            value = undecoded.payload.value
        except Exception as error:
            ok, value = False, undecodable("the answer", undecoded.payload, error)
        with self._condition:
            if undecoded is self._exception or undecoded is self._result:
                self._exception, self._result = (None, value) if ok else (value, None)  # in this order

    def outcome(self) -> tuple[bool, Payload]:
        """Return (True, the answer) or (False, the error) of a finished one undecoded, to be passed on."""
        ok = self._exception is None
        raw = self._result if ok else self._exception
        return ok, raw.payload if isinstance(raw, _Undecoded) else Payload(raw)

    def settle(self, ok: bool, payload: Payload) -> None:
        """Set the answer, or the error if not `ok`; ignore a second answer."""
        if self.done():
            return
        value: Any = _Undecoded(payload) if payload.encoded else payload.value
        try:
            if ok:
                self.set_result(value)
            else:
                self.set_exception(value)
        except concurrent.futures.InvalidStateError:  # lost a race against another answer
            return


def refuse_own_ask(path: str) -> None:
    """Raise DeadlockError if this thread must not wait for an answer of the worker at `path`."""
    own = own_thread_of()
    if not own.startswith(path):  # a background thread has a path below that of its worker
        return
    if own == path:
        raise DeadlockError(f"{own!r} asks itself, and would wait for its own answer for ever", path=path)
    if current_path() == path:
        raise DeadlockError(
            f"{own!r} asks {path!r}: a background thread cannot wait for its worker, which waits for it at the end; "
            f"tell it, and have it tell the answer",
            path=path,
        )


def value_of(ok: bool, payload: Payload) -> Any:
    """Return the value of an answer, or raise its error."""
    try:
        value = payload.value
    except Exception as error:
        raise undecodable("the answer", payload, error) from error
    if ok:
        return value
    raise value


def undecodable(what: str, payload: Payload, error: Exception) -> WorkerFailed:
    """Return the error for a value that cannot be decoded here, such as one of a class that cannot be imported."""
    name = codec.first_name(payload.data)
    if name:
        what = f"{what}, which has the type {name},"
    failed = WorkerFailed(f"{what} cannot be decoded here: {type(error).__name__}: {_text_of(error)}")
    failed.__cause__ = error
    return failed


def crash(phase: str, error: BaseException, path: str) -> Crashed:
    """Return the exit reason of a worker, at `path`, that this error has ended in that phase."""
    return _crashed(phase, error, path, *_encode(error))


def crash_and_answer(phase: str, error: BaseException, path: str) -> tuple[Crashed, BaseException]:
    """Return what `crash` returns, and the error for the asker whose message has led to it; format and encode once."""
    data, text = _encode(error)
    return _crashed(phase, error, path, data, text), with_note(_copy(error, path, data, text), text)


def _crashed(phase: str, error: BaseException, path: str, data: bytes | None, text: str) -> Crashed:
    if data is not None and len(data) > LARGEST_ERROR:
        data = None
    copy = _copy(error, path, data, text)
    if data is not None:
        return Crashed(phase, copy, text)
    return Crashed.undecoded(
        phase, text, f"{type(error).__name__} in {phase}: {shortened(_text_of(error))}", lambda: copy
    )


def portable_error(error: BaseException, path: str) -> tuple[BaseException, str]:
    """Return the error in a form that can be sent to another process, and its traceback as text, shortened.

    It is a copy, as another process would get it, if the error can be pickled and unpickled; else a `WorkerFailed`
    with the same text, shortened. The error itself would keep alive, by its traceback, all that a worker in a thread
    held (rule 64).
    """
    data, text = _encode(error)
    return _copy(error, path, data, text), text


def _encode(error: BaseException) -> tuple[bytes | None, str]:
    """Return the error encoded, if that is possible and a copy has the same text, and its traceback as text."""
    text = shortened("".join(traceback.format_exception(error)))
    try:
        data = codec.dumps(error)
        again = codec.loads(data)
        return data if type(again) is type(error) and _say_the_same(str(again), str(error)) else None, text
    except Exception as obstacle:  # the user's exception class may raise anything when it is copied
        return None, f"{text}(sent as text: {shortened(_text_of(obstacle))})\n"


def _say_the_same(one: str, other: str) -> bool:
    """Return whether two texts differ only in the addresses of objects, or in the order of a set."""
    if one == other:
        return True
    one, other = _ADDRESS.sub("", one), _ADDRESS.sub("", other)
    return one == other or (len(one) == len(other) < _LONG and sorted(one) == sorted(other))


_ADDRESS = re.compile(r"\b0x[0-9a-f]+")
_LONG = 10_000  # characters


def _copy(error: BaseException, path: str, data: bytes | None, text: str) -> BaseException:
    if data is None:
        return WorkerFailed(f"{type(error).__name__}: {shortened(_text_of(error))}", path=path, traceback=text)
    copy: BaseException = codec.loads(data)
    return copy


def _text_of(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as second:
        return f"its text could not be made: {type(second).__name__}"
