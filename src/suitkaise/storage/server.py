"""The work of the storage actor: read the clients' sockets, carry all requests out in one transaction, reply.

No request is acknowledged before it is committed, and many requests share one commit. Values are never decoded
here. The loop of the storage actor (`runtime.storage_service`) calls `serve` again and again.
"""

from __future__ import annotations

import contextlib
import functools
import math
import os
import socket
import time
from pathlib import Path
from typing import Any, TypeAlias

from suitkaise.errors import SnapshotError, StorageDamaged, StorageError, StorageFull
from suitkaise.messaging import wire
from suitkaise.messaging.identity import split_owner
from suitkaise.platform.log_queue import QueuedLogger
from suitkaise.storage import operations
from suitkaise.storage.backends.access import DEFAULT_MAP_SIZE
from suitkaise.storage.backends.integrity import check
from suitkaise.storage.backends.store import Store, WriteTransaction
from suitkaise.storage.backends.tables import FileSystemFull, Unreachable
from suitkaise.storage.connections import Connection, Connections, Requests
from suitkaise.storage.keys import entry_key
from suitkaise.storage.protocol import (
    VERSION,
    WINDOW,
    Append,
    Forget,
    Hello,
    Increment,
    Put,
    Remove,
    Reply,
    ReplyCode,
    Watch,
    Welcome,
)
from suitkaise.storage.watchers import Watchers

__all__ = ["StorageServer"]

logger: QueuedLogger = QueuedLogger("suitkaise.storage")

REAP_AT_ONCE = 500
"""How many entries of an owner one transaction removes, so that writers do not wait for long."""

LOW_SPACE = 100 << 20
"""Bytes of free space below which a server logs a warning at its start."""

MAINTENANCE_INTERVAL = 1.0
"""Seconds between two checks for dead readers, while there is work."""

STUCK_AFTER = 10.0
"""Seconds after which a reader that still reads an old snapshot is reported."""

_MAX_UNSAVED = 1000  # clients, while the file system is full
_FORGET_CLIENTS_EVERY = 1000  # connections that ended

_Replies: TypeAlias = dict[Connection, list["Reply | Welcome"]]


class _BadRequest(Exception):
    def __init__(self, connection: Connection, error: Exception) -> None:
        super().__init__(str(error))
        self.connection = connection
        self.error = error


class StorageServer:
    """Serves the storage in a directory to the clients that connect to a listening socket.

    Args:
        directory: the storage's directory; only its user has access.
        listener: the listening Unix socket that clients connect to. `close` leaves it open.
        durable: acknowledge a request only after it has reached the disk.
        engine: "lmdb", "sqlite" or the URL of a Redis server; None: the one that made the store, for a new store LMDB
            if it is installed.
        map_size: the initial size of LMDB's map in bytes; the map grows when it is full.

    Raises:
        StorageError: another process writes to this storage, or the engine cannot be used for it.
    """

    def __init__(
        self,
        directory: str | Path,
        listener: socket.socket,
        *,
        durable: bool = False,
        engine: str | None = None,
        map_size: int = DEFAULT_MAP_SIZE,
    ) -> None:
        self._store = Store(Path(directory), durable=durable, engine=engine, map_size=map_size)
        self._fatal: tuple[type[Exception], ...] = (StorageError, *self._store.errors)
        self._connections = Connections(listener)
        self._watchers = Watchers(self._connections)
        self._maintained_at = time.monotonic()
        self._oldest_reader: tuple[tuple[int, object] | None, float] = (None, 0.0)  # and since when
        self._next_forget = _FORGET_CLIENTS_EVERY
        # Owners whose entries are being removed, and the requests to answer at the end.
        self._reaping: dict[tuple[str, bool], list[tuple[Connection, int]]] = {
            (owner, True): [] for owner in self._store.dead_with_entries()
        }
        # Refusals that are not stored, mostly because the file system was full, by client.
        self._unsaved_replies: dict[bytes, list[Reply]] = {}
        self._forget_clients()
        file_system = os.statvfs(directory)
        free = file_system.f_bavail * file_system.f_frsize
        if free < LOW_SPACE:
            logger.warning(
                "only %d MB are free in the storage's directory %s (Docker gives /dev/shm 64 MB by default)",
                free >> 20,
                directory,
            )

    def check(self) -> None:
        """Read the whole store; raise StorageDamaged if something is not what was stored."""
        check(self._store)

    @property
    def client_count(self) -> int:
        """The number of open connections."""
        return len(self._connections)

    @property
    def heartbeat(self) -> float | None:
        """Seconds after which `serve` has to be called again also while there are no requests; None: no limit."""
        return self._store.engine.heartbeat

    def serve(self, timeout: float | None, *wake_fds: int) -> bool:
        """Run one cycle: wait for requests, carry them out, reply.

        Args:
            timeout: seconds after which to return without requests; None: no limit.
            wake_fds: descriptors that end the wait when they are readable; they are not read.

        Returns:
            Whether one of `wake_fds` was readable.

        Raises:
            Exception: the store is unusable, so the actor has to be restarted.
        """
        self._connections.wake_by(wake_fds)
        requests = self._connections.wait(0 if self._reaping else timeout)
        if requests:
            self._carry_out(requests)
        if self._reaping:
            self._reap()
        if self._watchers:
            self._watchers.publish(self._store.history)
        self._maintain()
        return self._connections.is_woken

    def close(self) -> None:
        """Close all connections and the store. Every acknowledged request is stored."""
        self._connections.close()
        self._store.close()

    def _carry_out(self, requests: Requests) -> None:
        while requests:
            try:
                self._store.write(functools.partial(self._apply, requests=requests), then=self._reply)
                self._note_forgets(requests)
                return
            except _BadRequest as bad:
                self._connections.drop(bad.connection, f"invalid request: {bad.error!r}")
                requests = [request for request in requests if request[0] is not bad.connection]
            except Unreachable as error:
                self._refuse_all(requests, error)
                return
            except (StorageFull, SnapshotError, StorageDamaged) as error:
                if len(requests) == len(requests[0][1]) == 1:
                    self._refuse(requests[0][0], requests[0][1][0][0], error)
                    return
                for connection, frames in requests:  # some of the requests may fit, or be sound
                    for frame in frames:
                        self._carry_out([(connection, [frame])])
                return

    def _apply(self, transaction: WriteTransaction, requests: Requests) -> _Replies:
        """Carry out all requests; return the replies to send after the commit."""
        replies_to: _Replies = {}
        if self._store.engine.is_remote:
            transaction.expect(_keys_in(requests))
        for connection, frames in requests:
            if not connection.is_open:  # the client has a newer one, and sends these requests again
                continue
            replies_to[connection] = replies = []
            quiet = 0
            try:
                if type(frames[0][0]) is Watch:
                    self._subscribe(connection, frames)
                    continue
                for header, payload in frames:
                    reply = self._apply_one(transaction, connection, header, payload)
                    if reply is not None:
                        replies.append(reply)
                        quiet = 0
                    elif type(header) is not Forget:
                        quiet = header.request
            except self._fatal:
                raise
            except Exception as error:  # a bad request of one client must not end the service for the others
                raise _BadRequest(connection, error) from error
            if quiet:  # one reply acknowledges all of them
                replies.append(Reply(quiet, ReplyCode.OK, transaction.revision))
        return replies_to

    def _apply_one(
        self, transaction: WriteTransaction, connection: Connection, header: Any, payload: bytes
    ) -> Reply | Welcome | None:
        client_id = connection.client
        if client_id is None or type(header) is Hello:
            return self._welcome(transaction, connection, header)
        if type(header) is Forget:
            split_owner(header.owner)  # an invalid owner must fail here, not when its entries are removed
            if header.dead:
                transaction.mark_dead(header.owner)
            return None
        client = transaction.client(client_id)
        reply = operations.carry_out(transaction, client, header, payload)
        if self._unsaved_replies and client_id in self._unsaved_replies:
            unsaved = self._unsaved_replies[client_id]
            client.replies += [refusal for refusal in unsaved if refusal not in client.replies]
        return reply

    def _subscribe(self, connection: Connection, frames: list[wire.Frame]) -> None:
        request = frames[0][0]
        if connection.client is not None or len(frames) > 1 or request.version != VERSION:
            raise ValueError(f"a watcher's connection is for one Watch of version {VERSION} alone")
        self._watchers.subscribe(connection, request, self._store.revision)
        self._store.is_watched = True

    def _welcome(self, transaction: WriteTransaction, connection: Connection, hello: object) -> Welcome:
        if not isinstance(hello, Hello):
            raise ValueError("the first request must be Hello")
        if hello.version != VERSION:
            raise ValueError(f"the version of the protocol must be {VERSION}, not {hello.version}")
        self._connections.replace(connection, hello.client)
        client = transaction.look_up_client(hello.client)
        return Welcome(client.last, client.replies + self._unsaved_replies.get(hello.client, []))

    def _refuse_all(self, requests: Requests, error: Unreachable) -> None:
        """Refuse the requests of everybody while the server that keeps the store is away."""
        logger.error("%s", error)
        for connection, frames in requests:
            for header, _ in frames:
                if type(header) is Hello:  # the client's record is there, too
                    self._connections.send(connection, wire.encode(_refusal(0, error)))
                    break
                if type(header) is Watch:  # it subscribes again, and goes on where it was
                    self._connections.drop(connection, str(error))
                    break
                self._keep(connection, header, _refusal(header.request, error))

    def _refuse(self, connection: Connection, header: Any, error: StorageError) -> None:
        """Refuse a request after its transaction; a file system that is full has no room to store the reply either."""
        logger.error("%s", error)
        reply = _refusal(getattr(header, "request", 0), error, self._store.revision)
        if isinstance(error, FileSystemFull):
            reply.detail = None  # the client knows what to say of a file system
        self._keep(connection, header, reply)

    def _keep(self, connection: Connection, header: Any, reply: Reply) -> None:
        """Send a refusal that is not stored; keep it for the client's next connection."""
        if connection.client is not None:
            unsaved = self._unsaved_replies.pop(connection.client, []) if header.quiet else []
            oldest = header.request - WINDOW  # earlier replies have arrived
            self._unsaved_replies[connection.client] = [*(old for old in unsaved if old.request > oldest), reply]
            if len(self._unsaved_replies) > _MAX_UNSAVED:
                del self._unsaved_replies[next(iter(self._unsaved_replies))]
        self._connections.send(connection, wire.encode(reply))

    def _reply(self, replies_to: _Replies) -> None:
        for connection, replies in replies_to.items():
            if replies:
                if self._unsaved_replies and connection.client is not None:
                    self._unsaved_replies.pop(connection.client, None)
                data = wire.encode(replies[0]) if len(replies) == 1 else b"".join(map(wire.encode, replies))
                self._connections.send(connection, data)

    def _note_forgets(self, requests: Requests) -> None:
        for connection, frames in requests:
            for header, _ in frames:
                if type(header) is Forget:
                    self._reaping.setdefault((header.owner, header.dead), []).append((connection, header.request))

    def _reap(self) -> None:
        (owner, dead), waiting = next(iter(self._reaping.items()))
        try:
            count = self._store.write(lambda transaction: transaction.reap(owner, earlier=dead, limit=REAP_AT_ONCE))
        except (StorageFull, StorageDamaged, Unreachable) as error:
            logger.error("cannot remove the entries of %s: %s", owner, error)
            refusal = _refusal(0, error)
            status, detail = refusal.status, refusal.detail
        else:
            if count == REAP_AT_ONCE:
                return
            status, detail = ReplyCode.OK, None
        del self._reaping[owner, dead]
        for connection, request in waiting:
            self._connections.send(connection, wire.encode(Reply(request, status, self._store.revision, detail)))

    def _maintain(self) -> None:
        now = time.monotonic()
        if now - self._maintained_at < MAINTENANCE_INTERVAL:
            return
        self._maintained_at = now
        self._store.maintain()
        self._report_stuck_reader(now)
        if self._connections.dropped >= self._next_forget:
            self._next_forget = self._connections.dropped + _FORGET_CLIENTS_EVERY
            self._forget_clients()

    def _report_stuck_reader(self, now: float) -> None:
        """Log a reader that keeps old data from being reused for long, so that the file grows; once for each."""
        reader = self._store.oldest_reader()
        known, since = self._oldest_reader
        if reader != known:
            self._oldest_reader = reader, now
        elif reader is not None and now - since >= STUCK_AFTER:
            self._oldest_reader = reader, math.inf
            logger.warning(
                "%s has been reading an old state of the storage for %.0f seconds, so nothing that was removed since "
                "makes room: the file grows with every write. Is the process stopped?",
                f"pid {reader[0]}" if reader[0] else "a process",
                now - since,
            )

    def _forget_clients(self) -> None:
        try:
            self._store.forget_clients(self._connections.clients())
        except (StorageFull, Unreachable) as error:
            logger.error("cannot remove the records of former clients: %s", error)


def _keys_in(requests: Requests) -> list[bytes]:
    """Return the keys of the entries that the requests will look at."""
    keys: dict[bytes, None] = {}
    for _, frames in requests:
        for header, _ in frames:
            if isinstance(header, (Put, Remove, Increment, Append)):
                # An invalid name is told when it is the request's turn.
                with contextlib.suppress(TypeError, ValueError):
                    keys[entry_key(header.path, header.name)[0]] = None
    return list(keys)


def _refusal(request: int, error: StorageError, revision: int = 0) -> Reply:
    status = ReplyCode.DAMAGED
    if isinstance(error, StorageFull):
        status = ReplyCode.FULL
    elif isinstance(error, Unreachable):
        status = ReplyCode.UNREACHABLE
    return Reply(request, status, revision, str(error))
