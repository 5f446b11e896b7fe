"""The revision word: one number in a shared page, by which every process sees that the storage has changed.

The word is twice the revision that was committed last, and odd while a commit is under way. So a value that was
read while the word was even is current as long as the word is the same.
"""

from __future__ import annotations

import mmap
import os
from array import array
from pathlib import Path

__all__ = ["PROGRESS", "RevisionWord", "always_changing"]

PROGRESS = 8
"""The place in the page of the number of entries that a long write has written so far."""


class RevisionWord:
    """The word in the file `revision` of a storage's directory."""

    FILE = "revision"
    SIZE = 4096

    def __init__(self, directory: Path, *, write: bool = False) -> None:
        """Map the word; with `write`, make its file if it does not exist, or is cut short (by a loss of power).

        Raises:
            FileNotFoundError: the directory holds no storage yet.
        """
        path = directory / self.FILE
        if write and not (path.exists() and path.stat().st_size >= self.SIZE):  # the store knows the revision, too
            # In one step, and with an allocated page: a hole would be a SIGBUS once the file system is full.
            new = directory / f".{self.FILE}.{os.getpid()}"
            try:
                new.write_bytes(bytes(self.SIZE))
                new.chmod(0o600)
                new.rename(path)
            except BaseException:
                new.unlink(missing_ok=True)
                raise
        descriptor = os.open(path, (os.O_RDWR if write else os.O_RDONLY) | os.O_CLOEXEC)
        try:
            if os.fstat(descriptor).st_size < self.SIZE:
                raise FileNotFoundError(f"{path} is cut short")
            protection = mmap.PROT_READ | mmap.PROT_WRITE if write else mmap.PROT_READ
            page = mmap.mmap(descriptor, self.SIZE, mmap.MAP_SHARED, protection)
        finally:
            os.close(descriptor)
        self.words: memoryview[int] = memoryview(page).cast("Q")
        """The page; the word is `words[0]`. (Reading it is one atomic load, and so is storing it.)"""
        self._page = page

    @property
    def revision(self) -> int:
        """The revision that was committed last."""
        return self.words[0] // 2

    def begin(self, revision: int) -> None:
        """Mark a commit after `revision` as under way."""
        self.words[0] = 2 * revision + 1

    def publish(self, revision: int) -> None:
        """Mark `revision` as committed."""
        self.words[0] = 2 * revision

    def report(self, done: int) -> None:
        """Show how many entries the write that is under way has written, for the writer's client."""
        self.words[PROGRESS] = done

    def close(self) -> None:
        """Unmap the page. A later access to `words` raises `ValueError`."""
        self.words.release()
        self._page.close()


def always_changing() -> memoryview[int]:
    """Return a page for a storage of another machine: an odd word, so nothing that is read now is current later."""
    return memoryview(array("Q", [1] + [0] * (RevisionWord.SIZE // 8 - 1)))
