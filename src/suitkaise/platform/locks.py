"""The lock of this package, which no signal handler leaves locked, whatever it raises.

Python begins a `with` block and guards it in one step. In Python 3.14 a signal handler can raise in between, until a
release mends that (python/cpython#148874): then the block's end is lost, and with it the release of the lock.
"""

from __future__ import annotations

import _thread
import sys
from typing import TYPE_CHECKING

__all__ = ["RLock"]

if TYPE_CHECKING:
    from threading import RLock as RLock
elif sys.version_info < (3, 14):
    RLock = _thread.RLock
else:

    class RLock(_thread.RLock):
        """Does what `threading.RLock` does."""

        __slots__ = ()

        def __enter__(self) -> bool:
            depth = self._recursion_count()
            try:
                return self.acquire()
            except BaseException:
                if self._recursion_count() > depth:  # the handler has raised behind the call
                    self.release()
                raise
