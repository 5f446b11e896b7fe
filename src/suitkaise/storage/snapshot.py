"""A snapshot: all entries of a storage in one file, as they were at one moment.

The file is a line with the version, then the entries, each as `u32 length of the head | u64 length of the value | head
(msgpack) | value`, then a length of 0, the number of entries, and a digest of everything before it. The values are
encoded as in the store, whatever its engine.

Entries that a worker marked with `remove_on_process_join` belong to that worker's incarnation and not to the data:
a snapshot does not hold them, and a restore leaves them alone.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import secrets
import stat
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, BinaryIO

import msgspec

from suitkaise.errors import SnapshotError
from suitkaise.storage.progress import Report
from suitkaise.storage.records import (
    Encoding,
    Metadata,
    Record,
    checked,
    encoded_value_of,
    is_indexed,
    metadata_of,
    path_and_name,
    unpack_metadata,
)

__all__ = ["Snapshot", "SnapshotEntry", "replaced", "write_snapshot"]

_FIRST_LINE = b"sktree snapshot, version 1\n"
_LENGTHS = struct.Struct("<IQ")
_COUNT = struct.Struct("<Q")
_DIGEST = 32
_END = _COUNT.size + _DIGEST
_BUFFER = 1 << 20
_REPORT_EVERY = 1000  # entries


class SnapshotEntry(msgspec.Struct, array_like=True):
    """An entry in a snapshot, without its value."""

    path: str
    name: str
    encoding: Annotated[int, msgspec.Meta(ge=0, le=int(max(Encoding)))]
    owner: str | None
    metadata: Metadata


_encode_head = msgspec.msgpack.Encoder().encode
_decode_head = msgspec.msgpack.Decoder(SnapshotEntry).decode


def write_snapshot(file: BinaryIO, entries: Iterable[tuple[bytes, bytes]], total: int, report: Report) -> int:
    """Write keys and records to an empty file; return how many the file holds. Raises StorageDamaged."""
    digest = hashlib.blake2b(digest_size=_DIGEST)
    count = 0

    def write(data: bytes | memoryview) -> None:
        digest.update(data)
        file.write(data)

    write(_FIRST_LINE)
    for seen, (key, record) in enumerate(entries):
        if seen % _REPORT_EVERY == 0:
            report(seen, total)
        checked(key, record)
        if is_indexed(record):
            continue
        fields = Record.unpack(record)
        path, name = path_and_name(key, record)
        metadata = metadata_of(record)
        facts = unpack_metadata(metadata) if metadata else {}
        head = _encode_head(SnapshotEntry(path, name, fields.encoding, fields.owner, facts))
        _, value = encoded_value_of(memoryview(record))
        write(_LENGTHS.pack(len(head), len(value)) + head)
        write(value)
        count += 1
    write(_LENGTHS.pack(0, 0) + _COUNT.pack(count))
    file.write(digest.digest())
    report(total, total)
    return count


@contextlib.contextmanager
def replaced(target: Path) -> Iterator[BinaryIO]:
    """Open a new file that replaces `target` at the end of the block. The user alone has access to it.

    Raises:
        OSError: it cannot be written; or `target` is a directory, a device, or another thing that is no file.
    """
    _check_replaceable(target)
    new = target.parent / f".{target.name}.{secrets.token_hex(4)}"
    with contextlib.ExitStack() as undone:
        try:
            descriptor = os.open(new, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except OSError as error:
            error.filename = str(target)  # the file that the caller has named
            raise
        file = os.fdopen(descriptor, "w+b", _BUFFER)
        undone.callback(new.unlink)
        with file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        new.rename(target)
        undone.pop_all()


def _check_replaceable(target: Path) -> None:
    try:
        mode = target.stat().st_mode
    except FileNotFoundError:
        return
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(target))
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "a snapshot replaces only a regular file", str(target))


class Snapshot:
    """A snapshot file that is being read, in a `with` block.

    Raises:
        SnapshotError: it is no snapshot, or damaged.
        OSError: it cannot be read.
    """

    def __init__(self, path: str | Path) -> None:
        self.path: Path = Path(path)
        self._file = open(path, "rb", _BUFFER, opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK))  # noqa: SIM115
        try:
            self.count: int = self._read_count()
            """The number of entries."""
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Snapshot:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def entries(self) -> Iterator[tuple[SnapshotEntry, bytes]]:
        """Iterate over the entries and their encoded values; the last step verifies the digest of the whole file."""
        self._file.seek(0)
        digest = hashlib.blake2b(digest_size=_DIGEST)

        def read(length: int) -> bytes:
            if length > self._size:
                raise self._damaged("a length is wrong")
            data = self._file.read(length)
            if len(data) < length:
                raise self._damaged("it ends too early")
            digest.update(data)
            return data

        read(len(_FIRST_LINE))
        count = 0
        while True:
            head_length, value_length = _LENGTHS.unpack(read(_LENGTHS.size))
            if head_length == 0:
                break
            try:
                entry = _decode_head(read(head_length))
            except msgspec.MsgspecError as error:
                raise self._damaged(str(error)) from error
            yield entry, read(value_length)
            count += 1
        read(_COUNT.size)
        if count != self.count or self._file.read() != digest.digest():
            raise self._damaged("its checksum is wrong")

    def verify(self) -> None:
        """Read the whole file."""
        for _ in self.entries():
            pass

    def _read_count(self) -> int:
        status = os.fstat(self._file.fileno())
        self._size = status.st_size
        if not stat.S_ISREG(status.st_mode) or self._file.read(len(_FIRST_LINE)) != _FIRST_LINE:
            raise SnapshotError(f"{self.path} is no snapshot of this version; `tree.snapshot(file)` writes one")
        if self._size < len(_FIRST_LINE) + _LENGTHS.size + _END:
            raise self._damaged("it ends too early")
        self._file.seek(-_END, os.SEEK_END)
        return int(_COUNT.unpack(self._file.read(_COUNT.size))[0])

    def _damaged(self, how: str) -> SnapshotError:
        return SnapshotError(
            f"the snapshot {self.path} is damaged, so nothing was restored: {how}", path=str(self.path)
        )
