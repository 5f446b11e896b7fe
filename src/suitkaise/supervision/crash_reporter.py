"""Builds a crash report (rule 58) from the decision of the policy and the last state of the incarnation."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import datetime

from suitkaise.crashes import CrashReport, where_of
from suitkaise.engines.engine import Exit
from suitkaise.events import (
    ChildExited,
    ChildGivenUp,
    ChildRestarting,
    ChildStartFailure,
    ChildStopError,
    SupervisorGaveUp,
)
from suitkaise.exits import Crashed, ExitReason, Hung
from suitkaise.platform.board import Phase
from suitkaise.policy.actions import Action, Publish
from suitkaise.policy.base import BasePolicy
from suitkaise.policy.children import ChildInfo

__all__ = ["build_report"]

_HOOKS_IN_A_LOOP = frozenset(phase.hook for phase in Phase if phase.in_a_loop)


def build_report(
    actions: Sequence[Action],
    policy: BasePolicy,
    before: ChildInfo,
    end: Exit,
    uptime: float,
    now: float,
) -> CrashReport | None:
    """Return the report of an abnormal exit; None if the exit was expected (a child that is stopped by `brutal_kill`).

    Args:
        actions: the decisions of the policy about the exit.
        policy: the policy of the supervisor, after these decisions.
        before: the state of the child before the exit was handled.
        end: how the incarnation ended.
        uptime: seconds from the start order to the exit.
        now: seconds, monotonic.
    """
    published = [action.event for action in actions if isinstance(action, Publish)]
    died = next(
        (event for event in published if isinstance(event, ChildExited | ChildStartFailure | ChildStopError)), None
    )
    if died is None or died.reason is None or died.reason.clean:
        return None
    window = policy.window_of(before.id)
    used, allowed, seconds = window.used(now), window.max_restarts, window.max_seconds
    verdict = "stays down"
    if any(isinstance(event, SupervisorGaveUp) and event.child == before.id for event in published):
        verdict = "gives up"
    elif any(isinstance(event, ChildGivenUp) and event.path == died.path for event in published):
        verdict = "is given up"
    elif isinstance(died, ChildStopError):
        verdict = "is being stopped"
    elif policy.comes_back(before.id) or any(
        isinstance(event, ChildRestarting) and event.path == died.path for event in published
    ):
        verdict = "restarts"
    traceback = _traceback(died.reason) or end.stack
    phase, in_phase, loop = _phase_of(died.reason, end, now)
    return CrashReport(
        id=f"{datetime.fromtimestamp(died.wall).strftime('%Y%m%d-%H%M%S-%f')}-{os.urandom(1).hex()}",
        path=died.path,
        kind=before.kind,
        pid=None if end.view is None else end.view.pid or None,
        incarnation=before.incarnation,
        wall=died.wall,
        reason=str(died.reason),
        reason_kind=type(died.reason).__name__,
        phase=phase,
        in_phase=in_phase,
        loop=loop,
        uptime=uptime,
        restarts=before.restarts,
        verdict=verdict,
        used=used,
        allowed=allowed,
        seconds=seconds,
        together=policy.restarted_with(before.id) if verdict == "restarts" else (),
        lines=end.lines,
        traceback=traceback,
        where=where_of(traceback),
        node=end.node,
    )


def _phase_of(reason: ExitReason, end: Exit, now: float) -> tuple[str, float | None, int]:
    view = end.view
    loops = 0 if view is None else view.loops
    match reason:
        case Crashed(phase=phase):
            return phase, None, loops + (phase in _HOOKS_IN_A_LOOP)
        case Hung(phase, seconds):
            return phase, seconds, loops + (phase in _HOOKS_IN_A_LOOP)
    if view is None:
        return "unknown", None, 0
    since = now - view.since if view.since else None
    return view.phase.hook, since, loops + view.phase.in_a_loop


def _traceback(reason: ExitReason) -> str:
    match reason:
        case Crashed():
            return reason.traceback
        case Hung():
            return reason.stack
    return ""
