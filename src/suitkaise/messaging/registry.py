"""The registry of paths: every path has one address, whichever incarnation answers there now.

The registry belongs to the hub, the program that owns the trees. It is the router of the hub's own threads; the hub
server passes on the requests that workers send to `hub.sock`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import Any, assert_never

from suitkaise.errors import ChildNotFound, RuntimeGone, SuitkaiseError, WorkerFailed
from suitkaise.exits import Crashed
from suitkaise.messaging.address import Address, Parent
from suitkaise.messaging.blocked_asks import BlockedAsks
from suitkaise.messaging.links import Links
from suitkaise.messaging.messages import Answer, Message, Payload
from suitkaise.messaging.protocol import AdminAction, RequestKind
from suitkaise.messaging.supervisor_ref import ref_to

__all__ = ["Registry"]

MOST_REMOVED = 1_000
"""How many removed workers are remembered, so that their result can still be requested."""


class Registry:
    """All addresses of a program; the `Router` of the hub. Its methods may be called from any thread."""

    def __init__(self) -> None:
        self.services: dict[RequestKind, Callable[..., Any]] = {}
        self._addresses: dict[str, Address] = {}
        self._removed: OrderedDict[str, Address] = OrderedDict()
        self._closed = False
        self._links = Links(self.find, ref_to)
        self.blocked_asks: BlockedAsks = BlockedAsks(self.find)

    def add(self, path: str, id: str, kind: str, parent: Parent) -> Address:
        """Return the address at `path`, a new one if there is none; `parent` answers for it from now on."""
        address = self._addresses.get(path)
        if address is None:
            address = self._addresses[path] = Address(path, id, kind, parent)
            self._removed.pop(path, None)
        address.parent = parent
        return address

    def remove(self, path: str) -> None:
        """Remove the address at `path`, if there is one, and remember it for a while."""
        address = self._addresses.get(path)
        if address is not None:
            self._removed[path] = address  # first: a request that comes meanwhile finds it there
            del self._addresses[path]
            address.finish()
            if len(self._removed) > MOST_REMOVED:
                self._removed.popitem(last=False)

    def find(self, path: str) -> Address:
        """Return the address at `path`.

        Raises:
            ChildNotFound: there is none.
        """
        try:
            return self._addresses[path]
        except KeyError:
            if self._closed:
                raise RuntimeGone(f"no tree runs in this program, so there is no worker {path!r}", path=path) from None
            raise ChildNotFound(f"no worker at {path!r}", path=path) from None

    def kind_of(self, path: str) -> str:
        """Return the kind of the child at `path`, also of one that was removed lately. Raises ChildNotFound."""
        return self._find_or_removed(path).kind

    def close(self) -> None:
        """Close the registry after the program's last tree; results of removed workers can still be requested."""
        self._closed = True
        self.services.clear()

    def __contains__(self, path: object) -> bool:
        return path in self._addresses

    def __len__(self) -> int:
        return len(self._addresses)

    def paths(self) -> list[str]:
        """Return all known paths."""
        return list(self._addresses)

    # ------------------------------------------------------------ Router
    def send(self, path: str, message: Message) -> None:
        """Send a message; raises what `Address.send` raises."""
        address = self.find(path)
        if address.send(message):
            self.blocked_asks.add(address)

    def administer(self, action: AdminAction, path: str, argument: Any = None) -> Answer[Any]:
        """Have the supervisor at `path` carry out `action`."""
        try:
            return self.find(path).administer(action, argument)
        except Exception as error:
            answer: Answer[Any] = Answer()
            answer.set_exception(error)
            return answer

    def request(self, kind: RequestKind, path: str, argument: Any = None) -> Answer[Any]:
        """Carry out a request of a ref or a worker."""
        answer: Answer[Any] = Answer()
        try:
            match kind:
                case RequestKind.INFO:
                    address = self._find_or_removed(path)
                    answer.set_result((address.status, address.pid, address.incarnation, address.kind))
                case RequestKind.STATS:
                    answer.set_result(self._find_or_removed(path).stats())
                case RequestKind.FIND:
                    address = self.find(path)
                    answer.set_result((address.path, address.kind))
                case RequestKind.JOIN:
                    self._answer_when_over(self._find_or_removed(path), answer, _settle_reason)
                case RequestKind.RESULT:
                    self._answer_when_over(self._find_or_removed(path), answer, _settle_result)
                case RequestKind.KILL | RequestKind.REJOIN | RequestKind.RECALL:
                    return self.find(path).control(kind, argument)
                case RequestKind.DOWN:
                    self._links.await_down(path, answer)
                case RequestKind.MONITOR:
                    self._links.monitor(path, argument)
                    answer.set_result(None)
                case RequestKind.DEMONITOR:
                    self._links.demonitor(argument)
                    answer.set_result(None)
                case RequestKind.LINK:
                    self._links.link(path, argument)
                    answer.set_result(None)
                case RequestKind.UNLINK:
                    self._links.unlink(path, argument)
                    answer.set_result(None)
                case RequestKind.TRAP_EXITS:
                    self._links.trap_exits(*argument)
                    answer.set_result(None)
                case RequestKind.OVERVIEW | RequestKind.STORAGE | RequestKind.RESOURCE_TRACKER:
                    return self._serve(kind)
                case RequestKind.EVENTS:
                    return self._serve(kind, argument)
                case _:
                    assert_never(kind)
        except Exception as error:
            answer.set_exception(error)
        return answer

    def _find_or_removed(self, path: str) -> Address:
        return self._removed.get(path) or self.find(path)

    def _answer_when_over(
        self, address: Address, answer: Answer[Any], settle: Callable[[Address, Answer[Any]], None]
    ) -> None:
        callback = partial(settle, address, answer)
        address.when_over(callback)
        answer.when_done(lambda done: address.forget(callback))  # cancelled, most likely

    def _serve(self, kind: RequestKind, *arguments: Any) -> Answer[Any]:
        """Call a service of the program; it returns a value at once, or an `Answer`."""
        service = self.services.get(kind)
        if service is None:
            raise SuitkaiseError(f"this program does not serve {kind.value!r} requests")
        value = service(*arguments)
        if isinstance(value, Answer):
            return value
        answer: Answer[Any] = Answer()
        answer.set_result(value)
        return answer


def _settle_reason(address: Address, answer: Answer[Any]) -> None:
    answer.settle(True, Payload(address.reason))


def _settle_result(address: Address, answer: Answer[Any]) -> None:
    reason = address.reason
    if address.result is not None:
        answer.settle(True, address.result)
        return
    traceback = reason.traceback if isinstance(reason, Crashed) else ""
    error = WorkerFailed(
        f"{address.path!r} ended without a result: {reason or 'it never ran'}",
        path=address.path, reason=reason, traceback=traceback,
    )  # fmt: skip
    answer.settle(False, Payload(error))
