"""Run the blocks of a setup in the test itself, as a worker would."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

from suitkaise.concept.setup import BuiltSetup, ThreadSetup
from suitkaise.concept.setup_worker import worker_for
from suitkaise.workers.hooks import build

__all__ = ["load", "run"]


def _nothing() -> None: ...


def run(
    setup: BuiltSetup | ThreadSetup, function: Callable[..., Any] = _nothing, *args: Any, loops: int = 1, **kwargs: Any
) -> None:
    """Call the hooks of the worker of a setup."""
    built = setup if isinstance(setup, BuiltSetup) else setup.build()
    worker = build(worker_for("thread", function, built, args, kwargs), None)
    worker.on_start()
    for _ in range(loops):
        worker.before_loop()
        worker.loop()
        worker.after_loop()
    worker.on_finish()


def load(path: Path, text: str, **names: Any) -> dict[str, Any]:
    """Write a module to a file, run it, and return its globals."""
    text = "from suitkaise.concept.setup import *\n" + textwrap.dedent(text)
    path.write_text(text)
    scope = {"__name__": path.stem, "__file__": str(path), **names}
    exec(compile(text, str(path), "exec"), scope)
    return scope
