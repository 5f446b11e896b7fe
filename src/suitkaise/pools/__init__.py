"""Pools of supervised workers, as executors of `concurrent.futures`: a worker that dies costs nobody but its own task.

>>> from suitkaise.pools import ThreadPool
>>> with ThreadPool(2) as pool:
...     print(pool.submit(pow, 2, 5).result(), list(pool.map(abs, [-1, -2])))
32 [1, 2]
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from suitkaise.pools.bound import BoundPool, create_pool
    from suitkaise.pools.errors import PoolBroken, TaskFailed, TaskTimeout
    from suitkaise.pools.executors import Pool, ProcessPool, ThreadPool

__all__ = [
    "BoundPool",
    "Pool",
    "PoolBroken",
    "ProcessPool",
    "TaskFailed",
    "TaskTimeout",
    "ThreadPool",
    "create_pool",
]

_MODULES = {
    "BoundPool": "bound", "create_pool": "bound",
    "PoolBroken": "errors", "TaskFailed": "errors", "TaskTimeout": "errors",
    "Pool": "executors", "ProcessPool": "executors", "ThreadPool": "executors",
}  # fmt: skip
"""Where each name is: a worker of a pool imports this package, and needs none of them."""


if not TYPE_CHECKING:  # a type checker is to know the names that there are

    def __getattr__(name: str) -> Any:
        if name in _MODULES:
            return getattr(importlib.import_module(f"suitkaise.pools.{_MODULES[name]}"), name)
        raise AttributeError(f"module 'suitkaise.pools' has no attribute {name!r}")
