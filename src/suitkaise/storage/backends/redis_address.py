"""Where a storage in Redis is: the URL, with the name of the storage; and the file that leads readers there.

The URL may hold a password. So it is in no error, no log record and no `repr`, and it travels to the readers of this
machine in a file that this user alone can read, in the program's private directory.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from suitkaise.errors import StorageError
from suitkaise.storage.backends.tables import FILES, TABLES

__all__ = [
    "Address",
    "Holder",
    "address_for_others",
    "is_url",
    "note_address",
    "read_address",
    "shown",
    "write_address",
]

_SCHEMES = ("redis://", "rediss://", "unix://")
_NAME = re.compile(r"[\w.:@-]+", re.ASCII)
_FILES = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
_HOW = "redis://HOST:PORT/DB?name=NAME, rediss://... for TLS, or unix:///PATH?name=NAME"


@dataclass(frozen=True, slots=True)
class Address:
    """A server, and the storage in it."""

    place: str
    """The server for people, without user and password."""
    name: str
    """The name of the storage, with which all its keys begin."""
    host: str = field(default="", repr=False)
    port: int = field(default=0, repr=False)
    path: str = field(default="", repr=False)
    """Of a Unix socket; empty: the server is at a host and port."""
    database: int = field(default=0, repr=False)
    user: str = field(default="", repr=False)
    password: str = field(default="", repr=False)
    is_encrypted: bool = field(default=False, repr=False)
    options: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Files for TLS."""

    @classmethod
    def parse(cls, url: str) -> Address:
        """Take a URL apart.

        Raises:
            StorageError: it is none that leads to a storage.

        >>> Address.parse("redis://user:secret@cache/0?name=shop")
        Address(place='redis://cache:6379/0', name='shop')
        """
        from urllib.parse import parse_qsl, unquote, urlsplit  # every storage loads this module

        try:
            parts = urlsplit(url)
            host, port = parts.hostname or "", parts.port or 6379
        except ValueError:
            raise StorageError(f"the URL of a storage in Redis must be {_HOW}") from None  # the error may quote the URL
        options = dict(parse_qsl(parts.query, keep_blank_values=True))
        name = options.pop("name", "")
        scheme, is_local = f"{parts.scheme}://", parts.scheme == "unix"
        database = options.pop("db", "0") if is_local else parts.path.strip("/") or "0"
        place = f"{scheme}{parts.path}" if is_local else f"{scheme}{host}:{port}/{database}"
        known = _FILES if parts.scheme == "rediss" else ()
        fits = parts.path.strip("/") if is_local else host
        if not fits or not database.isdecimal() or parts.fragment or scheme not in _SCHEMES:
            raise StorageError(f"the URL of a storage in Redis must be {_HOW}, not {place}")
        if wrong := [option for option in options if option not in known]:
            raise StorageError(
                f"the URL of the storage at {place} has an unknown option {wrong[0]!r}; there are name, db (of "
                f"unix://) and {', '.join(_FILES)} (of rediss://)"
            )
        if not _NAME.fullmatch(name):
            raise StorageError(
                f"the URL of a storage in Redis must name the storage, by letters, digits and .:@-_ alone: "
                f"{place}?name=NAME; a program that names the same one finds what is stored there"
            )
        return cls(
            place, name, host, port, unquote(parts.path) if is_local else "", int(database),
            unquote(parts.username or ""), unquote(parts.password or ""), parts.scheme == "rediss", options,
        )  # fmt: skip

    @property
    def is_local(self) -> bool:
        """Whether the address means another server, or none, on another machine."""
        return bool(self.path) or self.host in ("localhost", "::1") or self.host.startswith("127.")

    def __str__(self) -> str:
        return f"{self.place}?name={self.name}"

    def key(self, name: str) -> str:
        """Return a key of the storage. The braces keep all of them in one slot of a Redis Cluster."""
        return f"suitkaise:{{{self.name}}}:{name}"

    def tables(self) -> list[str]:
        """Return the two keys of each table: the hash of its values, and the sorted set of its keys."""
        return [self.key(name + end) for name in TABLES for end in ("", ".keys")]


class Holder(msgspec.Struct, frozen=True):
    """The program that writes to a storage; its storage actor is another process, and may be a later one."""

    host: str
    system: str
    """The machine's boot and the namespace of pids: where both are the same, a pid means the same process."""
    pid: int
    started: float
    token: str

    @classmethod
    def here(cls) -> Holder:
        """Return this process as a holder."""
        return cls(socket.gethostname(), _system(), os.getpid(), _started(os.getpid()), os.urandom(8).hex())

    def has_ended(self) -> bool:
        """Return whether the program is known to have ended: it was one of this machine, and is not there now."""
        return self.system == _system() != "" and _started(self.pid) != self.started

    def __str__(self) -> str:
        return f"pid {self.pid} on {self.host}"


class _File(msgspec.Struct):
    url: str
    holder: Holder


def is_url(engine: str) -> bool:
    """Return whether the name of an engine is the URL of a server."""
    return engine.startswith(_SCHEMES)


def shown(engine: str | None) -> str | None:
    """Return the name of an engine as people may see it: a URL without user and password."""
    if engine is None or "://" not in engine:
        return engine
    return str(Address.parse(engine)) if is_url(engine) else f"{engine.partition('://')[0]}://..."


def note_address(directory: Path, url: str) -> None:
    """Write the file that leads the storage actor and readers to the server."""
    Address.parse(url)
    write_address(directory, msgspec.json.encode(_File(url, Holder.here())))


def write_address(directory: Path, content: bytes) -> None:
    """Write the file with what another machine's holds."""
    descriptor = os.open(directory / FILES["redis"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with open(descriptor, "wb") as file:
        file.write(content)


def read_address(directory: Path) -> tuple[Address, Holder]:
    """Return what `note_address` has written.

    Raises:
        OSError: there is no such file.
    """
    file = msgspec.json.decode((directory / FILES["redis"]).read_bytes(), type=_File)
    return Address.parse(file.url), file.holder


def address_for_others(directory: Path) -> bytes | None:
    """Return what `write_address` takes on another machine; None if no server of the storage can be reached there."""
    with contextlib.suppress(FileNotFoundError):
        address, _ = read_address(directory)
        if not address.is_local:
            return (directory / FILES["redis"]).read_bytes()
    return None


def _system() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _started(pid: int) -> float:
    """Return when a process was started, 0.0 if there is none. (By the clock of the kernel, which cannot be set.)"""
    try:
        state, *facts = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        return 0.0 if state == b"Z" else float(facts[18])
    except (OSError, ValueError, IndexError):
        return 0.0
