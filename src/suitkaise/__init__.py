"""Supervision trees for Python: processes and threads that do not stay dead."""

from __future__ import annotations

import importlib
import os
import sys
from typing import TYPE_CHECKING, Any

from suitkaise.crashes import CrashReport
from suitkaise.errors import (
    AskTimeout,
    CaptureError,
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
    SignificantFailure,
    StartFailure,
)
from suitkaise.messaging.event_bus import Subscription
from suitkaise.messaging.groups import Group, group
from suitkaise.messaging.messages import Answer
from suitkaise.messaging.refs import Down, LinkedExit, Monitor, WorkerProxy, WorkerRef
from suitkaise.messaging.supervisor_ref import ChildLine, SupervisorRef, whereis, whereis_all
from suitkaise.messaging.topics import Published, publish
from suitkaise.platform.preload import preload
from suitkaise.specs import Backoff, Child, SpecWarning
from suitkaise.status import Counts, Status, TreeStatus
from suitkaise.supervisor import DynamicSupervisor, Supervisor
from suitkaise.workers.command import Command
from suitkaise.workers.incarnation import Recalled
from suitkaise.workers.worker import Process, Thread

if TYPE_CHECKING:
    from suitkaise import pools as pools
    from suitkaise import skglobals as skglobals
    from suitkaise import skthreading as skthreading
    from suitkaise import xprocess as xprocess
    from suitkaise.runtime.running_tree import RunningTree
    from suitkaise.runtime.start import AsyncStart
    from suitkaise.runtime.tasks import Task
    from suitkaise.workers.loop_report import LoopTimeReport
    from suitkaise.workers.replies import ReplyTo
    from suitkaise.workers.timers import Timer

__version__ = "0.1.0"

__all__ = [
    "Answer",
    "AskTimeout",
    "AsyncStart",
    "Backoff",
    "CaptureError",
    "Child",
    "ChildAlreadyPresent",
    "ChildAlreadyStarted",
    "ChildLine",
    "ChildNotFound",
    "ChildRestarting",
    "ChildRunning",
    "ChildStartFailed",
    "Command",
    "Counts",
    "CrashReport",
    "Crashed",
    "DeadlockError",
    "Down",
    "DynamicSupervisor",
    "ExitCode",
    "ExitReason",
    "GaveUp",
    "Group",
    "Hung",
    "Ignore",
    "Killed",
    "LinkedExit",
    "LoopTimeReport",
    "Lost",
    "MailboxFull",
    "MaxChildren",
    "Monitor",
    "Normal",
    "NotBuiltYet",
    "NotSerializable",
    "Process",
    "Published",
    "Recalled",
    "Reject",
    "ReplyTo",
    "RunningTree",
    "RuntimeGone",
    "Shutdown",
    "Signaled",
    "SignificantFailure",
    "SpecError",
    "SpecWarning",
    "StartFailure",
    "Status",
    "StorageError",
    "Subscription",
    "SuitkaiseError",
    "Supervisor",
    "SupervisorRef",
    "Task",
    "Thread",
    "Timer",
    "TreeFailed",
    "TreeStatus",
    "WorkerDead",
    "WorkerFailed",
    "WorkerProxy",
    "WorkerRef",
    "__version__",
    "group",
    "preload",
    "publish",
    "whereis",
    "whereis_all",
]

_FACES = ("xprocess", "skthreading", "skglobals", "pools")
"""The modules that are loaded when they are first used: `suitkaise.xprocess`, also without an import of its own."""

_LOADED_WHEN_USED = {
    "AsyncStart": "suitkaise.runtime.start",
    "LoopTimeReport": "suitkaise.workers.loop_report",
    "ReplyTo": "suitkaise.workers.replies",
    "RunningTree": "suitkaise.runtime.running_tree",
    "Task": "suitkaise.runtime.tasks",
    "Timer": "suitkaise.workers.timers",
}
"""The public names that are loaded when they are first used, by their module: a worker process does not need them."""


def __getattr__(name: str) -> Any:
    if name in _LOADED_WHEN_USED:
        return getattr(importlib.import_module(_LOADED_WHEN_USED[name]), name)
    if name in _FACES:
        return importlib.import_module(f"suitkaise.{name}")
    raise AttributeError(f"module 'suitkaise' has no attribute {name!r}")


if getattr(sys, "frozen", False) and "SUITKAISE_KEEPER" in os.environ:  # this program was started to be the keeper
    from suitkaise.engines.keeper_process import become_keeper

    become_keeper()
