"""Every error that suitkaise raises. All of them are `SuitkaiseError`."""

from __future__ import annotations

from typing import Any

from suitkaise.exits import ExitReason

__all__ = [
    "AskTimeout",
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
    "NotBuiltYet",
    "NotSerializable",
    "OwnerDead",
    "Reject",
    "RuntimeGone",
    "SpecError",
    "StorageError",
    "StorageFull",
    "StorageGone",
    "SuitkaiseError",
    "TransactionConflict",
    "TreeFailed",
    "WorkerDead",
    "WorkerFailed",
]


def with_note(error: BaseException, text: str) -> BaseException:
    """Add a remote traceback to an exception as a note, once."""
    note = f"\n--- remote traceback ---\n{text.rstrip()}"
    if text and note not in getattr(error, "__notes__", ()):
        error.add_note(note)
    return error


class SuitkaiseError(Exception):
    """The base of every error raised by suitkaise.

    What is known is carried in attributes: `path` (of the worker or entry), `reason` (an exit reason) and
    `traceback` (the remote one, as text, which is printed with the error). Errors survive pickling with all of them.
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
    """A declaration is wrong. Raised where it is written, before anything starts (rules 4, 5, 7, 50)."""


class NotBuiltYet(SpecError, NotImplementedError):
    """Something that is described in the documentation's plan but is not part of this version."""


class ChildStartFailed(SuitkaiseError):
    """A child's start failed; `path` and `reason` say which and why (rules 2, 10, 18)."""


class ChildAlreadyStarted(SuitkaiseError):
    """`start_child` with the id of a running child; `ref` is that child (rule 8)."""

    ref: Any = None


class ChildAlreadyPresent(SuitkaiseError):
    """`start_child` with the id of a child that is stopped or restarting (rule 9)."""


class ChildNotFound(SuitkaiseError, LookupError):
    """No child of that id, or no worker at that path (rules 14, 17, 19, 22)."""


class ChildRunning(SuitkaiseError):
    """`restart_child` or `delete_child` of a child that runs (rules 17, 19)."""


class ChildRestarting(SuitkaiseError):
    """`restart_child` or `delete_child` of a child that is being restarted (rules 17, 19)."""


class MaxChildren(SuitkaiseError):
    """A dynamic supervisor has as many children as it may (rule 53)."""


class TreeFailed(SuitkaiseError):
    """The root supervisor gave up, failed itself or was killed; `path` and `reason` say where it began, and why."""


class WorkerFailed(SuitkaiseError):
    """A worker ended without a result, or its error could not travel; `traceback` is the remote one."""


class WorkerDead(SuitkaiseError):
    """The worker that was to answer is dead, or died before it answered."""

    @classmethod
    def over(cls, path: str, reason: ExitReason | None = None) -> WorkerDead:
        """The error for a message to a worker that has ended and will not come back."""
        return cls(f"{path!r} is over: {reason or 'stopped'}", path=path, reason=reason)

    @classmethod
    def just_ended(cls, path: str) -> WorkerDead:
        """The error for a message to an incarnation that has ended; its supervisor is about to notice."""
        return cls(f"{path!r} has just ended", path=path)

    @classmethod
    def unanswered(cls, path: str, reason: ExitReason) -> WorkerDead:
        """The error for a question that the worker got, and did not answer before it died."""
        return cls(f"{path!r} died before it answered: {reason}", path=path, reason=reason)


class RuntimeGone(WorkerDead):
    """The program that owned the tree is gone, so nothing can be asked of it."""


class AskTimeout(SuitkaiseError, TimeoutError):
    """No answer came within the time-out."""


class MailboxFull(SuitkaiseError):
    """The receiver's mailbox, or the way to it, is full; nothing was sent."""


class DeadlockError(SuitkaiseError):
    """A worker or supervisor waits for itself."""


class NotSerializable(SuitkaiseError, TypeError):
    """A value cannot be sent to another process; the message names the path to the culprit."""


class StorageError(SuitkaiseError):
    """The storage refused or could not carry out a request; nothing of it was stored."""


class EntryExists(StorageError):
    """`add(..., exist_ok=False)` of a name that exists."""


class EntryNotFound(StorageError, KeyError):
    """No entry of that name in that container; the message names the nearest ones."""

    def __str__(self) -> str:
        return Exception.__str__(self)  # KeyError would show the message in quotes


class StorageFull(StorageError):
    """There is no room left where the storage lies. What is stored can still be read."""


class OwnerDead(StorageError):
    """A late write of a worker's incarnation that is over already; nothing of it was stored."""


class StorageGone(StorageError, RuntimeGone):
    """The program that kept the storage is gone, so nothing can be stored in it any more."""


class TransactionConflict(StorageError):
    """An entry changed between being read and being written, more often than the retries allow."""


class Ignore(SuitkaiseError):
    """Raise it in `on_start` to say: start nothing, and that is fine (rules 11-13)."""


class Reject(SuitkaiseError):
    """Raise `Reject(error)` in a message handler: the asker gets `error`, the worker lives on."""

    def __init__(self, error: BaseException | str) -> None:
        super().__init__(str(error))
        self.error: BaseException | SuitkaiseError = (
            error if isinstance(error, BaseException) else SuitkaiseError(error)
        )
