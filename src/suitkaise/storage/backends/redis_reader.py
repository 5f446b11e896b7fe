"""Reading a storage in Redis: each read is one command or script, so it sees the storage as it is at one moment.

On the program's own machine the revision word tells, as with the other engines, whether a value that was read before
is still current. On the other machines of a cluster there is no such word, and each read is a round trip.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from suitkaise.storage.backends import access
from suitkaise.storage.backends.reader import NotThereYet, Reader
from suitkaise.storage.backends.redis_address import read_address
from suitkaise.storage.backends.redis_connection import RedisError
from suitkaise.storage.backends.redis_engine import MARK, emptied, store_of
from suitkaise.storage.backends.redis_server import RedisServer, Script
from suitkaise.storage.backends.revision import always_changing
from suitkaise.storage.backends.tables import INDEX, TABLES, unpack_index
from suitkaise.storage.index import matches, prefixes_of
from suitkaise.storage.keys import container_prefix, is_below, next_container, ranges_below
from suitkaise.storage.place import ELSEWHERE
from suitkaise.storage.records import Entry, Metadata, Record, path_and_name, revision_of

__all__ = ["RedisReader"]

T = TypeVar("T")

_CHUNK = 1000

# What all scripts answer begins with the mark. A record without its value ends where the value starts: its third field.
_START = """
local mark = redis.call('HGET', KEYS[1], '')
local function head(record)
    local a, b, c, d = string.byte(record, 17, 20)
    return string.sub(record, 1, a + 256 * (b + 256 * (c + 256 * d)))
end
"""

_HEAD = Script(
    _START
    + """
local record = redis.call('HGET', KEYS[1], ARGV[1])
return {mark, record and head(record)}
"""
)

_RANGE = Script(
    _START
    + """
local stop = ARGV[2] == '' and '+' or '(' .. ARGV[2]
local keys = redis.call('ZRANGEBYLEX', KEYS[2], '[' .. ARGV[1], stop, 'LIMIT', 0, ARGV[3])
local records, sizes = {}, {}
for first = 1, #keys, 2000 do
    local some = redis.call('HMGET', KEYS[1], unpack(keys, first, math.min(first + 1999, #keys)))
    for place, record in ipairs(some) do
        records[first + place - 1] = ARGV[4] == 'heads' and head(record) or record
        sizes[first + place - 1] = #record
    end
end
return {mark, keys, records, sizes}
"""
)

_CONTAINERS = Script(
    _START
    + """
local found = {}
local next = '-'
while true do
    local key = redis.call('ZRANGEBYLEX', KEYS[2], next, '+', 'LIMIT', 0, 1)[1]
    if not key then return {mark, found} end
    found[#found + 1] = key
    local stop = string.byte(key, 1) == 255 and 17 or string.find(key, '\\0', 1, true) - 1
    next = '[' .. string.sub(key, 1, stop) .. '\\1'
end
"""
)

_SELECT = Script(
    _START
    + """
local keys, heads, sizes = {}, {}, {}
for at = 2, 1 + 2 * ARGV[1], 2 do
    local start, stop = ARGV[at], ARGV[at + 1]
    local found
    local prefix, fewest
    for place = 2 + 2 * ARGV[1], #ARGV do
        local number = redis.call('ZLEXCOUNT', KEYS[3], '[' .. ARGV[place] .. start, '(' .. ARGV[place] .. stop)
        if not fewest or number < fewest then prefix, fewest = ARGV[place], number end
    end
    if prefix then
        found = redis.call('ZRANGEBYLEX', KEYS[3], '[' .. prefix .. start, '(' .. prefix .. stop)
    else
        found = redis.call('ZRANGEBYLEX', KEYS[2], '[' .. start, '(' .. stop)
    end
    for _, key in ipairs(found) do
        if prefix then key = string.sub(key, #prefix + 1) end
        local record = redis.call('HGET', KEYS[1], key)
        if record then
            keys[#keys + 1], heads[#heads + 1], sizes[#sizes + 1] = key, head(record), #record
        end
    end
end
return {mark, keys, heads, sizes}
"""
)


class RedisReader(Reader):
    """Reads from the server to which the directory leads, from any thread."""

    def __init__(self, directory: Path) -> None:
        """Read the address; the first read connects.

        Raises:
            OSError: there is no address.
        """
        super().__init__(directory)
        self.is_elsewhere: bool = (directory / ELSEWHERE).exists()
        self._address, _ = read_address(directory)
        self._server = RedisServer(self._address)
        tables = dict(zip(TABLES, zip(*[iter(self._address.tables())] * 2, strict=True), strict=True))
        self._records, keys = tables["entries"]
        self._ranges = [self._records, keys]
        self._all = [*self._ranges, tables["by_metadata"][1]]
        self._owners = tables["owned"][0]
        self._declared = tables["facts"][0]
        self._store = b"?"
        self._page = always_changing()

    def get(self, key: bytes) -> bytes | None:
        """Return the record under `key`, or None."""
        try:
            mark, record = self._server.call("HMGET", self._records, MARK, key)
        except RedisError:
            mark, record = self._server.patiently(lambda: self._server.call("HMGET", self._records, MARK, key))
        if mark is None or not mark.startswith(self._store):
            self._check(mark)
        return record  # type: ignore[no-any-return]

    def revision(self, key: bytes) -> int:
        """Return the revision of the record under `key`, 0 if there is none."""
        head: bytes | None
        (head,) = self._run(_HEAD, self._ranges, key)
        return revision_of(head)

    def get_private(self, key: bytes) -> bytearray | None:
        """Return the record under `key`, or None, in memory of the caller's own."""
        record = self.get(key)
        return None if record is None else bytearray(record)

    def container(self, path: str) -> list[tuple[bytes, bytes]]:
        """Return keys and records of one container, as they were at one moment."""
        prefix = container_prefix(path)
        return [(key, record) for key, record, _ in self._range(prefix, next_container(prefix))]

    def heads(self, path: str, most: int | None = None) -> list[tuple[bytes, bytes]]:
        """Return keys of one container, `most` at most, and records without their values."""
        prefix, limit = container_prefix(path), -1 if most is None else most
        return [(key, head) for key, head, _ in self._range(prefix, next_container(prefix), "heads", limit)]

    def entries(self, path: str) -> list[tuple[bytes, Entry]]:
        """Return keys and facts of the entries in one container."""
        prefix = container_prefix(path)
        found = self._range(prefix, next_container(prefix), "heads")
        return [(key, Record.unpack(head).entry(key, size)) for key, head, size in found]

    def containers(self) -> list[bytes]:
        """Return the first key of every container that has entries."""
        found: list[bytes]
        (found,) = self._run(_CONTAINERS, self._ranges)
        return found

    def walk(self) -> Iterator[tuple[bytes, bytes]]:
        """Iterate over keys and records of all entries, in the order of their keys; they are read in portions."""
        start = b""
        while True:
            portion = self._range(start, b"", limit=_CHUNK)
            yield from ((key, record) for key, record, _ in portion)
            if len(portion) < _CHUNK:
                return
            start = portion[-1][0] + b"\0"

    def select(self, wanted: Metadata, path: str) -> list[tuple[bytes, bytes, int]]:
        """Return the entries at and below `path` that have the wanted metadata, as they were at one moment."""
        stored = self._server.patiently(lambda: self._server.call("HGET", self._declared, INDEX))
        prefixes = prefixes_of(wanted, unpack_index(stored))
        ranges = ranges_below(path)
        bounds = [bound for one in ranges for bound in one]
        found = zip(*self._run(_SELECT, self._all, len(ranges), *bounds, *prefixes), strict=True)
        return [
            (key, head, size)
            for key, head, size in found
            if matches(head, wanted) and (key[:1] != b"\xff" or is_below(path_and_name(key, head)[0], path))
        ]

    def all_at_once(self, work: Callable[[Iterator[tuple[bytes, bytes]], int], T]) -> T:
        """Return what `work` makes of keys and records of all entries at one moment, and of their number."""
        everything = self._range(b"", b"")
        return work(((key, record) for key, record, _ in everything), len(everything))

    def owners(self) -> set[str]:
        """Return the owners of entries that are marked to be removed with them."""
        return {owner.decode() for owner in self._server.patiently(lambda: self._server.call("HVALS", self._owners))}

    def count(self) -> int:
        """Return the number of entries."""
        number: int = self._server.patiently(lambda: self._server.call("ZCARD", self._ranges[1]))
        return number

    def revision_words(self) -> memoryview:
        """Return the page of the revision word; on another machine one that never proves that something is current."""
        return self._page if self.is_elsewhere else super().revision_words()

    def release(self) -> None:
        """Close the connections that are not in use."""
        with access.LOCK:
            self._server.close()

    def _range(self, start: bytes, stop: bytes, what: str = "", limit: int = -1) -> list[tuple[bytes, bytes, int]]:
        keys, records, sizes = self._run(_RANGE, self._ranges, start, stop, limit, what)
        return list(zip(keys, records, sizes, strict=True))

    def _run(self, script: Script, keys: list[str], *arguments: bytes | int | str) -> list[Any]:
        found: list[Any]
        mark, *found = self._server.patiently(lambda: self._server.run(script, keys, *arguments))
        if mark is None or not mark.startswith(self._store):
            self._check(mark)
        return found

    def _check(self, mark: bytes | None) -> None:
        """Check a mark at the first read, and one that is another than that of the first read."""
        if mark is None and self._store == b"?":
            raise NotThereYet(f"there is no storage {self._address} yet")
        if mark is None or self._store != b"?":
            raise emptied(self._address)
        self._store = store_of(mark)
