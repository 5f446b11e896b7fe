"""A worker built where the tree is declared is a recipe."""

from __future__ import annotations

import abc
import copy
import dataclasses
import functools
import math
import pickle
import subprocess
import sys
from typing import Any, ClassVar, Generic, TypeVar

import cloudpickle
import pytest

from suitkaise import Child, Process, SpecError, Thread
from suitkaise.errors import NotBuiltYet
from suitkaise.specs import Recipe
from suitkaise.workers.hooks import build
from suitkaise.workers.worker import Worker

T = TypeVar("T")


class Count(Process):
    def __init__(self, items: list[Any], step: int = 1) -> None:
        self.items = items
        self.step = step
        self.total = 0

    def loop(self) -> None:
        self.total += self.step


class Greeter(Process):
    pass


def live(worker: Any) -> Any:
    """The worker as its own process builds it; nothing here calls its life."""
    return build(worker.__recipe__, life=None)  # type: ignore[arg-type]


# ---------------------------------------------------------------- what is recorded
def test_a_recipe_is_the_class_and_the_arguments() -> None:
    assert Count([1], step=2).__recipe__ == Recipe(Count, ([1],), {"step": 2}, "process")


def test_arguments_are_copied_before_the_constructor_can_change_them() -> None:
    class Greedy(Process):
        def __init__(self, items: list[int], options: dict[str, list[int]]) -> None:
            items.append(99)
            options["more"].append(99)

    items, options = [1], {"more": [2]}
    recipe = Greedy(items, options=options).__recipe__
    assert (recipe.args, recipe.kwargs) == (([1],), {"options": {"more": [2]}})
    assert items == [1, 99]


def test_arguments_that_change_after_the_declaration_do_not_change_the_recipe() -> None:
    items = [1]
    worker = Count(items)
    items.append(2)
    assert live(worker).items == [1]


def test_a_thread_shares_its_arguments_with_who_declared_it() -> None:
    class Collect(Thread):
        def __init__(self, found: list[int]) -> None:
            self.found = found

    found: list[int] = []
    assert live(Collect(found)).found is found


def test_the_constructor_of_the_base_may_be_forgotten() -> None:
    worker = live(Count([1]))
    assert (worker.name, worker.num_loops, worker.current_loop) == (None, math.inf, 0)


def test_the_constructor_of_the_base_takes_a_name_and_a_number_of_loops() -> None:
    class Named(Process):
        def __init__(self) -> None:
            super().__init__("bob", num_loops=3)

    worker = Named()
    assert (worker.name, worker.num_loops) == ("bob", 3)
    child = Child(worker, restart="transient")
    assert (child.id, child.join_after) == ("bob", 3)


def test_a_worker_may_have_a_constructor_with_keywords_only() -> None:
    class Strict(Process):
        def __init__(self, *, folder: str) -> None:
            self.folder = folder

    assert live(Strict(folder="a")).folder == "a"


def test_a_constructor_that_fails_fails_where_the_worker_is_declared() -> None:
    class Picky(Process):
        def __init__(self, size: int) -> None:
            raise ValueError(size)

    with pytest.raises(ValueError, match="7"):
        Picky(7)


# ---------------------------------------------------------------- sealed
def test_an_attribute_that_is_set_from_outside_is_refused_and_the_error_says_why() -> None:
    worker = Count([1])
    with pytest.raises(AttributeError, match=r"Count\.step: this worker is a recipe.*would be lost.*constructor"):
        worker.step = 5
    assert worker.step == 1


def test_a_new_attribute_from_outside_is_refused_too() -> None:
    with pytest.raises(AttributeError, match="would be lost"):
        Count([1]).other = 5  # type: ignore[attr-defined]


def test_setattr_from_outside_is_refused() -> None:
    with pytest.raises(AttributeError, match="would be lost"):
        setattr(Count([1]), "step", 5)  # noqa: B010


def test_an_attribute_cannot_be_deleted_from_outside() -> None:
    worker = Count([1])
    with pytest.raises(AttributeError, match="would be lost"):
        del worker.step
    assert worker.step == 1


def test_a_function_that_gets_the_worker_is_outside_even_if_it_calls_it_self() -> None:
    worker = Count([1])

    def change(other: int, self: Any) -> None:
        self.step = other

    with pytest.raises(AttributeError, match="would be lost"):
        change(3, worker)


def test_a_bare_worker_can_be_unit_tested_since_its_own_methods_may_assign() -> None:
    worker = Count([1], step=3)
    worker.loop()
    worker.loop()
    assert worker.total == 6


def test_its_own_methods_may_assign_in_nested_functions_of_the_same_self() -> None:
    class Nested(Process):
        def work(self) -> None:
            def inner(self: Any) -> None:
                self.done = True

            inner(self)
            [setattr(self, "number", n) for n in (1, 2)]

    worker = Nested()
    worker.work()
    assert (worker.done, worker.number) == (True, 2)  # type: ignore[attr-defined]


def test_properties_with_a_setter_work_from_inside_and_are_sealed_from_outside() -> None:
    class Tuned(Process):
        def __init__(self) -> None:
            self.speed = 1

        @property
        def speed(self) -> int:
            return self._speed

        @speed.setter
        def speed(self, value: int) -> None:
            self._speed = value

        def faster(self) -> None:
            self.speed += 1

    worker = Tuned()
    worker.faster()
    assert worker.speed == 2
    with pytest.raises(AttributeError, match="would be lost"):
        worker.speed = 9


def test_a_setattr_of_the_class_is_still_called_for_its_own_assignments() -> None:
    class Watched(Process):
        def __setattr__(self, name: str, value: Any) -> None:
            super().__setattr__(name, value * 2)

        def work(self) -> None:
            self.value = 21

    worker = Watched()
    worker.work()
    assert worker.value == 42


def test_a_cached_property_works_on_a_recipe() -> None:
    class Cached(Process):
        @functools.cached_property
        def answer(self) -> int:
            return 42

    assert Cached().answer == 42


def test_the_running_worker_is_not_sealed() -> None:
    worker = live(Count([1]))
    worker.step = 5
    assert worker.step == 5
    assert type(worker) is Count


def test_a_recipe_looks_like_its_class() -> None:
    worker = Count([1])
    assert isinstance(worker, Count)
    assert (type(worker).__name__, type(worker).__module__) == ("Count", __name__)
    assert repr(worker).startswith(f"<{__name__}.Count object")


def test_looking_at_the_type_of_a_recipe_does_not_confuse_the_class() -> None:
    class Kept(Process):
        pass

    assert issubclass(Kept, type(Kept())) is False
    assert issubclass(Kept, Kept)
    assert isinstance(live(Kept()), Kept)


def test_a_class_that_registers_its_subclasses_never_sees_the_sealed_ones() -> None:
    found: list[str] = []

    class Plugin(Process):
        def __init_subclass__(cls, *, tag: str) -> None:
            super().__init_subclass__()
            found.append(tag)

    class One(Plugin, tag="one"):
        pass

    One()
    One()
    assert found == ["one"]


def test_a_running_worker_cannot_be_sent() -> None:
    with pytest.raises(TypeError, match=r"a running Count cannot be sent; send its ref"):
        pickle.dumps(live(Count([1])))


# ---------------------------------------------------------------- reserved names
GIVEN = ["path", "pid", "copy", "current_loop", "last_loop", "last_loop_time", "last_result", "recalled", "log",
         "metadata", "ref"]  # fmt: skip
CALLED = ["rejoin", "skip_and_rejoin", "force_finish", "wait", "whereis", "generate_loop_time_report", "cleanup",
          "get_current_loop", "checkpoint", "start_thread", "monitor", "demonitor", "link", "unlink"]  # fmt: skip


@pytest.mark.parametrize("name", [*GIVEN, *CALLED])
def test_a_reserved_name_cannot_be_assigned_in_the_constructor(name: str) -> None:
    class Careless(Process):
        def __init__(self) -> None:
            setattr(self, name, 1)

    with pytest.raises(AttributeError, match=rf"Careless\.{name} is given by the runtime.*choose another name"):
        Careless()


@pytest.mark.parametrize("name", [*GIVEN, *CALLED])
def test_a_reserved_name_cannot_be_assigned_in_a_method(name: str) -> None:
    class Careless(Process):
        def work(self) -> None:
            setattr(self, name, 1)

    with pytest.raises(AttributeError, match=rf"Careless\.{name} is given by the runtime.*choose another name"):
        Careless().work()


@pytest.mark.parametrize("name", [*GIVEN, *CALLED])
def test_a_reserved_name_cannot_be_redefined_in_a_class_body(name: str) -> None:
    with pytest.raises(SpecError, match=rf"Careless\.{name} is given by the runtime.*choose another name"):
        type(Process)("Careless", (Process,), {name: None})


def test_a_mixin_that_hides_a_reserved_name_is_refused() -> None:
    class Waiting:
        def wait(self) -> None: ...

    with pytest.raises(SpecError, match=r"Careless\.wait is given by the runtime"):

        class Careless(Waiting, Process):  # type: ignore[misc]
            pass


def test_a_mixin_behind_the_worker_hides_nothing() -> None:
    class Waiting:
        def wait(self) -> None: ...

    class Careful(Process, Waiting):  # type: ignore[misc]
        pass

    assert Careful.wait is Worker.wait


def test_number_of_loops_is_not_assigned_but_given_to_the_constructor_or_the_class() -> None:
    class Careless(Process):
        def __init__(self) -> None:
            self.num_loops = 3

    with pytest.raises(AttributeError, match=r"super\(\).__init__\(num_loops=3\), or num_loops = ... in the class"):
        Careless()


@pytest.mark.parametrize("number", [0, -1, 2.5, math.nan, True, "3", [1]])
def test_s05_a_number_of_loops_that_is_none_is_refused_by_the_constructor(number: Any) -> None:
    with pytest.raises(SpecError, match="Greeter: num_loops must be a number of loops >= 1"):
        Greeter(num_loops=number)


def test_name_and_tree_may_be_assigned() -> None:
    class Free(Process):
        def __init__(self) -> None:
            self.name = "fred"
            self.tree = "an oak"

    worker = Free()
    assert (worker.name, worker.tree, Child(worker).id) == ("fred", "an oak", "fred")


def test_name_and_tree_may_be_redefined_in_a_class_body() -> None:
    class Free(Process):
        name = "fred"
        tree = "an oak"

    assert (Free().name, Free().tree) == ("fred", "an oak")


def test_background_threads_are_refused_as_long_as_they_are_not_built() -> None:
    with pytest.raises(NotBuiltYet, match=r"Careless\.background is not built yet"):

        class Careless(Process):
            background = (print,)


# ---------------------------------------------------------------- all kinds of classes
def test_a_worker_class_can_be_derived_from() -> None:
    class More(Count):
        def __init__(self) -> None:
            super().__init__([1], step=10)

        def loop(self) -> None:
            super().loop()
            self.total += 1

    worker = More()
    worker.loop()
    assert worker.total == 11
    assert worker.__recipe__ == Recipe(More, (), {}, "process")


class Doer(abc.ABC):
    @abc.abstractmethod
    def do(self) -> str: ...


def test_an_abstract_mixin_keeps_its_promise() -> None:
    class Lazy(Doer, Process):
        pass

    class Busy(Doer, Process):
        def do(self) -> str:
            return "done"

    with pytest.raises(TypeError, match="abstract"):
        Lazy()  # type: ignore[abstract]
    assert Busy().do() == "done"
    assert isinstance(Busy(), Doer)
    assert live(Busy()).do() == "done"


class Box(Process, Generic[T]):
    def __init__(self, content: T) -> None:
        self.content = content


def test_a_generic_worker_can_be_made_with_and_without_its_parameter() -> None:
    assert Box(1).__recipe__ == Box[int](1).__recipe__
    assert live(Box[str]("a")).content == "a"


@dataclasses.dataclass
class Scan(Process):
    folder: str
    pattern: str = "*"
    found: list[str] = dataclasses.field(default_factory=list)

    def loop(self) -> None:
        self.found.append(self.folder)


@dataclasses.dataclass(frozen=True)
class Fixed(Process):
    folder: str


def test_a_dataclass_can_be_a_worker() -> None:
    worker = Scan("a")
    worker.loop()
    assert worker.found == ["a"]
    assert Scan("a") == Scan("a", found=[])
    assert (live(worker).folder, live(worker).found) == ("a", [])
    with pytest.raises(AttributeError, match="would be lost"):
        worker.folder = "b"


def test_a_frozen_dataclass_can_be_a_worker() -> None:
    worker = live(Fixed("a"))
    assert worker.folder == "a"
    with pytest.raises(dataclasses.FrozenInstanceError):
        worker.folder = "b"
    with pytest.raises(AttributeError):
        Fixed("a").folder = "b"  # type: ignore[misc]


class Slotted:
    __slots__ = ("depth",)

    def __init__(self) -> None:
        self.depth = 3


def test_a_mixin_with_slots_can_be_part_of_a_worker() -> None:
    class Deep(Slotted, Process):
        def dig(self) -> None:
            self.depth += 1

    worker = Deep()
    worker.dig()
    assert worker.depth == 4
    with pytest.raises(AttributeError, match="would be lost"):
        worker.depth = 9
    assert live(worker).depth == 3


def test_a_worker_with_a_new_of_its_own_gets_its_arguments() -> None:
    class Counted(Process):
        made: ClassVar[list[int]] = []

        def __new__(cls, number: int) -> Counted:
            cls.made.append(number)
            return super().__new__(cls)

        def __init__(self, number: int) -> None:
            self.number = number

    assert live(Counted(4)).number == 4
    assert Counted.made == [4, 4]


# ---------------------------------------------------------------- travelling
@pytest.mark.parametrize("worker", [Count([1, 2], step=3), Scan("a", pattern="b"), Box[int](1), Fixed("a"), Greeter()])
def test_a_recipe_survives_being_pickled_and_copied(worker: Any) -> None:
    for other in (pickle.loads(pickle.dumps(worker)), copy.copy(worker), copy.deepcopy(worker)):
        assert other.__recipe__ == worker.__recipe__
        assert type(other) is type(worker)


def test_a_recipe_of_a_local_class_survives_being_cloudpickled_to_another_interpreter() -> None:
    class Local(Process):
        def __init__(self, number: int) -> None:
            self.number = number

        def double(self) -> int:
            return super().__hash__() * 0 + self.number * 2

    code = "import sys, pickle; print(pickle.loads(sys.stdin.buffer.read()).double())"
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    try:
        data = cloudpickle.dumps(Local(21))
    finally:
        cloudpickle.unregister_pickle_by_value(sys.modules[__name__])
    run = subprocess.run([sys.executable, "-c", code], input=data, capture_output=True, check=False)
    assert (run.stdout.strip(), run.stderr) == (b"42", b"")


# ---------------------------------------------------------------- options
def test_class_attributes_are_the_defaults_of_options() -> None:
    class Tuned(Process):
        restart = "transient"
        shutdown = 1.5
        significant = True
        join_after = 7
        copies = 2

    child = Child(Tuned)
    assert (child.restart, child.shutdown, child.significant, child.join_after, child.copies) == (
        "transient", 1.5, True, 7, 2,
    )  # fmt: skip
    assert Child(Tuned, join_after=9).join_after == 9


def test_an_option_set_in_the_constructor_goes_before_that_of_the_class() -> None:
    class Tuned(Process):
        restart = "transient"

        def __init__(self) -> None:
            self.restart = "temporary"

    assert Child(Tuned()).restart == "temporary"


def test_the_number_of_loops_of_the_class_is_what_the_worker_reads() -> None:
    class Tuned(Process):
        num_loops = 7

    assert (Tuned().num_loops, Child(Tuned, restart="transient").join_after) == (7, 7)


def test_outside_of_a_tree_what_needs_one_says_so() -> None:
    worker = Greeter()
    for call in (worker.rejoin, worker.skip_and_rejoin, worker.force_finish, worker.cleanup,
                 worker.generate_loop_time_report, lambda: worker.wait(1), lambda: worker.ref,
                 lambda: worker.log):  # fmt: skip
        with pytest.raises(RuntimeError, match="was not started by a supervisor"):
            call()


def test_outside_of_a_tree_its_facts_are_empty() -> None:
    worker = Greeter("bob")
    assert (worker.path, worker.pid, worker.copy, worker.current_loop) == (None, None, None, 0)
    assert (worker.last_loop, worker.last_loop_time, worker.last_result, worker.recalled) == (False, 0.0, None, None)
    assert worker.metadata == {
        "name": "bob", "pid": None, "current_loop": 0, "num_loops": math.inf, "remove_on_process_join": True,
    }  # fmt: skip


def test_a_function_can_be_a_worker() -> None:
    assert Process.of(print, 1, end="").kind == "process"
    recipe = Thread.of(math.gcd, 12, 18)
    assert build(recipe, life=None).loop() == 6  # type: ignore[arg-type]
