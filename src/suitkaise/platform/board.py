"""The status board: one memory-mapped file, one fixed slot for each worker.

A worker writes its own slot with plain stores; every other process may read it at any time, also after the worker
was killed. Every field is one aligned 8-byte word, stored and loaded whole: there is no lock, and a reader can
see words of two different moments. Phase and its start share a word, so those two always agree. A word with a time is
a floating-point number of seconds: Python adds and stores one in a third of the time that it takes for a large number
of nanoseconds, and each loop does so.
"""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import time
from enum import IntEnum
from typing import Any, NamedTuple

from suitkaise.errors import SuitkaiseError
from suitkaise.platform.connection_counts import COUNTS_BYTES, ConnectionCounts
from suitkaise.platform.descriptors import above_streams
from suitkaise.platform.locks import RLock
from suitkaise.records import dataclass

__all__ = [
    "BELL",
    "DIRECT_BELL",
    "DROPPED",
    "INCARNATION",
    "LAST_LOOP",
    "LISTENING",
    "LOCK",
    "LOOKED",
    "LOOPING",
    "LOOPS",
    "MESSAGES",
    "OWN",
    "OWN_TAKEN",
    "PHASE",
    "PID",
    "QUEUED",
    "SKIPPED",
    "SLOT_BYTES",
    "STARTED",
    "TOTAL",
    "WANTED",
    "Board",
    "Phase",
    "SenderMarks",
    "Slot",
    "SlotView",
]

SLOT_BYTES = 256
"""Of the memory of one worker: whole lines of a processor's cache, so that no two workers write to the same one."""
CAPACITY = 16_384
"""How many workers a program can have at a time: 36 MiB of address space; only used pages take memory."""
_SLOTS_PER_PAGE = mmap.PAGESIZE // SLOT_BYTES
_COUNTS = SLOT_BYTES * CAPACITY
"""Where the counts of direct connections begin, behind the slots."""
_SIZE = _COUNTS + COUNTS_BYTES * CAPACITY

PID, PHASE, LOOPS, LAST_LOOP, TOTAL, MESSAGES, QUEUED = range(7)
LOOPING = 8
"""The word that is 1 when the worker has a loop and is up: from then on it always has something to do."""
STARTED = 9
"""The word with the time (seconds, monotonic) when the worker got its process or thread; 0: not yet."""
INCARNATION = 10
"""The word with the serial number of the incarnation to which others may send directly; 0: to none, or no more."""
LOOKED = 14
"""The word with a time (seconds, monotonic) before which none of the messages has come that wait."""
SKIPPED = 11
"""The word that counts, of the messages which the worker has taken out, those that it did not handle."""
DROPPED = 12
"""The word of the hub: the number of the last message that is dropped of those which the worker has got."""
WANTED = 13
"""The word that is 1 when the hub waits until the worker takes out a message; see `messaging.inbox`."""
OWN = 15
"""The word that counts the messages which the worker's timers have put into its inbox."""
OWN_TAKEN = 17
"""The word that counts those of them which the worker has taken out."""
BELL = 7 * 8
"""The byte that a sender sets after it has put a message into the worker's socket or inbox."""
DIRECT_BELL = BELL + 1
"""The byte of the same word for senders that do not go through the hub, so that they overwrite no order's urgency."""
LISTENING = 16 * 8
"""The byte that is 1 while the program wants each line that the worker prints, at once."""
LOCK = 18 * 8
"""The 64 bytes for the lock that tells the end of the worker's process; see `death_lock`."""

_MARK = 1 << 30


class Phase(IntEnum):
    """What a worker is doing. A phase word is `phase.mark + seconds`, the time (monotonic) when the phase began.

    It has the time to a microsecond.
    """

    BOOT = 0
    ON_START = 1
    WAITING = 2
    BEFORE_LOOP = 3
    LOOP = 4
    AFTER_LOOP = 5
    ON_RECEIVE = 6
    ON_FINISH = 7
    HANDLE_TIMEOUT = 8

    @property
    def hook(self) -> str:
        """The name of the hook, such as `before_loop`."""
        return self.name.lower()

    @property
    def in_a_loop(self) -> bool:
        """Whether the phase is a part of a loop."""
        return Phase.BEFORE_LOOP <= self <= Phase.AFTER_LOOP

    @property
    def mark(self) -> float:
        """The phase as a multiple of 2^30 seconds; adding the seconds (of up to 34 years) completes the word."""
        return float(self * _MARK)

    @classmethod
    def of(cls, word: float) -> Phase:
        """Return the phase in a phase word."""
        return cls(int(word) // _MARK)


@dataclass(frozen=True, slots=True)
class SlotView:
    """The content of a slot at one moment; times in seconds, `since`, `oldest` and `started` on the monotonic clock.

    `oldest`: no message that waits has come before; exactly the time at which the oldest came, if the mailbox is
    bounded. None if no message waits. `blocked`: how many messages wait for room in it.
    """

    pid: int
    phase: Phase
    since: float
    loops: int
    last_loop_time: float
    total_loop_time: float
    messages: int
    queued: int
    looping: bool = False
    started: float | None = None
    skipped: int = 0
    oldest: float | None = None
    blocked: int = 0


class SenderMarks(NamedTuple):
    """What a sender over a direct connection has of the board.

    It writes the worker's bell, and how many messages it has sent, but only while `incarnation` is the one that it is
    connected with: after that the memory belongs to others.
    """

    bell: memoryview[Any]
    sent: memoryview[int]
    incarnation: memoryview[int]

    @classmethod
    def of_no_board(cls) -> SenderMarks:
        """Return some that are on no board, for a connection that is closed."""
        words = memoryview(bytearray(24)).cast("Q")
        return cls(words.cast("B")[:1], words[1:2], words[2:])


class Slot:
    """The memory of one worker on a board, for its writer and for readers.

    `words` is a view of unsigned 8-byte integers, `seconds` one of 8-byte floating-point numbers, for the words with a
    time, and `bytes` the same memory as bytes.
    """

    __slots__ = ("bytes", "index", "seconds", "words")

    def __init__(self, memory: memoryview[Any], index: int = 0) -> None:
        self.index: int = index
        self.bytes: memoryview[Any] = memory[index * SLOT_BYTES : (index + 1) * SLOT_BYTES]
        self.words: memoryview[int] = self.bytes.cast("Q")
        self.seconds: memoryview[float] = self.bytes.cast("d")

    def read(self, queued: int | None = None) -> SlotView:
        """Return the content of the slot; any process may call this at any time.

        `queued`: how many messages wait, for a caller that knows of those that the worker has not seen yet.
        """
        words, seconds = self.words, self.seconds
        phase = seconds[PHASE]
        waiting = words[QUEUED] if queued is None else queued
        return SlotView(
            words[PID], Phase.of(phase), phase % _MARK, words[LOOPS], seconds[LAST_LOOP], seconds[TOTAL],
            words[MESSAGES] - words[SKIPPED], waiting, bool(words[LOOPING]), seconds[STARTED] or None, words[SKIPPED],
            seconds[LOOKED] or seconds[STARTED] if waiting else None,
        )  # fmt: skip

    def mark_started(self) -> None:
        """Record that the worker gets its process or thread now."""
        self.seconds[STARTED] = time.monotonic()

    def release(self) -> None:
        """Release the memory; the slot must not be used after that."""
        self.words.release()
        self.seconds.release()
        self.bytes.release()


class Board:
    """The board. The program that owns it makes it; its keepers inherit the descriptor, and workers their memory.

    So no other process opens the file by its name, which another user could have made if the directory was removed.
    With the descriptor -1 the board is in memory, for one process alone.
    """

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self._map = mmap.mmap(descriptor, _SIZE)
        self.memory: memoryview[Any] = memoryview(self._map)
        self._free: list[int] = []
        self._next = 0
        self._closed = False
        self._lock = RLock()

    @classmethod
    def create(cls, path: str) -> Board:
        """Make the file at `path`, which must not exist, and its board.

        Raises:
            OSError: the file cannot be made.
        """
        descriptor = above_streams(os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_CREAT | os.O_EXCL, 0o600))
        try:
            os.ftruncate(descriptor, _SIZE)
            return cls(descriptor)
        except BaseException:
            os.close(descriptor)
            raise

    @classmethod
    def in_memory(cls) -> Board:
        """Make a board that this process alone has."""
        return cls(-1)

    def take(self, name: str) -> Slot:
        """Return a free slot, cleared, for the worker at the path `name`, which errors tell.

        Raises:
            SuitkaiseError: all `CAPACITY` slots are taken, or the file system is full.
        """
        with self._lock:
            if self._free:
                index = self._free.pop()
            elif self._next < CAPACITY:
                if self._next % _SLOTS_PER_PAGE == 0:
                    try:
                        self._make_room(self._next * SLOT_BYTES, mmap.PAGESIZE)
                    except OSError as error:
                        raise SuitkaiseError(
                            f"{name!r}: no room is left for its slot of the status board: {error.strerror}", path=name
                        ) from error
                index, self._next = self._next, self._next + 1
            else:
                raise SuitkaiseError(f"{name!r}: a program can have at most {CAPACITY} workers at a time", path=name)
        slot = Slot(self.memory, index)
        slot.bytes[:] = bytes(SLOT_BYTES)
        return slot

    def _make_room(self, start: int, size: int) -> None:
        """Allocate memory now; if the file system had none left later, SIGBUS would end the program."""
        if self.descriptor < 0:
            return
        try:
            os.posix_fallocate(self.descriptor, start, size)
        except OSError as error:
            if error.errno != errno.EOPNOTSUPP:  # else this file system cannot allocate in advance
                raise

    def give_back(self, slot: Slot) -> None:
        """Make a slot free again after its worker is gone and no reader uses it any more."""
        with self._lock:
            self._free.append(slot.index)
            if self._closed:  # the slot belonged to an abandoned thread
                self._unmap()

    def slot(self, index: int) -> Slot:
        """Return the slot with this number."""
        return Slot(self.memory, index)

    def new_counts(self, index: int) -> ConnectionCounts:
        """Return the counts of the direct connections of the worker in this slot, which has none yet.

        Raises:
            OSError: the file system is full.
        """
        start = _COUNTS + index * COUNTS_BYTES
        self._make_room(start, COUNTS_BYTES)
        self.memory[start : start + COUNTS_BYTES] = bytes(COUNTS_BYTES)
        return self.counts(index)

    def counts(self, index: int) -> ConnectionCounts:
        """Return the counts of the direct connections of the worker in this slot."""
        start = _COUNTS + index * COUNTS_BYTES
        return ConnectionCounts(self.memory[start : start + COUNTS_BYTES])

    def marks(self, index: int, number: int) -> SenderMarks:
        """Return what a sender has over the direct connection of this number to the worker in this slot."""
        slot = self.slot(index)
        return SenderMarks(
            slot.bytes[DIRECT_BELL : DIRECT_BELL + 1],
            self.counts(index).sent(number),
            slot.words[INCARNATION : INCARNATION + 1],
        )

    def lock_address(self, index: int) -> int:
        """Return the address of the lock in the slot with this number, valid until the board is closed."""
        import ctypes  # few programs need it

        return ctypes.addressof(ctypes.c_char.from_buffer(self._map, index * SLOT_BYTES + LOCK))

    def close(self) -> None:
        """Unmap the board, or, while slots are in use, let the last of them unmap it."""
        with self._lock:
            if not self._closed:
                self._closed = True
                if self.descriptor >= 0:
                    os.close(self.descriptor)
            self._unmap()

    def _unmap(self) -> None:
        with contextlib.suppress(BufferError):  # a slot is still in use
            self.memory.release()
            self._map.close()
