"""Which client a thread uses: one for each thread and storage, and none across a fork."""

from __future__ import annotations

import os
import threading
import weakref
from typing import Any

from suitkaise.storage.client import Client

__all__ = ["client_of", "clients_of"]


def client_of(directory: str, timeout: float, depth: int = 0) -> Client:
    """This thread's client of a storage.

    If the thread is in the midst of using it, then this is a signal handler, and it gets another client.
    """
    try:
        client: Client = _of_thread.clients[directory, timeout, depth]
    except AttributeError:
        _of_thread.clients = {}
        return client_of(directory, timeout)
    except KeyError:
        client = _of_thread.clients[directory, timeout, depth] = Client(directory, timeout)
        with _lock:
            _all.add(client)
    return client_of(directory, timeout, depth + 1) if client.busy else client


def clients_of(directory: str) -> list[Client]:
    """All clients of a storage in this process, whichever thread they belong to."""
    with _lock:
        return [client for client in _all if client.directory == directory]


_of_thread: Any = threading.local()
_all: weakref.WeakSet[Client] = weakref.WeakSet()
_lock = threading.RLock()


def _after_fork_in_child() -> None:
    """The parent's connections are the parent's; a child makes its own."""
    global _of_thread, _all, _lock
    _of_thread = threading.local()
    _all = weakref.WeakSet()
    _lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
