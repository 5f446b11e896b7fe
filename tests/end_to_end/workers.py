"""Workers that several tests use."""

from __future__ import annotations

import os
from typing import Any

from suitkaise import Process
from suitkaise.events import ChildExited


class Echo(Process):
    """Answers what it is asked; some words have a meaning."""

    def on_receive(self, message: Any) -> Any:
        match message:
            case "leave":
                self.rejoin()
            case "pid":
                return os.getpid()
            case "crash":
                raise ValueError("it was asked to crash")
        return message


class Counts(Process):
    """Loops, and tells how far it is."""

    def loop(self) -> int:
        self.wait(0.001)
        return self.current_loop

    def on_receive(self, message: Any) -> int:
        return int(self.current_loop)


def next_exit(events: Any, timeout: float = 5.0) -> Any:
    """The reason of the next worker that ends by itself."""
    while (event := events.get(timeout)) is not None:
        if isinstance(event, ChildExited):
            return event.reason
    raise AssertionError(f"nobody ended within {timeout} seconds")
