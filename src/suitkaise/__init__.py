"""Supervision trees for Python: processes and threads that do not stay dead."""

from __future__ import annotations

import importlib
import os
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from suitkaise import errors as errors
    from suitkaise import events as events
    from suitkaise import exits as exits
    from suitkaise import pools as pools
    from suitkaise import skglobals as skglobals
    from suitkaise import skthreading as skthreading
    from suitkaise import sktree as sktree
    from suitkaise import xprocess as xprocess
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
    from suitkaise.messaging.answer import Answer
    from suitkaise.messaging.event_bus import Subscription
    from suitkaise.messaging.groups import Group, group
    from suitkaise.messaging.refs import Down, LinkedExit, Monitor, WorkerProxy, WorkerRef
    from suitkaise.messaging.router import flush
    from suitkaise.messaging.supervisor_ref import ChildLine, SupervisorRef, whereis, whereis_all
    from suitkaise.messaging.topics import Published, publish
    from suitkaise.platform.preload import preload
    from suitkaise.runtime.running_tree import RunningTree
    from suitkaise.runtime.start import AsyncStart
    from suitkaise.runtime.tasks import Stream, Task
    from suitkaise.specs import Backoff, Bounded, Child, Place, Ray, SpecWarning
    from suitkaise.status import Counts, Status, TreeStatus
    from suitkaise.supervisor import DynamicSupervisor, Supervisor
    from suitkaise.workers.command import Command
    from suitkaise.workers.incarnation import Recalled
    from suitkaise.workers.loop_report import LoopTimeReport
    from suitkaise.workers.replies import ReplyTo
    from suitkaise.workers.timers import Timer
    from suitkaise.workers.worker import Process, Thread, current_worker

__version__ = "0.1.0"

__all__ = [
    "Answer",
    "AskTimeout",
    "AsyncStart",
    "Backoff",
    "Bounded",
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
    "NotSerializable",
    "Place",
    "Process",
    "Published",
    "Ray",
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
    "Stream",
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
    "current_worker",
    "flush",
    "group",
    "preload",
    "publish",
    "whereis",
    "whereis_all",
]

_MODULES = ("errors", "events", "exits", "pools", "skglobals", "skthreading", "sktree", "xprocess")
"""The modules that are loaded when they are first used: `suitkaise.xprocess`, also without an import of its own."""

_HOMES = {
    "suitkaise.crashes": "CrashReport",
    "suitkaise.errors": (
        "AskTimeout CaptureError ChildAlreadyPresent ChildAlreadyStarted ChildNotFound ChildRestarting "
        "ChildRunning ChildStartFailed DeadlockError Ignore MailboxFull MaxChildren "
        "NotSerializable Reject RuntimeGone SpecError StorageError SuitkaiseError TreeFailed WorkerDead "
        "WorkerFailed"
    ),
    "suitkaise.exits": (
        "Crashed ExitCode ExitReason GaveUp Hung Killed Lost Normal Shutdown Signaled SignificantFailure StartFailure"
    ),
    "suitkaise.messaging.answer": "Answer",
    "suitkaise.messaging.event_bus": "Subscription",
    "suitkaise.messaging.groups": "Group group",
    "suitkaise.messaging.refs": "Down LinkedExit Monitor WorkerProxy WorkerRef",
    "suitkaise.messaging.router": "flush",
    "suitkaise.messaging.supervisor_ref": "ChildLine SupervisorRef whereis whereis_all",
    "suitkaise.messaging.topics": "Published publish",
    "suitkaise.platform.preload": "preload",
    "suitkaise.runtime.running_tree": "RunningTree",
    "suitkaise.runtime.start": "AsyncStart",
    "suitkaise.runtime.tasks": "Stream Task",
    "suitkaise.specs": "Backoff Bounded Child Place Ray SpecWarning",
    "suitkaise.status": "Counts Status TreeStatus",
    "suitkaise.supervisor": "DynamicSupervisor Supervisor",
    "suitkaise.workers.command": "Command",
    "suitkaise.workers.incarnation": "Recalled",
    "suitkaise.workers.loop_report": "LoopTimeReport",
    "suitkaise.workers.replies": "ReplyTo",
    "suitkaise.workers.timers": "Timer",
    "suitkaise.workers.worker": "Process Thread current_worker",
}
"""The module of each public name. It is loaded when the name is first used: no program uses all of them."""


if not TYPE_CHECKING:  # a type checker is to know the names that there are

    def __getattr__(name: str) -> Any:
        if name in _MODULES:
            return importlib.import_module(f"suitkaise.{name}")
        for home, names in _HOMES.items():
            if name in names.split():
                value = globals()[name] = getattr(importlib.import_module(home), name)
                return value
        hint = _hint(name)
        if hint and sys._getframe(1).f_code.co_name == "_handle_fromlist":  # Python tells no text of an AttributeError
            raise ImportError(f"cannot import name {name!r} from 'suitkaise'; {hint}", name="suitkaise")
        raise AttributeError(f"module 'suitkaise' has no attribute {name!r}{hint and f'; {hint}'}")


_OTHER_NAMES = {
    **dict.fromkeys(("Actor", "GenServer", "SKProcess", "Worker"), "derive from Process or Thread"),
    **dict.fromkeys(("AsyncProcess", "AsyncThread", "AsyncWorker"), "hooks of a Process or Thread may be `async def`"),
    **dict.fromkeys(("Pipe", "Queue"), "workers send each other messages: ref.tell(message), ref.ask(message)"),
    **dict.fromkeys(("Array", "Lock", "Manager", "Value"), "workers share values in sktree.connect()"),
    "ActorRef": "use WorkerRef",
    "ChildSpec": "use Child",
    "create_pool": "use `from suitkaise.pools import create_pool`",
    "create_process": "use xp.create_process, of xp = suitkaise.xprocess.CrossProcessing()",
    "create_thread": "use `from suitkaise.skthreading import create_thread`",
}
"""What newcomers look for here, with what there is instead."""


def _hint(name: str) -> str:
    """Tell where a name is that is not here; no module of the package has a name with a capital letter."""
    for module in _MODULES if name[:1].isupper() and name not in _OTHER_NAMES else ():
        if name in importlib.import_module(f"suitkaise.{module}").__all__:
            return f"use `from suitkaise.{module} import {name}`"
    return _OTHER_NAMES.get(name, "")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_MODULES})


if getattr(sys, "frozen", False) and "SUITKAISE_KEEPER" in os.environ:  # this program was started to be the keeper
    from suitkaise.engines.keeper_process import become_keeper

    become_keeper()
