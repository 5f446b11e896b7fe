"""Supervision trees for Python: processes and threads that do not stay dead."""

from __future__ import annotations

from typing import Any

from suitkaise.crashes import CrashReport
from suitkaise.errors import (
    AskTimeout,
    ChildAlreadyPresent,
    ChildAlreadyStarted,
    ChildNotFound,
    ChildRestarting,
    ChildRunning,
    ChildStartFailed,
    DeadlockError,
    Ignore,
    MailboxFull,
    MaxChildren,
    NotBuiltYet,
    NotSerializable,
    Reject,
    RuntimeGone,
    SpecError,
    StorageError,
    SuitkaiseError,
    TreeFailed,
    WorkerDead,
    WorkerFailed,
)
from suitkaise.exits import (
    Crashed,
    ExitCode,
    ExitReason,
    GaveUp,
    Hung,
    Killed,
    Lost,
    Normal,
    Shutdown,
    Signaled,
    StartFailure,
)
from suitkaise.messaging.messages import Answer
from suitkaise.messaging.refs import Down, LinkedExit, Monitor, WorkerRef
from suitkaise.messaging.supervisor_ref import SupervisorRef, whereis
from suitkaise.platform.preload import preload
from suitkaise.specs import Backoff, Child
from suitkaise.status import Status
from suitkaise.supervisor import DynamicSupervisor, Supervisor
from suitkaise.workers.command import Command
from suitkaise.workers.incarnation import Recalled
from suitkaise.workers.worker import Process, Thread

__version__ = "0.1.0"

__all__ = [
    "Answer",
    "AskTimeout",
    "Backoff",
    "Child",
    "ChildAlreadyPresent",
    "ChildAlreadyStarted",
    "ChildNotFound",
    "ChildRestarting",
    "ChildRunning",
    "ChildStartFailed",
    "Command",
    "CrashReport",
    "Crashed",
    "DeadlockError",
    "Down",
    "DynamicSupervisor",
    "ExitCode",
    "ExitReason",
    "GaveUp",
    "Hung",
    "Ignore",
    "Killed",
    "LinkedExit",
    "Lost",
    "MailboxFull",
    "MaxChildren",
    "Monitor",
    "Normal",
    "NotBuiltYet",
    "NotSerializable",
    "Process",
    "Recalled",
    "Reject",
    "RuntimeGone",
    "Shutdown",
    "Signaled",
    "SpecError",
    "StartFailure",
    "Status",
    "StorageError",
    "SuitkaiseError",
    "Supervisor",
    "SupervisorRef",
    "Thread",
    "TreeFailed",
    "WorkerDead",
    "WorkerFailed",
    "WorkerRef",
    "__version__",
    "preload",
    "whereis",
]

_LATER = ("xprocess", "skthreading", "skglobals")


def __getattr__(name: str) -> Any:
    if name in _LATER:
        raise NotBuiltYet(f"suitkaise.{name} is not built yet")
    raise AttributeError(f"module 'suitkaise' has no attribute {name!r}")
