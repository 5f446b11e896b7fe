"""Running a tree in the foreground: until it ends by itself, or a signal ends it."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from suitkaise.errors import TreeFailed
from suitkaise.exits import Crashed, ExitReason, GaveUp, Killed, Shutdown, origin
from suitkaise.runtime import choices
from suitkaise.runtime.signals import SignalHandling
from suitkaise.specs import SupervisorSpec

if TYPE_CHECKING:
    from suitkaise.runtime.service_manager import ServiceManager

__all__ = ["run"]


def run(tree: SupervisorSpec) -> ExitReason:
    """Start the tree and wait until it ends. See `Supervisor.run`."""
    choices.runs += 1
    with SignalHandling() as signals, contextlib.ExitStack() as told:
        manager = _service_manager()
        if manager is not None:
            told.enter_context(manager)
        running = signals.start(tree)
        if isinstance(running, ExitReason):
            return running
        if manager is not None:
            manager.watch(running)
        signals.wait(running._ended)
        reason = running.wait()
        running.stop()
    path, cause = origin(reason)
    if cause.clean:
        return reason
    match reason:
        case Shutdown(GaveUp() as gave_up):
            what = str(gave_up)
        case Shutdown(detail):
            what = f"failed ({detail})"
        case Killed():
            what = f"was {reason}"
        case _:
            what = f"failed: {reason}"
    traceback = cause.traceback if isinstance(cause, Crashed) else ""
    raise TreeFailed(f"{tree.name!r} {what}", path=path or tree.name, reason=reason, traceback=traceback)


def _service_manager() -> ServiceManager | None:
    if "NOTIFY_SOCKET" not in os.environ:
        return None
    from suitkaise.runtime.service_manager import ServiceManager  # loaded where a service manager is

    return ServiceManager.from_environment()
