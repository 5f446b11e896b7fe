"""What a supervisor does in several steps: a job is a generator that yields the children whose next event it needs."""

from __future__ import annotations

import inspect
from collections import deque
from collections.abc import Generator, Mapping
from typing import TypeAlias

from suitkaise.policy.actions import ChildRequest
from suitkaise.policy.children import ChildPhase, ChildState

__all__ = ["Job", "JobQueue"]

Job: TypeAlias = Generator[Mapping[str, ChildState], ChildState, None]
"""A generator of a job: it yields children that start or stop, by id, and is sent the first that no longer does.

One that never waits starts with `yield from ()`: its body still runs when its turn comes.
"""


_BUSY = (ChildPhase.STARTING, ChildPhase.STOPPING)
_NONE: Mapping[str, ChildState] = {}


class JobQueue:
    """Runs jobs one at a time, in order. A job that serves a request is queued together with that request."""

    def __init__(self) -> None:
        self._jobs: deque[tuple[ChildRequest | None, Job]] = deque()
        self._job: Job | None = None
        self._request: ChildRequest | None = None
        self.awaited: Mapping[str, ChildState] = _NONE  # the children for whose next event the running job waits

    def add(self, job: Job, request: ChildRequest | None = None) -> None:
        """Append a job."""
        self._jobs.append((request, job))

    def add_first(self, job: Job) -> None:
        """Queue a job ahead of all others."""
        self._jobs.appendleft((None, job))

    def run(self, id: str | None = None) -> bool:
        """Run jobs one after the other until one has to wait for a child; return whether any are left.

        `id`: of the child that the event is about, which has changed no other child that starts or stops. So many
        children that start or stop together need no look at all of them at each event.
        """
        news = None
        if self._job is not None:
            news = self.awaited.get(id) if id is not None else None
            if news is None or news.phase in _BUSY:
                return True
        while True:
            if self._job is None:
                if not self._jobs:
                    return False
                self._request, self._job = self._jobs.popleft()
            job = self._job
            self.awaited = _NONE
            try:
                awaited = next(job) if news is None else job.send(news)
            except StopIteration:
                if self._job is job:  # a job may clear the queue
                    self._job = self._request = None
            else:
                if self._job is job:
                    self.awaited = awaited
                    return True
            news = None

    def clear(self) -> list[ChildRequest]:
        """Drop all jobs, the running one included; return their requests, which still need an answer."""
        waiting = [self._request, *(request for request, _ in self._jobs)]
        if self._job is not None and inspect.getgeneratorstate(self._job) != inspect.GEN_RUNNING:
            self._job.close()
        self._job = self._request = None
        self.awaited = _NONE
        self._jobs.clear()
        return [request for request in waiting if request is not None]
