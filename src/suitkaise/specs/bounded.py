"""The bound of a mailbox: how many messages may wait for a worker, and what happens to one more."""

from __future__ import annotations

from typing import Literal, TypeAlias

from suitkaise.errors import SpecError
from suitkaise.records import dataclass
from suitkaise.specs.options import is_whole

__all__ = ["ON_FULL", "Bounded", "OnFull"]

OnFull: TypeAlias = Literal["block", "reject", "drop_oldest", "drop_newest"]

ON_FULL = ("block", "reject", "drop_oldest", "drop_newest")


@dataclass(frozen=True, slots=True)
class Bounded:
    """At most `size` messages wait for the worker; `on_full` tells what happens to one more (rule 84).

    A message waits until its handler begins. Reports of links and the messages of its timers count, but are never
    refused or dropped; orders (stop, suspend, status) neither count nor wait.

    Args:
        size: a whole number of messages >= 1.
        on_full: `"block"` (default): the sender waits, a `tell` at most 5 s, an `ask` as long as its timeout;
            `"reject"`: the sender gets `MailboxFull` at once; `"drop_oldest"`: the message that has waited longest is
            dropped; `"drop_newest"`: the new one is. A dropped ask gets `MailboxFull`; a dropped tell is a dead letter,
            which is counted, with an event.

    Raises:
        SpecError: a value is out of range.

    >>> from suitkaise import Child, Process
    >>> class Work(Process):
    ...     def on_receive(self, message: str) -> None: ...
    >>> Child(Work, mailbox=Bounded(100, on_full="reject")).mailbox
    Bounded(size=100, on_full='reject')
    """

    size: int
    on_full: OnFull = "block"

    def __post_init__(self) -> None:
        if not is_whole(self.size, 1):
            raise SpecError(f"Bounded: size must be a whole number >= 1, not {self.size!r}")
        if self.on_full not in ON_FULL:
            raise SpecError(f"Bounded: on_full must be one of {', '.join(map(repr, ON_FULL))}, not {self.on_full!r}")
