"""A profile of a worker's process, made by a thread of that process for an observer that waits at a socket.

The observer listens at `profile_socket` and sends the signal `PROFILE`. Its handler starts the thread, which connects,
reads one line with the wish, samples, and answers with one line. When the observer shuts its side down or goes away,
the profile ends. Without an observer the signal does nothing.
"""

from __future__ import annotations

import contextlib
import json
import select
import socket
import threading
from typing import Any

from suitkaise.platform.runtime_directory import profile_socket
from suitkaise.platform.sampler import sample
from suitkaise.platform.sockets import blocking, connect_own

__all__ = ["serve_profile"]

_LONGEST_WISH = 1_000


def serve_profile(directory: str, pid: int) -> None:
    """Make the profile that an observer of this process waits for; without one, do nothing. Blocks until it is made."""
    with contextlib.suppress(Exception), blocking(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as observer:
        connect_own(observer, profile_socket(directory, pid))
        wish = json.loads(observer.makefile("rb").readline(_LONGEST_WISH))
        observer.sendall(json.dumps(_sample(observer, wish)).encode() + b"\n")


def _sample(observer: socket.socket, wish: dict[str, Any]) -> dict[str, Any]:
    poll = select.poll()
    poll.register(observer, select.POLLIN | select.POLLRDHUP)

    def stopped(seconds: float) -> bool:
        return bool(poll.poll(seconds * 1000))

    return sample(float(wish["seconds"]), float(wish["rate"]), _is_the_users, stopped)


def _is_the_users(thread: threading.Thread) -> bool:
    return not thread.name.startswith("suitkaise-")
