"""Why a worker ended: one small frozen class for each way out.

Only `Normal` and `Shutdown` are clean. Everything else is abnormal, and a supervisor restarts a
`transient` child after it (rules 23-26).
"""

from __future__ import annotations

import pickle
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from suitkaise.errors import WorkerFailed

__all__ = [
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
    "StartFailure",
]


class ExitReason:
    """The base of all exit reasons.

    >>> Normal().clean, Signaled(9).clean
    (True, False)
    """

    __slots__ = ()
    clean: ClassVar[bool] = False


@dataclass(frozen=True, slots=True)
class Normal(ExitReason):
    """The worker was done: its loops were over, or it asked to `rejoin()`."""

    clean: ClassVar[bool] = True

    def __str__(self) -> str:
        return "normal"


@dataclass(frozen=True, slots=True)
class Shutdown(ExitReason):
    """The worker was told to stop, or a supervisor ended; `detail` says why.

    `detail` is text, or a `GaveUp` / `StartFailure` where a supervisor failed (OTP's `{shutdown, Term}`).
    """

    clean: ClassVar[bool] = True
    detail: Any = None

    def __str__(self) -> str:
        return "shutdown" if self.detail is None else f"shutdown ({self.detail})"


@dataclass(frozen=True, slots=True)
class Crashed(ExitReason):
    """An exception left a hook or a message handler.

    `error` is a copy of the exception, without its frames, where it can be pickled; else a `WorkerFailed` that carries
    its text. What came from another process is decoded when somebody first looks at `error`: the rest does not need
    its class, which may take long to import.
    """

    phase: str
    error: BaseException
    traceback: str = ""
    _sent: tuple[str, bytes] | None = field(default=None, init=False, repr=False, compare=False)

    def __str__(self) -> str:
        if self._sent is not None:
            return self._sent[0]
        text = str(self.error)
        name = type(self.error).__name__
        return f"{name} in {self.phase}: {text}" if text else f"{name} in {self.phase}"

    def sealed(self, encode: Callable[[BaseException], bytes]) -> tuple[str, str, str, bytes]:
        """What `unsealed` makes another one of: phase, traceback, text, and the encoded error."""
        text, data = self._sent or (str(self), encode(self.error))
        return self.phase, self.traceback, text, data

    @classmethod
    def unsealed(cls, phase: str, traceback: str, text: str, data: bytes) -> Crashed:
        """One whose error is decoded when it is asked for."""
        crashed = object.__new__(cls)
        for name, value in (("phase", phase), ("traceback", traceback), ("_sent", (text, data))):
            object.__setattr__(crashed, name, value)
        return crashed

    if not TYPE_CHECKING:  # only the attribute that is not there yet gets here

        def __getattr__(self, name: str) -> BaseException:
            if name != "error":
                raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}", name=name, obj=self)
            try:
                error = pickle.loads(self._sent[1])
            except Exception as obstacle:  # its class cannot be imported here, say
                error = WorkerFailed(f"{self} (the error cannot be read here: {obstacle!r})", traceback=self.traceback)
            object.__setattr__(self, "error", error)
            return error


@dataclass(frozen=True, slots=True)
class ExitCode(ExitReason):
    """The process left with an exit code and without saying goodbye (`os._exit(3)`, `sys.exit(3)`)."""

    code: int

    def __str__(self) -> str:
        return f"exit code {self.code}"


@dataclass(frozen=True, slots=True)
class Signaled(ExitReason):
    """A signal ended the process, and it was not sent by its supervisor.

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
    """Its own supervisor, or a `ref.kill()`, killed it; `why` says for what."""

    why: str

    def __str__(self) -> str:
        return f"killed ({self.why})"


@dataclass(frozen=True, slots=True)
class Hung(ExitReason):
    """A phase outlasted its limit (rule 55). `stack`: what its threads were doing, where that could be learnt."""

    phase: str
    seconds: float
    stack: str = field(default="", compare=False, repr=False)

    def __str__(self) -> str:
        return f"hung in {self.phase} for {self.seconds:.3g} s"


@dataclass(frozen=True, slots=True)
class Lost(ExitReason):
    """The node or connection that the worker lived on is gone; how it ended is unknown."""

    what: str

    def __str__(self) -> str:
        return f"lost ({self.what})"


@dataclass(frozen=True, slots=True)
class GaveUp:
    """The `detail` of a supervisor that needed more restarts than its intensity allows (rule 30)."""

    path: str
    reason: ExitReason
    max_restarts: float
    max_seconds: float

    def __str__(self) -> str:
        return (
            f"gave up: {self.path!r} would need more than {self.max_restarts:g} restarts in "
            f"{self.max_seconds:g} s; last reason: {self.reason}"
        )


@dataclass(frozen=True, slots=True)
class StartFailure:
    """The `detail` of a supervisor whose child could not be started (rule 2)."""

    path: str
    reason: ExitReason

    def __str__(self) -> str:
        return f"{self.path!r} failed to start: {self.reason}"
