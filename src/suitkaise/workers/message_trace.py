"""The trace of one incarnation's messages: each as it was handled, for observers (`dbg` and `sys:trace` of Erlang).

While nobody traces, nothing of this is there: the trace puts methods of its own in front of those of the life cycle and
the mailbox, and takes them away again. What it reports is short, and there is a limit for each second, so a worker
that handles many messages is slowed a little and floods nobody.
"""

from __future__ import annotations

import reprlib
import select
import time
from collections.abc import Callable
from typing import Any

from suitkaise.escapes import encodable
from suitkaise.messaging.identity import current_path
from suitkaise.messaging.incoming import Incoming
from suitkaise.messaging.mailbox import Mailbox
from suitkaise.messaging.messages import Message, Payload
from suitkaise.platform.flag import Flag
from suitkaise.platform.log_queue import QueuedLogger
from suitkaise.platform.threads import DaemonThread
from suitkaise.workers.lifecycle import Lifecycle

__all__ = ["MOST_A_SECOND", "MessageTrace", "shown"]

logger: QueuedLogger = QueuedLogger("suitkaise.messages")

MOST_A_SECOND = 500
"""How many messages are reported a second; of further ones the next report tells the number."""

LONGEST = 120
"""Characters of a message or an answer that are shown."""

_PATIENCE = 500
"""Milliseconds after which the thread that notices arrivals looks whether it is still wanted."""

_short = reprlib.Repr()
_short.maxstring = _short.maxother = LONGEST


class MessageTrace:
    """Reports the messages that a worker handles, once it is switched on; `on` and `off` may be called by any thread.

    Args:
        lifecycle: handles the messages.
        mailbox: where they arrive.
        report: takes each report, in the worker's thread, or in the one that answers later. It must not block. A
            report has `number`, `at` (Unix time), `kind`, `sender` (a path; empty if it is not known), `message`,
            `waited` (seconds; None if it is not known), `skipped` (how many messages were not reported before it). When
            the handler has returned: `ran`. Then, or in a second report of that number: `answer` or `error`. `later`:
            the handler has returned, and the answer comes later.
    """

    def __init__(self, lifecycle: Lifecycle, mailbox: Mailbox, report: Callable[[dict[str, Any]], None]) -> None:
        self._lifecycle = lifecycle
        self._mailbox = mailbox
        self._report = report
        self._arrived: dict[int, tuple[float, str]] = {}
        self._since: float | None = None  # when the first input came that was not read yet
        self._reading = 0.0  # when the input has come that is read now
        self._read = Flag()
        self._is_on = False
        self._number = self._second = self._in_second = self._skipped = 0

    def on(self) -> None:
        """Begin to report."""
        if self._is_on:
            return
        self._is_on = True
        self._reading = time.monotonic()
        mailbox, lifecycle = self._mailbox, self._lifecycle
        mailbox.put = self._put  # type: ignore[method-assign]
        if mailbox.descriptor is not None:
            mailbox._take_from = self._take_from  # type: ignore[attr-defined]
            mailbox._collect = self._collect  # type: ignore[method-assign]
            DaemonThread(target=self._notice_arrivals, name="suitkaise-trace").start()
        lifecycle.receive = self._receive  # type: ignore[method-assign]

    def off(self) -> None:
        """Report no further message."""
        self._is_on = False
        for what in (self._mailbox, self._lifecycle):
            for name in ("put", "_take_from", "_collect", "receive"):
                what.__dict__.pop(name, None)
        self._arrived.clear()
        self._read.set()

    # ------------------------------------------------------------ arrivals
    def _put(self, message: Message) -> bool:
        socketed = self._mailbox.descriptor is not None
        at = self._reading if socketed else time.monotonic()
        self._arrived[id(message)] = at, message.asker or ("" if socketed else current_path())
        taken = type(self._mailbox).put(self._mailbox, message)
        if not taken:
            self._arrived.pop(id(message), None)
        return taken

    def _take_from(self, incoming: Incoming, messages: list[Message]) -> None:
        for message in messages:
            self._arrived[id(message)] = self._reading, message.asker
        type(self._mailbox)._take_from(self._mailbox, incoming, messages)  # type: ignore[attr-defined]

    def _collect(self) -> None:
        """Read all input; it has come when the thread has noticed it, or just now."""
        since = self._since
        self._reading = time.monotonic() if since is None else since
        type(self._mailbox)._collect(self._mailbox)
        self._since = None
        self._read.set()

    def _notice_arrivals(self) -> None:
        """Note when input comes: a worker reads its input between two loops, and a loop may take long."""
        descriptor = self._mailbox.descriptor
        if descriptor is None:
            return
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        while self._is_on and self._mailbox.descriptor is not None:
            if poll.poll(_PATIENCE):
                self._read.clear()
                self._since = time.monotonic() if self._since is None else self._since
                self._read.wait(_PATIENCE / 1000)

    # ------------------------------------------------------------ messages
    def _receive(self, message: Message) -> None:
        now = time.monotonic()
        arrived, sender = self._arrived.pop(id(message), (None, message.asker))
        self._number += 1
        if not self._may_report(now):
            type(self._lifecycle).receive(self._lifecycle, message)
            return
        waited = None if arrived is None else max(0.0, now - arrived)
        report: dict[str, Any] = {
            "number": self._number, "at": time.time(), "kind": _kind(message), "sender": sender,
            "message": _body(message), "waited": waited, "skipped": self._skipped,
        }  # fmt: skip
        self._skipped = 0
        answered: dict[str, Any] = {}
        returned = False
        reply = message.reply

        def traced(ok: bool, payload: Payload) -> None:
            answered["answer" if ok else "error"] = _value(payload)
            if returned:
                self._tell(report | answered | {"later": False, "ran": time.monotonic() - now, "skipped": 0})
            assert reply is not None
            reply(ok, payload)

        if reply is not None:
            message = Message(
                message.kind, message.body, traced, message.asker, message.carrier, message.origin, message.deadline
            )
        type(self._lifecycle).receive(self._lifecycle, message)
        outcome = self._lifecycle.outcome
        report["ran"] = time.monotonic() - now
        if outcome is not None and not outcome.reason.clean and not answered:
            answered["error"] = _text(lambda: str(outcome.reason), outcome.reason)
        report["later"] = reply is not None and not answered
        returned = report["later"]
        self._tell(report | answered)

    def _may_report(self, now: float) -> bool:
        if int(now) != self._second:
            self._second, self._in_second = int(now), 0
        self._in_second += 1
        if self._in_second > MOST_A_SECOND:
            self._skipped += 1
            return False
        return True

    def _tell(self, report: dict[str, Any]) -> None:
        if self._is_on:
            try:
                self._report(report)
            except Exception:  # the worker must not end because somebody looks
                self.off()
                logger.exception("%r: its trace ends: a report could not be sent", self._lifecycle.path)


def _kind(message: Message) -> str:
    if message.kind == "message":
        return "tell" if message.reply is None else "ask"
    return message.kind


def _body(message: Message) -> str:
    text = _value(message.body)
    if message.kind != "call":
        return text
    try:
        name, args, kwargs = message.body.value
    except Exception:
        return text
    words = [shown(one) for one in args] + [f"{key}={shown(value)}" for key, value in kwargs.items()]
    return _text(lambda: f"{name}({', '.join(words)})", name)


def _value(payload: Payload) -> str:
    try:
        value = payload.peek()
    except Exception as error:
        return f"<cannot be decoded here: {type(error).__name__}>"
    if isinstance(value, BaseException):
        return _text(lambda: f"{type(value).__name__}: {value}", value)
    return shown(value)


def shown(value: object) -> str:
    """Return a short text of a value, whatever its `repr` does.

    >>> shown(list(range(100)))
    '[0, 1, 2, 3, 4, 5, ...]'
    """
    return _text(lambda: _short.repr(value), value)


def _text(make: Callable[[], str], value: object) -> str:
    """Return a text of a value that can be encoded."""
    try:
        return encodable(make()[:LONGEST])
    except Exception as error:
        return f"<{type(value).__name__}, whose text cannot be made: {type(error).__name__}>"
