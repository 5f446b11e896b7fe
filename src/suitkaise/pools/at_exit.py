"""The end of a program that has pools: the tasks that are left are run, as `concurrent.futures` does."""

from __future__ import annotations

import contextlib

from suitkaise.platform.exit_functions import at_exit
from suitkaise.platform.processes import was_interrupted
from suitkaise.pools.scheduler import live
from suitkaise.runtime import runtime  # noqa: F401  (it registers its own function first)

__all__: list[str] = []


@at_exit  # after the runtime has registered its own, which stops trees: the last one is called first
def _run_what_is_left() -> None:
    with contextlib.suppress(KeyboardInterrupt):
        if not was_interrupted():
            for scheduler in list(live):
                scheduler.shutdown(wait=True, cancel=False)
            return
    for scheduler in list(live):
        scheduler.interrupt()
