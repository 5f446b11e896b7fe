"""A file for each worker of a tree: what it prints and logs, and what happens to it; rotated by size.

A thread of its own writes the files, so nothing else waits for a disk. What waits for the thread is bounded, and a disk
that is full or too slow costs lines of these files, which are counted and told, and nothing else.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import threading
import time
import zlib
from collections import OrderedDict, deque

from suitkaise.escapes import indented, one_line
from suitkaise.messaging.log_rings import EVENT, Run
from suitkaise.platform.condition import Condition
from suitkaise.platform.log_queue import QueuedLogger
from suitkaise.platform.threads import DaemonThread
from suitkaise.specs.options import is_encodable

__all__ = ["LogFiles", "log_file"]

logger: QueuedLogger = QueuedLogger("suitkaise.logs")

MOST_WAITING = 16 * 1024 * 1024
"""How much text may wait to be written, in characters."""

MOST_OPEN = 64
"""How many files are open at a time."""

PATIENCE = 2.0
"""Seconds, at most, for which the end of a tree waits until its files are written."""

_LONGEST_NAME = 200

_LIKE_A_FILE = re.compile(r"\.(log(?:\.\d+)?)\Z")


class LogFiles:
    """The files of one tree. `write` may be called from any thread, and never blocks.

    Args:
        directory: where the files are; made when it is needed.
        max_bytes: the size from which a file is rotated; None: never.
        backups: how many earlier files of a worker are kept.
    """

    def __init__(self, directory: str, max_bytes: int | None, backups: int) -> None:
        self._directory = os.path.abspath(directory)
        self._max_bytes = max_bytes
        self._backups = backups
        self._changed = Condition()  # a signal handler may log, too
        self._waiting: deque[tuple[str, Run, int]] = deque()
        self._size = 0
        self._lost = 0  # since the disk is too slow
        self._lost_lines = 0  # since files cannot be written
        self._told: set[int] = set()  # the errors that were told
        self._failing: set[str] = set()
        self._cut: set[str] = set()  # files whose last line was not written as a whole
        self._busy = False
        self._closing = False
        self._thread: threading.Thread | None = None
        self._open: OrderedDict[str, int] = OrderedDict()

    def write(self, path: str, run: Run) -> None:
        """Append lines to the file of the worker at `path`, soon."""
        size = 300 if run.stream == EVENT else sum(map(len, run.texts))
        with self._changed:
            if self._closing:
                return
            if self._size + size > MOST_WAITING and self._waiting:
                self._lost += len(run.texts)
                return
            self._size += size
            first = not self._waiting  # before it is added: a signal handler may add one, too
            self._waiting.append((path, run, size))
            if self._thread is None:
                thread = DaemonThread(target=self._write_all, name="suitkaise-log-files")
                with contextlib.suppress(RuntimeError):  # no thread can be started: the next line tries again
                    thread.start()
                    self._thread = thread
            elif first:
                self._changed.notify_all()

    def close(self, patience: float = PATIENCE) -> None:
        """Write what waits, and close the files; wait at most `patience` seconds for that."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join(patience)
        elif self._waiting:  # no thread could be started
            self._write_all()

    def flush(self, patience: float = PATIENCE) -> bool:
        """Wait at most `patience` seconds until all is written; return whether it is."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._waiting and not self._busy, patience)

    # ------------------------------------------------------------ the thread
    def _write_all(self) -> None:
        while True:
            with self._changed:
                while not self._waiting and not self._closing:
                    self._changed.wait()
                batch, self._waiting, self._size = self._waiting, deque(), 0
                self._busy = True
                lost, self._lost = self._lost, 0
            if lost:
                logger.warning("%d lines for the log files in %s were dropped: the disk is too slow", lost,
                               self._directory)  # fmt: skip
            texts: dict[str, list[str]] = {}
            counts: dict[str, int] = {}
            for path, run, _ in batch:
                try:
                    text = _text(path, run)
                except Exception:  # the thread goes on, for all other lines
                    logger.exception("a line of %r cannot be written to its log file", path)
                    continue
                texts.setdefault(path, []).append(text)
                counts[path] = counts.get(path, 0) + len(run.texts)
            for path, parts in texts.items():
                self._append(path, "".join(parts).encode("utf-8", "backslashreplace"), counts[path])
            with self._changed:
                self._busy = False
                self._changed.notify_all()
            if not batch:  # all is written, and the tree has ended
                break
        for descriptor in self._open.values():
            os.close(descriptor)

    def _append(self, path: str, data: bytes, lines: int) -> None:
        file = log_file(self._directory, path)
        if file in self._cut:
            data = b"\n" + data
        whole = data
        try:
            while data:
                descriptor = self._descriptor(file)
                room = self._room(descriptor, data)
                if room:
                    data = data[os.write(descriptor, data[:room]) :]
                else:
                    self._rotate(file)
        except OSError as error:
            self._lost_lines += lines
            self._failing.add(file)
            if len(data) < len(whole):
                (self._cut.discard if whole[: -len(data)].endswith(b"\n") else self._cut.add)(file)
            if error.errno not in self._told:
                self._told.add(error.errno or 0)
                logger.error(
                    "%s cannot be written: %s; lines for it are dropped until it can be written again. Nothing else is "
                    "affected", file, error.strerror or error,
                )  # fmt: skip
            return
        self._cut.discard(file)
        if self._failing:
            self._failing.discard(file)
            if not self._failing:
                logger.warning("the log files in %s are written again; %d lines were dropped", self._directory,
                               self._lost_lines)  # fmt: skip
                self._lost_lines = 0
                self._told.clear()

    def _room(self, descriptor: int, data: bytes) -> int:
        """Return how many bytes of whole lines fit into the file; 0: it is full."""
        if self._max_bytes is None:
            return len(data)
        size = os.fstat(descriptor).st_size
        if size + len(data) <= self._max_bytes:
            return len(data)
        fitting = data.rfind(b"\n", 0, max(0, self._max_bytes - size)) + 1
        return fitting or (0 if size else data.find(b"\n") + 1)

    def _descriptor(self, file: str) -> int:
        descriptor = self._open.get(file)
        if descriptor is not None:
            if _is_at(file, descriptor):
                self._open.move_to_end(file)
                return descriptor
            self._close(file)  # another program has moved or removed it
        if len(self._open) >= MOST_OPEN:
            self._close(next(iter(self._open)))
        os.makedirs(os.path.dirname(file), exist_ok=True)
        descriptor = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
        self._open[file] = descriptor
        return descriptor

    def _close(self, file: str) -> None:
        descriptor = self._open.pop(file, None)
        if descriptor is not None:
            os.close(descriptor)

    def _rotate(self, file: str) -> None:
        """Make room: `work.log` becomes `work.log.1`, and so on; the oldest is removed.

        Of several programs that write the same file, one does that, and the others follow it.
        """
        descriptor = self._open[file]
        try:
            with contextlib.suppress(OSError):  # a file system without locks
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            if not _is_at(file, descriptor):
                return
            for number in range(self._backups, 0, -1):
                former = f"{file}.{number - 1}" if number > 1 else file
                with contextlib.suppress(FileNotFoundError):
                    os.replace(former, f"{file}.{number}")
            if not self._backups:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(file)
        finally:
            self._close(file)


def _is_at(file: str, descriptor: int) -> bool:
    """Return whether an open file is the one at this path still."""
    try:
        return os.path.samestat(os.stat(file), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def log_file(directory: str, path: str) -> str:
    """Return the file of the worker at `path`. No folder has the name that a worker's file may have.

    >>> log_file("/var/log", "app/jobs/work-1"), log_file("/var/log", "app/jobs.log/work-1")
    ('/var/log/app/jobs/work-1.log', '/var/log/app/jobs%2Elog/work-1.log')
    """
    *folders, worker = map(_name, path.split("/"))
    return os.path.join(directory, *(_LIKE_A_FILE.sub(r"%2E\1", folder) for folder in folders), f"{worker}.log")


def _name(part: str) -> str:
    """Return a part of a path as the name of a file: no link to a parent folder, and not too long."""
    if part in (".", ".."):
        return part.replace(".", "%2E")
    data = part.encode("utf-8", "backslashreplace")
    if len(data) <= _LONGEST_NAME:
        return part if is_encodable(part) else data.decode()
    return f"{data[:_LONGEST_NAME].decode(errors='ignore')}-{zlib.crc32(data):08x}"


def _text(path: str, run: Run) -> str:
    """Return the lines of a run as the file has them: control characters escaped, further lines indented."""
    moment = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(run.time))
    start = f"{moment}.{int(run.time % 1 * 1000):03d} {run.stream}: "
    if run.stream in ("stdout", "stderr"):
        texts = [one_line(text) for text in run.texts]
    else:
        texts = [indented(str(text).removeprefix(f"{path}: ").removeprefix(f"{path} ")) for text in run.texts]
    return start + f"\n{start}".join(texts) + "\n"
