"""Measures what the machine of a node and the workers on it use, every few seconds, in a thread of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping

from suitkaise.cluster.protocol import Figures

__all__ = ["EVERY", "measure"]

EVERY = 2.0
"""Seconds between two measurements."""


def measure(pids: Callable[[], Mapping[int, int]], send: Callable[[Figures], None], over: threading.Event) -> None:
    """Send the figures again and again, until it is over. `pids` returns the numbers of the workers by their pids."""
    import psutil  # 20 ms, for which no worker waits here

    from suitkaise.platform.resources import Resources

    resources, cpus = Resources(), psutil.cpu_count() or 1
    psutil.cpu_percent()
    cpu: float | None = None
    while True:
        workers = pids()
        used = resources.measure(workers)
        memory = psutil.virtual_memory()
        taken = memory.total - memory.available
        send(Figures(cpu, cpus, taken, memory.total, [(workers[pid], *amounts) for pid, amounts in used.items()]))
        if over.wait(EVERY):
            return
        cpu = psutil.cpu_percent() / 100 * cpus
