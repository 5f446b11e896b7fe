"""Ends the processes that a worker has left behind, in the keeper, which adopts them.

The keeper is a subreaper: it becomes the parent of a process whose own parent has ended. The mark that every process
inherits from its worker tells the workers apart, so that the daemon of a worker that runs is left alone. The exit of a
worker is reported when nothing of it is left, so that the next incarnation finds its ports, files and locks free.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from suitkaise.engines.protocol import CleaningUp, KeeperAnswer, KeeperWarning, ProcessExited
from suitkaise.platform.marks import Mark, mark_of
from suitkaise.platform.processes import OwnChildren, children, descendants, kill_group_of, request_end, was_reaped
from suitkaise.records import dataclass, field

__all__ = ["Leftovers"]

PATIENCE = 5.0
"""Seconds for which the exit of a worker is held back while a killed process does not go (it waits in the kernel)."""


@dataclass(slots=True)
class _Ending:
    """A worker that has ended, and whose processes have not."""

    answer: ProcessExited
    kill_at: float  # monotonic; until then its processes may end by themselves
    report_at: float
    announced: bool = False


@dataclass(slots=True)
class Leftovers:
    """The processes that the keeper has adopted.

    Args:
        program: the number of this program in marks.
        all_end: whether an adopted process always belongs to a worker that has ended: guards of commands adopt, too.
        forked: returns the pids of the living processes that the keeper itself has forked.
        running: returns the numbers of the workers among them, and which of them run after all others have ended.
        send: sends an answer to the hub.
        own_children: of this process.
    """

    program: int
    all_end: bool
    forked: Callable[[], set[int]]
    running: Callable[[], dict[int, bool]]
    send: Callable[[KeeperAnswer], None]
    own_children: OwnChildren
    _endings: dict[int, _Ending] = field(default_factory=dict)  # by the worker's number
    _marks: dict[int, Mark | None] = field(default_factory=dict)  # of adopted processes, by pid
    _asked: set[int] = field(default_factory=set)
    _killed: set[int] = field(default_factory=set)
    _immune: set[int] = field(default_factory=set)

    def report(self, answer: ProcessExited, grace: float) -> None:
        """Report the exit of a worker as soon as nothing of it is left; its processes get `grace` seconds to end.

        The caller calls `look` once for all that have ended at the same time.
        """
        now = time.monotonic()
        self._endings[answer.number] = _Ending(answer, now + grace, now + grace + PATIENCE)

    def kill(self, number: int) -> None:
        """Give the processes of the worker no more time."""
        if number in self._endings:
            ending = self._endings[number]
            ending.kill_at = time.monotonic()
            ending.report_at = ending.kill_at + PATIENCE

    @property
    def deadline(self) -> float | None:
        """The time (monotonic) at which `look` has something to do although no process ends; None without a worker."""
        now = time.monotonic()
        times = (ending.kill_at if ending.kill_at > now else ending.report_at for ending in self._endings.values())
        return min(times, default=None)

    def spare_strangers(self) -> None:
        """Leave the children alone that this process has now without having forked them (a preloaded module did)."""
        self._immune.update(pid for pid in children() if pid not in self.forked() and mark_of(pid) is None)

    def look(self) -> None:
        """Reap those that have ended, end those whose worker has ended, and report the workers that are done."""
        now = time.monotonic()
        left: dict[int, int] = {}  # a pid of each worker of which something is left
        for pid, number in self._adopted():
            ending = self._endings.get(number)
            if ending is not None and now < ending.kill_at:
                self._ask(pid)
            else:
                self._kill(pid)
            if pid not in self._immune:
                left[number] = pid
        for number, ending in list(self._endings.items()):
            if number in left and now < ending.report_at:
                if not ending.announced:
                    ending.announced = True
                    self.send(CleaningUp(number))
                continue
            if number in left:
                self.send(
                    KeeperWarning(f"process {left[number]}, left behind by a worker, was killed and does not end")
                )
            del self._endings[number]
            self.send(ending.answer)

    def kill_all(self) -> None:
        """Kill everything that is not to be kept, and return when it is gone; no worker is left."""
        for ending in self._endings.values():
            ending.kill_at = 0.0
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            self.look()
            left = next((pid for pid, _ in self._adopted()), None)
            if left is None:
                return
            was_reaped(left, deadline - time.monotonic())

    def _adopted(self) -> list[tuple[int, int]]:
        """Reap; return those that are left and must end, with the numbers of their workers."""
        forked = self.forked()
        if self.own_children.are(forked):
            return []
        adopted = self._alive(forked)
        if not adopted:
            return []
        running = self.running()
        found = []
        for pid in adopted:
            if pid in self._immune:
                continue
            if pid not in self._marks:
                self._marks[pid] = mark_of(pid)
            mark = self._marks[pid]
            if mark is not None and mark.program == self.program:
                if not mark.keep and mark.worker not in running:
                    found.append((pid, mark.worker))
            elif self.all_end or all(running.values()):
                # its mark is lost: it ends when no worker is left that has started it
                found.append((pid, next(iter(self._endings), 0)))
        return found

    def _alive(self, forked: set[int]) -> list[int]:
        """Reap the adopted processes that have ended; return the others."""
        while True:
            found = [pid for pid in children() if pid not in forked]
            alive = [pid for pid in found if not self._is_gone(pid)]
            if len(alive) == len(found):
                return alive  # else one that has just ended may have left a child, which is not among those found

    def _is_gone(self, pid: int) -> bool:
        if not was_reaped(pid):
            return False
        self._marks.pop(pid, None)
        for known in (self._asked, self._killed, self._immune):
            known.discard(pid)
        return True

    def _ask(self, pid: int) -> None:
        if pid not in self._asked:
            for one in (pid, *descendants(pid)):
                if one not in self._asked:
                    self._asked.add(one)
                    request_end(one)

    def _kill(self, pid: int) -> None:
        if pid in self._killed:
            return
        self._killed.add(pid)
        below = list(descendants(pid))
        if not kill_group_of(pid):
            self._immune.add(pid)
            self.send(KeeperWarning(f"process {pid}, left behind by a worker, runs as another user: not killed"))
        for one in below:  # those of another program have marks of their own
            kill_group_of(one)
