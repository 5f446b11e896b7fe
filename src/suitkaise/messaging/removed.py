"""The workers that were removed lately, and their results: bounded in number and in bytes.

A ref is a path, so no part of the program knows whether someone will still ask for a result. Whoever waits for it when
the worker ends gets it in any case. After that it is kept until the results of other workers push it out: those that
were fetched already go first, and then the oldest.
"""

from __future__ import annotations

import contextlib
import sys
from collections import OrderedDict

from suitkaise.messaging.address import Address
from suitkaise.messaging.messages import Payload
from suitkaise.platform.locks import RLock

__all__ = ["MOST_FETCHED_BYTES", "MOST_REMOVED", "MOST_RESULT_BYTES", "RemovedWorkers"]

MOST_REMOVED = 1_000
"""How many removed workers are remembered, so that their end and their result can still be requested."""

MOST_RESULT_BYTES = 256 << 20
"""How many bytes of results of removed workers are kept that were not fetched; a single one may have any size."""

MOST_FETCHED_BYTES = 16 << 20
"""How many bytes of those results are kept that were fetched at least once."""


class RemovedWorkers:
    """The addresses of removed workers, by path. The methods may be called from any thread."""

    def __init__(self) -> None:
        self._addresses: OrderedDict[str, Address] = OrderedDict()
        self._new = _Results(MOST_RESULT_BYTES, single=True)
        self._fetched = _Results(MOST_FETCHED_BYTES)
        self._lock = RLock()

    def get(self, path: str) -> Address | None:
        """Return the address that was removed from `path`, if it is remembered."""
        return self._addresses.get(path)

    def below(self, path: str) -> list[str]:
        """Return the paths of those that were removed from the supervisor at `path`, the oldest first."""
        with self._lock:
            return [one for one in self._addresses if one.rpartition("/")[0] == path]

    def add(self, address: Address) -> None:
        """Remember an address; forget the oldest one if there are too many."""
        with self._lock:
            self.forget(address.path)
            self._addresses[address.path] = address
            if len(self._addresses) > MOST_REMOVED:
                self.forget(next(iter(self._addresses)))

    def keep_result(self, address: Address) -> None:
        """Count the result of an address that was added; drop the results of others for which no room is left."""
        with self._lock:
            if self._addresses.get(address.path) is address:
                (self._fetched if address.fetched else self._new).add(address)

    def note_fetched(self, address: Address) -> None:
        """Count the result among those that were fetched."""
        with self._lock:
            address.fetched = True
            if self._new.discard(address):
                self._fetched.add(address)

    def forget(self, path: str) -> None:
        """Forget the address of that path."""
        with self._lock:
            address = self._addresses.pop(path, None)
            if address is not None:
                self._new.discard(address)
                self._fetched.discard(address)


class _Results:
    """Some results, the oldest first, together not larger than `most` bytes; with `single`, the newest in any case."""

    def __init__(self, most: int, *, single: bool = False) -> None:
        self._most = most
        self._single = single
        self._sizes: OrderedDict[Address, int] = OrderedDict()
        self._bytes = 0

    def add(self, address: Address) -> None:
        size = _size_of(address.result)
        if not size:
            return
        self._sizes[address] = size
        self._bytes += size
        while self._bytes > self._most and len(self._sizes) > self._single:
            oldest, size = self._sizes.popitem(last=False)
            self._bytes -= size
            oldest.result, oldest.dropped = None, True

    def discard(self, address: Address) -> bool:
        size = self._sizes.pop(address, 0)
        self._bytes -= size
        return size > 0


def _size_of(result: Payload | None) -> int:
    """Return the bytes of a result; of a thread's, which is no bytes, those of the object itself, without its parts."""
    if result is None:
        return 0
    size = result.size
    if not result.encoded:
        with contextlib.suppress(Exception):  # the class is the user's
            size = sys.getsizeof(result.value)
    return size
