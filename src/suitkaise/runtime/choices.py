"""What the command line chooses for the runtime of its program, before there is one; it loads nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from suitkaise.specs.cluster import Ray

__all__ = ["debug", "engine", "observe", "runs", "started"]

debug: bool = False
"""Whether process workers run as threads of this program, in its terminal; `suitkaise run --debug` sets it."""

engine: Ray | Literal["local"] | None = None
"""The engine of trees that declare none, or `"local"`: all workers run here; `suitkaise run --engine` sets it."""

observe: Callable[[str], Callable[[], None]] | None = None
"""Starts an observer of the program that uses a directory, and returns the function that ends it; `suitkaise run
--observe` sets it."""

runs: int = 0
"""The number of trees that this program has run in the foreground; the command line reads it."""

started: set[str] = set()
"""The names of the trees that this program has started; the command line reads it."""
