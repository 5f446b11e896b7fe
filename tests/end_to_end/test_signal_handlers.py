"""Signal handlers of the program that owns the tree may use refs and raise exceptions, whatever they interrupt."""

from __future__ import annotations

import concurrent.futures
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest

from suitkaise import (
    Bounded,
    Child,
    ChildNotFound,
    MailboxFull,
    Process,
    Supervisor,
    Thread,
    group,
    publish,
    whereis,
)
from suitkaise.runtime.running_tree import RunningTree
from suitkaise.specs.bounded import OnFull
from suitkaise.supervision.interface import SupervisorInterface
from tests.support import Interrupted, eventually, in_background, interrupted_at_each_call, run_program


class Collector(Process):
    """Collects its messages."""

    def __init__(self) -> None:
        self.got: list[Any] = []

    def on_receive(self, message: Any) -> Any:
        if message == "all":
            return self.got
        self.got.append(len(message) if isinstance(message, bytes) else message)
        return None


class CollectorThread(Thread):
    def __init__(self) -> None:
        self.got: list[Any] = []

    def on_receive(self, message: Any) -> Any:
        return Collector.on_receive(self, message)  # type: ignore[arg-type]


@contextmanager
def disturbed_by(handler: Callable[[], object]) -> Iterator[None]:
    """Send this program a signal every half millisecond; `handler` handles it."""
    main = threading.main_thread().ident
    assert main is not None
    over = threading.Event()

    def disturb() -> None:
        while not over.wait(0.0005):
            signal.pthread_kill(main, signal.SIGUSR2)

    before = signal.signal(signal.SIGUSR2, lambda number, frame: handler())
    disturbing = in_background(disturb)
    try:
        yield
    finally:
        over.set()
        disturbing.result(10)
        signal.signal(signal.SIGUSR2, before)


@contextmanager
def disturbed_at_work_by(handler: Callable[[], object]) -> Iterator[None]:
    """Do the same by a timer of processor time: its signals come while the program runs, not while it waits."""
    before = signal.signal(signal.SIGPROF, lambda number, frame: handler())
    signal.setitimer(signal.ITIMER_PROF, 0.001, 0.001)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


@pytest.mark.parametrize("kind", [Collector, CollectorThread])
def test_a_signal_handler_may_send_to_a_worker_while_its_thread_sends(kind: Any) -> None:
    told: list[int] = []

    def tell() -> None:
        if len(told) < 500:
            told.append(-1 - len(told))
            ref.tell(told[-1])

    with Supervisor("app", Child(kind, id="worker")).start() as running:
        ref = running["worker"]
        with disturbed_by(tell):
            for number in range(3000):
                ref.tell(number)
        got = ref.ask("all", timeout=20)
    assert sorted(got) == sorted([*range(3000), *told])
    assert [number for number in got if number >= 0] == list(range(3000))


@pytest.mark.parametrize("kind", [Collector, CollectorThread])
@pytest.mark.parametrize("on_full", ["reject", "drop_oldest", "drop_newest"])
def test_a_signal_handler_may_send_to_a_bounded_mailbox_while_its_thread_sends(kind: Any, on_full: OnFull) -> None:
    told: list[int] = []

    def tell(number: int) -> None:
        try:
            ref.tell(number)
        except MailboxFull:
            assert on_full == "reject"

    def disturb() -> None:
        if len(told) < 500:
            told.append(-1 - len(told))
            tell(told[-1])

    def asked() -> list[int] | None:
        with suppress(MailboxFull):  # while others wait
            return ref.ask("all", timeout=20)  # type: ignore[no-any-return]
        return None

    with Supervisor("app", Child(kind, id="worker", mailbox=Bounded(5, on_full))).start() as running:
        ref = running["worker"]
        with disturbed_by(disturb):
            for number in range(3000):
                tell(number)
        got = eventually(asked) or []
    assert told
    assert len(got) == len(set(got)), "a message was delivered twice"
    assert [number for number in got if number >= 0] == sorted(number for number in got if number >= 0)


class Member(CollectorThread):
    def on_start(self) -> None:
        self.join_group("group")
        for number in range(100):
            self.subscribe(f"topic/{number}/**")


def several(running: Any) -> list[Any]:
    return [running["member"].ask_future("d") for _ in range(4)]


def called_back(answers: list[Any]) -> None:
    for answer in answers:
        answer.add_done_callback(id)
    for answer in answers:
        answer.get(60.0)


ACTS: dict[str, Callable[[Any], object]] = {
    "tell": lambda running: running["member"].tell("a"),
    "ask": lambda running: running["member"].ask("b", timeout=60.0),
    "ask for an answer later": lambda running: running["member"].ask_future("c").get(60.0),
    "wait for several answers": lambda running: concurrent.futures.wait(several(running), 60.0),
    "take several answers": lambda running: list(concurrent.futures.as_completed(several(running), 60.0)),
    "callback": lambda running: called_back(several(running)),
    "recall": lambda running: running["member"].recall(),
    "publish": lambda running: publish("topic/1", "news"),
    "group": lambda running: group("group").members(),
    "monitor": lambda running: running["member"].monitor().cancel(),
    "events": lambda running: running.events().close(),
}


@pytest.mark.parametrize("act", ACTS)
def test_a_signal_handler_may_do_what_its_thread_is_doing(act: str) -> None:
    done, inside = 0, False

    def disturb() -> None:
        nonlocal done, inside
        if not inside:  # the next signal may come before this call has returned
            inside = True
            ACTS[act](running)
            done, inside = done + 1, False

    with Supervisor("app", Member).start() as running:
        with disturbed_at_work_by(disturb):
            until = time.monotonic() + 2.0
            while done < 200 and time.monotonic() < until:
                ACTS[act](running)
        assert running["member"].is_alive()
    assert done


INTERRUPTED = """
import signal, sys
from suitkaise import Process, StorageError, Supervisor, sktree
from suitkaise.pools import ProcessPool
from suitkaise.runtime import runtime, storage_actor

class Idle(Process):
    def on_receive(self, message):
        return message

def interrupted(function):
    signals = [signal.SIGUSR2]
    def interrupting(*args, **options):
        while signals:
            signal.raise_signal(signals.pop())
        return function(*args, **options)
    return interrupting

def handle(number, frame):
    try:
        print("handler:", act())
    except Exception as error:
        print("handler:", error)

signal.signal(signal.SIGUSR2, handle)
if sys.argv[1] == "stop":
    running = Supervisor("app", Idle).start()
    storage = running._runtime.storage
    storage.await_clean_up = interrupted(storage.await_clean_up)  # which a tree that has stopped waits for
    act = running.stop
elif sys.argv[1] == "shutdown":
    pool = ProcessPool(1)
    pool.submit(abs, -1).result()
    scheduler = pool._scheduler
    scheduler._reactor.close = interrupted(scheduler._reactor.close)
    scheduler.check_drained = scheduler._drained.set  # no other thread closes the pool
    act = pool.shutdown
elif sys.argv[1] == "start":
    runtime.Registry = interrupted(runtime.Registry)  # which is made in the middle of the start of the first tree
    act = lambda: Supervisor("app", Idle).start()["idle"].ask("fine")
elif sys.argv[1] == "task":
    running = Supervisor("app").start()
    running.get_child_spec = interrupted(running.get_child_spec)  # of the supervisor of the tasks, by the first one
    act = lambda: running.task(abs, -1).get()
elif sys.argv[1] == "disconnect":
    tree = sktree.connect()
    tree.close = interrupted(tree.close)
    act = sktree.disconnect
else:
    storage_actor.declare = interrupted(storage_actor.declare)
    act = lambda: sktree.connect().get_all_from("")
print(act())
"""


FIRST = "the code that this signal handler interrupts is starting the first tree, so no other can be started here"


@pytest.mark.parametrize(
    "act, told",
    [
        ("stop", ["handler: shutdown (stop)", "shutdown (stop)"]),
        ("shutdown", ["handler: None", "None"]),
        ("start", [f"handler: {FIRST}", "fine"]),
        ("task", ["handler: 1", "1"]),
        ("disconnect", ["handler: None", "None"]),
        (
            "connect",
            ["handler: the storage is being started by the code that this signal handler interrupts", "{}"],
        ),
    ],
)
def test_a_signal_handler_does_not_wait_for_the_code_that_it_interrupts(act: str, told: list[str]) -> None:
    assert run_program(INTERRUPTED, act).check().stdout.splitlines() == told


@pytest.mark.parametrize("error", [TimeoutError, ValueError, KeyError])
@pytest.mark.parametrize(
    "act",
    [
        lambda running: running["member"].status,
        lambda running: running["member"].tell("m"),
        lambda running: running["member"].ask("m"),
        lambda running: whereis("tree/member"),
        lambda running: running.which_children(),
        lambda running: running.count_children(),
    ],
    ids=["status", "tell", "ask", "whereis", "which_children", "count_children"],
)
def test_what_a_signal_handler_raises_in_a_call_is_raised(
    act: Callable[[Any], object], error: Callable[[], BaseException]
) -> None:
    with Supervisor("tree", Child(Collector, id="member")).start() as running:
        act(running)  # and so make what is made once
        assert all(interrupted_at_each_call(lambda: act(running), error))
        assert isinstance(running["member"].ask("all"), list)


@pytest.mark.parametrize("of, method", [(SupervisorInterface, "begin"), (RunningTree, "__init__")])
def test_an_exception_of_a_signal_handler_beside_the_start_of_a_tree_leaves_no_tree_behind(
    of: type, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise Interrupted

    tree = Supervisor("tree", CollectorThread)
    with Supervisor("other", CollectorThread).start():  # so the runtime goes on
        with monkeypatch.context() as patched, pytest.raises(Interrupted):
            patched.setattr(of, method, interrupt)
            tree.start()
        with pytest.raises(ChildNotFound):
            whereis("tree")
        with tree.start() as running:
            assert running["collector_thread"].ask("all") == []


def test_an_exception_of_a_signal_handler_corrupts_no_message() -> None:
    class Stop(Exception):
        pass

    armed = False

    def stop() -> None:
        nonlocal armed
        if armed:
            armed = False
            raise Stop

    stopped = 0
    with Supervisor("app", Child(Collector, id="worker"), max_restarts=0).start() as running:
        ref = running["worker"]
        message = bytes(300_000)
        with disturbed_by(stop):
            for _ in range(150):
                try:
                    armed = True
                    ref.tell(message)
                    armed = False
                except Stop:
                    stopped += 1
        got = ref.ask("all", timeout=30)
        assert ref.incarnation == 1
    assert stopped
    assert set(got) == {300_000}
    assert 150 - stopped <= len(got) <= 150
