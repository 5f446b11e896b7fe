"""Workers that wait for each other in a circle are told, long before their time-outs; all others are left alone."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from suitkaise import AskTimeout, Child, DeadlockError, Process, Supervisor, Thread, WorkerRef
from suitkaise.runtime.running_tree import RunningTree
from tests.support import eventually

LONG = 600.0

pytestmark = pytest.mark.usefixtures("one_runtime_for_all")


class Chain:
    """Passes a message on: the first of `(how, next, how, next, ...)` says how to wait for the next worker."""

    restart = "temporary"

    def on_start(self) -> None:
        self.pool: Any = None

    def on_receive(self, message: Any) -> Any:
        match message:
            case (how, path, *rest):
                return self.wait_for(how, self.whereis(path), tuple(rest))  # type: ignore[attr-defined]
            case ("sleep",):
                self.wait(1.0)  # type: ignore[attr-defined]
            case ("deferred?",):
                return self.pool is not None
        return message

    def wait_for(self, how: str, ref: Any, rest: Any) -> Any:
        match how:
            case "ask":
                return ref.ask(rest, timeout=LONG)
            case "future":
                return ref.ask_future(rest).get(LONG)
            case "proxy":
                return ref.proxy().on_receive(rest).get(LONG)
            case "typed":
                return ref.proxy(Chain, timeout=LONG).on_receive(rest)
            case "join":
                return str(ref.join(LONG))
            case "result":
                return ref.result(LONG)
            case "recall":
                return ref.recall(LONG)
            case "short":
                try:
                    return ref.ask(rest, timeout=0.3)
                except AskTimeout:
                    return "timed out"
            case "other thread":
                answers: list[Any] = []
                thread = threading.Thread(target=lambda: answers.append(ref.ask(rest, timeout=LONG)))
                thread.start()
                thread.join()
                return answers[0]
            case "later":
                self.pool = self.pool or ThreadPoolExecutor(1)
                return self.pool.submit(lambda: ref.ask(rest, timeout=LONG))


class InProcess(Chain, Process): ...


class InThread(Chain, Thread): ...


KINDS = {"p": InProcess, "t": InThread}


def tree_of(kinds: str) -> Supervisor:
    """Workers a, b, ..., in processes (p) and threads (t)."""
    return Supervisor("tree", *(Child(KINDS[kind], id="abcd"[number]) for number, kind in enumerate(kinds)))


def warm_up(running: RunningTree, names: str) -> None:
    """Have each worker ask the next one twice, so that the third ask goes over a direct connection."""
    for name, following in zip(names, names[1:] + names[0], strict=True):
        for _ in range(3):
            assert running[name].ask(("ask", f"tree/{following}")) == ()


def circle(how: str, names: str) -> tuple[str, ...]:
    """The message that the first worker gets, so that each waits for the next one and the last for the first."""
    steps: list[str] = []
    for following in names[1:] + names[0]:
        steps += ["ask", f"tree/{following}"]
    steps[-2] = how
    return tuple(steps)


@pytest.mark.parametrize("kinds", ["pp", "ppp", "tt", "ttt", "pt", "tp", "ptp", "tpt"])
@pytest.mark.parametrize("warm", [False, True])
def test_asks_in_a_circle_are_a_deadlock(kinds: str, warm: bool) -> None:
    names = "abc"[: len(kinds)]
    with tree_of(kinds).start() as running:
        if warm:
            warm_up(running, names)
        with pytest.raises(DeadlockError) as told:
            running["a"].ask(circle("ask", names), timeout=LONG)
        asks = " ".join(f"tree/{name} asks" for name in names)
        assert str(told.value) == f"deadlock: {asks} tree/a; none of them can answer"


@pytest.mark.parametrize("kinds", ["pp", "tt", "pt"])
@pytest.mark.parametrize("how", ["future", "proxy", "typed", "join", "result", "recall"])
def test_every_way_to_wait_closes_a_circle(kinds: str, how: str) -> None:
    verb = {"join": "waits for the end of", "result": "waits for the end of", "recall": "recalls"}.get(how, "asks")
    with tree_of(kinds).start() as running:
        with pytest.raises(DeadlockError, match=f"deadlock: tree/a asks tree/b {verb} tree/a; none of them can answer"):
            running["a"].ask(circle(how, "ab"), timeout=LONG)


def catching(cls: Any) -> Any:
    class Catches(cls):  # type: ignore[misc]
        def on_receive(self, message: Any) -> Any:
            try:
                return super().on_receive(message)
            except DeadlockError:
                return "caught"

    return Catches


@pytest.mark.parametrize("kinds", ["pp", "tt", "pt"])
def test_a_worker_that_catches_the_error_goes_on_and_all_others_get_their_answers(kinds: str) -> None:
    with Supervisor(
        "tree", *(Child(catching(KINDS[kind]), id="ab"[number]) for number, kind in enumerate(kinds))
    ).start() as running:
        for _ in range(2):
            assert running["a"].ask(circle("ask", "ab"), timeout=LONG) == "caught"


# ------------------------------------------------------------ no deadlocks
@pytest.mark.parametrize("kinds", ["ppp", "ttt", "ptp"])
def test_a_chain_of_slow_workers_is_no_deadlock(kinds: str) -> None:
    with tree_of(kinds).start() as running:
        warm_up(running, "abc")
        futures = [running[name].ask_future(("ask", "tree/c", "sleep")) for name in "ab"]
        assert [future.get(LONG) for future in futures] == [("sleep",)] * 2
        assert running["a"].ask(("ask", "tree/b", "ask", "tree/c", "sleep"), timeout=LONG) == ("sleep",)


@pytest.mark.parametrize("kinds", ["ppp", "ttt", "ptp"])
def test_a_worker_that_answers_from_another_thread_while_it_waits_is_in_no_deadlock(kinds: str) -> None:
    """a waits for b; b has left the answer to its pool, which waits for c, and itself asks a, which waits for it."""
    with tree_of(kinds).start() as running:
        first = running["a"].ask_future(("ask", "tree/b", "later", "tree/c", "sleep"))
        eventually(lambda: running["b"].ask(("deferred?",), timeout=LONG))
        second = running["b"].ask_future(("ask", "tree/a", "back"))
        assert first.get(LONG) == ("sleep",)
        assert second.get(LONG) == ("back",)


@pytest.mark.parametrize("kinds", ["pp", "tt"])
def test_a_thread_of_a_worker_that_is_not_its_own_is_not_counted(kinds: str) -> None:
    """The program cannot know that the handler waits for that thread: the time-out ends this."""
    with tree_of(kinds).start() as running:
        future = running["a"].ask_future(("other thread", "tree/b", "short", "tree/a"))
        assert future.get(LONG) == "timed out"


class Concurrent(Process):
    concurrency = 4

    async def on_receive(self, message: Any) -> Any:
        if message == "back":
            return "answered"
        return await self.whereis("tree/b").ask_future(("ask", "tree/a", *message))


def test_async_handlers_that_go_on_are_in_no_deadlock() -> None:
    class Back(Process):
        def on_receive(self, message: Any) -> Any:
            self.wait(0.5)
            return self.whereis("tree/a").ask("back", timeout=LONG)

    with Supervisor("tree", Child(Concurrent, id="a"), Child(Back, id="b")).start() as running:
        assert running["a"].ask(("sleep",), timeout=LONG) == "answered"


@pytest.mark.parametrize("kinds", ["pp", "tt"])
def test_nothing_is_kept_of_waits_that_are_over(kinds: str) -> None:
    from suitkaise.messaging.router import router

    with tree_of(kinds).start() as running:
        assert running["a"].ask(("ask", "tree/b", "sleep"), timeout=LONG) == ("sleep",)
        with pytest.raises(DeadlockError):
            running["a"].ask(circle("ask", "ab"), timeout=LONG)
        eventually(lambda: len(router().waits) == 0)  # type: ignore[attr-defined]


class Awaits:
    async def on_receive(self, message: Any) -> Any:
        if len(message) < 2:
            return message
        how, path, *rest = message
        if how == "ask":  # which blocks the event loop
            return self.whereis(path).ask(tuple(rest), timeout=LONG)  # type: ignore[attr-defined]
        return await self.whereis(path).ask_future(tuple(rest))  # type: ignore[attr-defined]


class AwaitsInProcess(Awaits, Process): ...


class AwaitsInThread(Awaits, Thread): ...


def test_an_async_worker_that_blocks_its_event_loop_is_in_a_deadlock() -> None:
    with Supervisor("tree", Child(AwaitsInProcess, id="a"), Child(InProcess, id="b")).start() as running:
        assert running["a"].ask(("await", "tree/b", "sleep"), timeout=LONG) == ("sleep",)
        with pytest.raises(DeadlockError, match="deadlock: tree/a asks tree/b asks tree/a; none of them can answer"):
            running["a"].ask(circle("ask", "ab"), timeout=LONG)


ASYNC_KINDS = {**KINDS, "P": AwaitsInProcess, "T": AwaitsInThread}


def circle_of(kinds: str) -> Supervisor:
    """Workers a, b, ...; an async one (P, T) awaits the answer of the next one."""
    return Supervisor("tree", *(Child(ASYNC_KINDS[kind], id="abc"[number]) for number, kind in enumerate(kinds)))


@pytest.mark.parametrize("kinds", ["PP", "TT", "PT", "PpT", "Tp", "tP", "PPp"])
@pytest.mark.parametrize("warm", [False, True])
def test_a_circle_in_which_async_workers_await_answers_is_a_deadlock(kinds: str, warm: bool) -> None:
    names = "abc"[: len(kinds)]
    steps: list[str] = []
    for kind, following in zip(kinds, names[1:] + names[0], strict=True):
        steps += ["ask" if kind.islower() else "await", f"tree/{following}"]
    with circle_of(kinds).start() as running:
        if warm:
            for name, how, path in zip(names, steps[::2], steps[1::2], strict=True):
                for _ in range(3):
                    running[name].ask((how, path, "x"), timeout=LONG)
        with pytest.raises(DeadlockError) as told:
            running["a"].ask(tuple(steps), timeout=LONG)
        asks = " ".join(f"tree/{name} asks" for name in names)
        assert str(told.value) == f"deadlock: {asks} tree/a; none of them can answer"


class CatchesAndAwaits(Awaits):
    async def on_receive(self, message: Any) -> Any:
        other, own = self.whereis("tree/b"), self.whereis("tree/a")  # type: ignore[attr-defined]
        match message:
            case "start":
                return await other.ask_future("back")
            case "back":
                answer = own.ask_future("hello")
                try:
                    await answer
                except DeadlockError:
                    self.later = asyncio.ensure_future(answer)
                    return "caught"
            case "the answer":
                return await self.later
            case "too late":
                try:
                    async with asyncio.timeout(0.01):
                        await other.ask_future("sleep")
                except TimeoutError:
                    return "timed out"
            case "sleep":
                await self.wait_async(0.5)  # type: ignore[attr-defined]
            case "cancelled":
                answer = other.ask_future("sleep")
                answer.cancel()
                try:
                    await answer
                except asyncio.CancelledError:
                    return "cancelled"
        return message


class CatchesInProcess(CatchesAndAwaits, Process): ...


class CatchesInThread(CatchesAndAwaits, Thread): ...


catching_async = pytest.mark.parametrize("cls", [CatchesInProcess, CatchesInThread])


@catching_async
def test_a_hook_that_catches_the_error_of_its_await_goes_on_and_the_answer_comes_later(cls: Any) -> None:
    with Supervisor("tree", Child(cls, id="a"), Child(cls, id="b")).start() as running:
        assert running["a"].ask("start", timeout=LONG) == "caught"
        assert running["b"].ask("the answer", timeout=LONG) == "hello"


@catching_async
@pytest.mark.parametrize("how, outcome", [("too late", "timed out"), ("cancelled", "cancelled")])
def test_an_await_in_a_hook_ends_as_any_other(cls: Any, how: str, outcome: str) -> None:
    with Supervisor("tree", Child(cls, id="a"), Child(cls, id="b")).start() as running:
        assert running["a"].ask(how, timeout=LONG) == outcome
        assert running["a"].ask("hello", timeout=LONG) == "hello"


# ------------------------------------------------------------ a worker that asks itself
class OfPool:
    """Leaves the answer to a pool, whose thread asks this worker."""

    def on_start(self) -> None:
        self.pool = ThreadPoolExecutor(1)

    def on_receive(self, how: str) -> Any:
        own: Any = self.ref  # type: ignore[attr-defined]
        match how:
            case "ask":
                return self.pool.submit(lambda: own.ask("hello", timeout=LONG))
            case "future":
                return self.pool.submit(lambda: own.ask_future("hello").get(LONG))
            case "typed":
                return self.pool.submit(lambda: own.proxy(OfPool, timeout=LONG).on_receive("hello"))
            case "attribute":
                return self.pool.submit(lambda: own.proxy().greeting.get(LONG))
        return "hello"

    greeting = "hello"


class OfPoolInProcess(OfPool, Process): ...


class OfPoolInThread(OfPool, Thread): ...


@pytest.mark.parametrize("cls", [OfPoolInProcess, OfPoolInThread])
@pytest.mark.parametrize("how", ["ask", "future", "typed", "attribute"])
def test_another_thread_of_a_worker_may_ask_it(cls: Any, how: str) -> None:
    with Supervisor("tree", Child(cls, id="a", restart="temporary"), Supervisor("others")).start() as running:
        assert running["a"].ask(how, timeout=LONG) == "hello"


class Fibonacci(Process):
    concurrency = 50

    async def on_receive(self, number: int) -> int:
        if number < 2:
            return number
        return sum(await asyncio.gather(self.ref.ask_future(number - 1), self.ref.ask_future(number - 2)))


class FibonacciInThread(Thread):
    concurrency = 50
    on_receive = Fibonacci.on_receive


@pytest.mark.parametrize("cls", [Fibonacci, FibonacciInThread])
def test_a_handler_beside_which_others_go_on_may_ask_its_own_worker(cls: Any) -> None:
    with Supervisor("tree", Child(cls, id="a", restart="temporary"), Supervisor("others")).start() as running:
        assert running["a"].ask(6, timeout=LONG) == 8


class Asyncs:
    restart = "temporary"

    async def on_start(self) -> None:
        self.asked = asyncio.Event()
        self.earlier = asyncio.create_task(self.ask_when_told())

    async def ask_when_told(self) -> Any:
        await self.asked.wait()
        return await self.ref.ask_future("hello")  # type: ignore[attr-defined]

    async def on_receive(self, message: str) -> Any:
        own: Any = self.ref  # type: ignore[attr-defined]
        match message:
            case "earlier task":
                self.asked.set()
                return self.earlier
            case "later task":
                return asyncio.create_task(self.on_receive("await"))
            case "thread":
                return asyncio.get_running_loop().run_in_executor(None, lambda: own.ask("hello", timeout=LONG))
            case "await":
                return await own.ask_future("hello")
            case "gather":
                return await asyncio.gather(own.ask_future("hello"))
            case "task group":
                async with asyncio.TaskGroup() as group:
                    group.create_task(self.on_receive("await"))
            case "block":
                return own.ask("hello", timeout=LONG)
        return message


class AsyncProcess(Asyncs, Process): ...


class AsyncThread(Asyncs, Thread): ...


@pytest.mark.parametrize("cls", [AsyncProcess, AsyncThread])
@pytest.mark.parametrize("how", ["earlier task", "later task", "thread"])
def test_what_goes_on_beside_the_hooks_of_an_async_worker_may_ask_it(cls: Any, how: str) -> None:
    with Supervisor("tree", Child(cls, id="a"), Supervisor("others")).start() as running:
        assert running["a"].ask(how, timeout=LONG) == "hello"


@pytest.mark.parametrize("cls", [AsyncProcess, AsyncThread])
@pytest.mark.parametrize("how", ["await", "gather", "task group", "block"])
def test_a_handler_that_awaits_an_answer_of_its_own_worker_is_in_a_deadlock(cls: Any, how: str) -> None:
    with Supervisor("tree", Child(cls, id="a"), Supervisor("others")).start() as running:
        with pytest.raises((DeadlockError, ExceptionGroup)) as told:
            running["a"].ask(how, timeout=LONG)
        error = told.value.exceptions[0] if isinstance(told.value, ExceptionGroup) else told.value
        assert isinstance(error, DeadlockError)


class Asks(Thread):
    """A background thread that asks again and again, and tells the last answer."""

    restart = "temporary"

    def __init__(self, path: str) -> None:
        self.asked = path

    def loop(self) -> None:
        try:
            self.answer = self.whereis(self.asked).ask("hello", timeout=LONG)
        except DeadlockError as error:
            self.answer = str(error)
        self.wait(0.01)

    def on_receive(self, message: str) -> str:
        return self.answer


class Has(Process):
    restart = "temporary"

    def on_receive(self, message: Any) -> Any:
        if isinstance(message, str):
            return f"{message} from {self.name}"
        self.thread = self.start_thread(Asks(*message))
        return None

    def answer(self) -> Any:
        return self.thread.ask_future("?")


class HasInThread(Thread):
    restart = "temporary"
    on_receive = Has.on_receive
    answer = Has.answer


class AsksBack(Process):
    def on_receive(self, message: str) -> Any:
        self.wait(0.3)  # so that the one who asks is known to wait
        return self.whereis("tree/a").ask(message, timeout=LONG)


@pytest.mark.parametrize("cls", [Has, HasInThread])
def test_a_worker_whose_background_thread_waits_can_answer(cls: Any) -> None:
    with Supervisor("tree", Child(cls, id="a"), Child(AsksBack, id="b")).start() as running:
        running["a"].ask(("tree/b",), timeout=LONG)
        assert running["a"].proxy().answer().get(LONG) == "hello from a"


@pytest.mark.parametrize("cls", [Has, HasInThread])
def test_a_background_thread_cannot_wait_for_its_worker_which_waits_for_it_at_its_end(cls: Any) -> None:
    with Supervisor("tree", Child(cls, id="a"), Supervisor("others")).start() as running:
        running["a"].ask(("tree/a",), timeout=LONG)
        answer = running["a"].proxy().answer().get(LONG)
        assert answer.startswith("'tree/a/asks' asks 'tree/a': a background thread cannot wait for its worker")


class Passes(Thread):
    """Passes a message, the refs of the workers that it is to go through, on to the next one."""

    restart = "temporary"

    def on_receive(self, route: tuple[WorkerRef, ...]) -> str:
        return route[0].ask(route[1:], timeout=LONG) if route else "the end"


class HasPassing:
    restart = "temporary"

    def on_start(self) -> None:
        self.own = {name: self.start_thread(Child(Passes, id=name)) for name in ("one", "two")}  # type: ignore[attr-defined]

    def on_receive(self, route: tuple[Any, ...]) -> str:
        if not route:
            return "the end"
        first, *others = (self.own.get(step) or step if isinstance(step, str) else step for step in route)
        return first.ask(tuple(others), timeout=LONG)


class HasPassingInProcess(HasPassing, Process): ...


class HasPassingInThread(HasPassing, Thread): ...


@pytest.mark.parametrize("cls", [HasPassingInProcess, HasPassingInThread])
@pytest.mark.parametrize(
    "steps, text",
    [
        (("one", "b", "a"), "tree/a asks tree/a/one asks tree/b asks tree/a"),
        (("one", "two", "b", "a"), "tree/a asks tree/a/one asks tree/a/two asks tree/b asks tree/a"),
        (("one", "two", "one"), "tree/a/one asks tree/a/two asks tree/a/one"),
    ],
)  # fmt: skip
def test_a_circle_through_background_threads_is_a_deadlock(cls: Any, steps: tuple[str, ...], text: str) -> None:
    with Supervisor("tree", Child(cls, id="a"), Child(Passes, id="b")).start() as running:
        refs = {"a": running["a"], "b": running["b"]}
        with pytest.raises(DeadlockError) as told:
            running["a"].ask(tuple(refs.get(step, step) for step in steps), timeout=LONG)
        assert text in str(told.value)


@pytest.mark.parametrize("cls", [HasPassingInProcess, HasPassingInThread])
def test_a_chain_through_background_threads_is_no_deadlock(cls: Any) -> None:
    with Supervisor("tree", Child(cls, id="a"), Child(Passes, id="b")).start() as running:
        assert running["a"].ask(("one", "two", running["b"]), timeout=LONG) == "the end"
