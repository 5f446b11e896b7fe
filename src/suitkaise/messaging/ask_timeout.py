"""What a worker is doing while an answer of it is awaited, and the error that tells this when the time is over."""

from __future__ import annotations

import time

from suitkaise.errors import AskTimeout
from suitkaise.escapes import figure
from suitkaise.messaging.identity import deadline_of_ask
from suitkaise.platform.board import Phase, SlotView
from suitkaise.records import dataclass
from suitkaise.specs.bounded import Bounded
from suitkaise.status import Status

__all__ = ["Doing", "ask_timeout", "doing", "limited"]

_ROUNDING = 0.001
"""Seconds."""

_WITH_A_PHASE = (Status.STARTING, Status.RUNNING, Status.STOPPING, Status.SUSPENDED)
_VERBS = {
    Status.STARTING: "is starting",
    Status.RUNNING: "is running",
    Status.RESTARTING: "is being restarted",
    Status.STOPPING: "is stopping",
    Status.SUSPENDED: "is suspended",
}
_WORDS = {Phase.BOOT.hook: "its process is being set up", Phase.WAITING.hook: "waiting for messages"}


@dataclass(frozen=True, slots=True)
class Doing:
    """What a worker is doing at a moment.

    Args:
        status: its status.
        pid: the process that it runs in; None if there is none now.
        phase: the hook that runs (`loop`, `on_receive`, `on_start`, ...), `waiting` or `boot`; empty if it is unknown.
        in_phase: seconds since the phase began; None if they are unknown.
        queued: the number of messages that wait for it.
        room: how many may wait, if its mailbox is bounded.
    """

    status: Status
    pid: int | None
    phase: str = ""
    in_phase: float | None = None
    queued: int = 0
    room: int | None = None

    def __str__(self) -> str:
        pid = f" (pid {self.pid})" if self.pid is not None else ""
        phase = _WORDS.get(self.phase, f"in {self.phase}")
        since = "" if self.in_phase is None else f" for {figure(self.in_phase)} s"
        messages = "1 message waits" if self.queued == 1 else f"{self.queued or 'no'} messages wait"
        verb = _VERBS.get(self.status, f"is {self.status}")
        full = ", and its mailbox is full" if self.room is not None and self.queued >= self.room else ""
        return f"{verb}{pid}{f': {phase}{since}' if self.phase else ''}; {messages} for it{full}"


def doing(status: Status, pid: int | None, view: SlotView | None, kept: int, bound: Bounded | None = None) -> Doing:
    """Return what a worker is doing, of which the hub knows this; `kept` messages wait for its next incarnation."""
    room = None if bound is None else bound.size
    if view is None or status not in _WITH_A_PHASE:
        return Doing(status, pid, queued=kept, room=room)
    in_phase = max(0.0, time.monotonic() - view.since) if view.since else None
    return Doing(status, pid or view.pid or None, view.phase.hook, in_phase, kept + view.queued, room)


def limited(timeout: float | None) -> float | None:
    """Return the seconds for which an ask waits: while an ask is handled, no longer than its asker does (rule 85)."""
    until = deadline_of_ask()
    if until is None:
        return timeout
    left = max(0.0, until - time.monotonic())
    return timeout if timeout is not None and timeout <= left else round(left, 3)


def ask_timeout(path: str, timeout: float | None, now: Doing | None) -> AskTimeout:
    """Return the error for an answer that the worker at `path` has not given in time; it is doing `now`."""
    text = f"{path!r} did not answer within {timeout} s"
    until = deadline_of_ask()
    if until is not None and time.monotonic() >= until - _ROUNDING:
        text += ", all that was left of the time of the ask that is being handled"
    if now is None:
        return AskTimeout(text, path=path)
    error = AskTimeout(f"{text}: it {now}", path=path)
    error.status, error.pid, error.phase, error.in_phase, error.queued = (
        now.status, now.pid, now.phase, now.in_phase, now.queued,
    )  # fmt: skip
    return error
