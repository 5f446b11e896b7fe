"""Messages and answers, as they travel between workers."""

from __future__ import annotations

import concurrent.futures
import logging
import threading
import traceback
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeAlias, TypeVar, cast

from suitkaise.errors import AskTimeout, WorkerFailed
from suitkaise.messaging import codec, wire
from suitkaise.specs.options import is_number

__all__ = ["Answer", "Kind", "Message", "Payload", "Reply", "checked_timeout", "portable_error"]

logger: logging.Logger = logging.getLogger("suitkaise.messages")

T = TypeVar("T")

Kind: TypeAlias = Literal["message", "call", "get", "signal"]
"""A plain message for `on_receive`, one of the two things that a proxy does, or what a link or monitor tells."""

DEFAULT_TIMEOUT = 5.0


def checked_timeout(timeout: float | None) -> float | None:
    """A caller's time-out as locks take it. To be asked before anything is done that a wrong one must not do (rule 45).

    Raises:
        TypeError: it is neither a number nor None.
    """
    if timeout is None:
        return None
    if not is_number(timeout):
        raise TypeError(f"timeout must be seconds, or None for ever, not {timeout!r}")
    return min(timeout, threading.TIMEOUT_MAX)


class Payload:
    """A value that is encoded and decoded only when somebody needs the other form."""

    __slots__ = ("_data", "_value")

    def __init__(self, value: Any = None, *, data: bytes | None = None) -> None:
        self._value = value
        self._data = data

    @property
    def encoded(self) -> bool:
        """Whether its value has to be decoded, which may run code of the user's."""
        return self._data is not None

    @property
    def size(self) -> int:
        """Bytes of its encoded form; 0 as long as it has none."""
        return 0 if self._data is None else len(self._data)

    @property
    def value(self) -> Any:
        """The value itself; each call decodes anew what came as bytes."""
        return self._value if self._data is None else codec.loads(self._data)

    @property
    def data(self) -> bytes:
        """The encoded value.

        Raises:
            NotSerializable: it cannot be sent.
        """
        if self._data is None:
            data = codec.dumps(self._value, root="message")
            wire.check_length("the message", len(data))
            self._data = data
        return self._data


Reply: TypeAlias = Callable[[bool, Payload], None]
"""Takes (True, the answer) or (False, the error)."""


@dataclass(slots=True, eq=False)  # not frozen: that would double the time that making one takes
class Message:
    """Something that was told (no `reply`) or asked. Nobody changes it."""

    kind: Kind
    body: Payload
    reply: Reply | None = None

    def fail(self, error: BaseException) -> None:
        """Answer with an error, if somebody waits for an answer."""
        if self.reply is not None:
            self.reply(False, Payload(error))


class _Sealed(Exception):
    """Stands for an answer, or an error, that nobody has decoded yet: `_Sealed(parcel)`."""

    @property
    def parcel(self) -> Payload:
        """What came."""
        return cast("Payload", self.args[0])


class Answer(concurrent.futures.Future[T], Generic[T]):
    """The answer to an ask: wait for it with `get(timeout=...)`, or `await` it.

    It is a `concurrent.futures.Future`, so `result`, `add_done_callback` and `as_completed` work too. What came from
    another process is decoded in the thread that first asks for it.

    A callback of `add_done_callback` runs in the thread that took the answer in, which is mostly the program's one I/O
    thread: all messages, deaths and restarts wait for it, so it has to be short, and must not wait for anything.
    (Hand it on: `answer.add_done_callback(queue.put)`; or `await` the answer.)
    """

    def get(self, timeout: float | None = DEFAULT_TIMEOUT) -> T:
        """Wait at most `timeout` seconds (default 5.0; None: for ever) for the answer.

        Raises:
            AskTimeout: none came in time.
            WorkerDead: the worker died before it answered.
            Exception: what the handler raised.
        """
        try:
            return self.result(checked_timeout(timeout))
        except concurrent.futures.TimeoutError as error:
            if self.done():  # it came just now, or is itself a TimeoutError
                return self.result(0)
            raise AskTimeout(f"no answer within {timeout} s") from error

    def __await__(self) -> Generator[Any, None, T]:
        import asyncio  # 35 ms: only who awaits pays for it

        return asyncio.wrap_future(self).__await__()

    def result(self, timeout: float | None = None) -> T:
        """What `concurrent.futures.Future.result` says."""
        try:
            value = super().result(timeout)
            if not isinstance(value, _Sealed):
                return value
        except _Sealed:
            pass
        self._open()
        return cast("T", self._result) if self._exception is None else super().result(0)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """What `concurrent.futures.Future.exception` says."""
        super().exception(timeout)
        self._open()
        return self._exception

    def _get_snapshot(self) -> Any:  # how asyncio looks at it from Python 3.14 on
        if self.done() and not self.cancelled():
            self._open()
        return super()._get_snapshot()  # type: ignore[misc]

    def _open(self) -> None:
        """Decode what came sealed; if several threads do that at once, all take the first one's."""
        ok = self._exception is None
        sealed = self._result if ok else self._exception
        if not isinstance(sealed, _Sealed):
            return
        try:
            value = sealed.parcel.value
        except Exception as error:
            ok, value = False, error
        with self._condition:
            if sealed is self._exception or sealed is self._result:
                self._exception, self._result = (None, value) if ok else (value, None)  # in this order

    def outcome(self) -> tuple[bool, Payload]:
        """Of a finished one: as it came, to be passed on; (True, the answer) or (False, the error)."""
        ok = self._exception is None
        raw = self._result if ok else self._exception
        return ok, raw.parcel if isinstance(raw, _Sealed) else Payload(raw)

    def settle(self, ok: bool, parcel: Payload) -> None:
        """Take the answer in; a second one is ignored."""
        if self.done():
            return
        value: Any = _Sealed(parcel) if parcel.encoded else parcel.value
        try:
            if ok:
                self.set_result(value)
            else:
                self.set_exception(value)
        except concurrent.futures.InvalidStateError:  # lost a race against another answer
            return
        except SystemExit:  # in a callback of the user's; this thread serves others, too
            logger.exception("a callback wanted to exit")


def portable_error(error: BaseException, path: str) -> tuple[BaseException, str]:
    """The error in a form that survives the way to another process, and its traceback as text.

    It is a copy, as another process would get it, where it can be pickled and unpickled; else a `WorkerFailed` that
    says the same. The error itself would keep alive, by its traceback, all that a worker in a thread held (rule 64).
    """
    text = "".join(traceback.format_exception(error))
    try:
        again = codec.loads(codec.dumps(error))
        if type(again) is type(error) and str(again) == str(error):
            return again, text
    except Exception as obstacle:  # whatever the user's exception class does when it is copied
        text = f"{text}(it travels as text: {_said_by(obstacle)})\n"
    return WorkerFailed(f"{type(error).__name__}: {_said_by(error)}", path=path, traceback=text), text


def _said_by(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as second:
        return f"its text could not be made: {type(second).__name__}"
