"""The storage actor's work: drain the clients' sockets, one transaction for all of it, then the answers.

Nothing is acknowledged before it is committed, and many requests share one commit. Values are never decoded
here. Whoever owns the loop (`storage.actor`) calls `serve` again and again.
"""

from __future__ import annotations

import functools
import logging
import os
import socket
import time
from pathlib import Path
from typing import Any, TypeAlias

import lmdb

from suitkaise.errors import StorageError, StorageFull
from suitkaise.messaging import wire
from suitkaise.storage import operations
from suitkaise.storage.backends.lmdb_environment import DEFAULT_MAP_SIZE
from suitkaise.storage.backends.lmdb_writer import Store, WriteTransaction
from suitkaise.storage.connections import Connection, Connections, Requests
from suitkaise.storage.protocol import VERSION, WINDOW, Forget, Hello, Reply, ReplyCode, Welcome

__all__ = ["StorageServer"]

logger: logging.Logger = logging.getLogger("suitkaise.storage")

REAP_AT_ONCE = 500
"""How many entries of a dead owner go in one transaction, so that writers do not wait for long."""

LITTLE_ROOM = 100 << 20
"""Bytes of free space below which a server warns at its start."""

TEND_EVERY = 1.0
"""Seconds between two looks for dead readers, while there is work."""

_MOST_REFUSED = 1000  # clients, while there is no room
_FORGET_CLIENTS_EVERY = 1000  # connections that ended

_Answers: TypeAlias = dict[Connection, list["Reply | Welcome"]]


class _BadRequest(Exception):
    def __init__(self, peer: Connection, error: Exception) -> None:
        super().__init__(str(error))
        self.peer = peer
        self.error = error


class StorageServer:
    """Serves the storage in a directory to the clients that connect to a listening socket.

    Args:
        directory: the storage's directory; only its user may get in.
        listener: the listening Unix socket that clients connect to. It stays the caller's.
        durable: whatever is acknowledged has reached the disk.
        map_size: where LMDB's map begins, in bytes; it grows by itself.

    Raises:
        StorageError: another process writes to this storage.
    """

    def __init__(
        self,
        directory: str | Path,
        listener: socket.socket,
        *,
        durable: bool = False,
        map_size: int = DEFAULT_MAP_SIZE,
    ) -> None:
        self._store = Store(Path(directory), durable=durable, map_size=map_size)
        self._peers = Connections(listener)
        self._tended = time.monotonic()
        self._next_forget = _FORGET_CLIENTS_EVERY
        # What is being reaped, with who is to be told: (owner, dead) -> [(peer, request)].
        self._reaping: dict[tuple[str, bool], list[tuple[Connection, int]]] = {
            (owner, True): [] for owner in self._store.dead_with_entries()
        }
        self._unremembered: dict[bytes, list[Reply]] = {}
        self._forget_clients()
        room = os.statvfs(directory)
        if room.f_bavail * room.f_frsize < LITTLE_ROOM:
            logger.warning(
                "only %d MB are free where the storage lies, in %s (Docker gives /dev/shm 64 MB by default)",
                room.f_bavail * room.f_frsize >> 20,
                directory,
            )

    @property
    def client_count(self) -> int:
        """How many connections there are."""
        return len(self._peers)

    @property
    def revision(self) -> int:
        """The revision that was committed last."""
        return self._store.revision

    def serve(self, timeout: float | None, *wake_fds: int) -> None:
        """One cycle: wait, carry out what came, answer.

        Args:
            timeout: return after this many seconds if nothing comes; None: wait as long as it takes.
            wake_fds: descriptors that end the wait when they are readable; they are not read.

        Raises:
            StorageError, lmdb.Error: the storage itself is broken, so the actor should be started anew.
        """
        self._peers.wake_by(wake_fds)
        requests = self._peers.wait(0 if self._reaping else timeout)
        if requests:
            self._carry_out(requests)
        if self._reaping:
            self._reap()
        self._tend()

    def close(self) -> None:
        """Close all connections and the store. What was acknowledged is stored."""
        self._peers.close()
        self._store.close()

    def _carry_out(self, requests: Requests) -> None:
        while requests:
            try:
                self._answer(requests, self._store.write(functools.partial(self._apply, requests=requests)))
                return
            except _BadRequest as bad:
                self._peers.drop(bad.peer, f"a request of it cannot be carried out: {bad.error!r}")
                requests = [request for request in requests if request[0] is not bad.peer]
            except StorageFull as full:
                if len(requests) == len(requests[0][1]) == 1:
                    self._refuse(requests[0][0], requests[0][1][0][0], full)
                    return
                for peer, frames in requests:  # some of it may have room
                    for frame in frames:
                        self._carry_out([(peer, [frame])])
                return

    def _apply(self, batch: WriteTransaction, requests: Requests) -> _Answers:
        """Carry all of it out; returns what is to be told once it is committed."""
        answers: _Answers = {}
        for peer, frames in requests:
            if peer not in self._peers:  # its client has a newer connection, and sends this again
                continue
            answers[peer] = told = []
            quiet = 0
            try:
                for header, payload in frames:
                    reply = self._apply_one(batch, peer, header, payload)
                    if reply is not None:
                        told.append(reply)
                        quiet = 0
                    elif type(header) is not Forget:
                        quiet = header.request
            except (StorageError, lmdb.Error):
                raise
            except Exception as error:  # whatever it is, it must not end the service for all others
                raise _BadRequest(peer, error) from error
            if quiet:  # one reply for all of them
                told.append(Reply(quiet, ReplyCode.OK, batch.revision))
        return answers

    def _apply_one(
        self, batch: WriteTransaction, peer: Connection, header: Any, payload: bytes
    ) -> Reply | Welcome | None:
        client_id = peer.client
        if client_id is None or type(header) is Hello:
            return self._welcome(batch, peer, header)
        if type(header) is Forget:
            if header.dead:
                batch.mark_dead(header.owner)
            return None
        client = batch.client(client_id)
        reply = operations.carry_out(batch, client, header, payload)
        if client_id in self._unremembered:
            refused = self._unremembered[client_id]
            client.replies += [error_for for error_for in refused if error_for not in client.replies]
        return reply

    def _welcome(self, batch: WriteTransaction, peer: Connection, hello: object) -> Welcome:
        if not isinstance(hello, Hello):
            raise ValueError("it did not say who it is")
        if hello.version != VERSION:
            raise ValueError(f"it speaks version {hello.version} of the protocol, not {VERSION}")
        self._peers.replace(peer, hello.client)
        client = batch.look_up_client(hello.client)
        return Welcome(client.last, client.replies + self._unremembered.get(hello.client, []))

    def _refuse(self, peer: Connection, header: Any, full: StorageFull) -> None:
        """There is no room to carry it out, and none to write down that it was refused: that is kept here."""
        logger.error("%s", full)
        reply = Reply(header.request, ReplyCode.FULL, self._store.revision)
        if peer.client is not None:
            refused = self._unremembered.pop(peer.client, []) if header.quiet else []
            oldest = header.request - WINDOW  # what came before has arrived
            self._unremembered[peer.client] = [*(old for old in refused if old.request > oldest), reply]
            if len(self._unremembered) > _MOST_REFUSED:
                del self._unremembered[next(iter(self._unremembered))]
        self._peers.send(peer, wire.encode(reply))

    def _answer(self, requests: Requests, answers: _Answers) -> None:
        for peer, replies in answers.items():
            if replies:
                if self._unremembered and peer.client is not None:
                    self._unremembered.pop(peer.client, None)
                self._peers.send(peer, b"".join(map(wire.encode, replies)))
        for peer, frames in requests:
            for header, _ in frames:
                if type(header) is Forget:
                    self._reaping.setdefault((header.owner, header.dead), []).append((peer, header.request))

    def _reap(self) -> None:
        (owner, dead), waiting = next(iter(self._reaping.items()))
        try:
            count = self._store.write(lambda batch: batch.reap(owner, earlier=dead, limit=REAP_AT_ONCE))
        except StorageFull as full:
            logger.error("entries of %s could not be removed: %s", owner, full)
            status = ReplyCode.FULL
        else:
            if count == REAP_AT_ONCE:
                return
            status = ReplyCode.OK
        del self._reaping[owner, dead]
        for peer, request in waiting:
            self._peers.send(peer, wire.encode(Reply(request, status, self._store.revision)))

    def _tend(self) -> None:
        now = time.monotonic()
        if now - self._tended < TEND_EVERY:
            return
        self._tended = now
        self._store.check_readers()
        if self._peers.dropped >= self._next_forget:
            self._next_forget = self._peers.dropped + _FORGET_CLIENTS_EVERY
            self._forget_clients()

    def _forget_clients(self) -> None:
        try:
            self._store.forget_clients(self._peers.clients())
        except StorageFull as full:
            logger.error("clients that are gone could not be forgotten: %s", full)
