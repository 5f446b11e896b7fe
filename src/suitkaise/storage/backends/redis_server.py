"""Talking to a Redis or Valkey server: one command or script at a time, patient with a server that is not there.

Every connection is this process's own, so a forked child makes new ones.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from suitkaise.errors import StorageError, StorageFull
from suitkaise.storage.backends.redis_address import Address
from suitkaise.storage.backends.redis_connection import ConnectionLost, RedisConnection, RedisError, ServerError
from suitkaise.storage.backends.tables import Unreachable

__all__ = ["RedisServer", "Script", "is_full", "is_passing"]

T = TypeVar("T")

PATIENCE = 5.0
"""Seconds for which an operation waits for a server that is being restarted; then it fails. Half of a write's."""

_RETRY_AFTER = 0.02
_OLDEST = 6  # the first version with HELLO and users
_LATER = ("BUSY ", "CLUSTERDOWN", "LOADING", "MASTERDOWN", "MISCONF", "NOREPLICAS", "READONLY", "TRYAGAIN", "UNBLOCKED")
"""How answers begin that a server may take back by itself, or that somebody may mend."""


_LOGIN = ("NOAUTH", "WRONGPASS", "ERR AUTH", "ERR invalid password", "ERR invalid username")


class Script:
    """A Lua script. The server runs it as one step, with nothing in between."""

    def __init__(self, source: str) -> None:
        self.source: str = source
        self.digest: str = hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()


class RedisServer:
    """A server, with connections of this process. Any thread may use it."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self._free: deque[RedisConnection] = deque()
        self._pid = os.getpid()
        self._is_down = False

    def call(self, *command: str | bytes | int) -> Any:
        """Return the answer to one command.

        Raises:
            RedisError: the server has refused it, or cannot be reached.
        """
        connection = self._take()
        try:
            answer = connection.ask(*command)
        except ServerError:
            self._free.append(connection)
            raise
        except BaseException:  # also from a signal handler: the answer may have been read in part
            connection.close()
            self.close()  # the others are as old
            raise
        self._free.append(connection)
        return answer

    def run(self, script: Script, keys: Sequence[str], *arguments: str | bytes | int) -> Any:
        """Return the answer of a script."""
        try:
            return self.call("EVALSHA", script.digest, len(keys), *keys, *arguments)
        except ServerError as error:
            if not str(error).startswith("NOSCRIPT"):
                raise
            # The server has been started anew.
            return self.call("EVAL", script.source, len(keys), *keys, *arguments)

    def patiently(self, work: Callable[[], T], longer: float = 0.0) -> T:
        """Return what `work` does; repeat it while the server is away. One that stays away is waited for once.

        Raises:
            Unreachable: it was away for `PATIENCE` and that many seconds longer.
            StorageError: it refuses.
        """
        deadline = time.monotonic() + (0.0 if self._is_down else PATIENCE + longer)
        while True:
            try:
                done = work()
            except RedisError as error:
                if not is_passing(error):
                    raise self.explained(error) from error
                if time.monotonic() >= deadline:
                    self._is_down = True
                    raise self.explained(error) from error
                time.sleep(_RETRY_AFTER)
            else:
                self._is_down = False
                return done

    def check(self) -> None:
        """Check that the server can keep a storage.

        Raises:
            StorageError: it is too old, or throws entries away when its memory is full.
            RedisError: it has refused to tell, or cannot be reached.
        """
        try:
            hello = self.call("HELLO")
        except ServerError as error:
            if "unknown command" not in str(error).lower():
                raise
            raise StorageError(
                f"the Redis server at {self.address.place} is too old; a storage needs Redis {_OLDEST} or any Valkey"
            ) from error
        facts = dict(zip(hello[::2], hello[1::2], strict=True))
        version = facts.get(b"version", b"0").decode()
        if int(version.partition(".")[0]) < _OLDEST:
            raise StorageError(
                f"the Redis server at {self.address.place} has version {version}; a storage needs Redis {_OLDEST} or "
                "any Valkey"
            )
        try:
            memory = self.call("INFO", "memory").decode()
        except ServerError as error:
            if str(error).startswith("NOPERM"):  # whoever keeps the server has to know
                return
            raise
        lines = dict(line.split(":", 1) for line in memory.splitlines() if ":" in line)
        policy = lines.get("maxmemory_policy", "")
        if policy.startswith("allkeys") and lines.get("maxmemory") != "0":
            raise StorageError(
                f"the Redis server at {self.address.place} throws away what it likes when its memory is full "
                f"(maxmemory-policy {policy}); a storage needs `maxmemory-policy noeviction`"
            )

    def explained(self, error: RedisError) -> StorageError:
        """Return the error for users. The server's own words hold no password."""
        place, text = self.address.place, str(error).partition(" script: ")[0].rstrip(".")
        if isinstance(error, ConnectionLost):
            return Unreachable(f"the Redis server at {place} cannot be reached: {text}")
        if text.startswith(_LOGIN):
            return StorageError(f"the Redis server at {place} refuses the user or the password of the URL: {text}")
        if is_full(error):
            return StorageFull(f"the Redis server at {place} has no memory left (maxmemory): {text}")
        if is_passing(error):
            return Unreachable(f"the Redis server at {place} takes no requests: {text}")
        return StorageError(f"the Redis server at {place} refuses: {text}")

    def close(self) -> None:
        """Close the connections that are not in use. The next command opens another one."""
        with contextlib.suppress(IndexError):  # another thread may take the last one meanwhile
            while True:
                self._free.pop().close()

    def _take(self) -> RedisConnection:
        if self._pid != os.getpid():  # a forked child: they are the parent's
            self._free, self._pid = deque(), os.getpid()
        try:
            return self._free.pop()
        except IndexError:
            return RedisConnection(self.address)


def is_passing(error: RedisError) -> bool:
    """Return whether it pays to try again."""
    return isinstance(error, ConnectionLost) or f"{error} ".startswith(_LATER)


def is_full(error: RedisError) -> bool:
    """Return whether the server has no memory left."""
    return "OOM command not allowed" in str(error)
