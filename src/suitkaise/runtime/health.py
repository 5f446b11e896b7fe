"""Whether the supervision itself works: asked of the I/O thread and of the actor of the root."""

from __future__ import annotations

import time

from suitkaise.errors import AskTimeout
from suitkaise.platform.flag import Flag
from suitkaise.platform.reactor import Reactor
from suitkaise.supervision.interface import SupervisorInterface

__all__ = ["trouble"]


def trouble(reactor: Reactor, root: SupervisorInterface, patience: float) -> str | None:
    """Return what of a tree's supervision does not answer within `patience` seconds; None if all of it works.

    The answer of the root comes the way of all its decisions: through its actor, its policy and its executor.
    """
    deadline = time.monotonic() + patience
    turned = Flag()
    served: list[bool] = []  # False where the I/O thread has ended, and callbacks run in the threads of their callers

    def turn() -> None:
        served.append(reactor.in_thread)
        turned.set()

    reactor.call_soon_threadsafe(turn)
    answer = root.ping()
    if not turned.wait(patience) or not served[0]:
        return "the I/O thread does not answer"
    try:
        answer.get(max(0.0, deadline - time.monotonic()))
    except AskTimeout:
        return f"the supervisor {root.path!r} does not answer"
    except Exception as error:
        return str(error)
    return None
