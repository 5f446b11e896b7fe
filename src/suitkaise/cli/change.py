"""`suitkaise restart|stop|start|suspend|resume|signal PATH`: requests to the supervisor of a worker."""

from __future__ import annotations

import argparse
import json
import signal
from collections.abc import Callable
from typing import Any

from suitkaise.cli.command import CLEAN, RUNNING, CommandError, UsageError
from suitkaise.cli.programs import Target
from suitkaise.cli.show import target_of
from suitkaise.errors import AskTimeout, ChildRunning, RuntimeGone, SuitkaiseError
from suitkaise.messaging.answer import Answer
from suitkaise.messaging.protocol import AdminAction, RequestKind
from suitkaise.observer.words import DONE

__all__ = ["change", "send_signal"]


def change(options: argparse.Namespace) -> int:
    """Carry out `restart`, `stop`, `start`, `suspend` or `resume`; wait for its end unless told otherwise."""
    target = target_of(options)
    try:
        answer = _REQUESTS[options.command](target)
        if not options.no_wait:
            answer.get(options.timeout)
    except AskTimeout as error:
        trouble = str(error) if options.timeout is None else f"not done after {options.timeout:g} s"
        raise CommandError(f"{target.path!r}: {trouble}; it goes on") from None
    except RuntimeGone:
        if options.command != "stop":
            raise
    except ChildRunning:
        raise CommandError(f"{target.path!r} runs; `suitkaise restart` starts it anew", RUNNING) from None
    except SuitkaiseError as error:
        raise CommandError(str(error)) from None
    _tell(options, target, DONE[options.command] if not options.no_wait else "requested")
    return CLEAN


def _tell(options: argparse.Namespace, target: Target, done: str) -> None:
    if options.json:
        print(json.dumps({"path": target.path, "done": done}))
    else:
        print(f"{target.path}: {done}")


def _of_child(target: Target, action: AdminAction) -> Answer[Any]:
    supervisor, _, id = target.path.rpartition("/")
    return target.program.client.administer(action, supervisor, id)


def _restart(target: Target) -> Answer[Any]:
    if target.is_root:
        raise UsageError(f"{target.path!r} is a whole tree, which no supervisor could start again; restart its program")
    return _of_child(target, AdminAction.RECALL_CHILD)


def _stop(target: Target) -> Answer[Any]:
    if not target.is_root:
        return _of_child(target, AdminAction.TERMINATE_CHILD)
    over = target.program.client.request(RequestKind.JOIN, target.path)
    target.program.client.request(RequestKind.REJOIN, target.path).get()
    return over


def _start(target: Target) -> Answer[Any]:
    if target.is_root:
        raise CommandError(f"{target.path!r} runs; start names a worker that is stopped", RUNNING)
    return _of_child(target, AdminAction.RESTART_CHILD)


def _suspend(target: Target, action: AdminAction = AdminAction.SUSPEND) -> Answer[Any]:
    if target.is_root:
        for child in target.facts["children"]:
            target.program.client.administer(action, target.path, child["id"]).get()
        done: Answer[Any] = Answer()
        done.set_result(None)
        return done
    return _of_child(target, action)


_REQUESTS: dict[str, Callable[[Target], Answer[Any]]] = {
    "restart": _restart,
    "stop": _stop,
    "start": _start,
    "suspend": _suspend,
    "resume": lambda target: _suspend(target, AdminAction.RESUME),
}


def send_signal(options: argparse.Namespace) -> int:
    """Send a signal to the process of a worker. A worker that ends by it is restarted by the rules."""
    number = signal_number(options.signal)
    target = target_of(options)
    if target.facts["kind"] not in ("process", "command"):
        raise UsageError(f"{target.path!r} is a {target.facts['kind']}; a signal goes to a process of its own")
    target.inspect("signal", number)
    where = f" on the node {target.node}" if target.node else ""
    _tell(options, target, f"{_name_of(number)} sent to pid {target.pid}{where}")
    return CLEAN


def signal_number(name: str) -> int:
    """Return the number of a signal.

    >>> signal_number("TERM"), signal_number("SIGUSR1"), signal_number("9")
    (15, 10, 9)
    """
    try:
        if name.isdecimal() and int(name) in signal.valid_signals():  # also real-time signals, which have no names
            return int(name)
        return signal.Signals[f"SIG{name.upper().removeprefix('SIG')}"].value
    except (KeyError, ValueError):
        raise UsageError(f"there is no signal {name!r}; use a name such as TERM, or a number") from None


def _name_of(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
