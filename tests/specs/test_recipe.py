"""A worker instance that is built where the tree is declared is a recipe."""

from __future__ import annotations

import abc
import copy
import dataclasses
import functools
import inspect
import math
import pickle
import subprocess
import sys
from typing import Any, ClassVar, Generic, TypeVar

import cloudpickle
import pytest

from suitkaise import Child, Command, Process, SpecError, Supervisor, Thread
from suitkaise.skthreading import SKThread
from suitkaise.specs import Recipe
from suitkaise.workers.background import background_children
from suitkaise.workers.hooks import build
from suitkaise.workers.worker import HOOKS, Worker
from suitkaise.workers.worker_type import OVERRIDABLE, RESERVED, SETTABLE, ReadOnly

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


class InThread(Thread):
    def __init__(self, number: int) -> None:
        self.number = number


def live(worker: Any) -> Any:
    """The worker as its own process builds it, without a context."""
    return build(worker.__recipe__, None)


# ---------------------------------------------------------------- the record of class and arguments
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


def test_a_thread_shares_its_arguments_with_the_declaration() -> None:
    class Collect(Thread):
        def __init__(self, found: list[int]) -> None:
            self.found = found

    found: list[int] = []
    assert live(Collect(found)).found is found


def test_the_call_of_the_base_constructor_may_be_left_out() -> None:
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


def test_the_signature_of_a_worker_class_is_that_of_its_constructor() -> None:
    class Bare(Process):
        def __init__(*args: Any) -> None:
            pass

    class Own(Process):
        __signature__ = inspect.Signature()

    assert str(inspect.signature(Count)) == "(items: 'list[Any]', step: 'int' = 1) -> 'None'"
    assert list(inspect.signature(Greeter).parameters) == ["name", "num_loops"]
    assert list(inspect.signature(Command).parameters)[:2] == ["argv", "ready"]
    assert list(inspect.signature(Bare).parameters) == ["args"]
    assert inspect.signature(Own) == inspect.Signature()
    assert "name" in inspect.signature(type(Process)).parameters
    assert not hasattr(Greeter(), "__signature__")


def test_a_constructor_that_fails_fails_where_the_worker_is_declared() -> None:
    class Picky(Process):
        def __init__(self, size: int) -> None:
            raise ValueError(size)

    with pytest.raises(ValueError, match="7"):
        Picky(7)


# ---------------------------------------------------------------- attributes of a recipe
def declare(worker: Any) -> Any:
    return Supervisor("app", worker)


@pytest.mark.parametrize("declare", [Child, declare, lambda worker: Child(Greeter).replace(what=worker)],
                         ids=["Child", "Supervisor", "replace"])  # fmt: skip
def test_an_attribute_that_was_changed_after_construction_is_refused_where_the_worker_is_declared(declare: Any) -> None:
    worker = Count([1])
    worker.step = 5
    with pytest.raises(SpecError, match=r"Count\.step was changed.*is a recipe.*would be lost.*constructor.*on_start"):
        declare(worker)


def test_a_new_attribute_is_refused_too() -> None:
    worker = Count([1])
    worker.other = 5  # type: ignore[attr-defined]
    with pytest.raises(SpecError, match=r"Count\.other was set after the constructor had returned"):
        Child(worker)


@pytest.mark.parametrize("cls", [Process, Thread, SKThread])
@pytest.mark.parametrize("name", ["tree", "trap_exits"])
def test_an_attribute_that_the_runtime_keeps_elsewhere_is_refused_by_the_name_that_was_set(cls: Any, name: str) -> None:
    worker = type("Watcher", (cls,), {})()
    setattr(worker, name, True)
    with pytest.raises(SpecError, match=rf"^Watcher\.{name} was set after the constructor had returned"):
        Child(worker)


@pytest.mark.parametrize("cls", [Process, Thread, SKThread])
def test_a_number_of_loops_that_is_given_after_construction_is_refused_by_that_name(cls: Any) -> None:
    worker = type("Watcher", (cls,), {})()
    cls.__init__(worker, num_loops=3)
    with pytest.raises(SpecError, match=r"^Watcher\.num_loops was set after the constructor had returned"):
        Child(worker)


def test_a_deleted_attribute_is_refused_too() -> None:
    worker = Count([1])
    del worker.step
    with pytest.raises(SpecError, match=r"Count\.step was deleted"):
        Child(worker)


def test_a_changed_name_is_refused_too() -> None:
    worker = Greeter("bob")
    worker.name = "fred"
    with pytest.raises(SpecError, match=r"Greeter\.name was changed"):
        Child(worker)


def test_an_attribute_that_was_changed_after_the_declaration_is_refused_at_the_start() -> None:
    worker = InThread(1)
    tree = Supervisor("app", Supervisor("below", Child(worker, copies=2).replace(restart="transient")))
    with tree.start():
        pass
    worker.number = 2
    with pytest.raises(SpecError, match=r"InThread\.number was changed"):
        tree.start()


def test_an_attribute_that_was_changed_is_refused_by_start_child() -> None:
    worker = InThread(1)
    child = Child(worker)
    worker.number = 2
    with Supervisor("app").start() as running:
        with pytest.raises(SpecError, match=r"InThread\.number was changed"):
            running.start_child(child)
        assert running.which_children() == []


def test_an_attribute_that_is_set_back_is_no_change() -> None:
    worker = Count([1])
    before, worker.step = worker.step, 5
    worker.step = before
    assert Child(worker).id == "count"


def test_contents_of_a_container_are_not_compared() -> None:
    items = [1]
    worker = Count(items)
    items.append(2)
    assert live(Child(worker).what.worker).items == [1]


def test_a_cached_property_is_no_assignment() -> None:
    class Cached(Process):
        @functools.cached_property
        def answer(self) -> int:
            return 42

    worker = Cached()
    assert worker.answer == 42
    assert Child(worker).id == "cached"


def test_attributes_in_slots_are_compared_too() -> None:
    worker = Deep()
    worker.dig()
    with pytest.raises(SpecError, match=r"Deep\.depth was changed"):
        Child(worker)
    worker = Deep()
    del worker.depth
    with pytest.raises(SpecError, match=r"Deep\.depth was deleted"):
        Child(worker)


def test_a_declaration_that_was_sent_has_nothing_to_compare() -> None:
    worker = Count([1])
    child = pickle.loads(pickle.dumps(Child(worker)))
    assert child.what == worker.__recipe__
    assert child.what.worker is None


def test_a_bare_worker_can_be_unit_tested() -> None:
    worker = Count([1], step=3)
    worker.loop()
    worker.loop()
    worker.step = 1
    worker.loop()
    assert worker.total == 7


def test_properties_with_a_setter_work() -> None:
    class Tuned(Process):
        def __init__(self) -> None:
            self.speed = 1

        @property
        def speed(self) -> int:
            return self._speed

        @speed.setter
        def speed(self, value: int) -> None:
            self._speed = value

    worker = Tuned()
    assert Child(worker).id == "tuned"
    worker.speed += 1
    with pytest.raises(SpecError, match=r"Tuned\._speed was changed"):
        Child(worker)


def test_a_setattr_of_the_class_is_called_for_its_own_assignments_only() -> None:
    class Watched(Process):
        def __init__(self) -> None:
            self.seen: list[str]
            self.value = 21

        def __setattr__(self, name: str, value: Any) -> None:
            self.__dict__.setdefault("names", []).append(name)
            super().__setattr__(name, value * 2)

    assert (Watched().value, Watched().names) == (42, ["value"])  # type: ignore[attr-defined]
    assert (live(Watched()).value, live(Watched()).names) == (42, ["value"])
    assert Child(Watched()).id == "watched"


@pytest.mark.parametrize("make", [lambda: Count([1]), lambda: live(Count([1]))], ids=["recipe", "running"])
def test_an_instance_has_its_own_class_and_a_plain_setattr(make: Any) -> None:
    worker = make()
    assert type(worker) is Count
    assert type(worker).__setattr__ is object.__setattr__
    assert type(worker).__delattr__ is object.__delattr__


def test_a_class_that_registers_its_subclasses_sees_those_that_the_user_has_written() -> None:
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
ATTRIBUTES = {"pid", "current_loop", "last_loop", "last_loop_time", "last_result", "recalled", "ref", "finish_reason"}


def test_every_public_name_of_a_worker_is_in_one_of_the_lists() -> None:
    names = {name for name in vars(Worker) if not name.startswith("_")}
    assert names == {*HOOKS, *RESERVED, *SETTABLE, *OVERRIDABLE}
    assert len(names) == len(HOOKS) + len(RESERVED) + len(SETTABLE) + len(OVERRIDABLE)
    assert {name for name in RESERVED if isinstance(vars(Worker)[name], ReadOnly)} == ATTRIBUTES


@pytest.mark.parametrize("name", sorted(RESERVED))
def test_a_reserved_name_cannot_be_assigned_in_the_constructor(name: str) -> None:
    class Careless(Process):
        def __init__(self) -> None:
            setattr(self, name, 1)

    with pytest.raises(AttributeError, match=rf"Careless\.{name} is given by the runtime.*choose another name"):
        Careless()


@pytest.mark.parametrize("name", sorted(ATTRIBUTES))
@pytest.mark.parametrize("make", [lambda worker: worker, live], ids=["recipe", "running"])
def test_a_reserved_attribute_cannot_be_assigned_anywhere(make: Any, name: str) -> None:
    with pytest.raises(AttributeError, match=rf"Greeter\.{name} is given by the runtime.*choose another name"):
        setattr(make(Greeter()), name, 1)


@pytest.mark.parametrize("name", sorted(RESERVED))
def test_a_reserved_name_cannot_be_redefined_in_a_class_body(name: str) -> None:
    with pytest.raises(SpecError, match=rf"Careless\.{name} is given by the runtime.*choose another name"):
        type(Process)("Careless", (Process,), {name: None})


@pytest.mark.parametrize("base", [Process, Thread])
def test_a_hook_may_be_replaced_by_a_function_and_not_by_a_value(base: Any) -> None:
    class Hides(base):
        def __init__(self, hook: Any) -> None:
            self.on_receive = hook

        def on_receive(self, message: str) -> str:
            return message

    assert Hides(str.upper).on_receive("a") == "A"
    with pytest.raises(AttributeError, match=r"Hides\.on_receive is a hook, so 'on_receive' cannot be a value"):
        Hides(3)


@pytest.mark.parametrize("base", [Process, Thread])
def test_a_hook_that_the_class_does_not_have_cannot_be_assigned_but_the_name_can_be_used(base: Any) -> None:
    class Assigns(base):
        def __init__(self, value: Any) -> None:
            self.loop = value

    with pytest.raises(AttributeError, match=r"Assigns\.loop is assigned, and nothing would call it"):
        Assigns(print)
    assert Assigns("an event loop").loop == "an event loop"


# ---------------------------------------------------------------- names that users need for their own
@pytest.mark.parametrize("base", [Process, Thread])
@pytest.mark.parametrize("name", sorted(OVERRIDABLE))
class TestOverridableNames:
    def test_the_constructor_may_assign_the_name(self, base: Any, name: str) -> None:
        class Mine(base):
            def __init__(self, value: str) -> None:
                setattr(self, name, value)

        assert [getattr(made, name) for made in (Mine("x"), live(Child(Mine("x")).what.worker))] == ["x", "x"]
        assert vars(Mine("x"))[name] == "x"

    def test_a_class_attribute_may_have_the_name(self, base: Any, name: str) -> None:
        assert getattr(live(type("Mine", (base,), {name: "x"})()), name) == "x"

    def test_a_method_may_have_the_name(self, base: Any, name: str) -> None:
        assert getattr(live(type("Mine", (base,), {name: lambda self, text: text * 2})()), name)("x") == "xx"

    def test_a_property_may_have_the_name(self, base: Any, name: str) -> None:
        assert getattr(live(type("Mine", (base,), {name: property(lambda self: "x")})()), name) == "x"

    def test_a_field_of_a_dataclass_may_have_the_name_with_and_without_a_default(self, base: Any, name: str) -> None:
        for fields in ([(name, str)], [(name, str, dataclasses.field(default="y"))]):
            made = dataclasses.make_dataclass("Mine", fields, bases=(base,))  # type: ignore[arg-type]
            assert getattr(live(made("x")), name) == "x"
        assert getattr(live(made()), name) == "y"
        with pytest.raises(TypeError, match="missing 1 required positional argument"):
            dataclasses.make_dataclass("Mine", [(name, str)], bases=(base,))()

    def test_a_slot_may_have_the_name(self, base: Any, name: str) -> None:
        mixin = type("Mixin", (), {"__slots__": (name,)})
        worker = live(type("Mine", (mixin, base), {})())
        setattr(worker, name, "x")
        assert getattr(worker, name) == "x"


def test_private_names_that_users_write_all_the_time_are_free() -> None:
    class Mine(Process):
        _kind = _hooks = _reserved = _running = _life = "mine"
        kind = "csv"
        hooks = ("mine",)

        def __init__(self) -> None:
            self._context = self._recipe = self._worker = self._state = "mine"

    assert Child(Mine()).kind == "process"
    assert live(Mine())._context == "mine"


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


def test_an_assignment_to_num_loops_is_refused_with_the_alternatives() -> None:
    class Careless(Process):
        def __init__(self) -> None:
            self.num_loops = 3

    with pytest.raises(AttributeError, match=r"super\(\).__init__\(num_loops=3\), or num_loops = ... in the class"):
        Careless()


@pytest.mark.parametrize("number", [0, -1, 2.5, math.nan, True, "3", [1]])
def test_s05_an_invalid_number_of_loops_is_refused_by_the_constructor(number: Any) -> None:
    with pytest.raises(SpecError, match="Greeter: num_loops must be a number of loops >= 1"):
        Greeter(num_loops=number)


@pytest.mark.parametrize("argument", [5, 2.5, ["a"], b"a"])
def test_an_argument_for_a_class_without_a_constructor_of_its_own_is_no_name(argument: Any) -> None:
    with pytest.raises(SpecError, match=r"Greeter: the name must be a text, not .*; .* the class needs an __init__"):
        Greeter(argument)


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


@pytest.mark.parametrize(
    "background, wrong",
    [
        (
            "blue",
            r"Careless\.background must be a tuple of Thread workers, functions, or Child\(\.\.\.\) of these",
        ),
        (
            (Process,),
            r"Careless\.background: 'process' is a process, and background threads are threads; derive it",
        ),
        ((Child(print),), r"Careless\.background: 'print' is a process.*use Child\(Thread\.of\(function\), \.\.\.\)"),
        ((Supervisor("inner"),), r"Careless\.background: 'inner' is a supervisor, and .*; give a Thread"),
        ((print, Thread.of(print)), r"Careless\.background': two children have the id 'print'"),
        ((42,), "expected a worker, a worker class, a Supervisor or a function, not int"),
    ],
)
def test_a_background_that_is_no_thread_is_refused_at_the_class_statement(background: Any, wrong: str) -> None:
    with pytest.raises(SpecError, match=wrong):
        type(Process)("Careless", (Process,), {"background": background})
    with pytest.raises(SpecError, match=wrong):
        type(Process)("Careless", (type("Mixin", (), {"background": background}), Process), {})


def test_a_background_may_have_functions_thread_classes_threads_and_children() -> None:
    class Beats(Thread):
        pass

    class Careful(Process):
        background = (print, Beats, Beats("second"), Child(Thread.of(print), id="third", restart="transient"))

    assert [child.id for child in background_children("Careful", Careful.background)] == [
        "print", "beats", "second", "third",
    ]  # fmt: skip


# ---------------------------------------------------------------- kinds of classes
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


def test_an_abstract_mixin_works() -> None:
    class Lazy(Doer, Process):
        pass

    class Busy(Doer, Process):
        def do(self) -> str:
            return "done"

    with pytest.raises(TypeError, match="abstract"):
        Lazy()  # type: ignore[abstract]
    with pytest.raises(SpecError, match="Lazy is abstract, so no worker can be made of it; it does not define do"):
        Child(Lazy)
    assert Busy().do() == "done"
    assert isinstance(Busy(), Doer)
    assert live(Busy()).do() == "done"


class Box(Process, Generic[T]):
    def __init__(self, content: T) -> None:
        self.content = content


def test_a_generic_worker_can_be_made_with_and_without_its_parameter() -> None:
    assert Box(1).__recipe__ == Box[int](1).__recipe__
    assert live(Box[str]("a")).content == "a"


class Drawer(Thread, Generic[T]): ...


def test_a_generic_worker_is_declared_with_its_parameter_as_without_it() -> None:
    assert Child(Box[int](1)).what == Child(Box(1)).what
    assert Child(Box[int], args=(1,)).what == Child(Box, args=(1,)).what
    assert Supervisor("app", Child(Box[int], args=(1,))).children[0].id == "box"
    assert background_children("Count", (Drawer[int],))[0].what == Child(Drawer).what
    with pytest.raises(SpecError, match="list is a class but not a worker"):
        Child(list[int])


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
    worker.folder = "b"
    with pytest.raises(SpecError, match=r"Scan\.folder was changed"):
        Child(worker)


def test_a_frozen_dataclass_can_be_a_worker() -> None:
    worker = live(Fixed("a"))
    assert worker.folder == "a"
    with pytest.raises(dataclasses.FrozenInstanceError):
        worker.folder = "b"
    with pytest.raises(dataclasses.FrozenInstanceError):
        Fixed("a").folder = "b"  # type: ignore[misc]


class Slotted:
    __slots__ = ("depth",)

    def __init__(self) -> None:
        self.depth = 3


class Deep(Slotted, Process):
    def dig(self) -> None:
        self.depth += 1


def test_a_mixin_with_slots_can_be_part_of_a_worker() -> None:
    worker = Deep()
    worker.dig()
    assert worker.depth == 4
    assert live(worker).depth == 3


def test_a_new_method_of_the_class_gets_the_arguments() -> None:
    class Counted(Process):
        made: ClassVar[list[int]] = []

        def __new__(cls, number: int) -> Counted:
            cls.made.append(number)
            return super().__new__(cls)

        def __init__(self, number: int) -> None:
            self.number = number

    assert live(Counted(4)).number == 4
    assert Counted.made == [4, 4]


# ---------------------------------------------------------------- pickling
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


def test_an_option_set_in_the_constructor_precedes_the_option_of_the_class() -> None:
    class Tuned(Process):
        restart = "transient"

        def __init__(self) -> None:
            self.restart = "temporary"

    assert Child(Tuned()).restart == "temporary"


def test_the_worker_reads_the_number_of_loops_of_its_class() -> None:
    class Tuned(Process):
        num_loops = 7

    assert (Tuned().num_loops, Child(Tuned, restart="transient").join_after) == (7, 7)


def test_outside_of_a_tree_methods_that_need_a_tree_raise() -> None:
    worker = Greeter()
    for call in (worker.rejoin, worker.skip_and_rejoin, worker.force_finish, worker.cleanup,
                 worker.generate_loop_time_report, lambda: worker.wait(1), lambda: worker.ref,
                 lambda: worker.log):  # fmt: skip
        with pytest.raises(RuntimeError, match="was not started by a supervisor"):
            call()


def test_outside_of_a_tree_the_attributes_are_empty() -> None:
    worker = Greeter("bob")
    assert (worker.path, worker.pid, worker.copy, worker.current_loop) == (None, None, None, 0)
    assert (worker.last_loop, worker.last_loop_time, worker.last_result, worker.recalled) == (False, 0.0, None, None)
    assert worker.metadata == {
        "name": "bob", "pid": None, "current_loop": 0, "num_loops": math.inf, "remove_on_process_join": True,
    }  # fmt: skip


def test_a_function_can_be_a_worker() -> None:
    assert Process.of(print, 1, end="").kind == "process"
    recipe = Thread.of(math.gcd, 12, 18)
    assert build(recipe, None).loop() == 6
    named = Thread.of(dict, function=1, what=2)  # type: ignore[arg-type]
    assert named.kwargs == {"function": 1, "what": 2}
