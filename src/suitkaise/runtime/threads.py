"""The threads of this program, as observers see them: those of a thread worker, of a part of a tree, or all of them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

from suitkaise.errors import ChildNotFound
from suitkaise.messaging.address import Address
from suitkaise.messaging.answer import Answer
from suitkaise.messaging.messages import Payload
from suitkaise.platform.flag import Flag
from suitkaise.platform.sampler import MOST_FRAMES, sample
from suitkaise.platform.threads import DaemonThread, current_frames

__all__ = ["profile", "stacks"]


def profile(path: str, seconds: float, rate: float) -> Answer[dict[str, Any]]:
    """Sample the threads of the workers and supervisors at and below `path`; at the root of a tree, all threads.

    The answer comes after `seconds`, or when the worker has ended; if nobody waits for it any more, the profile ends.
    """
    answer: Answer[dict[str, Any]] = Answer()
    over = Flag()
    answer.when_done(lambda done: over.set())

    def run() -> None:
        try:
            answer.settle(True, Payload(sample(seconds, rate, lambda thread: _is_at(path, thread), over.wait)))
        except Exception as error:
            answer.settle(False, Payload(error))

    DaemonThread(target=run, name="suitkaise-profile").start()
    return answer


def stacks(path: str, find: Callable[[str], Address]) -> str:
    """Return where the same threads are, each with the asyncio tasks of its worker, as `faulthandler` writes it.

    `find` returns the address at a path.
    """
    frames = current_frames()
    parts = []
    for thread in threading.enumerate():
        frame = frames.get(thread.ident or 0)
        if frame is not None and _is_at(path, thread):
            parts.append(f"Thread {thread.name!r} (most recent call first):\n{_stack(frame)}{_tasks(thread, find)}")
    return "\n".join(parts)


def _is_at(path: str, thread: threading.Thread) -> bool:
    name = thread.name.removeprefix("suitkaise-")  # that of a supervisor's thread begins so
    return "/" not in path or name.startswith((f"{path}#", f"{path}/")) or name == path


def _stack(frame: FrameType | None) -> str:
    lines: list[str] = []
    while frame is not None and len(lines) < MOST_FRAMES:
        code = frame.f_code
        lines.append(f'  File "{code.co_filename}", line {frame.f_lineno} in {code.co_name}\n')
        frame = frame.f_back
    return "".join(lines)


def _tasks(thread: threading.Thread, find: Callable[[str], Address]) -> str:
    """Return where the tasks of an async worker await, which is on no stack."""
    path, _, number = thread.name.rpartition("#")
    try:
        receiver: Any = find(path).receiver if number else None
    except ChildNotFound:  # it is no worker's thread, or that of a background thread
        return ""
    return receiver.tasks() if hasattr(receiver, "tasks") else ""
