"""The storage actor's work: drain the clients' sockets, one transaction for all of it, then the answers.

Nothing is acknowledged before it is committed, and many requests share one commit. Values are never decoded
here. Whoever owns the loop (`storage.actor`) calls `serve` again and again.
"""

from __future__ import annotations

import logging
import socket
import time
from pathlib import Path
from typing import Any, TypeAlias

from suitkaise.errors import StorageFull
from suitkaise.messaging import wire
from suitkaise.storage import operations
from suitkaise.storage.environment import DEFAULT_MAP_SIZE
from suitkaise.storage.peers import Peer, Peers
from suitkaise.storage.protocol import VERSION, Forget, Hello, Reply, Status, Welcome
from suitkaise.storage.store import Batch, Store

__all__ = ["StorageServer"]

logger = logging.getLogger("suitkaise.storage")

REAP_AT_ONCE = 500
"""How many entries of a dead owner go in one transaction, so that writers do not wait for long."""

TEND_EVERY = 1.0
"""Seconds between two looks for dead readers, while there is work."""

_FORGET_CLIENTS_EVERY = 1000  # connections that ended

_Requests: TypeAlias = list[tuple[Peer, Any, bytes]]
_Answers: TypeAlias = list[tuple[Peer, Any, "Reply | Welcome | None"]]


class _BadRequest(Exception):
    def __init__(self, peer: Peer, error: Exception) -> None:
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
        self._peers = Peers(listener)
        self._tended = time.monotonic()
        self._next_forget = _FORGET_CLIENTS_EVERY
        # What is being reaped, with who is to be told: (owner, dead) -> [(peer, request)].
        self._reaping: dict[tuple[str, bool], list[tuple[Peer, int]]] = {
            (owner, True): [] for owner in self._store.dead_with_entries()
        }
        self._unremembered: dict[bytes, list[Reply]] = {}
        self._forget_clients()

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

    def _carry_out(self, requests: _Requests) -> None:
        while requests:
            try:
                answers = self._store.write(lambda batch, some=requests: self._apply(batch, some))  # type: ignore[misc]
                self._answer(answers)
                return
            except _BadRequest as bad:
                self._peers.drop(bad.peer, f"a request of it cannot be carried out: {bad.error!r}")
                requests = [request for request in requests if request[0] is not bad.peer]
            except StorageFull as full:
                if len(requests) > 1:  # some of it may have room
                    for request in requests:
                        self._carry_out([request])
                else:
                    self._refuse(requests[0], full)
                return

    def _apply(self, batch: Batch, requests: _Requests) -> _Answers:
        return [(peer, header, self._apply_one(batch, peer, header, payload)) for peer, header, payload in requests]

    def _apply_one(self, batch: Batch, peer: Peer, header: Any, payload: bytes) -> Reply | Welcome | None:
        try:
            if isinstance(header, Hello):
                return self._welcome(batch, peer, header)
            if peer.client is None:
                raise ValueError("it did not say who it is")
            if isinstance(header, Forget):
                if header.dead:
                    batch.mark_dead(header.owner)
                return None
            client = batch.client(peer.client)
            reply = operations.carry_out(batch, client, header, payload)
            if peer.client in self._unremembered:
                client.replies += [
                    refusal for refusal in self._unremembered[peer.client] if refusal not in client.replies
                ]
            return reply
        except (TypeError, ValueError, StopIteration) as error:
            raise _BadRequest(peer, error) from error

    def _welcome(self, batch: Batch, peer: Peer, hello: Hello) -> Welcome:
        if hello.version != VERSION:
            raise ValueError(f"it speaks version {hello.version} of the protocol, not {VERSION}")
        self._peers.replace(peer, hello.client)
        client = batch.look_up_client(hello.client)
        return Welcome(client.last, client.replies + self._unremembered.get(hello.client, []))

    def _refuse(self, request: tuple[Peer, Any, bytes], full: StorageFull) -> None:
        """There is no room to carry it out, and none to write down that it was refused: that is kept here."""
        peer, header, _ = request
        logger.error("%s", full)
        reply = Reply(header.request, Status.FULL, self._store.revision)
        if peer.client is not None:
            self._unremembered.setdefault(peer.client, []).append(reply)
        self._peers.send(peer, wire.encode(reply))

    def _answer(self, answers: _Answers) -> None:
        """What was waited for and what was refused gets a reply each, the rest one for all of it."""
        encode = wire.encode
        outputs: dict[Peer, list[bytes]] = {}
        quiet: dict[Peer, Reply] = {}
        for peer, header, answer in answers:
            output = outputs.setdefault(peer, [])
            if isinstance(header, Forget):
                self._reaping.setdefault((header.owner, header.dead), []).append((peer, header.request))
                continue
            if answer is None:  # carried out before
                answer = Reply(header.request, Status.OK, self._store.revision)
            elif isinstance(answer, Reply):
                if self._unremembered and peer.client is not None:
                    self._unremembered.pop(peer.client, None)
                if header.quiet and answer.status is Status.OK:
                    quiet[peer] = answer
                    continue
            output.append(encode(answer))
            quiet.pop(peer, None)
        for peer, reply in quiet.items():
            outputs[peer].append(encode(reply))
        for peer, output in outputs.items():
            if output:
                self._peers.send(peer, b"".join(output))

    def _reap(self) -> None:
        (owner, dead), waiting = next(iter(self._reaping.items()))
        try:
            count = self._store.write(lambda batch: batch.reap(owner, earlier=dead, limit=REAP_AT_ONCE))
        except StorageFull as full:
            logger.error("entries of %s could not be removed: %s", owner, full)
            status = Status.FULL
        else:
            if count == REAP_AT_ONCE:
                return
            status = Status.OK
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
