"""The revision word: one number in a shared page that tells every process how far the storage has come.

It is twice the revision that was committed last, and odd while a commit is under way. So a value that was
read while the word was even is still current as long as the word is the same.
"""

from __future__ import annotations

import mmap
import os
from pathlib import Path

__all__ = ["RevisionWord"]

_PAGE = 4096


class RevisionWord:
    """The word in the file `revision` of a storage's directory."""

    FILE = "revision"

    def __init__(self, directory: Path, *, write: bool = False) -> None:
        """Map the word; with `write`, make its file if need be.

        Raises:
            FileNotFoundError: there is no storage there yet.
        """
        path = directory / self.FILE
        if write and not path.exists():
            # In one step, and with its page allocated: a hole would be SIGBUS once the file system is full.
            fresh = directory / f".{self.FILE}.{os.getpid()}"
            fresh.write_bytes(bytes(_PAGE))
            fresh.chmod(0o600)
            fresh.rename(path)
        descriptor = os.open(path, (os.O_RDWR if write else os.O_RDONLY) | os.O_CLOEXEC)
        try:
            protection = mmap.PROT_READ | mmap.PROT_WRITE if write else mmap.PROT_READ
            page = mmap.mmap(descriptor, _PAGE, mmap.MAP_SHARED, protection)
        finally:
            os.close(descriptor)
        self.words: memoryview[int] = memoryview(page).cast("Q")
        """The page; the word is `words[0]`. (Reading it is one atomic load, and so is storing it.)"""
        self._page = page

    def begin(self, revision: int) -> None:
        """A commit after `revision` is under way."""
        self.words[0] = 2 * revision + 1

    def publish(self, revision: int) -> None:
        """`revision` is committed."""
        self.words[0] = 2 * revision

    def close(self) -> None:
        """Unmap it. Whoever still looks at `words` gets a `ValueError`."""
        self.words.release()
        self._page.close()
