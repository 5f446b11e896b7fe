"""Process groups (OTP's `pg`): workers that join under a name, so that others can talk to them without their paths.

The hub keeps the groups; a membership belongs to one incarnation. `memberships` has the hub's side.
"""

from __future__ import annotations

from typing import Any

from suitkaise.errors import ChildNotFound, MailboxFull, WorkerDead
from suitkaise.messaging.answer import DEFAULT_TIMEOUT, Answer, checked_timeout
from suitkaise.messaging.direct import sends
from suitkaise.messaging.identity import current_path
from suitkaise.messaging.messages import Message, payload_of
from suitkaise.messaging.patterns import checked_name
from suitkaise.messaging.protocol import GroupAction, RequestKind
from suitkaise.messaging.refs import WorkerRef
from suitkaise.messaging.router import router, shared_payload
from suitkaise.records import dataclass

__all__ = ["Group", "group", "join_group", "leave_group"]


def group(name: str) -> Group:
    """Return the group of that name, from any process of the program; it may have no members.

    >>> from suitkaise import Child, Supervisor, Thread, group
    >>> class Resize(Thread):
    ...     def on_start(self) -> None:
    ...         self.join_group("resizers")
    ...
    ...     def on_receive(self, message: str) -> str:
    ...         return f"{self.name} has resized {message}"
    >>> with Supervisor("app", Child(Resize, id="one"), Child(Resize, id="two")).start():
    ...     [group("resizers").ask(picture) for picture in ("a.png", "b.png", "c.png")]
    ['one has resized a.png', 'two has resized b.png', 'one has resized c.png']

    Raises:
        ValueError: the name is no text, or has wildcards.
    """
    return Group(name)


@dataclass(frozen=True, slots=True)
class Group:
    """A group of workers, by its name; picklable. Members are the incarnations that have joined and live."""

    name: str

    def __post_init__(self) -> None:
        checked_name("the name of a group", self.name)

    def members(self) -> list[WorkerRef]:
        """Return the members in the order in which they have joined."""
        return [WorkerRef(path) for path in self._request(GroupAction.MEMBERS)]

    @sends
    def tell(self, message: Any) -> int:
        """Tell all members; return how many have been sent the message.

        Raises:
            NotSerializable: the message cannot be sent to another process.
        """
        payload, way = shared_payload(message), router()
        told: int
        told, left = self._request(GroupAction.TELL, (payload, way.in_use()))
        for path in left:
            try:
                told += way.send(path, Message("message", payload_of(payload)))
            except (ChildNotFound, MailboxFull, WorkerDead) as error:
                way.request(RequestKind.DEAD_LETTER, path, (f"told to the group {self.name!r}: {error}", 1))
        return told

    def ask(self, message: Any, timeout: float | None = DEFAULT_TIMEOUT) -> Any:
        """Ask one member, each in turn, and wait at most `timeout` seconds (default 5.0); a member asks the others.

        Raises:
            ChildNotFound: the group has no (other) members.
            Exception: whatever `WorkerRef.ask` raises.
        """
        checked_timeout(timeout)
        return self.next().ask(message, timeout)

    def ask_future(self, message: Any) -> Answer[Any]:
        """Ask one member, each in turn; see `ask` and `WorkerRef.ask_future`."""
        return self.next().ask_future(message)

    def next(self) -> WorkerRef:
        """Return the member whose turn it is; never the worker that calls. Raises ChildNotFound without one."""
        return WorkerRef(self._request(GroupAction.NEXT, current_path()))

    def _request(self, action: GroupAction, argument: Any = None) -> Any:
        return router().request(RequestKind.GROUP, self.name, (action, argument)).get()


def join_group(name: str, owner: str) -> None:
    """Make the incarnation `owner` a member."""
    group(name)._request(GroupAction.JOIN, owner)


def leave_group(name: str, owner: str) -> None:
    """Make the incarnation `owner` a member no more."""
    group(name)._request(GroupAction.LEAVE, owner)
