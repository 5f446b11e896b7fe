"""References to workers: a ref is a path, so it outlives every restart of the worker."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar, overload

from suitkaise.errors import AskTimeout, ChildNotFound, DeadlockError, NotSerializable, SuitkaiseError, no_attribute
from suitkaise.exits import ExitReason
from suitkaise.messaging import tracing
from suitkaise.messaging.answer import DEFAULT_TIMEOUT, Answer, checked_timeout, refuse_own_ask
from suitkaise.messaging.ask_timeout import Doing, ask_timeout, limited
from suitkaise.messaging.identity import current_path, is_starting
from suitkaise.messaging.inbox import dropped_from
from suitkaise.messaging.messages import Message, Payload, value_of
from suitkaise.messaging.protocol import MessageKind, RequestKind
from suitkaise.messaging.router import Router, deadline, router
from suitkaise.messaging.tracing import carrier
from suitkaise.messaging.typed_proxy import TypedProxy
from suitkaise.records import dataclass
from suitkaise.specs.options import checked_drain
from suitkaise.status import ENDED, Status

__all__ = ["OTHER_NAMES", "Down", "LinkedExit", "Monitor", "WorkerProxy", "WorkerRef", "refuse_while_starting"]

PATIENCE = 0.5
"""Seconds within which the program tells what a worker is doing that has not answered in time."""

W = TypeVar("W")


def refuse_while_starting(supervisor: str) -> None:
    """Raise DeadlockError in an `on_start` below `supervisor`, which serves no other request until then."""
    own = current_path()
    if is_starting() and own.startswith(f"{supervisor}/"):
        raise DeadlockError(
            f"{own!r} is being started by {supervisor!r}, which serves other requests after that; send the request "
            f"after on_start",
            path=supervisor,
        )


class WorkerRef:
    """Names a worker (or supervisor) by its path; picklable, and valid across restarts.

    Messages to a worker that is being restarted wait for it. Every method that waits takes a timeout in seconds.

    >>> from suitkaise import Supervisor, Thread
    >>> class Count(Thread):
    ...     def on_start(self) -> None:
    ...         self.words = 0
    ...
    ...     def on_receive(self, line: str) -> int:
    ...         self.words += len(line.split())
    ...         return self.words
    >>> with Supervisor("app", Count).start() as running:
    ...     ref = running["count"]
    ...     ref.tell("to be or not to be")
    ...     print(ref.path, ref.status, ref.ask("that is the question"))
    app/count running 10
    """

    __slots__ = ("path",)

    def __init__(self, path: str) -> None:
        if not isinstance(path, str):
            raise TypeError(f"a ref names a worker by its path, a str, not {path!r}")
        self.path: str = path

    # ------------------------------------------------------------ status
    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.rpartition("/")[2]

    def _info(self) -> tuple[Status, int | None, int, str]:
        status, pid, incarnation, kind = self._router.request(RequestKind.INFO, self.path).get()
        return Status(status), pid, incarnation, kind

    @property
    def status(self) -> Status:
        """The worker's status now. Raises ChildNotFound if there is no worker at this path."""
        return self._info()[0]

    @property
    def pid(self) -> int | None:
        """The process id of the live incarnation (for a thread: of its process); None while there is none."""
        return self._info()[1]

    @property
    def incarnation(self) -> int:
        """1 for the first start, one more with each restart."""
        return self._info()[2]

    def is_alive(self) -> bool:
        """Return whether an incarnation is alive now; False while the worker is being restarted."""
        try:
            status = self.status
        except ChildNotFound:
            return False
        return status not in ENDED and status not in (Status.CREATED, Status.RESTARTING)

    # ------------------------------------------------------------ messages
    def tell(self, message: Any, *, confirm: bool = False) -> None:
        """Send a message and go on when it is on its way; see also `suitkaise.flush`.

        Args:
            message: any value that can be sent.
            confirm: wait until the message is accepted, 5 s at most. Then it has left this process and waits at the
                receiver, or in the program that owns the tree: nothing that happens in this process loses it.

        Raises:
            WorkerDead: the worker is over and will not come back.
            ChildNotFound: there is no worker at this path; a child that was deleted, or that was `restart="temporary"`
                and has ended, is forgotten.
            MailboxFull: too many messages or bytes wait for the worker already; nothing was sent. With a mailbox that
                is `Bounded(n, on_full="block")`, after 5 s. With `"drop_newest"` only if `confirm`.
            NotSerializable: the message cannot be sent to another process.
            AskTimeout: with `confirm`, the message is not accepted yet; it is still sent.
        """
        hub, context = self._router, carrier()
        if not confirm:
            if context is not None or not hub.holds_back(self.path, message):
                hub.send(self.path, Message("message", Payload(message), carrier=context))
            return
        until = deadline(DEFAULT_TIMEOUT)
        if not hub.send(self.path, Message("message", Payload(message), carrier=context)):
            raise dropped_from(self.path)
        if not hub.confirm(self.path, until):
            raise AskTimeout(f"{self.path!r} has not accepted the message within {DEFAULT_TIMEOUT} s", path=self.path)

    def ask(self, message: Any, timeout: float | None = DEFAULT_TIMEOUT) -> Any:
        """Send a message and wait at most `timeout` seconds (default 5.0) for the handler's return value.

        In a handler of an ask, at most as long as that asker waits. A worker that comes to the message after the time
        is over does not handle it (rule 85).

        Raises:
            AskTimeout: no answer came in time; the error tells what the worker is doing.
            WorkerDead: the worker is over, or ended before it answered.
            ChildNotFound: there is no worker at this path, see `tell`.
            MailboxFull: there is no room for it in its bounded mailbox.
            DeadlockError: a worker asks itself; or workers ask each other in a circle, so that none can answer.
            Exception: what the handler raised, with the remote traceback as a note.
        """
        refuse_own_ask(self.path)
        seconds = limited(checked_timeout(timeout))
        spans = tracing.spans  # another thread may end them
        if spans is None:
            return self._ask_and_wait(message, timeout, seconds)
        with spans.ask(self.path):
            return self._ask_and_wait(message, timeout, seconds)

    def _ask_and_wait(self, message: Any, timeout: float | None, seconds: float | None) -> Any:
        try:
            answer = self._router.ask(self.path, Payload(message), seconds, carrier())
            if not isinstance(answer, Answer):
                return value_of(*answer)
            answer.asked = self
            return answer.get(seconds)
        except AskTimeout as error:
            if error.path != self.path or error.status is not None:  # of an ask of the handler, or complete
                raise
            raise self._timed_out(seconds) from None  # the worker has skipped the message, or a connection tells this

    def ask_future(self, message: Any) -> Answer[Any]:
        """Send a message; the answer can be awaited, or waited for with `get(timeout)`.

        It is the answer that fails if the worker is over, or has no room. The worker handles the message also if the
        answer is cancelled, or its `await` times out.

        Raises:
            NotSerializable: the message cannot be sent to another process.
        """
        return self._ask("message", Payload(message))

    @overload
    def proxy(self) -> WorkerProxy: ...

    @overload
    def proxy(self, cls: type[W], *, timeout: float | None = DEFAULT_TIMEOUT) -> W: ...

    def proxy(self, cls: type[Any] | None = None, *, timeout: float | None = DEFAULT_TIMEOUT) -> Any:
        """Return a proxy, whose methods send messages and return answers: `ref.proxy().add(2).get()`.

        With the worker's class, the proxy has the type of that class, so that type checkers and editors know its
        methods and attributes. Then a call waits for the answer and returns the value itself, and so does reading an
        attribute; the call of an async method is awaited: `await ref.proxy(Fetch).page(url)`.

        Args:
            cls: the class of the worker; it is not compared with the worker's own.
            timeout: seconds that such a proxy waits for each answer at most (default 5.0; None: for ever). An
                `await` waits until it is cancelled.

        Raises:
            TypeError: `cls` is no class, `timeout` no such time, or given without `cls`.

        >>> from suitkaise import Supervisor, Thread
        >>> class Count(Thread):
        ...     def on_start(self) -> None:
        ...         self.total = 0
        ...
        ...     def add(self, number: int) -> int:
        ...         self.total += number
        ...         return self.total
        >>> with Supervisor("app", Count).start() as running:
        ...     count = running["count"].proxy(Count)
        ...     print(count.add(2) + 1, count.total, running["count"].proxy().add(3).get())
        3 2 5
        """
        if cls is not None:
            return TypedProxy(self, cls, timeout)
        if timeout != DEFAULT_TIMEOUT:
            raise TypeError("proxy: timeout is for proxy(cls, timeout=...); without the class, write get(timeout)")
        return WorkerProxy(self)

    def _ask(self, kind: MessageKind, body: Payload, timeout: float | None = None) -> Answer[Any]:
        answer: Answer[Any] = Answer()
        answer.asked = self
        answer.began = time.monotonic()
        deadline = None if timeout is None else answer.began + timeout
        spans = tracing.spans  # another thread may end them
        if spans is None:
            self._send(Message(kind, body, answer.settle, carrier=carrier(), deadline=deadline), answer)
            return answer
        with spans.ask_later(self.path) as end:
            self._send(Message(kind, body, answer.settle, carrier=carrier(), deadline=deadline), answer)
        answer.when_done(lambda done: end(not done.cancelled() and answer.outcome()[0]))
        return answer

    def _send(self, message: Message, answer: Answer[Any]) -> None:
        try:
            self._router.send(self.path, message)
        except NotSerializable:
            raise
        except SuitkaiseError as error:  # in a worker's process it would come later, from the program
            answer.settle(False, Payload(error))

    def _timed_out(self, timeout: float | None) -> AskTimeout:
        now: Doing | None = None
        if timeout:  # a caller that only looks whether the answer is there gets no answer to this, either
            with contextlib.suppress(SuitkaiseError):  # the program may have ended, or be as slow as the worker
                now = self._router.request(RequestKind.DOING, self.path).get(PATIENCE)
        return ask_timeout(self.path, timeout, now)

    # ------------------------------------------------------------ control
    def kill(self) -> None:
        """Kill the worker now. That is a fault: its supervisor restarts it by its rules.

        What the caller sends afterwards is for the next incarnation. A thread cannot be killed: it is abandoned, and
        the next incarnation takes its place (rule 59).
        """
        self._router.request(RequestKind.KILL, self.path).get()
        self._router.leave(self.path)

    def rejoin(self, *, drain: float | None = None) -> None:
        """Ask the worker to finish gracefully. That is an order, not a fault: the worker is not restarted.

        Args:
            drain: seconds for which the worker handles messages first, see `terminate_child` (rule 72).
        """
        self._router.request(RequestKind.REJOIN, self.path, checked_drain(drain)).get()

    def recall(self, timeout: float | None = None) -> None:
        """Stop the worker by its shutdown and start it again, alone and not counted; return when it is up.

        Raises:
            ChildStartFailed: the worker did not start again.
            DeadlockError: the caller is this worker or below it, or is being started by the supervisor of this worker.
            AskTimeout: the worker is not up after `timeout` seconds (default: wait for ever).
        """
        self._refuse_own_wait()
        refuse_while_starting(self.path.rpartition("/")[0])
        checked_timeout(timeout)
        answer = self._router.request(RequestKind.RECALL, self.path)
        answer.waits_for = "recalls", self.path
        try:
            answer.get(timeout)
        except AskTimeout:
            if answer.done():  # the error of the recall itself
                raise
            raise AskTimeout(f"{self.path!r} is not up after {timeout} s; its recall goes on", path=self.path) from None

    def join(self, timeout: float | None = None) -> ExitReason | None:
        """Wait until the last incarnation has ended, at most `timeout` seconds; return the exit reason.

        Raises:
            AskTimeout: the worker still lives.
            WorkerDead: it is down, and comes up only after the calling worker (rule 81).
        """
        reason: ExitReason | None = self._wait(RequestKind.JOIN, timeout)
        return reason

    def result(self, timeout: float | None = None) -> Any:
        """Wait until the last incarnation has ended, at most `timeout` seconds; return what its `result()` returned.

        The result of a worker that is no child any more (`restart="temporary"`, or below a dynamic supervisor) is kept
        for a while: up to 256 MiB of such results that were not fetched yet, and 16 MiB of those that were, the newest.
        The results of a tree that has ended are kept until the program starts a tree while none runs.

        Raises:
            ChildNotFound: there is no such worker, or it was of such an earlier tree.
            WorkerFailed: the worker ended without a result, and the error holds the reason and the remote traceback; or
                its result was dropped, since newer ones needed the room.
            AskTimeout: the worker still lives.
            WorkerDead: it is down, and comes up only after the calling worker (rule 81).
        """
        return self._wait(RequestKind.RESULT, timeout)

    def _wait(self, kind: RequestKind, timeout: float | None) -> Any:
        self._refuse_own_wait()
        checked_timeout(timeout)
        answer = self._router.request(kind, self.path)
        answer.waits_for = "waits for the end of", self.path
        try:
            return answer.get(timeout)
        except AskTimeout:
            if answer.done():  # a result that is itself this error
                raise
            answer.cancel()
            raise AskTimeout(f"{self.path!r} still runs after {timeout} s", path=self.path) from None

    def _refuse_own_wait(self) -> None:
        own = current_path()
        if own and f"{own}/".startswith(f"{self.path}/"):
            target = "itself" if own == self.path else f"{self.path!r}, which it is a part of,"
            raise DeadlockError(f"{own!r} waits for {target} and would wait for ever", path=self.path)

    def monitor(self) -> Answer[Down]:
        """Watch the incarnation that is alive now: when it ends, the answer becomes a `Down`, exactly once (rule 60).

        The answer is a `Down` at once if no incarnation is alive. Unlike `join`, a monitor does not wait for the last
        incarnation. A worker that wants a message instead calls `self.monitor(ref)`.

        >>> from suitkaise import Supervisor, Thread
        >>> class Job(Thread):
        ...     restart = "temporary"
        ...
        ...     def on_receive(self, message: str) -> None:
        ...         self.rejoin(message)
        >>> with Supervisor("app", Job, Supervisor("others")).start() as running:
        ...     down = running["job"].monitor()
        ...     running["job"].tell("all done")
        ...     print(down.get(timeout=10.0).reason)
        shutdown (all done)
        """
        return self._router.request(RequestKind.DOWN, self.path)

    if not TYPE_CHECKING:  # a type checker is to know the names that there are

        def __getattr__(self, name: str) -> NoReturn:
            more = "" if name[:1] == "_" else f"; a method of the worker is called by ref.proxy().{name}(...)"
            raise no_attribute(self, name, OTHER_NAMES, "ref", more)

    @property
    def _router(self) -> Router:
        return router()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, WorkerRef) and other.path == self.path

    def __hash__(self) -> int:
        return hash(self.path)

    def __repr__(self) -> str:
        return f"WorkerRef({self.path!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return WorkerRef, (self.path,)


OTHER_NAMES = {
    "terminate": "kill() or ref.rejoin()", "stop": "rejoin()", "cancel": "rejoin()", "close": "rejoin()",
    "wait": "join()", "get": "result()", "get_result": "result()", "exitcode": "status", "done": "is_alive()",
    "poll": "is_alive()", "start": "recall()", "restart": "recall()",
    "send": "tell(...)", "cast": "tell(...)", "put": "tell(...)", "call": "ask(...)", "request": "ask(...)",
}  # fmt: skip
"""What processes, threads, futures and actors of other libraries have, by the name that it has here."""


class WorkerProxy:
    """Turns attribute access and calls into messages, as Pykka's proxies do.

    `proxy.method(...)` returns an `Answer`, `proxy.attribute.get()` reads an attribute.
    """

    _ref: WorkerRef
    _attribute: str | None

    def __init__(self, ref: WorkerRef, attribute: str | None = None) -> None:
        object.__setattr__(self, "_ref", ref)
        object.__setattr__(self, "_attribute", attribute)

    def __getattr__(self, name: str) -> WorkerProxy:
        if name.startswith("_"):
            raise AttributeError(f"{name!r} is private; a proxy reaches public names only")
        if self._attribute is not None:
            raise AttributeError(f"a proxy reaches one level deep; read {self._attribute!r} with get() first")
        return WorkerProxy(self._ref, name)

    def __setattr__(self, name: str, value: Any) -> NoReturn:
        raise AttributeError(f"a proxy cannot set {name!r}; send a message, or call a method that does")

    def __call__(self, *args: Any, **kwargs: Any) -> Answer[Any]:
        if self._attribute is None:
            raise TypeError("a proxy is not callable; call a method of it: proxy.method(...)")
        return self._ref._ask("call", Payload((self._attribute, args, kwargs)))

    def get(self, timeout: float | None = DEFAULT_TIMEOUT) -> Any:
        """Read the attribute; wait at most `timeout` seconds (default 5.0) for its value."""
        if self._attribute is None:
            raise TypeError("name an attribute first: proxy.attribute.get()")
        seconds = limited(checked_timeout(timeout))
        return self._ref._ask("get", Payload(self._attribute), seconds).get(seconds)

    def __repr__(self) -> str:
        return f"WorkerProxy({self._ref.path!r}{', ' + repr(self._attribute) if self._attribute else ''})"


@dataclass(frozen=True, slots=True)
class Monitor:
    """A monitor, as `self.monitor(ref)` returns it: a `Down` carries it, and `self.demonitor` takes it.

    Args:
        path: the worker that is watched.
        watcher: the incarnation that watches it.
        number: tells the monitors of a watcher apart.
    """

    path: str
    watcher: str
    number: int


@dataclass(frozen=True, slots=True)
class Down:
    """The message that a monitor delivers, exactly once: the incarnation that `ref` named has ended.

    `reason` is its exit reason; `Lost` if there was no incarnation. `monitor` is None if `ref.monitor()` asked for it.
    """

    ref: WorkerRef
    reason: ExitReason
    monitor: Monitor | None = None


@dataclass(frozen=True, slots=True)
class LinkedExit:
    """The message that a worker with `trap_exits` gets when a linked one has ended (Erlang's `{'EXIT', ...}`)."""

    ref: WorkerRef
    reason: ExitReason
