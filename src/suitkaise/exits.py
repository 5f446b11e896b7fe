"""Exit reasons: one small immutable class for each way in which a worker can end.

Only `Normal` and `Shutdown` are clean. All others are abnormal: a supervisor restarts a `transient` child after them
(rules 23-26).
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any, ClassVar, Never

from suitkaise.escapes import figure, shortened
from suitkaise.records import dataclass, field, refuse_assignment, refuse_deletion

__all__ = [
    "KILL_CHILD",
    "KILL_REF",
    "SHUTDOWN_TIMEOUT",
    "Crashed",
    "ExitCode",
    "ExitReason",
    "GaveUp",
    "Hung",
    "Killed",
    "Lost",
    "Normal",
    "Shutdown",
    "Signaled",
    "SignificantFailure",
    "StartFailure",
    "by_sigterm",
    "origin",
]


class ExitReason:
    """The base of all exit reasons.

    >>> Normal().clean, Signaled(9).clean
    (True, False)
    """

    __slots__ = ()
    clean: ClassVar[bool] = False


KILL_CHILD = "kill_child()"
KILL_REF = "ref.kill()"
"""Why a child was killed: by an order (rule 79), or by a fault that somebody asked for."""

SHUTDOWN_TIMEOUT = "shutdown timeout"
"""Why a child was killed that was asked to stop, and has not in time (rule 42)."""


@dataclass(frozen=True, slots=True)
class Normal(ExitReason):
    """The worker has finished: all its loops are done, or it called `rejoin()` or `sys.exit()`."""

    clean: ClassVar[bool] = True

    def __str__(self) -> str:
        return "normal"


@dataclass(frozen=True, slots=True)
class Shutdown(ExitReason):
    """The worker was asked to stop, or a supervisor ended.

    `detail` is the cause: a text; or, if a supervisor failed, a `GaveUp`, `StartFailure` or `SignificantFailure` (OTP's
    `{shutdown, Term}`).
    """

    clean: ClassVar[bool] = True
    detail: Any = None

    def __str__(self) -> str:
        return "shutdown" if self.detail is None else f"shutdown ({shortened(str(self.detail))})"


class Crashed(ExitReason):
    """An exception left a hook or a message handler.

    Args:
        phase: the hook that the exception left, `"__init__"` and `"on_start"` to `"result"`; `"start"` before that.
        error: a copy of the exception, without its frames, where it can be pickled, to at most 256 KiB; else a
            `WorkerFailed` with its text.
        traceback: the traceback as text, of at most 64 KiB.

    An error that came from another process is decoded when `error` is first read: until then its class, which may
    take long to import, is not needed.

    >>> str(Crashed("loop", ZeroDivisionError("division by zero")))
    'ZeroDivisionError in loop: division by zero'
    """

    __slots__ = ("_decode", "_error", "_text", "phase", "traceback")
    __match_args__ = ("phase", "error", "traceback")

    phase: str
    traceback: str
    _error: dict[str, BaseException]  # empty as long as it is not decoded
    _text: str
    _decode: Callable[[], BaseException] | None

    def __init__(self, phase: str, error: BaseException, traceback: str = "") -> None:
        self._set(phase, traceback, error, None, "")

    @classmethod
    def undecoded(cls, phase: str, traceback: str, text: str, decode: Callable[[], BaseException]) -> Crashed:
        """Make a reason with this text; `decode` returns the error, and is called when the error is first needed."""
        crashed = object.__new__(cls)
        crashed._set(phase, traceback, None, decode, text)
        return crashed

    def _set(
        self,
        phase: str,
        traceback: str,
        error: BaseException | None,
        decode: Callable[[], BaseException] | None,
        text: str,
    ) -> None:
        known = {} if error is None else {"error": error}
        values = {"phase": phase, "traceback": traceback, "_error": known, "_decode": decode, "_text": text}
        for name, value in values.items():
            object.__setattr__(self, name, value)

    @property
    def error(self) -> BaseException:
        """The exception, decoded at the first access; the same object at each access, in each thread."""
        if not self._error:
            assert self._decode is not None
            self._error.setdefault("error", self._decode())  # which is atomic: threads that decode it at once agree
        return self._error["error"]

    @property
    def decode(self) -> Callable[[], BaseException] | None:
        """The function that decodes the error; None where the error was never encoded."""
        return self._decode

    def __str__(self) -> str:
        if self._decode is not None:
            return self._text
        text = shortened(str(self.error))
        name = type(self.error).__name__
        return f"{name} in {self.phase}: {text}" if text else f"{name} in {self.phase}"

    def __repr__(self) -> str:
        return f"Crashed(phase={self.phase!r}, error={self.error!r}, traceback={self.traceback!r})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Crashed):
            return NotImplemented
        return (self.phase, self.error, self.traceback) == (other.phase, other.error, other.traceback)

    def __hash__(self) -> int:
        return hash((self.phase, self.error, self.traceback))

    def __setattr__(self, name: str, value: Any) -> Never:
        refuse_assignment(self, name, value)

    def __delattr__(self, name: str) -> Never:
        refuse_deletion(self, name)

    def __reduce__(self) -> tuple[Any, ...]:
        return Crashed, (self.phase, self.error, self.traceback)


@dataclass(frozen=True, slots=True)
class ExitCode(ExitReason):
    """The process ended with this exit code, and not by the end of its life cycle (`os._exit(3)`, `sys.exit(3)`)."""

    code: int

    def __str__(self) -> str:
        return f"exit code {self.code}"


@dataclass(frozen=True, slots=True)
class Signaled(ExitReason):
    """A signal that the supervisor did not send ended the process.

    >>> str(Signaled(9))
    'signal 9 (SIGKILL)'
    """

    signal: int

    def __str__(self) -> str:
        try:
            return f"signal {self.signal} ({signal.Signals(self.signal).name})"
        except ValueError:
            return f"signal {self.signal}"


@dataclass(frozen=True, slots=True)
class Killed(ExitReason):
    """The supervisor or a `ref.kill()` killed the worker; `why` is the cause."""

    why: str

    def __str__(self) -> str:
        return f"killed ({self.why})"


@dataclass(frozen=True, slots=True)
class Hung(ExitReason):
    """A phase took longer than its limit (rule 55).

    Args:
        phase: the hook, such as `"loop"`, or `"start"` before `on_start` was reached.
        seconds: how long the phase had taken when it was noticed.
        stack: the stacks of its threads and tasks, if they could be read; empty otherwise.
    """

    phase: str
    seconds: float
    stack: str = field(default="", compare=False, repr=False)

    def __str__(self) -> str:
        return f"hung in {self.phase} for {figure(self.seconds)} s"


@dataclass(frozen=True, slots=True)
class Lost(ExitReason):
    """The node, connection or exit status of the worker is lost, so how the worker ended is unknown.

    `node` is the node of the cluster that was lost; the restarts after that do not count for the intensity (rule 28).
    """

    what: str
    node: str = field(default="", compare=False, repr=False)

    def __str__(self) -> str:
        return f"lost ({self.what})"


@dataclass(frozen=True, slots=True)
class GaveUp:
    """The `detail` of a supervisor that needed more restarts than its intensity allows (rule 30).

    `path` names the child that would have been restarted once more, `reason` how that child ended; more than
    `max_restarts` restarts within `max_seconds` seconds would have been needed.
    """

    path: str
    reason: ExitReason
    max_restarts: float
    max_seconds: float

    def __str__(self) -> str:
        return (
            f"gave up: {self.path!r} would need more than {figure(self.max_restarts, 6)} "
            f"restart{'s' * (self.max_restarts != 1)} in {figure(self.max_seconds, 6)} s; last reason: {self.reason}"
        )


@dataclass(frozen=True, slots=True)
class StartFailure:
    """The `detail` of a supervisor whose child could not be started (rule 2)."""

    path: str
    reason: ExitReason

    def __str__(self) -> str:
        early = "it ended before it was up: " if self.reason == Normal() else ""
        return f"{self.path!r} failed to start: {early}{self.reason}"


@dataclass(frozen=True, slots=True)
class SignificantFailure:
    """The `detail` of a supervisor that has shut itself down since a significant child has failed (rule 71)."""

    path: str
    reason: ExitReason

    def __str__(self) -> str:
        why = self.reason.detail if isinstance(self.reason, Shutdown) else self.reason
        return f"auto-shutdown: {self.path!r} failed: {why}"


def origin(reason: ExitReason) -> tuple[str | None, ExitReason]:
    """Return where the end of a supervisor began: the path and the reason of the innermost child that failed.

    The path is None if no child is to blame; the reason is then that of the supervisor itself.

    >>> origin(Shutdown(SignificantFailure("app/inner", Shutdown(GaveUp("app/inner/job", Signaled(9), 3, 5.0)))))
    ('app/inner/job', Signaled(signal=9))
    >>> origin(Shutdown("stop"))
    (None, Shutdown(detail='stop'))
    """
    path = None
    while isinstance(reason, Shutdown) and isinstance(reason.detail, (GaveUp, StartFailure, SignificantFailure)):
        path, reason = reason.detail.path, reason.detail.reason
    return path, reason


def by_sigterm(reason: ExitReason) -> bool:
    """Return whether SIGTERM has ended the worker: a request to end, as a supervisor's own is (rule 69).

    >>> by_sigterm(Signaled(15)), by_sigterm(ExitCode(143)), by_sigterm(Signaled(9))
    (True, True, False)
    """
    return reason in (Signaled(signal.SIGTERM), ExitCode(128 + signal.SIGTERM))
