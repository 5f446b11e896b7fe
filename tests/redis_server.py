"""A Redis server for tests: a process of its own, on a socket in a folder that a test may remove."""

from __future__ import annotations

import contextlib
import itertools
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from suitkaise.storage.backends.redis_address import Address
from tests.support import eventually

__all__ = ["HAS_REDIS", "RedisProcess", "needs_redis"]


def _is_there() -> bool:
    try:
        import hiredis  # noqa: F401
    except ImportError:
        return False
    return shutil.which("redis-server") is not None


HAS_REDIS = _is_there()
needs_redis = pytest.mark.skipif(not HAS_REDIS, reason="needs redis-server and the extra `redis`")


class RedisProcess:
    """`redis-server`, which keeps nothing on disk unless the options say so."""

    def __init__(self, *options: str) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="redis-test-"))
        self.socket = self.directory / "redis.sock"
        self._options = options
        self._numbers = itertools.count(1)
        self.process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        """Start the server, and wait until it answers."""
        self.socket.unlink(missing_ok=True)
        command = ["redis-server", "--port", "0", "--unixsocket", str(self.socket), "--save", "", *self._options]
        with (self.directory / "log").open("ab") as log:
            self.process = subprocess.Popen(
                command, cwd=self.directory, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )  # fmt: skip
        eventually(self._answers)

    def _answers(self) -> bool:
        try:
            return self.command("PING") == b"PONG"
        except Exception as error:
            return "NOAUTH" in str(error)

    def kill(self) -> None:
        """SIGKILL the server, and wait until it is gone."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def url(self, name: str | None = None, *, user: str = "") -> str:
        """Return the URL of a storage; by default, of a new one."""
        return f"unix://{user}{self.socket}?name={name or f'test-{next(self._numbers)}'}"

    def command(self, *command: str | bytes | int) -> object:
        """Return the answer to a command."""
        from suitkaise.storage.backends.redis_connection import RedisConnection

        with contextlib.closing(RedisConnection(Address.parse(self.url("test")))) as connection:
            return connection.ask(*command)

    def close(self) -> None:
        """End the server, and remove what it has left."""
        self.kill()
        shutil.rmtree(self.directory)
