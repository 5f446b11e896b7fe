"""Answers that come after their handler has returned (OTP's `gen_server:reply`).

A handler returns a future, and the asker gets what the future gets; or it keeps `self.reply_to()`, and any thread of
the worker answers. A worker that ends with answers still to come tells `WorkerDead` to each asker.
"""

from __future__ import annotations

import concurrent.futures
import time
from collections.abc import Callable
from functools import partial
from typing import Any, NoReturn

from suitkaise.errors import Reject, SuitkaiseError, WorkerFailed, with_note
from suitkaise.messaging.answer import Answer
from suitkaise.messaging.held_back import holders, send_held
from suitkaise.messaging.messages import Message, Payload, Returned
from suitkaise.messaging.portable_errors import portable_error, text_of

__all__ = ["Replies", "ReplyTo", "send_answer"]


class Replies:
    """The messages of one incarnation whose answers are still to come. `path` is the worker's path.

    The first of all answers to a message counts; to take a message out is one atomic operation, so there is no lock.
    """

    def __init__(self, path: str) -> None:
        self.handled: Message | None = None
        """The message whose handler runs."""
        self._path = path
        self._waiting: dict[int, Message] = {}
        self.deferred: set[int] = set()
        """The messages whose handlers have called `reply_to` and run still: their numbers (`id`)."""

    def defer(self, message: Message) -> ReplyTo:
        """Have the handler's return value not be the answer; return what sends the answer."""
        if id(message) not in self.deferred:  # else it may be answered already
            self.deferred.add(id(message))
            if message.reply is not None:
                self._waiting[id(message)] = message
        return ReplyTo(self, message)

    def settle(self, message: Message, value: Any) -> None:
        """Answer with the value that a handler has returned; if it is a future, with what the future gets."""
        if self.deferred and id(message) in self.deferred:
            self.deferred.discard(id(message))
        elif message.reply is None:
            return
        elif isinstance(value, concurrent.futures.Future) and message.kind != "get":
            self.follow(message, value.when_done if isinstance(value, Answer) else value.add_done_callback)
        else:
            send_answer(message, True, Returned(value))

    def refuse(self, message: Message, error: BaseException) -> None:
        """Answer with an error that the handler has raised, which the worker survives."""
        self.deferred.discard(id(message))
        self.take(message)
        message.fail(portable_error(self._of_the_ask(error), self._path)[0])

    def follow(self, message: Message, add_done_callback: Callable[[Callable[[Any], Any]], Any]) -> None:
        """Answer with what a future gets."""
        self._waiting[id(message)] = message
        add_done_callback(partial(self._pass_on, message))

    def _pass_on(self, message: Message, future: Any) -> None:
        if not self.take(message):
            return
        if isinstance(future, Answer) and not future.cancelled():
            send_answer(message, *future.outcome())
        elif future.cancelled():
            self.fail(message, concurrent.futures.CancelledError(f"{self._path!r} has cancelled the answer"))
        elif (error := future.exception()) is not None:
            self.fail(message, error)
        else:
            send_answer(message, True, Returned(future.result()))

    def fail(self, message: Message, error: BaseException | type[BaseException] | str) -> None:
        """Answer with an error, in a form that can be sent."""
        portable, text = portable_error(self._of_the_ask(error), self._path)
        message.fail(with_note(portable, text))

    def _of_the_ask(self, error: BaseException | type[BaseException] | str) -> Exception:
        """Return the error for the asker, which a `SystemExit` would end, and a `CancelledError` while it awaits."""
        error = error.error if isinstance(error, Reject) else Reject(error).error  # a class is called, as by `raise`
        if isinstance(error, Exception) and not isinstance(error, concurrent.futures.CancelledError):
            return error
        return WorkerFailed(f"{type(error).__name__}: {text_of(error)}", path=self._path)

    def take(self, message: Message) -> bool:
        """Return whether the message is still to be answered, and leave that to the caller."""
        return self._waiting.pop(id(message), None) is not None

    @property
    def open(self) -> bool:
        """Whether some answers may come from elsewhere than the handler that runs."""
        return bool(self._waiting)

    def waits(self, message: Message) -> bool:
        """Return whether the message is still to be answered."""
        return id(message) in self._waiting

    def take_all(self) -> list[Message]:
        """Remove and return all messages that are still to be answered: the worker ends, or was abandoned."""
        left = []
        while self._waiting:
            try:
                left.append(self._waiting.popitem()[1])
            except KeyError:  # answered by another thread meanwhile
                break
        return left


class ReplyTo:
    """Answers one message after its handler has returned; `self.reply_to()` makes it. Any thread of the worker may."""

    __slots__ = ("_message", "_replies")

    def __init__(self, replies: Replies, message: Message) -> None:
        self._replies = replies
        self._message = message

    @property
    def wanted(self) -> bool:
        """Whether an answer is still expected: the message was asked and not answered yet, and the worker lives.

        That of an `ask` is expected until its `timeout`.
        """
        deadline = self._message.deadline
        return self._replies.waits(self._message) and (deadline is None or time.monotonic() <= deadline)

    def reply(self, value: Any = None) -> None:
        """Give the asker this value. Only the first answer counts; a message that was told has no asker."""
        if self._replies.take(self._message):
            send_answer(self._message, True, Returned(value))

    def fail(self, error: Exception | type[Exception] | str) -> None:
        """Have the asker's call raise this error, or what `Reject` makes of it; the worker goes on."""
        if self._replies.take(self._message):
            self._replies.fail(self._message, error)

    def __reduce__(self) -> NoReturn:
        raise TypeError("reply_to() answers from its own process only; send the other worker a ref of this one")


def send_answer(message: Message, ok: bool, payload: Payload) -> None:
    """Answer a message that was asked; a value that cannot be sent is an error of the ask, not of the worker."""
    assert message.reply is not None
    if holders:
        send_held()
    try:
        message.reply(ok, payload)
    except SuitkaiseError as error:
        message.fail(error)
