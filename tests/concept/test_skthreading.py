"""`skthreading`: threads that are made by calls, under a supervisor."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from typing import Any, Generic, TypeVar

import pytest

from suitkaise import (
    AskTimeout,
    Child,
    ChildNotFound,
    Process,
    SpecError,
    SpecWarning,
    Status,
    SuitkaiseError,
    Supervisor,
    WorkerFailed,
    skthreading,
)
from suitkaise.messaging import removed
from suitkaise.messaging.supervisor_ref import SupervisorRef
from suitkaise.skthreading import SKThread, create_thread
from tests.support import eventually, in_background

T = TypeVar("T")

pytestmark = pytest.mark.usefixtures("one_runtime_for_all")

LIMIT = 30.0


@pytest.fixture(autouse=True)
def _ended() -> Iterator[None]:
    skthreading._threads._kept.clear()  # what a doctest in this process has left
    yield
    skthreading.shutdown()
    skthreading._threads._kept.clear()


def facts() -> tuple[str, int, int]:
    return skthreading.get_thread_name(), skthreading.get_thread_id(), skthreading.get_current_loop()


def waits() -> str:
    threading.Event().wait(0.01)
    return "waited"


class Loops(SKThread):
    """Has the hooks in the spelling of the concept."""

    def __init__(self, notes: list[str], name: str | None = None, num_loops: float | None = None) -> None:
        super().__init__(name, num_loops)
        self.notes = notes

    def __on_start__(self) -> None:
        self.notes.append("start")

    def __before_loop__(self) -> None:
        self.notes.append("before")

    def __loop__(self) -> int:
        self.notes.append("loop")
        self.wait(0.001)
        return self.current_loop

    def __after_loop__(self) -> None:
        self.notes.append("after")

    def __on_finish__(self) -> None:
        self.notes.append("finish")


class Endless(Loops):
    loop_infinitely = True


class EndlessByInstance(Loops):
    def __init__(self, notes: list[str]) -> None:
        super().__init__(notes)
        self.loop_infinitely = True


class Thrice(Loops):
    num_loops = 3


class Setup(SKThread):
    def before_loop(self) -> None:
        self.before = self.current_loop


# ---------------------------------------------------------------- loops
def test_a_function_runs_once_in_a_thread_of_this_process() -> None:
    thread = create_thread("worker", facts)
    name, ident, loop = skthreading.get_thread_result(thread, timeout=LIMIT)
    assert (name, loop) == ("worker", 1)
    assert ident != threading.get_ident()
    assert skthreading.list_threads() == {"worker": Status.FINISHED}


@pytest.mark.parametrize(
    "make, loops",
    [
        (lambda: create_thread(facts, kwargs={"join_after": 4}), 4),
        (lambda: create_thread(facts, kwargs={"num_loops": 4}), 4),
        (lambda: create_thread(facts, Setup, kwargs={"num_loops": 4}), 4),
        (lambda: create_thread(facts, Setup(num_loops=2)), 2),
        (lambda: create_thread(facts, Setup), 1),
        (lambda: create_thread(Loops([])), 1),
        (lambda: create_thread(Loops, args=([],)), 1),
        (lambda: create_thread(Loops([], num_loops=5)), 5),
        (lambda: create_thread(Loops([]), kwargs={"join_after": 6}), 6),
        (lambda: create_thread(Thrice([])), 3),
    ],
    ids=range(10),
)
def test_a_thread_loops_as_often_as_it_says(make: Any, loops: int) -> None:
    thread = make()
    skthreading.get_thread_result(thread, timeout=LIMIT)
    assert skthreading.get_thread_stats(thread)["loops"] == loops


@pytest.mark.parametrize("cls", [Endless, EndlessByInstance])
def test_loop_infinitely_loops_until_the_thread_is_asked_to_rejoin(cls: type[Loops]) -> None:
    notes: list[str] = []
    thread = create_thread(cls(notes))
    eventually(lambda: notes.count("loop") > 3)
    skthreading.rejoin(thread, timeout=LIMIT)
    assert notes[:4] == ["start", "before", "loop", "after"]
    assert notes[-2:] == ["after", "finish"]
    assert skthreading.get_status(thread) == Status.FINISHED


@pytest.mark.parametrize("keyword", ["func", "setup"])
def test_a_generic_class_is_the_worker_whatever_its_type_parameters(keyword: str) -> None:
    class Box(SKThread, Generic[T]):
        def loop(self) -> int:
            return 4

    assert skthreading.get_thread_result(create_thread(**{keyword: Box[int]}), 15) == 4


def test_without_a_limit_a_function_loops_until_it_is_asked_to_rejoin() -> None:
    for name, limit in (("a", math.inf), ("b", None)):
        create_thread(name, waits, kwargs={"join_after": limit})
        eventually(lambda name=name: skthreading.get_thread_stats(name)["loops"] > 2)
        skthreading.rejoin(name, timeout=LIMIT)
        assert skthreading.get_thread_result(name) == "waited"


def test_the_loops_of_a_thread_hold_in_a_tree_as_well() -> None:
    with Supervisor("app", Child(Thrice, args=([],)), Child(Loops, args=([],), id="once")).start() as running:
        assert [running[id].result(LIMIT) for id in ("thrice", "once")] == [3, 1]


def test_loop_infinitely_may_be_set_in_on_start() -> None:
    class Starts(SKThread):
        def __on_start__(self) -> None:
            self.loop_infinitely = True

        def __loop__(self) -> int:
            return self.current_loop

    thread = create_thread(Starts)
    eventually(lambda: skthreading.get_thread_stats(thread)["loops"] > 1)
    skthreading.rejoin(thread)
    assert skthreading.get_thread_result(thread, timeout=LIMIT) > 1


def test_loop_infinitely_is_true_or_false() -> None:
    with pytest.raises(SpecError, match="Unclear: loop_infinitely must be True or False, not 'no'"):

        class Unclear(skthreading.SKThread):
            loop_infinitely = "no"  # type: ignore[assignment]


@pytest.mark.parametrize("number", ["3", -1, 0, True, 1.5, math.nan])
def test_a_number_of_loops_that_is_none_is_refused_by_its_class(number: Any) -> None:
    with pytest.raises(SpecError, match=f"^Unclear: num_loops must be a number of loops >= 1, .* not {number!r}$"):
        type("Unclear", (skthreading.SKThread,), {"num_loops": number, "loop": lambda self: None})


def test_a_misspelt_loop_infinitely_is_told_as_a_misspelt_option_is() -> None:
    class Once(SKThread):
        loop_infinitly = True
        restrat = "permanent"

        def loop(self) -> None: ...

    class OnceMade(SKThread):
        def __init__(self) -> None:
            self.loopInfinitely = True

        def loop(self) -> None: ...

    with pytest.warns(SpecWarning) as told:
        create_thread(Once)
    assert [str(one.message).partition(": ")[2] for one in told] == [
        "Once has loop_infinitly, which nothing reads; did you mean loop_infinitely?",
        "Once has restrat, which nothing reads; did you mean restart?",
    ]
    with pytest.warns(SpecWarning, match="OnceMade has loopInfinitely, which nothing reads; did you mean"):
        create_thread(OnceMade())


def test_loop_infinitely_and_a_number_of_loops_contradict_each_other() -> None:
    with pytest.raises(SpecError, match="Both: set loop_infinitely or num_loops, not both"):

        class Both(Endless):
            num_loops = 2

    with pytest.raises(SpecError, match="Endless: set loop_infinitely or num_loops"):
        Endless([], num_loops=2)
    assert Endless([], num_loops=math.inf).num_loops == math.inf


def test_add_last_result_collects_what_the_function_returned() -> None:
    found: list[Any] = []

    class Collect(SKThread):
        def __after_loop__(self) -> None:
            skthreading.add_last_result(found)

    thread = create_thread(waits, Collect, kwargs={"num_loops": 3})
    skthreading.get_thread_result(thread, timeout=LIMIT)
    assert found == ["waited"] * 3


def test_the_blocks_of_a_setup_run_around_the_function() -> None:
    found: list[Any] = []

    def work(value: int, twice: int) -> int:
        return value + twice

    with skthreading.ThreadSetup as setup:
        setup.num_loops = 3

        with skthreading.OnStart() as start:
            value = 1

        with skthreading.BeforeLoop() as before:
            value += 1
            twice = value * 2

        with skthreading.AfterLoop() as after:
            skthreading.add_last_result(found)

    thread = create_thread(name="set up", func=work, setup=setup.build(), args=None, kwargs=None)
    assert skthreading.get_thread_result(thread, timeout=LIMIT) == 12
    assert found == [6, 9, 12]


def test_a_call_without_a_limit_has_precedence_over_the_number_of_the_setup() -> None:
    with skthreading.ThreadSetup() as setup:
        setup.num_loops = 2
    create_thread("endless", waits, setup.build(), kwargs={"join_after": math.inf})
    eventually(lambda: skthreading.get_thread_stats("endless")["loops"] > 3)
    skthreading.rejoin("endless", timeout=LIMIT)


# ---------------------------------------------------------------- recalls and results
def test_a_thread_that_crashes_is_recalled_and_given_up_alone() -> None:
    left = [2]

    def fails() -> str:
        left[0] -= 1
        if left[0] >= 0:
            raise LookupError(f"{left[0]} left")
        return "recovered"

    assert skthreading.get_thread_result(create_thread("good", fails), timeout=LIMIT) == "recovered"
    assert skthreading.get_thread_stats("good")["restarts"] == 2
    left[0] = 99
    bad = create_thread("bad", fails)
    with pytest.raises(WorkerFailed, match="left"):
        skthreading.get_thread_result(bad, timeout=LIMIT)
    assert skthreading.list_threads() == {"good": Status.FINISHED, "bad": Status.FAILED}
    left[0] = 0
    skthreading.recall("bad")
    assert skthreading.get_thread_result("bad", timeout=LIMIT) == "recovered"


def test_join_all_shutdown_and_a_new_beginning() -> None:
    create_thread("long", waits, kwargs={"join_after": math.inf})
    with pytest.raises(AskTimeout, match="'long'"):
        skthreading.join_all(timeout=0.05)
    skthreading.shutdown(timeout=LIMIT)
    assert skthreading.join_all() == {"long": Status.FINISHED}
    assert skthreading.get_thread_result("long") == "waited"
    assert skthreading.get_thread_result(create_thread("again", waits), timeout=LIMIT) == "waited"


def test_all_threads_stay_known_although_only_the_last_ones_that_ended_are_remembered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(removed, "MOST_REMOVED", 2)
    create_thread("long", waits, kwargs={"join_after": math.inf})
    create_thread("once", waits, kwargs={"join_after": math.inf, "restart": "temporary"})
    short = [f"short-{number}" for number in range(5)]
    for name in short:
        create_thread(name, waits).join(LIMIT)
    skthreading.shutdown(timeout=LIMIT)
    names = ["long", "once", *short]
    assert skthreading.list_threads() == dict.fromkeys(names, Status.FINISHED)
    assert [skthreading.get_thread_result(name) for name in names] == ["waited"] * 7
    stats = [skthreading.get_thread_stats(name) for name in names]
    assert [one["pid"] for one in stats] == [None] * 7
    assert all(one["loops"] > 1 for one in stats[:2])
    assert all(one["loops"] == 1 for one in stats[2:])


def test_a_free_name_is_taken_without_a_look_at_all_others(monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[SupervisorRef] = []
    which_children = SupervisorRef.which_children
    with monkeypatch.context() as counting:
        counting.setattr(SupervisorRef, "which_children", lambda ref: looks.append(ref) or which_children(ref))
        create_thread("worker", waits)
        assert not looks
        with pytest.warns(SpecWarning, match="is called 'worker-2'"):
            create_thread("worker", waits)
        assert len(looks) == 1


def test_a_thread_that_makes_another_one_while_all_are_asked_to_finish_is_refused_at_once() -> None:
    began, go = threading.Event(), threading.Event()
    refused: list[BaseException] = []

    def make_another() -> str:
        began.set()
        go.wait()
        try:
            skthreading.create_thread("another", abs, args=(1,))
        except SuitkaiseError as error:
            refused.append(error)
        return "done"

    thread = skthreading.create_thread("first", make_another)
    assert began.wait(10)
    ending = in_background(skthreading.shutdown)
    eventually(lambda: skthreading.get_status(thread) == "stopping")
    go.set()
    ending.result(30)
    assert "is stopping" in str(refused[0])
    assert skthreading.get_thread_result(thread) == "done"
    assert skthreading.list_threads() == {"first": "finished"}


def test_a_taken_name_gets_a_number_and_a_wrong_one_a_hint() -> None:
    create_thread("worker", waits)
    with pytest.warns(SpecWarning, match="this thread is called 'worker-2'"):
        assert create_thread("worker", waits).name == "worker-2"
    with pytest.raises(ChildNotFound, match="there is no thread 'wroker'; did you mean 'worker"):
        skthreading.rejoin("wroker")


def test_processes_are_made_elsewhere_and_not_by_processes() -> None:
    with pytest.raises(SpecError, match="Process is a process, not a thread; use xprocess"):
        create_thread(Process)
    with pytest.raises(TypeError, match="pass `waits`, not"):
        create_thread(func=waits())


@pytest.mark.parametrize(
    "function", ["get_thread_name", "get_thread_id", "get_current_loop", "get_last_loop_time", "add_last_result"]
)
def test_the_questions_of_a_thread_about_itself_are_refused_elsewhere(function: str) -> None:
    arguments = ([],) if function == "add_last_result" else ()
    with pytest.raises(RuntimeError, match=rf"{function}\(\) is for the code of a worker"):
        getattr(skthreading, function)(*arguments)
