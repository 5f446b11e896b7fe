"""How values flow from the blocks of a setup to the main function, and what a setup and its worker accept."""

from __future__ import annotations

import asyncio
import functools
import math
import threading
import warnings
from typing import Any

import pytest

from suitkaise import CaptureError, Child, NotSerializable, SpecError, Supervisor, current_worker
from suitkaise.concept.setup import AfterLoop, BeforeLoop, BuiltSetup, OnFinish, OnStart, ProcessSetup, ThreadSetup
from suitkaise.concept.setup_worker import worker_for
from suitkaise.messaging import codec
from tests.concept.blocks import run

# --- values that flow by themselves ---


def test_a_name_goes_to_the_parameter_of_that_name_in_every_loop() -> None:
    got: list[Any] = []

    def main(a: str, pid: int, n: int, *, k: str, other: str = "default") -> None:
        got.append((a, pid, n, k, other))

    with ProcessSetup() as setup:
        with OnStart():
            pid, n, unrelated = 1, 0, 5
            a, k = "is given as a positional argument", "is given by the caller"
        with BeforeLoop():
            n += 1
        with AfterLoop():
            pid = 99
    run(setup, main, "A", loops=2, k="K")
    assert got == [("A", 1, 1, "K", "default"), ("A", 1, 2, "K", "default")]


def test_a_name_that_was_not_set_or_was_deleted_does_not_go() -> None:
    got: list[Any] = []

    def main(a: int = 0, b: int = 0) -> None:
        got.append((a, b))

    with ProcessSetup() as setup:
        with OnStart():
            b = 1
            del b
            if got:
                a = 1
    run(setup, main)
    assert got == [(0, 0)]


def test_the_kind_of_statement_does_not_matter_for_a_parameter() -> None:
    got: list[Any] = []

    def main(json: Any, i: int, helper: Any) -> None:
        got.append((json.__name__, i, helper()))

    with ProcessSetup() as setup:
        with OnStart():
            import json

            def helper() -> int:
                return 3

            for i in range(3):
                pass
    run(setup, main)
    assert got == [("json", 2, 3)]


def test_any_keywords_get_what_the_blocks_assign() -> None:
    got: list[Any] = []

    def main(first: int, **rest: Any) -> None:
        got.append((first, rest))

    with ProcessSetup() as setup:
        with OnStart() as start:
            import json

            def helper() -> None: ...

            for i in range(2):
                pass
            _private = 1
            first = "is positional"
            bus, (x, *y) = "bus", (1, 2)
            if z := 3:
                count = 0
        with BeforeLoop():
            count += 1
    run(setup, main, 1)
    assert got == [(1, {"bus": "bus", "x": 1, "y": [2], "z": 3, "count": 1})]


def test_a_decorator_may_give_the_function_arguments_of_its_own_and_take_others() -> None:
    got: list[Any] = []

    def with_one(function: Any) -> Any:
        @functools.wraps(function)
        def call(*args: Any, times: int = 1, **kwargs: Any) -> None:
            function(1, *args, **kwargs, times=times)

        return call

    @with_one
    def given(one: int, two: int, three: int = 3, **rest: int) -> None:
        got.append((one, two, three, rest))

    @lambda function: functools.wraps(function)(lambda two, times: function(two * times))
    def changed(two: int) -> None:
        got.append(two)

    with ProcessSetup() as setup:
        with OnStart():
            two, times = 2, 5
    run(setup, given)
    run(setup, changed)
    assert got == [(1, 2, 3, {"times": 5}), 10]


def test_a_name_does_not_go_to_a_parameter_behind_a_decorator_that_a_positional_argument_fills() -> None:
    got: list[Any] = []

    @lambda function: functools.wraps(function)(lambda *args, **kwargs: function(*args, **kwargs))
    def main(first: str, second: str) -> None:
        got.append((first, second))

    with ProcessSetup() as setup:
        with OnStart():
            first = second = "of the block"
    run(setup, main, "of the call")
    assert got == [("of the call", "of the block")]


def test_any_keywords_come_in_the_same_order_at_each_start() -> None:
    got: list[list[str]] = []

    def main(**rest: Any) -> None:
        got.append(list(rest))

    with ProcessSetup() as setup:
        with OnStart():
            h = g = f = e = d = c = b = a = 1
    run(setup, main)
    assert got == [list("abcdefgh")]


@pytest.mark.parametrize("add_for_next", [False, True])
def test_after_loop_adds_to_the_next_loop_if_it_is_asked_to(add_for_next: bool) -> None:
    got: list[Any] = []

    def main(x: int = 0, y: str | None = None) -> None:
        got.append((x, y))

    with ProcessSetup() as setup:
        with AfterLoop(add_for_next=add_for_next) as after:
            x = len(got)
            if x == 1:
                after.add({"y": "once"})
    run(setup, main, loops=3)
    assert got == ([(0, None), (1, "once"), (2, None)] if add_for_next else [(0, None)] * 3)


def test_a_later_block_takes_precedence() -> None:
    got: list[Any] = []

    def main(a: str, b: str, c: str, d: str) -> None:
        got.append(a + b + c + d)

    with ProcessSetup() as setup:
        with OnStart() as start:
            start.add_these({"b": "s", "c": "s", "d": "s"})
        with BeforeLoop() as before:
            before.add_these({"d": "b"})
        with AfterLoop(add_for_next=True) as after:
            after.add_these({"c": "a", "d": "a"})
    run(setup, main, loops=2, a="g", b="g", c="g", d="g")
    assert got == ["gssb", "gsab"]


# --- add ---


def test_add_takes_a_mapping_and_keywords() -> None:
    got: list[Any] = []

    def main(**rest: Any) -> None:
        got.append(rest)

    with ProcessSetup() as setup:
        with OnStart() as start:
            start.add({"a": 1}, b=2)
            start.add(c=3)
    run(setup, main)
    assert got == [{"a": 1, "b": 2, "c": 3}]


def test_what_was_added_in_one_loop_is_not_added_in_the_next() -> None:
    got: list[Any] = []

    def main(a: int = 0) -> None:
        got.append(a)

    with ProcessSetup() as setup:
        with BeforeLoop() as before:
            if not got:
                before.add(a=1)
    run(setup, main, loops=2)
    assert got == [1, 0]


def test_a_name_that_the_function_does_not_take_is_dropped_with_one_warning() -> None:
    def main(a: int = 1) -> None: ...

    with ProcessSetup() as setup:
        with BeforeLoop() as before:
            before.add_these({"typo": 1, "a": 2})
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run(setup, main, loops=5)
    assert [str(one.message) for one in caught] == ["BeforeLoop adds 'typo', which main() does not take; it is dropped"]
    assert (caught[0].filename, caught[0].lineno) == (__file__, setup.build().blocks[0].line)


def test_a_name_that_is_a_positional_argument_already_is_an_error() -> None:
    def main(a: int) -> None: ...

    with ProcessSetup() as setup:
        with BeforeLoop() as before:
            before.add({"a": 1})
    with pytest.raises(TypeError, match=r"BeforeLoop adds 'a', but main\(\) gets it as a positional argument"):
        run(setup, main, 1)


def test_add_is_for_the_inside_of_a_block() -> None:
    with pytest.raises(RuntimeError, match="inside of the block"):
        OnStart().add({"a": 1})


@pytest.mark.parametrize("wrong", [("a", 5), (["a"],), ({1: 2},), (3,)])
def test_add_refuses_what_is_no_name_with_its_value(wrong: tuple[Any, ...]) -> None:
    with ProcessSetup() as setup:
        with OnStart() as start:
            start.add(*wrong)
    with pytest.raises(TypeError, match=r"OnStart.add\(\) takes names with their values, add\(\{'name': value\}\)"):
        run(setup)


def test_an_attribute_that_is_set_on_a_block_is_refused() -> None:
    with ProcessSetup() as setup:
        with BeforeLoop() as before:
            before.size = 3  # type: ignore[attr-defined]
    with pytest.raises(AttributeError, match=r"BeforeLoop has no attribute 'size' to set; add\(\{'size': ...\}\)"):
        run(setup)


def test_blocks_are_no_attributes_of_the_setup() -> None:
    with ProcessSetup() as setup:
        with OnStart():
            bus: list[str] = []
    owner: Any = setup
    with pytest.raises(AttributeError, match=r"import OnStart, and write `with OnStart\(\):` inside of the setup$"):
        owner.OnStart()
    with pytest.raises(AttributeError, match=r"'ProcessSetup' object has no attribute 'nothing'$"):
        owner.nothing()


def test_add_for_next_is_true_or_false() -> None:
    with pytest.raises(SpecError, match="AfterLoop: add_for_next must be True or False, not 'no'"):
        AfterLoop(add_for_next="no")  # type: ignore[arg-type]


def test_a_function_without_a_signature_gets_what_is_added_and_nothing_else() -> None:
    with ProcessSetup() as setup:
        with OnStart() as start:
            a = 1
            start.add(b=2)
    run(setup, dict)


# --- setups ---


def test_a_setup_without_blocks_is_empty() -> None:
    assert ProcessSetup().build().blocks == ()
    with ProcessSetup() as setup:
        pass
    assert setup.build().blocks == ()
    run(setup.build())


def test_the_setup_and_its_blocks_may_be_written_without_parentheses() -> None:
    with ProcessSetup as setup:
        with OnStart as start:
            start.add(value=1)
        with BeforeLoop:
            other = 2
        with AfterLoop(add_for_next=True):
            pass
    assert [block.kind for block in setup.build().blocks] == ["OnStart", "BeforeLoop", "AfterLoop"]
    with pytest.raises(CaptureError, match=r"`with OnStart\(\)` must stand directly in"):
        with OnStart:
            pass


def test_a_setup_is_built_after_its_with_statement() -> None:
    with pytest.raises(SpecError, match="after the `with` statement"):
        with ProcessSetup() as setup:
            setup.build()
    with pytest.raises(SpecError, match="after the `with` statement"):
        setup.build()


def test_an_option_that_does_not_exist_is_an_error() -> None:
    with pytest.raises(
        AttributeError, match=r"ProcessSetup has no option 'num_loops'; .* go into the kwargs of create_"
    ):
        ProcessSetup().num_loops = 3  # type: ignore[attr-defined]
    with pytest.raises(AttributeError, match="no option 'loop_infinitly'; it has loop_infinitely and num_loops"):
        ThreadSetup().loop_infinitly = True  # type: ignore[attr-defined]


def test_a_thread_setup_loops_infinitely_or_a_number_of_times() -> None:
    setup = ThreadSetup()
    assert setup.build().num_loops is None
    setup.loop_infinitely = True
    assert setup.build().num_loops == math.inf
    setup.num_loops = 3
    with pytest.raises(SpecError, match="not both"):
        setup.build()
    setup.loop_infinitely = "no"  # type: ignore[assignment]
    with pytest.raises(SpecError, match="ThreadSetup: loop_infinitely must be True or False, not 'no'"):
        setup.build()
    setup.loop_infinitely = False
    setup.num_loops = 0
    with pytest.raises(SpecError, match="num_loops"):
        setup.build()


def test_a_setup_itself_cannot_be_sent() -> None:
    def make() -> BuiltSetup:
        with ProcessSetup() as setup:
            with OnStart():
                setup.build()
        return setup.build()

    with pytest.raises(NotSerializable, match=r"a ProcessSetup cannot be sent; send what its build\(\) returns"):
        codec.dumps(make())


def test_a_setup_with_a_lock_from_around_cannot_be_sent() -> None:
    def make() -> BuiltSetup:
        lock = threading.Lock()
        with ProcessSetup() as setup:
            with OnStart():
                lock.acquire()
        return setup.build()

    with pytest.raises(NotSerializable, match=r"^value\.outer\['lock'\]: cannot pickle '_thread.lock' object"):
        codec.dumps(make())


def test_a_block_of_a_derived_class_is_of_the_same_kind() -> None:
    class Quickly(OnStart): ...

    got: list[int] = []
    with ProcessSetup() as setup:
        with Quickly():
            got.append(1)
    run(setup)
    assert got == [1]


# --- workers in threads ---


def finished(recipe: Any, **options: Any) -> Any:
    """Run a worker until it has finished, and return its result."""
    with Supervisor("app", Child(recipe, id="it", restart="transient", **options)).start() as running:
        return running["it"].result(timeout=20)


def test_a_process_calls_any_callable_again_and_again_until_it_is_joined() -> None:
    assert finished(worker_for("process", dict, None, (), {"a": 1}), join_after=2) == {"a": 1}
    assert finished(worker_for("process", max, None, (1, 2)), join_after=2) == 2


@pytest.mark.parametrize("setup", [None, ThreadSetup().build(), ProcessSetup().build()])
def test_a_thread_calls_its_function_once_by_default(setup: BuiltSetup | None) -> None:
    got: list[int] = []
    finished(worker_for("thread", got.append, setup, (1,)))
    assert got == [1]


def test_a_thread_calls_its_function_as_often_as_the_setup_asks_for() -> None:
    got: list[int] = []
    setup = ThreadSetup()
    setup.num_loops = 3
    finished(worker_for("thread", got.append, setup.build(), (1,)))
    assert got == [1, 1, 1]
    finished(worker_for("thread", got.append, setup.build(), (1,)), join_after=2)
    assert got == [1] * 5


def test_a_thread_that_loops_infinitely_ends_when_it_is_asked_to() -> None:
    got: list[Any] = []
    looped = threading.Event()
    with ThreadSetup() as setup:
        setup.loop_infinitely = True
        with OnStart():
            results: list[int] = []
        with AfterLoop():
            results.append(current_worker().last_result)
            if len(results) > 10:
                looped.set()
        with OnFinish():
            got.append(results)

    recipe = worker_for("thread", lambda: 7, setup.build())
    with Supervisor("app", Child(recipe, id="it", restart="transient")).start() as running:
        assert looped.wait(20)
        running["it"].rejoin()
        running["it"].join(timeout=20)
        assert [line.id for line in running.which_children()] == ["it"]
    assert set(got[0]) == {7}
    assert len(got[0]) > 10


def test_an_async_function_runs_between_plain_blocks() -> None:
    got: list[Any] = []

    async def main(n: int) -> int:
        await asyncio.sleep(0)
        return n * 2

    with ThreadSetup() as setup:
        setup.num_loops = 2
        with OnStart():
            n = 0
        with BeforeLoop():
            n += 1
        with AfterLoop():
            got.append(current_worker().last_result)
    assert finished(worker_for("thread", main, setup.build())) == 4
    assert got == [2, 4]


def test_four_threads_of_one_setup_share_no_variables() -> None:
    got: list[int] = []
    with ThreadSetup() as setup:
        setup.num_loops = 50
        with OnStart():
            k = 0
        with BeforeLoop():
            k += 1
        with OnFinish():
            got.append(k)
    recipe = worker_for("thread", lambda: None, setup.build())
    with Supervisor("app", Child(recipe, id="it", copies=4, restart="transient")).start() as running:
        for n in range(4):
            running[f"it-{n}"].join(timeout=20)
    assert got == [50] * 4


# --- what is refused before anything starts ---


def test_arguments_that_the_function_does_not_take_are_refused_where_the_worker_is_made() -> None:
    def main(a: int) -> None: ...

    with pytest.raises(SpecError, match=r"main\(a: .*too many positional arguments"):
        worker_for("process", main, None, (1, 2))
    with pytest.raises(SpecError, match="unexpected keyword argument 'b'"):
        worker_for("process", main, None, (), {"b": 1})
    worker_for("process", main, None)


def test_an_argument_that_nothing_gives_is_refused_where_the_worker_is_made() -> None:
    def main(x: int, y: int, z: int = 0) -> None: ...

    with ProcessSetup() as setup:
        with OnStart() as start:
            x = 1
        with AfterLoop(add_for_next=True):
            y = 2
    with pytest.raises(SpecError, match=r"main\(x.*neither the call nor an earlier block gives 'y'"):
        worker_for("process", main, setup.build())
    worker_for("process", main, setup.build(), None, {"y": 1})
    worker_for("process", main, setup.build(), (1, 2))
    with ProcessSetup() as setup:
        with OnStart() as start:
            print(start)  # which may call its add
    worker_for("thread", main, setup.build())


def test_an_argument_that_is_positional_only_comes_from_the_call_alone() -> None:
    def main(x: int, /) -> None: ...

    with ProcessSetup() as setup:
        with OnStart():
            x = 1
    with pytest.raises(SpecError, match="args do not give 'x'"):
        worker_for("process", main, setup.build())


def test_what_is_no_function_and_no_built_setup_is_refused() -> None:
    with pytest.raises(SpecError, match="pass it without calling it"):
        worker_for("process", None)  # type: ignore[arg-type]
    with pytest.raises(SpecError, match="args must be a tuple"):
        worker_for("process", print, None, "text")  # type: ignore[arg-type]
    with pytest.raises(SpecError, match=r"what setup\.build\(\) returns"):
        worker_for("process", print, ProcessSetup())  # type: ignore[arg-type]


def test_an_argument_that_a_block_has_not_set_after_all_is_a_crash_that_names_the_function() -> None:
    got: list[int] = []

    def main(a: int) -> None: ...

    with ProcessSetup() as setup:
        with OnStart():
            if got:
                a = 1
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'a'"):
        run(setup, main)
