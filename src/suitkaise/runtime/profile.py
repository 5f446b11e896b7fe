"""A profile of this program: of a thread worker, of the threads of a part of a tree, or of all threads."""

from __future__ import annotations

import threading
from typing import Any

from suitkaise.messaging.answer import Answer
from suitkaise.messaging.messages import Payload
from suitkaise.platform.flag import Flag
from suitkaise.platform.sampler import sample
from suitkaise.platform.threads import DaemonThread

__all__ = ["profile"]


def profile(path: str, seconds: float, rate: float) -> Answer[dict[str, Any]]:
    """Sample the threads of the workers and supervisors at and below `path`; at the root of a tree, all threads.

    The answer comes after `seconds`, or when the worker has ended; if nobody waits for it any more, the profile ends.
    """
    answer: Answer[dict[str, Any]] = Answer()
    over = Flag()
    answer.when_done(lambda done: over.set())

    def wanted(thread: threading.Thread) -> bool:
        name = thread.name.removeprefix("suitkaise-")  # that of a supervisor's thread begins so
        return "/" not in path or name.startswith((f"{path}#", f"{path}/")) or name == path

    def run() -> None:
        try:
            answer.settle(True, Payload(sample(seconds, rate, wanted, over.wait)))
        except Exception as error:
            answer.settle(False, Payload(error))

    DaemonThread(target=run, name="suitkaise-profile").start()
    return answer
