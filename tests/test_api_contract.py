"""The public API, word for word as the design promises it: what a program outside of this repository may rely on."""

from __future__ import annotations

import asyncio
import enum
import inspect
import math
import os
import pickle
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FunctionType
from typing import Any, ClassVar, get_args, get_type_hints

import pytest

import suitkaise
from suitkaise import (
    AskTimeout,
    Backoff,
    Child,
    ChildAlreadyPresent,
    ChildAlreadyStarted,
    ChildNotFound,
    ChildRunning,
    ChildStartFailed,
    Crashed,
    DeadlockError,
    Ignore,
    Killed,
    Normal,
    NotSerializable,
    Process,
    Reject,
    RunningTree,
    Shutdown,
    SpecError,
    Status,
    SuitkaiseError,
    Supervisor,
    Thread,
    TreeFailed,
    WorkerDead,
    WorkerFailed,
    WorkerRef,
    sktree,
    whereis,
)
from suitkaise.errors import EntryExists, StorageError
from tests.support import eventually


class Refused(Exception):
    """An exception with a constructor of its own."""

    def __init__(self, code: int, *, text: str) -> None:
        super().__init__(f"{code}: {text}")
        self.code = code


class Talker(Process):
    """Answers; some words have a meaning."""

    def __init__(self, name: str | None = None, greeting: str = "hello") -> None:
        super().__init__(name)
        self.greeting = greeting
        self.value = 5

    def add(self, a: int, b: int = 1) -> int:
        return a + b

    def on_receive(self, message: Any) -> Any:
        match message:
            case "crash":
                raise Refused(7, text="no")
            case "reject":
                raise Reject(KeyError("rejected"))
            case "leave":
                self.rejoin()
            case "facts":
                return self.path, self.name, self.pid, self.copy, self.recalled is not None
            case ("ask", ref, what):
                return ref.ask(what)
            case ("result", ref):
                return ref.result(15)
            case ("find", path):
                return whereis(path)
            case "itself":
                return self.ref.join(15)
            case "unpicklable":
                return threading.Lock()
        return self.greeting, message


class ThreadTalker(Thread):
    """The same in a thread."""

    def on_receive(self, message: Any) -> Any:
        if message == "crash":
            raise Refused(7, text="no")
        return threading.current_thread() is not threading.main_thread(), os.getpid()


class Loops(Process):
    """Notes down its life."""

    restart = "transient"
    num_loops = 3

    def on_start(self) -> None:
        self.notes: list[Any] = [("on_start", self.current_loop)]

    def before_loop(self) -> None:
        self.notes.append(("before", self.current_loop))

    def loop(self) -> int:
        self.notes.append(("loop", self.current_loop, self.last_loop, self.num_loops))
        return self.current_loop * 10

    def after_loop(self) -> None:
        self.notes.append(("after", self.current_loop, self.last_result, self.last_loop_time > 0))

    def on_finish(self) -> None:
        self.notes.append(("on_finish", self.metadata, self.generate_loop_time_report()))

    def result(self) -> list[Any]:
        return self.notes


def once(a: int, b: int = 0) -> int:
    return a + b


@pytest.fixture
def running() -> Iterator[RunningTree]:
    tree = Supervisor("app", Talker, ThreadTalker, Supervisor("below", Talker("deep", greeting="hi")), max_restarts=100)
    with tree.start() as running:
        yield running


# ---------------------------------------------------------------- names
RETURNED = (
    "AsyncStart",
    "ChildLine",
    "Counts",
    "Group",
    "Published",
    "ReplyTo",
    "RunningTree",
    "SpecWarning",
    "Subscription",
    "Task",
    "Timer",
    "TreeStatus",
    "WorkerProxy",
)
IN_A_PUBLIC_MODULE = {"Event"}  # suitkaise.events
OPAQUE = {"Payload", "Recipe", "SupervisorSpec"}  # a user hands them on, and need not name them


@pytest.mark.parametrize("name", RETURNED)
def test_a_type_that_a_method_returns_can_be_imported_from_suitkaise(name: str) -> None:
    assert name in suitkaise.__all__
    assert isinstance(getattr(suitkaise, name), type)


def test_all_names_each_export_once_and_in_order() -> None:
    assert suitkaise.__all__ == sorted(set(suitkaise.__all__))
    assert [name for name in suitkaise.__all__ if not hasattr(suitkaise, name)] == []


def test_every_type_that_a_public_method_returns_is_public() -> None:
    public = {name: getattr(suitkaise, name) for name in suitkaise.__all__}
    hidden = {
        f"{kind.__name__}.{name} -> {returned.__name__}"
        for kind in public.values()
        if isinstance(kind, type)
        for name, method in public_methods(kind)
        for returned in classes_in(get_type_hints(method, localns=public).get("return"))
        if returned.__name__ not in {*public, *IN_A_PUBLIC_MODULE, *OPAQUE}
    }
    assert hidden == set()


def public_methods(kind: type) -> Iterator[tuple[str, FunctionType]]:
    """The methods and properties of a class that users may call and that are ours."""
    for name in dir(kind):
        found = inspect.getattr_static(kind, name)
        method = getattr(found, "__func__", None) or getattr(found, "fget", None) or found
        if not name.startswith("_") and isinstance(method, FunctionType) and method.__module__.startswith("suitkaise"):
            yield name, method


def classes_in(hint: Any) -> Iterator[type]:
    """The classes of ours that a type hint names."""
    if isinstance(hint, type) and hint.__module__.startswith("suitkaise"):
        yield hint
    for part in get_args(hint):
        yield from classes_in(part)


# ---------------------------------------------------------------- declarations
def test_children_have_the_defaults_that_the_design_names() -> None:
    child = Supervisor("app", Talker).children[0]
    assert (child.id, child.kind, child.restart, child.shutdown) == ("talker", "process", "permanent", 5.0)
    assert (child.significant, child.join_in, child.join_after, child.backoff, child.copies) == (
        False,
        None,
        None,
        None,
        1,
    )
    assert Supervisor("app").shutdown == "infinity"
    assert Backoff() == Backoff(initial=0.1, factor=2.0, maximum=30.0, jitter=0.1, reset_after=60.0)


def test_ids_come_from_the_constructor_the_child_or_the_class_and_hold_no_slash() -> None:
    assert Child(ThreadTalker).id == "thread_talker"
    assert Child(Talker("given")).id == "given"
    assert Child(Talker("given"), id="other").id == "other"
    assert Child(once, args=(1,)).id == "once"
    with pytest.raises(SpecError, match="/"):
        Child(Talker, id="a/b")


def test_a_class_may_set_the_id_of_its_children() -> None:
    class Named(Process):
        id = "short"

    assert Child(Named, restart="transient").id == "short"
    assert Child(Named, id="other").id == "other"


def test_copies_are_numbered() -> None:
    assert [child.id for child in Supervisor("app", Child(Talker, copies=3)).children] == [
        "talker-0",
        "talker-1",
        "talker-2",
    ]


def test_a_recipe_and_a_declaration_are_immutable() -> None:
    talker = Talker()
    talker.greeting = "lost"
    with pytest.raises(SpecError, match="recipe"):
        Supervisor("app", talker)
    tree = Supervisor("app", Talker)
    with pytest.raises(AttributeError, match="replace"):
        tree.name = "other"  # type: ignore[misc]
    assert tree.replace(strategy="one_for_all").strategy == "one_for_all"
    assert tree.strategy == "one_for_one"
    assert "talker" in str(tree)


@pytest.mark.parametrize("name", ["pid", "wait", "rejoin", "current_loop", "recalled", "num_loops", "ref"])
def test_reserved_names_raise_on_assignment(name: str) -> None:
    class Wrong(Process):
        def __init__(self) -> None:
            setattr(self, name, 1)

    with pytest.raises(AttributeError, match=name):
        Wrong()


@pytest.mark.parametrize("name", ["path", "copy", "metadata", "log"])
def test_names_that_users_need_may_be_assigned(name: str) -> None:
    class Mine(Process):
        def __init__(self) -> None:
            setattr(self, name, 1)

    assert getattr(Mine(), name) == 1


def test_an_engine_that_is_none_is_a_spec_error() -> None:
    with pytest.raises(SpecError, match="engine must be a Ray"):
        Supervisor("app", engine="ray")  # type: ignore[arg-type]


def test_an_argument_that_cannot_be_pickled_is_an_error_at_start_that_names_its_path() -> None:
    with pytest.raises(NotSerializable, match=r"app/talker.*cannot pickle '_thread.lock'"):
        Supervisor("app", Talker("talker", greeting=threading.Lock())).start()  # type: ignore[arg-type]


# ---------------------------------------------------------------- the life of a worker
def test_hooks_and_attributes_are_as_described() -> None:
    with Supervisor("app", Loops).start() as running:
        notes = running["loops"].result(15)
        pid = running["loops"].pid
    assert pid is None
    assert notes[0] == ("on_start", 0)
    for n in (1, 2, 3):
        assert notes[3 * n - 2 : 3 * n + 1] == [("before", n), ("loop", n, n == 3, 3), ("after", n, n * 10, True)]
    hook, metadata, report = notes[-1]
    assert hook == "on_finish"
    assert set(metadata) == {"name", "pid", "current_loop", "num_loops", "remove_on_process_join"}
    assert (metadata["name"], metadata["current_loop"], metadata["num_loops"]) == ("loops", 3, 3)
    assert report["loops"] == 3
    assert report["fastest"] <= report["mean"] <= report["slowest"] <= report["total"]


def test_functions_are_workers_in_processes_and_threads() -> None:
    tree = Supervisor(
        "app",
        Child(once, args=(1,), kwargs={"b": 2}, restart="transient", join_after=1),
        Child(Thread.of(once, 5), id="thread", restart="transient", join_after=2),
        Child(once, args=(1,), id="short", restart="transient", join_in=0.02),
    )
    with tree.start() as running:
        assert running["once"].result(15) == 3
        assert running["thread"].result(15) == 5
        assert running["short"].join(15) == Normal()


def test_skip_and_rejoin_leaves_out_after_loop_and_force_finish_everything() -> None:
    class Skips(Thread):
        restart = "transient"
        ran: ClassVar[list[str]] = []

        def __init__(self, how: str) -> None:
            self.how = how

        def loop(self) -> None:
            getattr(self, self.how)()
            self.ran.append(f"{self.how} loop goes on")

        def after_loop(self) -> None:
            self.ran.append(f"{self.how} after_loop")

        def on_finish(self) -> None:
            self.ran.append(f"{self.how} on_finish")

    hows = ("rejoin", "skip_and_rejoin", "force_finish")
    with Supervisor("app", *(Child(Skips(how), id=how) for how in hows)).start() as running:
        reasons = [running[how].join(15) for how in hows]
    assert reasons == [Normal(), Normal(), Shutdown("forced")]
    assert sorted(Skips.ran) == sorted([
        "rejoin loop goes on", "rejoin after_loop", "rejoin on_finish",
        "skip_and_rejoin loop goes on", "skip_and_rejoin on_finish",
    ])  # fmt: skip


def test_infinite_loops_are_infinite() -> None:
    assert Child(Loops, join_after=math.inf).join_after is None
    assert Loops("x").num_loops == 3
    assert Talker().num_loops == math.inf


# ---------------------------------------------------------------- a running tree and its refs
def test_a_running_tree_is_a_mapping_of_paths(running: RunningTree) -> None:
    assert "below/deep" in running
    assert "nothing" not in running
    assert [ref.path for ref in running] == ["app/talker", "app/thread_talker", "app/below", "app/below/deep"]
    assert running["below/deep"] == WorkerRef("app/below/deep")
    with pytest.raises(ChildNotFound) as caught:
        running["nothing"]
    assert caught.value.path == "app/nothing"


def test_refs_are_picklable_and_good_in_every_process(running: RunningTree) -> None:
    deep = running["below/deep"]
    assert pickle.loads(pickle.dumps(deep)) == deep
    assert running["talker"].ask(("ask", deep, 1)) == ("hi", 1)
    assert running["talker"].ask(("find", "app/below/deep")) == deep
    assert whereis("app/talker").pid == running["talker"].pid != os.getpid()
    assert running["thread_talker"].ask(1) == (True, os.getpid())


def test_ask_tell_futures_and_proxies_reach_a_worker(running: RunningTree) -> None:
    ref = running["talker"]
    assert ref.ask("x", timeout=15) == ("hello", "x")
    assert ref.ask_future("x").get(timeout=15) == ("hello", "x")
    assert ref.proxy().add(1, b=2).get() == 3
    assert ref.proxy().value.get() == 5
    assert ref.tell("x") is None  # type: ignore[func-returns-value]

    async def awaited() -> Any:
        return await ref.ask_future("x")

    assert asyncio.run(awaited()) == ("hello", "x")


@pytest.mark.parametrize("id", ["talker", "thread_talker"])
def test_an_asker_gets_the_original_exception_and_may_ask_the_next_incarnation_at_once(
    running: RunningTree, id: str
) -> None:
    ref = running[id]
    for _ in range(5):
        with pytest.raises(Refused) as caught:
            ref.ask("crash")
        assert caught.value.code == 7
        assert "remote traceback" in "".join(caught.value.__notes__)
        assert ref.ask("x")
    assert ref.incarnation == 6


def test_a_message_that_cannot_be_handled_is_an_error_of_the_asker_only(running: RunningTree) -> None:
    ref, pid = running["talker"], running["talker"].pid
    with pytest.raises(KeyError, match="rejected"):
        ref.ask("reject")
    with pytest.raises(AttributeError):
        ref.proxy().nothing().get()
    with pytest.raises(TypeError):
        ref.proxy().add(1, 2, 3).get()
    with pytest.raises(NotSerializable):
        ref.ask("unpicklable")
    with pytest.raises(NotSerializable):
        ref.ask(threading.Lock())
    assert ref.pid == pid
    assert ref.is_alive()


def test_a_worker_that_joins_itself_gets_a_deadlock_error(running: RunningTree) -> None:
    with pytest.raises(DeadlockError):
        running["talker"].ask("itself")


def test_a_kill_is_a_fault_and_rejoin_and_terminate_are_requests(running: RunningTree) -> None:
    ref, pid = running["talker"], running["talker"].pid
    ref.kill()
    assert ref.ask("facts")[2] != pid  # parked, or answered by the next one
    assert ref.ask("facts")[4] is True
    ref.rejoin()
    assert isinstance(ref.join(15), Shutdown)
    assert ref.status == Status.STOPPED
    assert not ref.is_alive()
    with pytest.raises(WorkerDead) as caught:
        ref.ask("x")
    assert caught.value.path == "app/talker"
    ref.recall()
    assert ref.ask("x") == ("hello", "x")
    running.terminate_child("talker")
    running.terminate_child("talker")
    with pytest.raises(ChildAlreadyPresent):
        running.start_child(Talker)
    assert running.restart_child("talker") == ref
    with pytest.raises(ChildRunning):
        running.delete_child("talker")
    with pytest.raises(ChildAlreadyStarted) as already:
        running.start_child(Talker)
    assert already.value.ref == ref
    assert running.recall("talker") == ref
    running.terminate_child("below/deep")
    running.delete_child("below/deep")
    assert "below/deep" not in running


def test_which_children_count_children_and_status_agree(running: RunningTree) -> None:
    lines = running.which_children()
    assert [(line.id, line.kind, line.status, line.restarts) for line in lines] == [
        ("talker", "process", Status.RUNNING, 0),
        ("thread_talker", "thread", Status.RUNNING, 0),
        ("below", "supervisor", Status.RUNNING, 0),
    ]
    counts = running.count_children()
    assert (counts.specs, counts.active, counts.supervisors, counts.workers) == (3, 3, 1, 2)
    assert running.get_child_spec("below/deep").shutdown == 5.0
    assert running.status().children[2].children[0].path == "app/below/deep"


def test_a_result_is_never_none_for_a_dead_worker() -> None:
    class Dies(Process):
        restart = "temporary"

        def loop(self) -> None:
            raise Refused(3, text="dead")

    with Supervisor("app", ThreadTalker).start() as running:
        ref = running.start_child(Dies)
        for _ in range(2):  # while it lives or afterwards
            with pytest.raises(WorkerFailed) as caught:
                ref.result(15)
            assert caught.value.path == "app/dies"
            assert isinstance(caught.value.reason, Crashed)
            assert "Refused" in caught.value.traceback
        assert not ref.is_alive()
        with pytest.raises(AskTimeout):
            running["thread_talker"].result(0.01)


def test_the_result_of_a_temporary_worker_can_be_read_late() -> None:
    with Supervisor("app").start() as running:
        ref = running.start_child(Child(once, args=(40, 2), restart="temporary", join_after=1))
        eventually(lambda: "once" not in running, what="it is over")
        assert ref.result(15) == 42
        assert ref.join(15) == Normal()


class Declines(Thread):
    def on_start(self) -> None:
        raise Ignore


def test_the_status_of_a_temporary_worker_tells_how_it_ended() -> None:
    with Supervisor("app").start() as running:
        done = running.start_child(Child(once, args=(40, 2), restart="temporary", join_after=1))
        killed = running.start_child(Child(Talker, restart="temporary"))
        declined = running.start_child(Child(Declines, restart="temporary"))
        stopped = running.start_child(Child(ThreadTalker, restart="temporary"))
        killed.kill()
        running.terminate_child("thread_talker")
        eventually(lambda: list(running) == [], what="all have ended")
        assert [ref.status for ref in (done, killed, declined, stopped)] == ["finished", "killed", "ignored", "stopped"]


def test_statuses_are_a_str_enum_of_the_names_in_the_design() -> None:
    names = (
        "created starting running suspended stopping finished crashed killed hung restarting stopped ignored abandoned "
        "failed"
    )
    assert issubclass(Status, enum.StrEnum)
    assert [str(status) for status in Status] == names.split()


def test_ignore_is_no_failure_and_a_failed_start_carries_path_reason_and_traceback() -> None:
    class Ignores(Process):
        def on_start(self) -> None:
            raise Ignore

    class Fails(Process):
        def on_start(self) -> None:
            raise Refused(1, text="no disk")

    with Supervisor("app", Ignores).start() as running:
        assert running["ignores"].status == "ignored"
    with pytest.raises(ChildStartFailed) as caught:
        Supervisor("app", Talker, Fails).start()
    assert caught.value.path == "app/fails"
    assert isinstance(caught.value.reason, Crashed)
    assert "no disk" in caught.value.traceback


def test_a_tree_that_gives_up_raises_tree_failed_from_run_and_returns_the_reason_from_wait() -> None:
    class Dies(Process):
        def loop(self) -> None:
            raise Refused(3, text="dead")

    with pytest.raises(TreeFailed) as caught:
        Supervisor("app", Dies, max_restarts=1).run()
    assert isinstance(caught.value.reason, Shutdown)
    assert "dead" in caught.value.traceback
    with Supervisor("app", ThreadTalker).start() as running:
        with pytest.raises(TimeoutError):
            running.wait(0.01)
        assert running.stop(15) == running.wait()


def test_an_async_block_stops_the_tree_as_a_plain_one_does() -> None:
    async def main() -> RunningTree:
        async with Supervisor("app", ThreadTalker).start() as running:
            await running["thread_talker"].ask_future(1)
        return running

    assert asyncio.run(main()).wait(0.1).clean


def test_start_child_adds_one_child_so_copies_are_refused(running: RunningTree) -> None:
    with pytest.raises(SpecError, match="copies"):
        running.start_child(Child(ThreadTalker, id="more", copies=2))


def test_a_killed_worker_has_the_reason_killed() -> None:
    with Supervisor("app", Child(Talker, restart="temporary")).start() as running:
        ref = running["talker"]
        ref.kill()
        assert isinstance(ref.join(15), Killed)


def test_every_error_is_a_suitkaise_error_and_survives_pickling() -> None:
    for name in suitkaise.__all__:
        kind = getattr(suitkaise, name)
        if (
            isinstance(kind, type)
            and issubclass(kind, Exception)
            and kind is not Reject
            and not issubclass(kind, Warning)
        ):
            assert issubclass(kind, SuitkaiseError)
            again = pickle.loads(pickle.dumps(kind("text", path="a/b", reason=Normal(), traceback="tb")))
            assert (type(again), str(again), again.path, again.reason, again.traceback) == (
                kind, "text", "a/b", Normal(), "tb"
            )  # fmt: skip


# ---------------------------------------------------------------- sktree
class Stores(Process):
    """Uses the storage from its own process."""

    restart = "transient"
    num_loops = 4

    def loop(self) -> None:
        self.tree.add_to_root(f"mine {self.pid}", self.pid, metadata=self.metadata)
        self.tree.increment("hits", path="shared")

    def result(self) -> Any:
        mine = f"mine {self.pid}"
        seen = self.tree.get(mine, path="")
        self.cleanup()
        return seen == self.pid, self.tree.get(mine, path="", default="gone")


def test_the_storage_is_shared_by_the_program_and_its_workers() -> None:
    tree = sktree.connect()
    try:
        tree.add("limit", 10)  # the path is this file's
        assert tree.get("limit") == tree.get("limit", path="tests/test_api_contract") == 10
        assert tree.update("limit", 11) == 11
        assert tree.update("limit", lambda old: old + 1) == 12
        with pytest.raises(KeyError, match=r"'limti' in 'tests/test_api_contract'.*'limit'"):
            tree.get("limti")
        with pytest.raises(EntryExists):
            tree.add("limit", 1, exist_ok=False)
        for number in range(100):
            tree.add(f"n{number}", number, path="many", wait=False)
        tree.flush()
        assert tree.get_all_from("many") == {f"n{number}": number for number in range(100)}
        with pytest.raises(ZeroDivisionError), tree.transaction():
            tree.add("limit", 99)
            raise ZeroDivisionError
        with tree.transaction():
            tree.add("limit", tree.get("limit") + 1)
        assert tree.get("limit") == 13
        tree.remove("limit")
        with pytest.raises(KeyError):
            tree.remove("limit")
        with tree.watch("many") as changes:
            tree.remove("n7", path="many")
            assert changes.get(timeout=15).kind == "removed"
        with Supervisor("app", Child(Stores, copies=2)).start() as running:
            assert [ref.result(15) for ref in running] == [(True, "gone")] * 2
        assert tree.get("hits", path="shared") == 8
        assert pickle.loads(pickle.dumps(tree)).get("hits", path="shared") == 8
    finally:
        sktree.disconnect()


def test_a_durable_storage_needs_a_folder_and_keeps_what_is_in_it(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="durable"):
        sktree.connect(tmp_path)
    for expected in ("nothing", "kept"):
        tree = sktree.connect(tmp_path / "state", durable=True)
        assert tree.get("x", path="", default="nothing") == expected
        tree.add_to_root("x", "kept")
        sktree.disconnect()
