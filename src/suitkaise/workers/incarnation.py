"""One incarnation of a worker: what it starts from, how it ends, and what its next incarnation knows (rule 57)."""

from __future__ import annotations

import contextlib
import sys
from typing import Any

from suitkaise.exits import Crashed, ExitCode, ExitReason, Normal, Shutdown
from suitkaise.messaging.identity import owner_of
from suitkaise.messaging.messages import Payload
from suitkaise.messaging.refs import WorkerRef
from suitkaise.records import dataclass, field
from suitkaise.specs.users import User

__all__ = ["FORCED", "ExitWith", "ForceFinish", "Incarnation", "Outcome", "OwnRef", "Recalled", "reason_of_exit"]


@dataclass(frozen=True, slots=True)
class Recalled:
    """The past of a worker that was started again: its `self.recalled`.

    Args:
        attempt: the number of starts after the first one: 1 for the first restart. Starts on request count, too.
        reason: the exit reason of the incarnation before; None if its `on_start` raised `Ignore`.
        down_for: seconds from the end of the incarnation before to the order of this start.

    >>> from suitkaise import Supervisor, Thread
    >>> class Job(Thread):
    ...     restart = "transient"
    ...
    ...     def loop(self) -> None:
    ...         if self.recalled is None:
    ...             raise OSError("not yet")
    ...         self.rejoin()
    ...
    ...     def result(self) -> str:
    ...         return f"attempt {self.recalled.attempt}, after {self.recalled.reason}"
    >>> with Supervisor("app", Job, Supervisor("others")).start() as running:
    ...     print(running["job"].result(timeout=10.0))
    attempt 1, after OSError in loop: not yet
    """

    attempt: int
    reason: ExitReason | None
    down_for: float
    _checkpoint: Payload | None = field(default=None, compare=False, repr=False)

    @property
    def checkpoint(self) -> Any:
        """The last value that an earlier incarnation has passed to `self.checkpoint(value)`; None without one.

        Each access makes a new copy.
        """
        return None if self._checkpoint is None else self._checkpoint.value

    @property
    def kept(self) -> Payload | None:
        """The checkpoint, not decoded."""
        return self._checkpoint


@dataclass(frozen=True, slots=True)
class Incarnation:
    """What a new incarnation knows of itself.

    Args:
        path: the worker's path.
        serial: its serial number, unique in the program.
        number: its number among the incarnations of its child, from 1.
        copy: its number among the `copies` of its child, from 0; None without copies.
        join_in: seconds after which the worker finishes.
        join_after: loops after which the worker finishes.
        recalled: the past of the worker; None at a first start.
        grace: seconds that the worker may take to finish when the program is gone, and its tasks after the last hook.
        drain: seconds for which it handles messages before it finishes.
        user: the user that it changes to; None: it stays the program's.
        idle_timeout: seconds without a message after which `handle_timeout` is called.
        concurrency: how many messages are handled at once.
        bounded: whether its mailbox is bounded.
    """

    path: str
    serial: int
    number: int = 1
    copy: int | None = None
    join_in: float | None = None
    join_after: float | None = None
    recalled: Recalled | None = None
    grace: float = 5.0
    drain: float = 0.0
    user: User | None = None
    idle_timeout: float | None = None
    concurrency: int = 1
    bounded: bool = False

    @property
    def owner(self) -> str:
        """Its identity towards the hub and the storage: `path#serial`."""
        return owner_of(self.path, self.serial)


class OwnRef(WorkerRef):
    """The ref that a worker has of itself, with the worker's copy number. It is sent as a plain `WorkerRef`."""

    __slots__ = ("copy",)

    def __init__(self, path: str, copy: int | None) -> None:
        super().__init__(path)
        self.copy: int | None = copy


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an incarnation ended.

    `ignored`: `on_start` raised `Ignore`. `by_itself`: it has finished by its own decision, for whatever reason.
    """

    reason: ExitReason
    result: Payload | None = None
    ignored: bool = False
    by_itself: bool = False

    @property
    def hands_over(self) -> bool:
        """Whether the messages that wait are for the next incarnation: it ended by itself, or never ran (rule 72)."""
        reason = self.reason
        never_ran = self.ignored or (isinstance(reason, Crashed) and reason.phase in _BEFORE_RUNNING)
        return never_ran or self.by_itself or isinstance(reason, Normal) or reason == FORCED


_BEFORE_RUNNING = ("start", "__init__", "on_start")

FORCED = Shutdown("forced")
"""The exit reason of `force_finish`."""


class ExitWith(Exception):
    """Raised in a hook to end the worker with this exit reason; `result` counts if the reason is clean."""

    def __init__(self, reason: ExitReason, result: Any = None) -> None:
        super().__init__(str(reason))
        self.reason = reason
        self.result = result


class ForceFinish(BaseException):
    """Raised in the worker's own thread to leave the current hook at once."""


def reason_of_exit(error: SystemExit) -> ExitReason:
    """Return the exit reason of a `sys.exit(...)`; print its text, as Python does."""
    code = error.code
    if code is None or code == 0:
        return Normal()
    if isinstance(code, int):
        return ExitCode(int(code))
    with contextlib.suppress(Exception):
        print(code, file=sys.stderr)  # noqa: T201  (as Python does)
    return ExitCode(1)
