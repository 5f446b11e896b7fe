"""The errors that suitkaise raises; all of them derive from `SuitkaiseError`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from suitkaise.exits import ExitReason
from suitkaise.status import Status

__all__ = [
    "AskTimeout",
    "CaptureError",
    "ChildAlreadyPresent",
    "ChildAlreadyStarted",
    "ChildNotFound",
    "ChildRestarting",
    "ChildRunning",
    "ChildStartFailed",
    "DeadlockError",
    "EntryExists",
    "EntryNotFound",
    "Ignore",
    "MailboxFull",
    "MaxChildren",
    "NotSerializable",
    "OwnerDead",
    "Reject",
    "RuntimeGone",
    "SnapshotError",
    "SpecError",
    "StorageDamaged",
    "StorageError",
    "StorageFull",
    "StorageGone",
    "SuitkaiseError",
    "TransactionConflict",
    "TreeFailed",
    "WorkerDead",
    "WorkerFailed",
    "add_note",
    "no_attribute",
    "with_note",
]


def no_attribute(owner: object, name: str, others: Mapping[str, str], variable: str, more: str = "") -> AttributeError:
    """Make the error about an attribute that an object does not have.

    `others` are the names that other libraries use, each with what to write after `variable` here.
    """
    hint = f"; use {variable}.{others[name]}" if name in others else ""
    return AttributeError(
        f"{type(owner).__name__!r} object has no attribute {name!r}{hint}{more}", name=name, obj=owner
    )


def with_note(error: BaseException, text: str) -> BaseException:
    """Add a remote traceback to an exception as a note; it takes the place of those notes that it includes."""
    if text:
        note = f"{_REMOTE}{text.rstrip()}"
        notes = vars(error).get("__notes__", [])
        if isinstance(notes, list):
            vars(error)["__notes__"] = [one for one in notes if not (_is_remote(one) and one in note)]
        add_note(error, note)
    return error


_REMOTE = "\n--- remote traceback ---\n"


def _is_remote(note: object) -> bool:
    return isinstance(note, str) and note.startswith(_REMOTE)


def add_note(error: BaseException, note: str) -> None:
    """Add a note to an exception of the user's, unless it is there already; to a frozen dataclass, too."""
    notes = vars(error).get("__notes__", [])
    if isinstance(notes, list) and note not in notes:
        vars(error)["__notes__"] = [*notes, note]


class SuitkaiseError(Exception):
    """The base of every error raised by suitkaise.

    The attributes are None or empty where they are not known: `path` (of the worker or storage entry), `reason` (an
    exit reason) and `traceback` (the remote one, as text; it is printed with the error). Pickling keeps all of them.
    """

    def __init__(
        self,
        message: str = "",
        *,
        path: str | None = None,
        reason: ExitReason | None = None,
        traceback: str = "",
    ) -> None:
        super().__init__(message)
        self.path = path
        self.reason = reason
        self.traceback = traceback
        with_note(self, traceback)

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.args, self.__dict__)


def _rebuild(cls: type[SuitkaiseError], args: tuple[Any, ...], state: dict[str, Any]) -> SuitkaiseError:
    error = cls.__new__(cls, *args)
    error.args = args
    error.__dict__.update(state)
    return error


class SpecError(SuitkaiseError, ValueError):
    """A declaration is wrong. Raised by the line that declares it, before anything starts (rules 4, 5, 7, 50)."""


class CaptureError(SuitkaiseError, SyntaxError):
    """A `with` block of a setup cannot be run later in a worker. Raised by the line of the setup's `with` statement.

    The error points at the line of the user's code, as any `SyntaxError` does: `filename`, `lineno`, `offset`, `text`.
    """

    def __init__(
        self,
        message: str = "",
        *,
        filename: str | None = None,
        lineno: int | None = None,
        offset: int | None = None,
        text: str | None = None,
        **details: Any,
    ) -> None:
        super().__init__(message, **details)
        self.filename = filename
        self.lineno = lineno
        self.offset = offset
        self.text = text

    def __reduce__(self) -> tuple[Any, ...]:
        names = ("msg", "filename", "lineno", "offset", "text")
        return *super().__reduce__(), {name: getattr(self, name) for name in names}


class ChildStartFailed(SuitkaiseError):
    """A child failed to start; `path` names the child and `reason` the cause (rules 2, 10, 18)."""


class ChildAlreadyStarted(SuitkaiseError):
    """`start_child` with the id of a running child; `ref` is that child (rule 8)."""

    ref: Any = None


class ChildAlreadyPresent(SuitkaiseError):
    """`start_child` with the id of a child that is stopped or restarting (rule 9)."""


class ChildNotFound(SuitkaiseError, LookupError):
    """There is no child of that id, or no worker at that path (rules 14, 17, 19, 22)."""


class ChildRunning(SuitkaiseError):
    """`restart_child` or `delete_child` of a child that runs (rules 17, 19)."""


class ChildRestarting(SuitkaiseError):
    """`restart_child` or `delete_child` of a child that is being restarted (rules 17, 19)."""


class MaxChildren(SuitkaiseError):
    """A dynamic supervisor has `max_children` children already (rule 53)."""


class TreeFailed(SuitkaiseError):
    """The root supervisor gave up, failed itself, was killed, or ended because of a significant child that failed.

    `path` names the child that failed, `reason` is the exit reason of the root, and `traceback` the child's.
    """


class WorkerFailed(SuitkaiseError):
    """A worker ended without a result, or its exception could not be sent; `traceback` is the remote one."""


class WorkerDead(SuitkaiseError):
    """The receiver of a message is dead, or died before it answered."""

    @classmethod
    def over(cls, path: str, reason: ExitReason | None = None) -> WorkerDead:
        """Make the error for a message to a worker that has ended and will not come back."""
        return cls(f"{path!r} is over: {reason or 'stopped'}", path=path, reason=reason)

    @classmethod
    def just_ended(cls, path: str) -> WorkerDead:
        """Make the error for a message to an incarnation that has ended; its supervisor is about to notice."""
        return cls(f"{path!r} has just ended", path=path)

    @classmethod
    def unhandled(cls, path: str, reason: ExitReason) -> WorkerDead:
        """Make the error for a message that waited for an incarnation, which ended and dropped it (rule 72)."""
        return cls(f"{path!r} ended before it handled the message: {reason}", path=path, reason=reason)

    @classmethod
    def unanswered(cls, path: str, reason: ExitReason) -> WorkerDead:
        """Make the error for a message that the worker got, and did not answer before it died."""
        return cls(f"{path!r} died before it answered: {reason}", path=path, reason=reason)


class RuntimeGone(WorkerDead):
    """The program that owned the tree is gone, so no request can reach the tree."""


class AskTimeout(SuitkaiseError, TimeoutError):
    """No answer arrived within the timeout.

    After an ask, the text and the attributes tell what the worker was doing when the time was over: `status`, `pid`,
    `phase` (the hook that ran: `loop`, `on_receive`, ...; or `waiting`, `boot`), `in_phase` (the seconds since that
    phase began) and `queued` (the number of messages that waited for the worker). They are None or empty where they are
    not known, as for a wait of another kind, or a time-out of 0.
    """

    status: Status | None = None
    pid: int | None = None
    phase: str = ""
    in_phase: float | None = None
    queued: int | None = None


class MailboxFull(SuitkaiseError):
    """The receiver's mailbox, or the connection to the receiver, is full; nothing was sent."""


class DeadlockError(SuitkaiseError):
    """A call would make a worker or supervisor wait for itself, or workers wait for each other in a circle."""


class NotSerializable(SuitkaiseError, TypeError):
    """A value cannot be sent to another process; the message names the path to the part that cannot."""


class StorageError(SuitkaiseError):
    """The storage refused a request, or could not carry it out; nothing was stored."""


class EntryExists(StorageError):
    """`add(..., exist_ok=False)` of a name that exists."""


class EntryNotFound(StorageError, KeyError):
    """There is no entry of that name in that container; the message names the nearest names."""

    def __str__(self) -> str:
        return Exception.__str__(self)  # KeyError would show the message in quotes


class StorageFull(StorageError):
    """The storage's file system is full. Stored entries can still be read."""


class OwnerDead(StorageError):
    """A write arrived from an incarnation of a worker that has ended already; nothing was stored."""


class StorageDamaged(StorageError):
    """What was stored is not what can be read: bits of a file have changed, or a part of the file is missing."""


class SnapshotError(StorageError):
    """A file is no snapshot of a storage, or is damaged; nothing was restored."""


class StorageGone(StorageError, RuntimeGone):
    """The program that owned the storage is gone, so nothing can be stored any more."""


class TransactionConflict(StorageError):
    """An entry changed between the read and the write of a transaction, more often than the retries allow."""


class Ignore(SuitkaiseError):
    """Raised by `on_start` to decline to run: the worker is not started, which is no failure (rules 11-13)."""


class Reject(SuitkaiseError):
    """Raised by a message handler as `Reject(error)`: the asker gets `error`, and the worker goes on.

    A class of errors is called, as `raise` does it; of a text, the asker gets a `SuitkaiseError`.
    """

    def __init__(self, error: BaseException | type[BaseException] | str) -> None:
        if isinstance(error, type) and issubclass(error, BaseException):
            error = error()
        try:
            text = str(error)
        except Exception:  # the error is the user's
            text = type(error).__name__
        super().__init__(text)
        self.error: BaseException | SuitkaiseError = (
            error if isinstance(error, BaseException) else SuitkaiseError(error)
        )
