"""The registry of paths: every path has one address, whichever incarnation answers there now.

The registry belongs to the hub, the program that owns the trees. It is the router of the hub's own threads; the hub
server passes on the requests that workers send to `hub.sock`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any, assert_never

from suitkaise.errors import ChildNotFound, RuntimeGone, SuitkaiseError, WorkerFailed
from suitkaise.exits import Crashed
from suitkaise.messaging.address import Address, Connected, Parent
from suitkaise.messaging.answer import Answer
from suitkaise.messaging.awaited import Awaited
from suitkaise.messaging.blocked_asks import BlockedAsks
from suitkaise.messaging.dead_letters import DeadLetters
from suitkaise.messaging.deadlocks import Waits
from suitkaise.messaging.direct import sends
from suitkaise.messaging.held_back import holders, never, send_held
from suitkaise.messaging.identity import current_path, reads_answers, supervises
from suitkaise.messaging.links import Links
from suitkaise.messaging.memberships import Groups, Topics
from suitkaise.messaging.messages import Message, Outcome, Payload
from suitkaise.messaging.own_routes import OwnRoutes
from suitkaise.messaging.patterns import matches
from suitkaise.messaging.protocol import AdminAction, RequestKind
from suitkaise.messaging.removed import MOST_FETCHED_BYTES, MOST_RESULT_BYTES, RemovedWorkers
from suitkaise.messaging.router import await_room, waits_for_itself
from suitkaise.messaging.supervisor_ref import ref_to
from suitkaise.messaging.tracing import Carrier
from suitkaise.platform.board import Board
from suitkaise.platform.reactor import Reactor, in_io_thread
from suitkaise.specs.bounded import Bounded

__all__ = ["Registry"]

_FEW = 200
"""Among so many paths, those that resemble one are found in some milliseconds."""


class Registry:
    """All addresses of a program; the `Router` of the hub. Its methods may be called from any thread."""

    def __init__(self) -> None:
        self.services: dict[RequestKind, Callable[..., Any]] = {}
        self._addresses: dict[str, Address] = {}
        self._removed = RemovedWorkers()
        self._closed = False
        self._links = Links(self.find, ref_to)
        self.hidden: str = ""
        """The root of a tree that `names` leaves out: the program's own."""
        self.dead_letters: DeadLetters = DeadLetters()
        self._groups = Groups(self.find, self.dead_letters)
        self._topics = Topics(self.find, self.dead_letters)
        self.blocked_asks: BlockedAsks = BlockedAsks(self.find)
        self.waits: Waits = Waits(self._is_current)
        self._routes: OwnRoutes | None = None
        self.holds_back: Callable[[str, Any], bool] = never

    def add(self, path: str, id: str, kind: str, parent: Parent, bound: Bounded | None = None) -> Address:
        """Return the address at `path`, a new one if there is none; `parent` answers for it from now on.

        `bound`: of its mailbox.
        """
        address = self._addresses.get(path)
        if address is None:
            address = self._addresses[path] = Address(path, id, kind, parent, self.dead_letters)
            self._removed.forget(path)
            self.dead_letters.forget(path)
        address.parent = parent
        address.set_bound(bound)
        return address

    def remove(self, path: str) -> None:
        """Remove the address at `path`, if there is one, and remember it for a while."""
        address = self._addresses.get(path)
        if address is not None:
            self._removed.add(address)  # first: a request that comes meanwhile finds it there
            del self._addresses[path]
            address.finish()
            self._removed.keep_result(address)

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
            ended = "" if self._removed.get(path) is None else " any more: it has ended"
            raise ChildNotFound(f"no worker at {path!r}{ended}", path=path) from None

    def removed_below(self, path: str) -> list[str]:
        """Return the paths of the children that were removed lately from the supervisor at `path`."""
        return self._removed.below(path)

    def kind_of(self, path: str) -> str:
        """Return the kind of the child at `path`, also of one that was removed lately. Raises ChildNotFound."""
        try:
            return self._find_or_removed(path).kind
        except ChildNotFound:
            raise self._not_found(path) from None

    def close(self) -> None:
        """Close the registry after the program's last tree; results of removed workers can still be requested."""
        self._closed = True
        self.services.clear()
        if self._routes is not None:
            self._routes.close()

    def __contains__(self, path: object) -> bool:
        return path in self._addresses

    def __len__(self) -> int:
        return len(self._addresses)

    def paths(self) -> list[str]:
        """Return all known paths."""
        return list(self._addresses)

    # ------------------------------------------------------------ Router
    @sends
    def send(self, path: str, message: Message) -> bool:
        """Send a message; raises what `Address.send` raises, and `await_room`."""
        address = self._addresses.get(path) or self.find(path)  # without a call for most messages
        mailbox = address.mailbox  # which is None as soon as the incarnation has ended
        if mailbox is not None:
            if holders:
                send_held()
            if mailbox.put(message):
                return True
        if address.bound is None:
            if address.on_detached is not None and self._routes is not None and self._routes.send(path, message):
                return True
            if holders:
                send_held()
            if address.send(message):
                self.blocked_asks.add(address)
            return True
        waits = message.reply is None and not (waits_for_itself(path) or in_io_thread() or supervises())
        room = self.post(path, message, waits=waits)
        return room is None or await_room(path, room, room.cancel)

    def post(self, path: str, message: Message, *, waits: bool = False) -> Answer[bool] | None:
        """Send a message without waiting; raises what `Address.send` raises.

        If a bounded mailbox has no room for it, and it `waits` for some, return what is set when there is some.
        """
        send_held()
        address = self.find(path)
        room: Answer[bool] | None = None
        if waits and address.bound is not None:
            room = Answer()
            room.began = time.monotonic()
        if address.send(message, room):
            self.blocked_asks.add(address)
        return room

    @sends
    def ask(self, path: str, payload: Payload, timeout: float | None, carrier: Carrier | None) -> Answer[Any] | Outcome:
        """Ask and wait, or send the question; raises what `Address.send` raises, and `Awaited.wait`."""
        if holders:
            send_held()
        address = self._addresses.get(path)
        mailbox = None if address is None else address.mailbox
        if mailbox is not None and not reads_answers():
            awaited, began = Awaited(), time.monotonic()
            until = None if timeout is None else began + timeout
            if mailbox.put(Message("message", payload, awaited, carrier=carrier, deadline=until)):
                return awaited.wait(path, timeout, began)
        elif address is not None and address.kind == "process" and self._routes is not None and address.bound is None:
            route = self._routes.find(path)
            if route is not None and (outcome := route.ask(payload, timeout, carrier)) is not None:
                return outcome
        answer: Answer[Any] = Answer()
        answer.began = time.monotonic()
        deadline = None if timeout is None else answer.began + timeout
        self.send(path, Message("message", payload, answer.settle, carrier=carrier, deadline=deadline))
        return answer

    def confirm(self, path: str, until: float) -> bool:
        """Return True: what was sent here is accepted."""
        return True

    def flush(self, until: float) -> int:
        """Send what the threads of this program hold back; return 0: what was sent here is accepted."""
        send_held()  # first: what a thread sends in between may need another connection's lock
        if self._routes is not None:
            self._routes.send_held()
        return 0

    def in_use(self) -> list[str]:
        """Return the paths of the workers to which this thread has to send itself what goes to a group or a topic."""
        return [] if self._routes is None else self._routes.in_use()

    def send_to(self, owner: str, message: Message, most: int) -> bool:
        """Send a message over this thread's connection to the incarnation `owner`; return False if there is none."""
        return self._routes is not None and self._routes.send_to(owner, message, most)

    def leave(self, path: str) -> None:
        """Send nothing more directly to the worker at `path`, which is being killed."""
        if self._routes is not None:
            self._routes.leave(path)

    def connect(self, path: str, sender: str, on_detached: Callable[[str], None] | None = None) -> Connected | None:
        """Make a direct connection to the worker at `path`, if that is possible now; see `Connectable`.

        `on_detached`: for a sender of this program, called with the path when an incarnation has ended there.
        """
        address = self._addresses.get(path)
        if address is None:
            return None
        if on_detached is not None:
            address.on_detached = on_detached
        return address.connect(sender)

    def connect_directly(self, board: Board, reactor: Reactor) -> None:
        """Let threads of this program have direct connections to workers in processes.

        Args:
            board: the status board of these workers.
            reactor: the thread that handles their reports.
        """
        self._routes = OwnRoutes(self, board, reactor)
        self.holds_back = self._routes.holds_back

    def administer(self, action: AdminAction, path: str, argument: Any = None) -> Answer[Any]:
        """Have the supervisor at `path` carry out `action`."""
        send_held()
        try:
            return self.find(path).administer(action, argument)
        except Exception as error:
            answer: Answer[Any] = Answer()
            answer.set_exception(error)
            return answer

    def request(self, kind: RequestKind, path: str, argument: Any = None, *, asker: str = "") -> Answer[Any]:
        """Carry out a request of a ref or a worker; `asker`: the path of the worker, if it is in another process."""
        send_held()
        answer: Answer[Any] = Answer()
        try:
            match kind:
                case RequestKind.INFO:
                    address = self._find_or_removed(path)
                    answer.set_result((address.status, address.pid, address.incarnation, address.kind))
                case RequestKind.STATS:
                    answer.set_result(self._find_or_removed(path).stats())
                case RequestKind.DOING:
                    answer.set_result(self._find_or_removed(path).doing())
                case RequestKind.FIND:
                    address = self._looked_up(path)
                    answer.set_result((address.path, address.kind))
                case RequestKind.JOIN:
                    self._answer_when_over(self._find_or_removed(path), answer, _settle_reason, asker)
                case RequestKind.RESULT:
                    self._answer_when_over(self._find_or_removed(path), answer, self._settle_result, asker)
                case RequestKind.KILL | RequestKind.REJOIN | RequestKind.RECALL:
                    return self.find(path).control(kind, argument)
                case RequestKind.DOWN:
                    self._links.await_down(path, answer)
                case RequestKind.ENDED:
                    self._find_or_removed(path).await_end(argument, answer)
                case RequestKind.WAIT:
                    self.waits.add(path, argument, answer)
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
                case RequestKind.NAMES:
                    answer.set_result(self._names(path))
                case RequestKind.DEAD_LETTER:
                    self.dead_letters.add(path, *argument)
                    answer.set_result(None)
                case RequestKind.GROUP:
                    answer.set_result(self._groups.serve(path, *argument))
                case RequestKind.TOPIC:
                    answer.set_result(self._topics.serve(path, *argument))
                case (
                    RequestKind.OVERVIEW
                    | RequestKind.STORAGE
                    | RequestKind.STORAGE_ADDRESS
                    | RequestKind.RESOURCE_TRACKER
                ):
                    return self._serve(kind)
                case RequestKind.EVENTS | RequestKind.STORAGE_READ:
                    return self._serve(kind, argument)
                case RequestKind.PROFILE | RequestKind.INSPECT:
                    return self._serve(kind, path, *argument)
                case RequestKind.STACKS:
                    return self._serve(kind, path)
                case RequestKind.TRACE | RequestKind.LOGS:
                    return self._serve(kind, path, argument)
                case _:
                    assert_never(kind)
        except Exception as error:
            if answer.done():  # a signal handler has raised it
                raise
            answer.set_exception(error)
        return answer

    def _names(self, pattern: str) -> list[tuple[str, str]]:
        """Return path and kind of all that the pattern names: level by level, in the order in which they were added."""
        named = [
            (one.path, one.kind)
            for one in list(self._addresses.values())
            if matches(pattern, one.path) and one.path.partition("/")[0] != self.hidden
        ]
        return sorted(named, key=lambda line: line[0].count("/"))

    def _is_current(self, path: str, serial: int) -> bool:
        address = self._addresses.get(path)
        while address is None and "/" in path:  # a background thread, which has its path below that of its worker
            path = path.rpartition("/")[0]
            address = self._addresses.get(path)
        return address is not None and address.watchers.serial == serial

    def _find_or_removed(self, path: str) -> Address:
        return self._removed.get(path) or self.find(path)

    def _looked_up(self, path: str) -> Address:
        try:
            return self.find(path)
        except ChildNotFound:
            raise self._not_found(path) from None

    def _not_found(self, path: str) -> ChildNotFound:
        """Make the error about a path that somebody has written, with the paths that may be meant."""
        paths = [one for one in list(self._addresses) if one.partition("/")[0] != self.hidden]
        near: list[str] = []
        if len(paths) <= _FEW:
            import difflib

            name = path.rpartition("/")[2]
            near = [one for one in paths if one.rpartition("/")[2] == name] or difflib.get_close_matches(path, paths, 3)
        hint = f"; did you mean {' or '.join(map(repr, near[:3]))}?" if near else ""
        return ChildNotFound(f"no worker at {path!r}{hint}", path=path)

    def _answer_when_over(
        self, address: Address, answer: Answer[Any], settle: Callable[[Address, Answer[Any]], None], asker: str
    ) -> None:
        callback = partial(settle, address, answer)
        address.when_over(callback)
        asker = asker or current_path()
        if asker and not answer.done():
            address.add_join(answer, asker)
            if address.has_asks:
                self.blocked_asks.add(address)
        answer.when_done(lambda done: address.forget(callback))  # cancelled, most likely

    def _settle_result(self, address: Address, answer: Answer[Any]) -> None:
        result = address.result
        if result is None:
            answer.settle(False, Payload(_no_result(address)))
        else:
            answer.settle(True, result)
            self._removed.note_fetched(address)

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


def _no_result(address: Address) -> WorkerFailed:
    reason = address.reason
    traceback = reason.traceback if isinstance(reason, Crashed) else ""
    ended = f"ended without a result: {reason or 'it never ran'}"
    if address.dropped:
        ended = (
            f"ended with a result, which was dropped: the results of removed workers are kept up to "
            f"{MOST_RESULT_BYTES >> 20} MiB, those that were fetched up to {MOST_FETCHED_BYTES >> 20} MiB, and newer "
            "ones needed the room; call result() sooner, and keep what it returns"
        )
    return WorkerFailed(f"{address.path!r} {ended}", path=address.path, reason=reason, traceback=traceback)
