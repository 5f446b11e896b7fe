"""The workers of a pool, as they run: each takes one task after the other and sends its answer."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import threading
from collections.abc import Callable
from typing import Any, Protocol

from suitkaise.errors import Reject, with_note
from suitkaise.messaging import codec
from suitkaise.messaging.held_back import send_held
from suitkaise.messaging.portable_errors import portable_error
from suitkaise.pools.channel import ANSWER, CHUNK, ERROR, MIXED, Channel, Data
from suitkaise.specs.recipe import Recipe
from suitkaise.workers.hooks import build, give_name, hook_of
from suitkaise.workers.incarnation import ExitWith, ForceFinish
from suitkaise.workers.worker import Process, Thread, Worker

__all__ = ["Hosted", "Inbox", "ProcessRunner", "ThreadRunner", "host"]

_ORDERS = (ForceFinish, ExitWith)
"""Raised to end the worker itself, and no failure of a task."""


class _Runner(Worker):
    """The common part of both kinds: the initializer, and the worker object of the user's that it may make."""

    def __init__(self, initializer: Callable[..., object] | None, initargs: tuple[Any, ...]) -> None:
        self._initializer = initializer
        self._initargs = initargs
        self._hosted: Any = None

    def on_start(self) -> None:
        _here.runner = self
        if self._initializer is not None:
            self._initializer(*self._initargs)

    def on_finish(self) -> None:
        finish = None if self._hosted is None else hook_of(self._hosted, "on_finish")
        if finish is not None:
            finish()


_here = threading.local()


def host(recipe: Recipe, initializer: Callable[..., object] | None, initargs: tuple[Any, ...]) -> None:
    """Initialize a worker of a pool that is to answer with a worker object of the user's."""
    if initializer is not None:
        initializer(*initargs)
    runner: _Runner = _here.runner
    context = runner._worker_context
    assert context is not None
    worker = build(recipe, context)
    give_name(worker, context.path)
    start = hook_of(worker, "on_start")
    if start is not None:
        start()
    runner._hosted = worker


class Hosted:
    """The function of a pool whose workers answer with a worker object of the user's; errors name its method."""

    def __init__(self, worker: str) -> None:
        self.__name__: str = f"{worker}.on_receive"
        self.__qualname__: str = self.__name__

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return _here.runner._hosted.on_receive(*args, **kwargs)
        except Reject as refusal:  # the asker gets the error itself, as that of an ask does
            raise refusal.error from None

    def __repr__(self) -> str:
        return self.__qualname__


class ProcessRunner(_Runner, Process):
    """Runs tasks in a process of its own, in its main thread."""

    def __init__(
        self, channel: socket.socket, initializer: Callable[..., object] | None, initargs: tuple[Any, ...]
    ) -> None:
        super().__init__(initializer, initargs)
        self._channel = Channel(channel)

    def on_start(self) -> None:
        self._process = os.getpid()
        super().on_start()

    def before_loop(self) -> None:
        """Wait for the next task, or for anything else that the worker has to look at."""
        self._next = self._channel.receive()
        if self._next is None:
            assert self._worker_context is not None
            self._worker_context.wait_in(self._wait)
            self._next = self._channel.receive()

    def _wait(self, *descriptors: int) -> None:
        poll = select.poll()
        for descriptor in (self._channel.fileno(), *descriptors):
            poll.register(descriptor, select.POLLIN)
        poll.poll()

    def loop(self) -> None:
        """Run the task."""
        if self._next is None:
            return
        (kind, number, data), self._next = self._next, None
        try:
            kind, answer = self._run_chunk(data) if kind == CHUNK else (ANSWER, codec.dumps(_run(data), root="result"))
        except _ORDERS:
            raise
        except BaseException as error:
            kind, answer = ERROR, self._encoded(error)
        if os.getpid() == self._process:  # else the task has forked, and this is the copy
            send_held()
            self._channel.send(kind, number, answer, wait=True)

    def _run_chunk(self, data: Data) -> tuple[int, bytes]:
        function, items = codec.loads(data)
        values: list[Any] = []
        errors: dict[int, bytes] = {}
        append, rest = values.append, iter(items)
        while True:
            try:
                for item in rest:
                    append(function(*item))
                break
            except _ORDERS:
                raise
            except BaseException as error:
                errors[len(values)] = self._encoded(error)
                append(None)
        if not errors:
            with contextlib.suppress(Exception):  # below it is found out which of them cannot be sent
                return ANSWER, codec.dumps(values, root="results")
        sent = [self._sent(index, value, errors) for index, value in enumerate(values)]
        return MIXED, codec.dumps((sent, errors))

    def _sent(self, index: int, value: Any, errors: dict[int, bytes]) -> bytes:
        try:
            return codec.dumps(value, root="result")
        except Exception as error:
            errors[index] = self._encoded(error)
            return b""

    def _encoded(self, error: BaseException) -> bytes:
        assert self._worker_context is not None
        portable, text = portable_error(error, self._worker_context.path)
        return codec.dumps_error(with_note(portable, text))


def _run(data: Data) -> Any:
    function, args, kwargs = codec.loads(data)
    return function(*args, **kwargs)


class Inbox(Protocol):
    """Where a thread of a pool gets its tasks, and leaves their results."""

    def next(self) -> Any:
        """Return the next task; None if none waits."""

    def finished(self, task: Any, value: Any, error: BaseException | None) -> None:
        """Take the result of a task."""


class ThreadRunner(_Runner, Thread):
    """Runs tasks in a thread of the program; each message is a wake-up."""

    def __init__(self, inbox: Inbox, initializer: Callable[..., object] | None, initargs: tuple[Any, ...]) -> None:
        super().__init__(initializer, initargs)
        self._inbox = inbox

    def on_receive(self, message: Any) -> None:
        """Run tasks until none waits, or the worker is asked to stop."""
        context, inbox = self._worker_context, self._inbox
        assert context is not None
        while context.stop_reason is None and (task := inbox.next()) is not None:
            _run_in_thread(inbox, task)
            del task  # or the last one is kept alive until the next


def _run_in_thread(inbox: Inbox, task: Any) -> None:
    value, failure = None, None
    try:
        value = task.call(*task.args, **task.kwargs)
    except _ORDERS:
        raise
    except BaseException as error:
        failure = error
    send_held()
    inbox.finished(task, value, failure)
    del failure, value, task, inbox
