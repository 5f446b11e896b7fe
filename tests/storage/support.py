"""A storage for tests: its directory, its listening socket, and its server in a process that may be killed."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from suitkaise.storage.backends.engines import engine_of
from suitkaise.storage.backends.reader import Reader
from suitkaise.storage.backends.redis_address import note_address
from suitkaise.storage.backends.store import WriteTransaction
from suitkaise.storage.client import SOCKET
from suitkaise.storage.keys import entry_key
from suitkaise.storage.records import encode_value, value_of
from suitkaise.storage.tree import Tree
from tests.redis_server import RedisProcess
from tests.support import ROOT

__all__ = ["Storage", "clear", "lead_to_redis", "put_entry", "run_in_process", "values_in"]


class Storage:
    """A storage with its server, for use in a `with` block. The server runs from the start."""

    def __init__(self, directory: Path | None = None, **options: object) -> None:
        self._own = directory is None
        self._options = [f"{key}={value}" for key, value in options.items()]
        shared = Path("/dev/shm")
        base = str(shared) if shared.is_dir() else None
        self.directory = directory or Path(tempfile.mkdtemp(prefix="storage-test-", dir=base))
        lead_to_redis(self.directory, options.get("engine"))
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.listener.bind(str(self.directory / SOCKET))
        self.listener.listen(1024)
        self.server: subprocess.Popen[bytes] | None = None
        self.start()
        self.tree = Tree(self.directory)

    def start(self) -> None:
        """Start the server; clients wait in the listener's backlog until it accepts."""
        descriptor = self.listener.fileno()
        self.server = subprocess.Popen(
            [sys.executable, "-m", "tests.storage.serve", self.directory, str(descriptor), *self._options],
            pass_fds=[descriptor],
            cwd=ROOT,
        )

    def kill(self) -> None:
        """SIGKILL the server, and wait until it is gone."""
        if self.server is not None:
            self.server.kill()
            self.server.wait()
            self.server = None

    def restart(self) -> None:
        """SIGKILL the server and start another one."""
        self.kill()
        self.start()

    def close(self) -> None:
        """Close the tree, end the server and remove the directory."""
        try:
            self.tree.close()
        finally:
            self.kill()
            self.listener.close()
            (self.directory / SOCKET).unlink(missing_ok=True)
            if self._own:
                shutil.rmtree(self.directory)

    def __enter__(self) -> Storage:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
            return
        try:
            self.close()
        except Exception as other:
            error.add_note(f"and at the end: {other!r}")


redis_server: RedisProcess | None = None


def lead_to_redis(directory: Path, engine: object) -> None:
    """Have a folder lead to a new storage in Redis, unless it does already or another engine is wanted."""
    if engine == "redis" and redis_server is not None and engine_of(directory) is None:
        note_address(directory, redis_server.url())


def clear(tree: Tree) -> None:
    """Remove every entry."""
    for path, names in tree.walk():
        for name in names:
            tree.remove(name, path, wait=False)
    tree.flush()


@contextmanager
def run_in_process(source: str, *args: object) -> Iterator[subprocess.Popen[str]]:
    """Run a Python program inside of the block; `sys.argv[1:]` are `args`."""
    process = subprocess.Popen(
        [sys.executable, "-c", source, *map(str, args)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def put_entry(name: str, value: Any, path: str = "p", owner: str | None = None) -> Callable[[WriteTransaction], None]:
    """Make the work of `Store.write` that stores one entry."""
    key, long_key = entry_key(path, name)
    return lambda transaction: transaction.put(
        key, long_key, transaction.get(key), *encode_value(value), owner, b"", owner is not None
    )


def values_in(reader: Reader, path: str = "p") -> list[Any]:
    """Return the values in a container."""
    return [value_of(record) for _, record in reader.container(path)]


def with_last_byte_changed(data: bytes) -> bytes:
    """Return the data with another last byte, whichever that is."""
    return data[:-1] + bytes([data[-1] ^ 0xFF])
