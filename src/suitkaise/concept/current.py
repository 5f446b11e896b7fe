"""The worker that runs the calling code."""

from __future__ import annotations

from suitkaise.messaging.identity import worker_of_thread
from suitkaise.workers.worker import Worker

__all__ = ["current_worker"]


def current_worker() -> Worker | None:
    """Return the worker that runs in this thread; None outside of any running worker.

    In a worker's process that is also the worker of the threads that the worker has started by itself. It is known from
    the worker's constructor to its last hook.

    >>> current_worker() is None
    True
    """
    worker: Worker | None = worker_of_thread()
    return worker
