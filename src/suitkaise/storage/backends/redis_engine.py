"""The engine on Redis or Valkey: the storage actor writes, and every process of every machine reads from the server.

The whole storage is thirteen keys. Each table is a hash (values by keys) and a sorted set (its keys, in the order of
their bytes), since a hash has no order. A transaction of the storage actor collects its changes, and its commit is one
script, which the server runs as one step.

**Fencing.** One field of the first hash is the mark: the storage's id, the writer's id and the number of its last
commit. A commit names the mark that the writer has left, and stores the next one; where the server has another mark,
it changes nothing. So one comparison tells that another writer has taken over (and this one was cut off for long), that
the server was emptied, or that it has come back with less than it had acknowledged. Each is an error, and nothing is
written. If the connection breaks at a commit, the mark tells whether the commit was stored.

**One program at a time.** The kernel's file locks, by which LMDB and SQLite lock out a second program, end at the
machine. Here a key with the program's identity, which expires, says who writes; the storage actor renews it. A program
that finds it waits until it has expired or is renewed: an error. One that has ended on the same machine is not
waited for. Nothing but the start depends on clocks: the mark decides who writes.
"""

from __future__ import annotations

import secrets
import time
from bisect import bisect_left
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import msgspec

from suitkaise.errors import StorageDamaged, StorageError, StorageFull
from suitkaise.platform.log_queue import QueuedLogger
from suitkaise.storage.backends.redis_address import Holder, read_address
from suitkaise.storage.backends.redis_connection import RedisError
from suitkaise.storage.backends.redis_server import RedisServer, Script, is_full, is_passing
from suitkaise.storage.backends.revision import RevisionWord
from suitkaise.storage.backends.tables import TABLES

__all__ = ["MARK", "RedisEngine", "emptied", "store_of"]

logger: QueuedLogger = QueuedLogger("suitkaise.storage")

MARK = b""
"""The field of the first hash that holds the mark; an entry's key is never empty."""

LEASE = 10.0
"""Seconds after which another program may use the storage of one that shows no sign of life."""

_LAYOUT = "1"
_LARGEST_VALUE = (512 << 20) - 1  # bytes; the server's own limit
_LARGEST_COMMIT = 900 << 20
_MOST_ARGUMENTS = 1_000_000
_BYTES_A_SECOND = 1 << 24  # that a server stores at least
_PAGES = (16, 128, 512)  # entries that a cursor fetches at once: few at first, as most ranges are short
_MOST_KNOWN = 16 << 20  # bytes

_OPEN = Script("""
local holder = redis.call('GET', KEYS[2])
if holder and holder ~= ARGV[1] and holder ~= ARGV[2] then
    return {'held', holder, redis.call('PTTL', KEYS[2])}
end
local mark = redis.call('HGET', KEYS[1], '')
local id = ARGV[5]
if mark then
    id = string.match(mark, '^' .. ARGV[4] .. ' (%S+) ')
    if not id then return {'layout', mark, 0} end
elseif ARGV[7] == '1' then
    return {'emptied', '', 0}
end
mark = ARGV[4] .. ' ' .. id .. ' ' .. ARGV[6] .. ' 0'
redis.call('HSET', KEYS[1], '', mark)
redis.call('SET', KEYS[2], ARGV[1], 'PX', ARGV[3])
return {'open', mark, 0}
""")

_COMMIT = Script("""
local mark = redis.call('HGET', KEYS[1], '')
if mark ~= ARGV[1] then return mark or '' end
local at = 5
for table = 1, #KEYS - 1, 2 do
    local hash, keys = KEYS[table], KEYS[table + 1]
    local stop = at + 2 + 2 * ARGV[at]
    local stop_removed = stop + ARGV[at + 1]
    for first = at + 2, stop - 1, 2000 do
        local last = math.min(first + 1999, stop - 1)
        redis.call('HSET', hash, unpack(ARGV, first, last))
        local members = {}
        for place = first, last, 2 do
            members[#members + 1] = 0
            members[#members + 1] = ARGV[place]
        end
        redis.call('ZADD', keys, unpack(members))
    end
    for first = stop, stop_removed - 1, 2000 do
        local last = math.min(first + 1999, stop_removed - 1)
        redis.call('HDEL', hash, unpack(ARGV, first, last))
        redis.call('ZREM', keys, unpack(ARGV, first, last))
    end
    at = stop_removed
end
redis.call('HSET', KEYS[1], '', ARGV[2])
redis.call('SET', KEYS[#KEYS], ARGV[3], 'PX', ARGV[4])
return 1
""")

_RENEW = Script("""
local mark = redis.call('HGET', KEYS[1], '')
if mark ~= ARGV[1] then return mark or '' end
redis.call('SET', KEYS[2], ARGV[2], 'PX', ARGV[3])
return 1
""")

_GIVE_UP = Script("if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end")

_PAGE = Script("""
local keys = redis.call('ZRANGEBYLEX', KEYS[2], '[' .. ARGV[1], '+', 'LIMIT', 0, ARGV[2])
if #keys == 0 then return {keys, keys} end
return {keys, redis.call('HMGET', KEYS[1], unpack(keys))}
""")


class _Refused(Exception):
    """The server has another mark than the writer has left."""

    def __init__(self, mark: bytes) -> None:
        super().__init__(mark)
        self.mark = mark


class RedisEngine:
    """Thirteen keys on a server."""

    errors: tuple[type[Exception], ...] = (RedisError, _Refused)
    is_remote: bool = True
    reads_one_at_a_time: bool = False
    heartbeat: float | None = LEASE / 4

    def open_for_writing(self, directory: Path, *, durable: bool, map_size: int) -> Any:
        """Open the storage to which the directory leads; make it if it does not exist. The rest is of files only."""
        return _Opened(directory)

    def open_for_reading(self, directory: Path, *, map_size: int) -> Any:
        """Raise: see `redis_reader`."""
        raise StorageError("a storage in Redis is read by a reader of its own")

    def table(self, opened: Any, name: str, *, create: bool) -> int:
        """Return the place of a table among all of them."""
        return TABLES.index(name)

    def quick_begin(self, opened: Any, *, view: bool = False) -> Callable[[Any], Any]:
        """Return what begins a transaction."""
        begin: Callable[[Any], Any] = opened.begin
        return begin

    def repaired_reading(self, opened: Any, error: Exception) -> bool:
        """Repair nothing."""
        return False

    def repaired_writing(self, opened: Any, directory: Path, error: Exception, size: int) -> bool:
        """Wait for a server that is away; explain what cannot be repaired."""
        if isinstance(error, _Refused):
            raise opened.explained(error.mark) from error
        if isinstance(error, RedisError):
            if not is_passing(error):
                raise opened.server.explained(error) from error
            opened.settle()
            return True
        return False

    def problem(self, opened: Any) -> str | None:
        """Return what does not fit: each value has its key, and each key its value."""
        found: str | None = opened.problem()
        return found

    def maintain(self, opened: Any) -> None:
        """Show other programs that this one is there."""
        opened.renew()

    def oldest_reader(self, opened: Any) -> tuple[int, object] | None:
        """Return None: a reader keeps nothing."""
        return None


class _Opened:
    """The storage, opened for writing."""

    def __init__(self, directory: Path) -> None:
        self.address, self._holder = read_address(directory)
        self.server = RedisServer(self.address)
        self.tables = self.address.tables()
        self._lease = self.address.key("lease")
        self._identity = msgspec.json.encode(self._holder)
        self._writer = secrets.token_hex(8)
        self._doubtful: bytes | None = None  # the mark of a commit that may or may not be stored
        self._known: dict[tuple[int, bytes], bytes | None] = {}  # values as they are stored; this process alone writes
        self._known_bytes = 0
        self._is_cut_off = False
        try:
            self.server.patiently(self.server.check)
            self._mark = self._opened(is_recalled=(directory / RevisionWord.FILE).exists())
            if problem := self.server.patiently(self.problem):
                raise StorageDamaged(f"the storage {self.address} is damaged: {problem}")
        except BaseException:
            self.server.close()
            raise

    def _opened(self, *, is_recalled: bool) -> bytes:
        """Become the writer; return the mark. A program that shows a sign of life keeps its storage."""
        ended, renewals, former = b"", 0, -1
        while True:
            what, found, left = self._try_to_open(ended, is_recalled=is_recalled)
            match what:
                case b"open":
                    return bytes(found)
                case b"layout":
                    raise StorageError(f"the storage {self.address} was made by another version of suitkaise")
                case b"emptied":
                    raise emptied(self.address)
            holder = msgspec.json.decode(found, type=Holder)
            if holder.has_ended():
                ended = found
                continue
            renewals += left > former >= 0
            if renewals or holder.system == self._holder.system != "":
                raise StorageError(
                    f"the storage {self.address} is in use by another program ({holder}); end that one first, or name "
                    "another storage: ?name=..."
                )
            former = left
            time.sleep(min(max(left, 1) / 1000, LEASE / 8))

    def _try_to_open(self, ended: bytes, *, is_recalled: bool) -> tuple[bytes, bytes, int]:
        arguments = (
            self._identity, ended, int(LEASE * 1000), _LAYOUT, secrets.token_hex(8), self._writer, int(is_recalled)
        )  # fmt: skip
        what, found, left = self.server.patiently(
            lambda: self.server.run(_OPEN, [self.tables[0], self._lease], *arguments)
        )
        return what, found, left

    def begin(self, db: Any = None, *, write: bool = False, buffers: bool = False) -> _Transaction:
        """Begin a transaction."""
        if self._doubtful is not None and self.settle():
            raise StorageError("a commit was stored after it had been given up; the storage actor starts anew")
        return _Transaction(self, db)

    def get(self, table: int, key: bytes) -> bytes | None:
        """Return the value under a key, as it is stored."""
        try:
            return self._known[table, key]
        except KeyError:
            value: bytes | None = self.server.call("HGET", self.tables[2 * table], key)
            self._learn(table, key, value)
            return value

    def learn(self, table: int, keys: list[bytes]) -> None:
        """Fetch the values of these keys, which will be asked for, at once."""
        unknown = [key for key in keys if (table, key) not in self._known]
        if len(unknown) > 1:
            for key, value in zip(unknown, self.server.call("HMGET", self.tables[2 * table], *unknown), strict=True):
                self._learn(table, key, value)

    def _learn(self, table: int, key: bytes, value: bytes | None) -> None:
        self._known_bytes += len(key) + len(value or b"")
        if self._known_bytes > _MOST_KNOWN:
            self._known.clear()
            self._known_bytes = 0
        self._known[table, key] = value

    def page(self, table: int, start: bytes, limit: int) -> list[tuple[bytes, bytes]]:
        """Return the first keys and values from `start` on, as they are stored."""
        keys, values = self.server.run(_PAGE, self.tables[2 * table : 2 * table + 2], start, limit)
        return list(zip(keys, values, strict=True))

    def count(self, table: int) -> int:
        """Return the number of keys of a table."""
        number: int = self.server.call("ZCARD", self.tables[2 * table + 1])
        return number

    def commit(self, changes: list[dict[bytes, bytes | None]]) -> None:
        """Store changes, all or none."""
        arguments: list[bytes | int] = []
        for table in changes:
            removed = [key for key, value in table.items() if value is None]
            arguments += [len(table) - len(removed), len(removed)]
            for key, value in table.items():
                if value is not None:
                    arguments += [key, value]
            arguments += removed
        size = self._checked_size(arguments)
        head, _, number = self._mark.rpartition(b" ")
        new = b"%s %d" % (head, int(number) + 1)
        while True:
            try:
                found = self.server.run(
                    _COMMIT, [*self.tables, self._lease],
                    self._mark, new, self._identity, int(LEASE * 1000), *arguments,
                )  # fmt: skip
            except RedisError as error:
                if not is_passing(error):
                    raise
                self._doubtful = new
                if self.settle(size / _BYTES_A_SECOND):
                    break
            else:
                if found != 1:
                    raise _Refused(found)
                break
        self._mark = new
        for place, table in enumerate(changes):
            for key, value in table.items():
                self._learn(place, key, value)

    def _checked_size(self, arguments: list[bytes | int]) -> int:
        sizes = [len(argument) for argument in arguments if not isinstance(argument, int)]
        size = sum(sizes)
        if max(sizes, default=0) > _LARGEST_VALUE:
            raise StorageFull("a value in Redis may have 512 MiB at most")
        if size > _LARGEST_COMMIT or len(arguments) > _MOST_ARGUMENTS:
            raise StorageFull("a transaction in Redis may have 900 MiB and about 400,000 entries at most")
        return size

    def settle(self, longer: float = 0.0) -> bool:
        """Wait for the server; return whether it has stored the commit of which this is in doubt.

        Raises:
            Unreachable: it stays away.
            StorageError: it does not have what was stored.
        """
        mark = self.server.patiently(lambda: self.server.call("HGET", self.tables[0], MARK), longer)
        doubtful, self._doubtful = self._doubtful, None
        if mark is not None and mark == doubtful:
            return True
        if mark != self._mark:
            raise self.explained(mark or b"")
        return False

    def explained(self, mark: bytes) -> StorageError:
        """Return the error for users about a mark that is not that of this writer."""
        ours, theirs = self._mark.split(), mark.split()
        if len(theirs) != len(ours) or theirs[1] != ours[1]:
            return emptied(self.address)
        if theirs[2] != ours[2]:
            return StorageDamaged(
                f"the storage {self.address} is used by another program now: this one had no connection to the server "
                f"for longer than {LEASE:g} seconds"
            )
        return StorageDamaged(
            f"the storage {self.address} has lost the last {int(ours[3]) - int(theirs[3])} commits of this program: "
            "the server was started anew from what it had on its disk (see `appendonly`). Start the program anew to "
            "go on from there"
        )

    def renew(self) -> None:
        """Renew the lease. A server that is away, or has something else, is logged once; the next write tells more."""
        try:
            found = self.server.run(
                _RENEW, [self.tables[0], self._lease], self._mark, self._identity, int(LEASE * 1000)
            )
            problem = None if found == 1 or self._doubtful is not None else str(self.explained(found))
        except RedisError as error:
            problem = None if is_full(error) else str(self.server.explained(error))
        if problem is not None and not self._is_cut_off:
            logger.error("%s", problem)
        self._is_cut_off = problem is not None

    def problem(self) -> str | None:
        """Return which table has not as many keys as values."""
        for name, place in zip(TABLES, range(0, len(self.tables), 2), strict=True):
            values = self.server.call("HLEN", self.tables[place])
            keys = self.server.call("ZCARD", self.tables[place + 1])
            if values - (place == 0) != keys:
                return f"its table {name!r} has {values} values and {keys} keys"
        return None

    def close(self) -> None:
        """Let another program use the storage."""
        try:
            self.server.run(_GIVE_UP, [self._lease], self._identity)
        except RedisError as error:
            logger.warning("the next program has to wait for the storage: %s", self.server.explained(error))
        self.server.close()


class _Transaction:
    """A transaction in the form of LMDB's. Only this writer changes what is stored, so each read is of one moment."""

    __slots__ = ("_changes", "_db", "_opened")

    def __init__(self, opened: _Opened, db: Any) -> None:
        self._opened = opened
        self._db: int = db or 0
        self._changes: list[dict[bytes, bytes | None]] = [{} for _ in TABLES]

    def get(self, key: bytes, default: Any = None, db: int | None = None) -> Any:
        table = self._db if db is None else db
        changed = self._changes[table]
        value = changed[key] if key in changed else self._opened.get(table, key)
        return default if value is None else value

    def expect(self, keys: list[bytes], *, db: int) -> None:
        """Fetch the values of these keys, which will be asked for, at once."""
        self._opened.learn(db, keys)

    def put(self, key: bytes, value: bytes, *, db: int) -> bool:
        self._changes[db][key] = value
        return True

    def delete(self, key: bytes, *, db: int) -> bool:
        there = self.get(key, db=db) is not None
        self._changes[db][key] = None
        return there

    def cursor(self, db: int | None = None) -> _Cursor:
        table = self._db if db is None else db
        return _Cursor(self._opened, table, self._changes[table])

    def stat(self, db: int) -> dict[str, int]:
        new = sum(
            (value is not None) - (self._opened.get(db, key) is not None) for key, value in self._changes[db].items()
        )
        return {"entries": self._opened.count(db) + new}

    def commit(self) -> None:
        changes, self._changes = self._changes, [{} for _ in TABLES]
        if any(changes):
            self._opened.commit(changes)

    def abort(self) -> None:
        self._changes = [{} for _ in TABLES]

    def __enter__(self) -> _Transaction:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.abort()


class _Cursor:
    """A cursor in the form of LMDB's, over what is stored and what the transaction has changed."""

    def __init__(self, opened: _Opened, table: int, changes: dict[bytes, bytes | None]) -> None:
        self._opened = opened
        self._table = table
        self._changes = changes
        self._changed_keys = sorted(changes)
        self._rows: Iterator[tuple[bytes, bytes]] = iter(())
        self._item: tuple[bytes, bytes] | None = None

    def set_range(self, key: bytes) -> bool:
        self._rows = self._merged(key)
        return self.next()

    def first(self) -> bool:
        return self.set_range(b"")

    def next(self) -> bool:
        self._item = next(self._rows, None)
        return self._item is not None

    def key(self) -> bytes:
        return self.item()[0]

    def value(self) -> bytes:
        return self.item()[1]

    def item(self) -> tuple[bytes, bytes]:
        return self._item or (b"", b"")

    def _merged(self, start: bytes) -> Iterator[tuple[bytes, bytes]]:
        changed = self._changed_keys
        at = bisect_left(changed, start)
        for key, value in self._stored(start):
            while at < len(changed) and changed[at] < key:
                yield from self._changed(changed[at])
                at += 1
            if key not in self._changes:
                yield key, value
        for new in changed[at:]:
            yield from self._changed(new)

    def _changed(self, key: bytes) -> Iterator[tuple[bytes, bytes]]:
        value = self._changes[key]
        if value is not None:
            yield key, value

    def _stored(self, start: bytes) -> Iterator[tuple[bytes, bytes]]:
        number = 0
        while True:
            limit = _PAGES[min(number, len(_PAGES) - 1)]
            page = self._opened.page(self._table, start, limit)
            yield from page
            if len(page) < limit:
                return
            start, number = page[-1][0] + b"\0", number + 1


def store_of(mark: bytes) -> bytes:
    """Return the beginning of a mark, which is the same as long as the storage is the same."""
    return b" ".join(mark.split()[:2]) + b" "


def emptied(address: object) -> StorageDamaged:
    """Make the error about a storage that has vanished from its server."""
    return StorageDamaged(
        f"the storage {address} was emptied while this program used it (FLUSHALL, or a server that was started anew "
        "without its data): all entries are lost. Start the program anew, and tree.restore(file) what "
        "tree.snapshot(file) has saved"
    )
