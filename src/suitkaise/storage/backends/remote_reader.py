"""Reading a storage that lies on another machine: each read is a question to the program there.

A worker on a node of a cluster finds a directory with the file `ELSEWHERE`, and with a socket by which writes and
watches get to the storage actor as they do on the program's own machine. Reads have no memory map there: each takes as
long as a question to the program, and nothing is cached.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from suitkaise.messaging.protocol import RequestKind
from suitkaise.messaging.router import router
from suitkaise.storage.backends.reader import NotThereYet, Reader
from suitkaise.storage.backends.revision import always_changing
from suitkaise.storage.records import Entry, Metadata

__all__ = ["RemoteReader", "answer_read"]

T = TypeVar("T")

READ_TIMEOUT = 30.0
"""Seconds that a read may take."""


class RemoteReader(Reader):
    """Reads by questions to the program."""

    is_elsewhere: bool = True

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._page = always_changing()

    def _ask(self, what: str, *arguments: Any) -> Any:
        return router().request(RequestKind.STORAGE_READ, "", (what, *arguments)).get(READ_TIMEOUT)

    def get(self, key: bytes) -> bytes | None:
        """Return the record under `key`, or None."""
        return self._ask("get", key)  # type: ignore[no-any-return]

    def revision(self, key: bytes) -> int:
        """Return the revision of the record under `key`, 0 if there is none."""
        return self._ask("revision", key)  # type: ignore[no-any-return]

    def get_private(self, key: bytes) -> bytearray | None:
        """Return the record under `key`, or None, in memory of the caller's own."""
        record = self.get(key)
        return None if record is None else bytearray(record)

    def container(self, path: str) -> list[tuple[bytes, bytes]]:
        """Return keys and records of one container, as they were at one moment."""
        return self._ask("container", path)  # type: ignore[no-any-return]

    def heads(self, path: str, most: int | None = None) -> list[tuple[bytes, bytes]]:
        """Return keys of one container, `most` at most, and records without their values."""
        return self._ask("heads", path, most)  # type: ignore[no-any-return]

    def entries(self, path: str) -> list[tuple[bytes, Entry]]:
        """Return keys and facts of the entries in one container."""
        return self._ask("entries", path)  # type: ignore[no-any-return]

    def containers(self) -> list[bytes]:
        """Return the first key of every container that has entries."""
        return self._ask("containers")  # type: ignore[no-any-return]

    def walk(self) -> Iterator[tuple[bytes, bytes]]:
        """Iterate over keys and records of all entries, in the order of their keys, as they were at one moment."""
        yield from self._ask("walk")

    def select(self, wanted: Metadata, path: str) -> list[tuple[bytes, bytes, int]]:
        """Return the entries at and below `path` that have the wanted metadata, as they were at one moment."""
        return self._ask("select", wanted, path)  # type: ignore[no-any-return]

    def all_at_once(self, work: Callable[[Iterator[tuple[bytes, bytes]], int], T]) -> T:
        """Return what `work` makes of keys and records of all entries at one moment, and of their number."""
        everything = self._ask("walk")
        return work(iter(everything), len(everything))

    def owners(self) -> set[str]:
        """Return the owners of entries that are marked to be removed with them."""
        return self._ask("owners")  # type: ignore[no-any-return]

    def count(self) -> int:
        """Return the number of entries."""
        return self._ask("count")  # type: ignore[no-any-return]

    def revision_words(self) -> memoryview:
        """Return a page whose revision word never proves that something is current."""
        return self._page

    def close(self) -> None:
        """Do nothing: there is nothing open."""

    def release(self) -> None:
        """Do nothing."""


_PLAIN = frozenset({"get", "revision", "container", "heads", "entries", "containers", "select", "owners", "count"})


def answer_read(reader: Reader, what: str, *arguments: Any) -> Any:
    """Return the answer to a question of a `RemoteReader`, in the program.

    Raises:
        ValueError: there is no such question.
    """
    try:
        if what == "walk":
            return reader.all_at_once(lambda entries, count: [(bytes(key), bytes(record)) for key, record in entries])
        if what not in _PLAIN:
            raise ValueError(f"there is no read {what!r} of a storage")
        return getattr(reader, what)(*arguments)
    except NotThereYet:
        return 0 if what in ("revision", "count") else None if what == "get" else set() if what == "owners" else []
