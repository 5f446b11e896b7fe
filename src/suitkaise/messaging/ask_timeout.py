"""What a worker is doing while an answer of it is awaited, and the error that tells this when the time is over."""

from __future__ import annotations

import time

from suitkaise.errors import AskTimeout
from suitkaise.platform.board import Phase, SlotView
from suitkaise.records import dataclass
from suitkaise.status import Status

__all__ = ["Doing", "ask_timeout", "doing"]

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
    """

    status: Status
    pid: int | None
    phase: str = ""
    in_phase: float | None = None
    queued: int = 0

    def __str__(self) -> str:
        pid = f" (pid {self.pid})" if self.pid is not None else ""
        phase = _WORDS.get(self.phase, f"in {self.phase}")
        since = "" if self.in_phase is None else f" for {self.in_phase:.3g} s"
        messages = "1 message waits" if self.queued == 1 else f"{self.queued or 'no'} messages wait"
        verb = _VERBS.get(self.status, f"is {self.status}")
        return f"{verb}{pid}{f': {phase}{since}' if self.phase else ''}; {messages} for it"


def doing(status: Status, pid: int | None, view: SlotView | None, kept: int) -> Doing:
    """Return what a worker is doing, of which the hub knows this; `kept` messages wait for its next incarnation."""
    if view is None or status not in _WITH_A_PHASE:
        return Doing(status, pid, queued=kept)
    in_phase = max(0.0, time.monotonic() - view.since) if view.since else None
    return Doing(status, pid or view.pid or None, view.phase.hook, in_phase, kept + view.queued)


def ask_timeout(path: str, timeout: float | None, now: Doing | None) -> AskTimeout:
    """Return the error for an answer that the worker at `path` has not given in time; it is doing `now`."""
    text = f"{path!r} did not answer within {timeout} s"
    if now is None:
        return AskTimeout(text, path=path)
    error = AskTimeout(f"{text}: it {now}", path=path)
    error.status, error.pid, error.phase, error.in_phase, error.queued = (
        now.status, now.pid, now.phase, now.in_phase, now.queued,
    )  # fmt: skip
    return error
