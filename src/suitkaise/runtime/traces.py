"""Traces of messages: of the workers for which observers ask, as long as they ask.

An observer asks again and again for the messages after a number, and the answer comes as soon as there are some. Each
request prolongs the trace for a while; when none waits and none has come for that time, the trace is switched off.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Any

from suitkaise.errors import SuitkaiseError
from suitkaise.messaging.address import Address
from suitkaise.messaging.answer import Answer
from suitkaise.messaging.messages import Payload
from suitkaise.platform.locks import RLock

__all__ = ["KEPT", "LEASE", "Traces"]

KEPT = 1_000
"""How many reports of a worker are kept for observers that are slow; the oldest are dropped."""

LEASE = 3.0
"""Seconds after the last request at which a trace is switched off."""


class Traces:
    """The traces of a program. `find` returns the address at a path, `call_at` calls a function at a monotonic time."""

    def __init__(self, find: Callable[[str], Address], call_at: Callable[[float, Callable[[], None]], object]) -> None:
        self._find = find
        self._call_at = call_at
        self._lock = RLock()
        self._traces: dict[str, _Trace] = {}
        self._past = 0  # the last number of all traces that have ended

    def after(self, path: str, number: int | None) -> Answer[dict[str, Any]]:
        """Return the reports after that number; None: return their number so far, at once, to begin with.

        Returns:
            `last`: the number for the next request. `reports`, see `MessageTrace`. `missed`: how many were dropped.
            `resumed`: the trace was switched off after that number, and is on again now.

        Raises:
            ChildNotFound: there is no worker at `path`.
            SuitkaiseError: it is a supervisor.
        """
        address = self._find(path)
        if address.kind == "supervisor":
            raise SuitkaiseError(f"{path!r} is a supervisor; it takes no messages", path=path)
        with self._lock:
            trace = self._traces.get(path)
            if trace is None or trace.address is not address:
                if trace is not None:
                    self._past = max(self._past, trace.last)
                trace = self._traces[path] = _Trace(address, self._past + 1)
                address.trace(trace.put)
            trace.wanted_until = time.monotonic() + LEASE
            answer = trace.after(number)
        self._call_at(trace.wanted_until, lambda: self._end_if_unwanted(path, trace))
        return answer

    def _end_if_unwanted(self, path: str, trace: _Trace) -> None:
        with self._lock:
            if self._traces.get(path) is not trace or trace.wanted_until > time.monotonic():
                return
            if trace.is_awaited:
                self._call_at(time.monotonic() + LEASE, lambda: self._end_if_unwanted(path, trace))
                return
            del self._traces[path]
            self._past = max(self._past, trace.last)
        trace.address.trace(None)


class _Trace:
    """The reports of one worker, and the observers that wait for more. They are numbered from `first` + 1 on."""

    def __init__(self, address: Address, first: int) -> None:
        self.address = address
        self.last = first
        self._first = first
        self.wanted_until = 0.0
        self._lock = RLock()
        self._reports: deque[dict[str, Any]] = deque(maxlen=KEPT)
        self._waiting: dict[Answer[dict[str, Any]], int] = {}

    @property
    def is_awaited(self) -> bool:
        return any(not answer.done() for answer in list(self._waiting))

    def put(self, report: dict[str, Any]) -> None:
        """Keep a report and pass it on; called in any thread."""
        with self._lock:
            self.last += 1
            self._reports.append(report)
            waiting, self._waiting = self._waiting, {}
            told = [(answer, self._since(number)) for answer, number in waiting.items()]
        for answer, news in told:
            answer.settle(True, Payload(news))

    def after(self, number: int | None) -> Answer[dict[str, Any]]:
        answer: Answer[dict[str, Any]] = Answer()
        with self._lock:
            news = self._since(self.last if number is None else number)
            if number is not None and not news["reports"] and not news["resumed"]:
                self._waiting = {one: since for one, since in self._waiting.items() if not one.done()}
                self._waiting[answer] = number
                return answer
        answer.settle(True, Payload(news))
        return answer

    def _since(self, number: int) -> dict[str, Any]:
        resumed, number = number < self._first, max(number, self._first)
        new = min(max(0, self.last - number), len(self._reports))
        reports = [self._reports[index] for index in range(len(self._reports) - new, len(self._reports))]
        return {"last": self.last, "reports": reports, "missed": max(0, self.last - number - new), "resumed": resumed}
