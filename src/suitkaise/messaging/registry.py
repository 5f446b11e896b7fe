"""Where workers are found: every path has one address, whichever incarnation answers there now.

The registry belongs to the program that owns the trees (the hub). It is also the one way in: `post` takes every
request that a ref can make, from the hub's own threads and, through the hub's socket, from workers.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from suitkaise.errors import ChildNotFound, RuntimeGone, SuitkaiseError, WorkerFailed
from suitkaise.exits import Crashed
from suitkaise.messaging.address import Address, Parent
from suitkaise.messaging.links import Links
from suitkaise.messaging.messages import Answer, Message, Payload

if TYPE_CHECKING:
    pass

__all__ = ["Registry"]

DEPARTED = 1_000
"""How many workers that are over and forgotten can still be asked for their result."""


class Registry:
    """All addresses of a program."""

    def __init__(self) -> None:
        self.services: dict[str, Callable[[str, Any], Any]] = {}
        self._addresses: dict[str, Address] = {}
        self._departed: OrderedDict[str, Address] = OrderedDict()
        self._closed = False
        self._links = Links(self)

    def add(self, path: str, id: str, kind: str, keeping: Parent) -> Address:
        """The address at `path`, kept by `keeping` from now on; one that is there already stays the same."""
        address = self._addresses.get(path)
        if address is None:
            address = self._addresses[path] = Address(path, id, kind, keeping)
            self._departed.pop(path, None)
        address.keeping = keeping
        return address

    def remove(self, path: str) -> None:
        """The path means nothing any more."""
        address = self._addresses.get(path)
        if address is not None:
            self._departed[path] = address  # first: whoever asks meanwhile finds it there
            del self._addresses[path]
            address.finish()
            if len(self._departed) > DEPARTED:
                self._departed.popitem(last=False)

    def find(self, path: str) -> Address:
        """The address at `path`.

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
        """What is at `path`, or was until not long ago. Raises ChildNotFound."""
        return (self._departed.get(path) or self.find(path)).kind

    def close(self) -> None:
        """The program's last tree has ended; what its workers left behind can still be asked for."""
        self._closed = True
        self.services.clear()

    def __contains__(self, path: object) -> bool:
        return path in self._addresses

    def __len__(self) -> int:
        return len(self._addresses)

    def paths(self) -> list[str]:
        """All known paths."""
        return list(self._addresses)

    # ------------------------------------------------------------ Post
    def send(self, path: str, message: Message) -> None:
        """Send a message; raises what `Address.send` raises."""
        self.find(path).send(message)

    def post(self, what: str, path: str, argument: Any = None) -> Answer[Any]:
        """Carry out one request of a ref."""
        answer: Answer[Any] = Answer()
        try:
            if what in self.services:
                value = self.services[what](path, argument)
                if isinstance(value, Answer):
                    return value
                answer.set_result(value)
                return answer
            if what in ("down", "monitor", "demonitor", "link", "unlink"):
                return self._links.post(what, path, argument)
            gone = self._departed.get(path) if what in ("info", "join", "result") else None
            address = gone or self.find(path)
            match what:
                case "info":
                    answer.set_result((address.status, address.pid, address.incarnation, address.kind))
                case "find":
                    answer.set_result((address.path, address.kind))
                case "join" | "result":
                    settle = _settle_reason if what == "join" else _settle_result
                    callback = partial(settle, address, answer)
                    address.when_over(callback)
                    answer.add_done_callback(lambda done: address.forget(callback))  # cancelled, most likely
                case "kill" | "rejoin" | "recall":
                    return address.order(what)
                case "administer":
                    return address.administer(*argument)
                case _:
                    raise SuitkaiseError(f"nobody answers {what!r}")
        except Exception as error:
            answer.set_exception(error)
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
