"""The watchers that are connected to the storage actor: each gets the changes below its path, once they are committed.

A watcher that does not read gets nothing more until its socket takes data again, and then what it has missed, merged
to one change for each entry; or, if the history does not reach back that far, an overflow.
"""

from __future__ import annotations

import functools
import socket
from typing import NamedTuple

import msgspec

from suitkaise.messaging import wire
from suitkaise.storage.connections import Connection, Connections
from suitkaise.storage.history import MAX_CHANGES, History, Logged, merged
from suitkaise.storage.keys import is_below, normal_path, unpack_key
from suitkaise.storage.protocol import Changes, Watch

__all__ = ["Watchers"]

MERGE_ABOVE = 1000
"""How many changes are sent at once; more are merged to one for each entry."""

_BUFFER = 1 << 16  # bytes that may wait for a watcher

_SHOW_POSITION_EVERY = MAX_CHANGES // 4  # revisions, so that a quiet watcher can resume without an overflow


class _Watcher:
    __slots__ = ("path", "position", "told")

    def __init__(self, path: str, position: int) -> None:
        self.path = path
        self.position = position
        self.told = -1  # the last position that the watcher was told


class Watchers:
    """Sends changes to the connections that have subscribed to them."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self._watchers: dict[Connection, _Watcher] = {}

    def __len__(self) -> int:
        return len(self._watchers)

    def subscribe(self, connection: Connection, request: Watch, revision: int) -> None:
        """Have a connection get the changes after `request.since`, by default those after `revision`.

        Raises:
            TypeError, ValueError: the path is invalid.
        """
        connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER)
        since = revision if request.since is None else request.since
        self._watchers[connection] = _Watcher(normal_path(request.path), since)

    def publish(self, history: History) -> None:
        """Send to every watcher what it lacks, if its socket has taken everything so far."""
        for connection, watcher in list(self._watchers.items()):
            if not connection.is_open:
                del self._watchers[connection]
            elif not connection.output and (watcher.position != history.revision or watcher.told < 0):
                self._send(connection, watcher, history)

    def _send(self, connection: Connection, watcher: _Watcher, history: History) -> None:
        changes = history.since(watcher.position)
        watcher.position = history.revision
        overflow = changes is None
        found = [change for change in changes or () if is_below(_place_of(change).path, watcher.path)]
        if len(found) > MERGE_ABOVE:
            # A watcher that goes on from the midst of merged changes knows entries as they were before these.
            found = merged(found, keep_removed=watcher.told < 0)
        behind = history.revision - watcher.told
        if found or overflow or watcher.told < 0 or behind > _SHOW_POSITION_EVERY:
            watcher.told = history.revision
            payload = _encode([(change.revision, change.kind, *_place_of(change)) for change in found])
            self._connections.send(connection, wire.encode(Changes(history.revision, overflow), payload))


class _Place(NamedTuple):
    path: str
    name: str


def _place_of(change: Logged) -> _Place:
    return _Place(*change.long_key) if change.long_key else _unpacked(change.key)


@functools.lru_cache(maxsize=8192)
def _unpacked(key: bytes) -> _Place:
    return _Place(*unpack_key(key))


_encode = msgspec.msgpack.Encoder().encode
