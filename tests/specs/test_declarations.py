"""Declarations: everything is checked where it is written, and nothing changes afterwards (rules 3-7 and 50)."""

from __future__ import annotations

import copy
import dataclasses
import enum
import functools
import math
import pickle
import threading
import warnings
from collections.abc import Callable
from typing import Any, ClassVar

import pytest

from suitkaise import DynamicSupervisor, Supervisor
from suitkaise.errors import SpecError
from suitkaise.specs import LIMITS, Backoff, Bounded, Child, Kind, Place, Ray, Recipe, SpecWarning, Startable, snapshot
from suitkaise.workers.command import Command
from suitkaise.workers.worker import Process, Thread


def work() -> None: ...


def add(left: int, right: int = 0) -> None: ...


async def later() -> None: ...


async def yielding() -> Any:
    yield


class Plain(Startable):
    _worker_kind: ClassVar[Kind] = "process"
    _worker_hooks = ("on_start", "loop")

    def __init__(self, folder: str = ".") -> None:
        self.folder = folder


class InThread(Plain):
    _worker_kind = "thread"


class Eager(Plain):
    restart = "transient"
    shutdown = 1
    join_after = 10
    copies = 2
    backoff = Backoff()


class Own(Process):
    """A worker whose constructor decides about its options."""

    def __init__(self, restart: str = "transient", shutdown: Any = 2) -> None:
        super().__init__(num_loops=7)
        self.restart = restart
        self.shutdown = shutdown

    def loop(self) -> None: ...


class Counted(Process):
    num_loops = 5
    restart = "transient"

    def loop(self) -> None: ...


class Scan(Process):
    def __init__(self, folder: str, depth: int = 1) -> None:
        self.folder = folder

    def loop(self) -> None: ...


class Dialled(Scan):
    def __call__(self) -> None: ...


class Watch(Thread):
    def __init__(self, seen: list[str]) -> None: ...

    def loop(self) -> None: ...


class Asynchronous(Process):
    async def loop(self) -> None: ...


class Yielding(Process):
    async def loop(self) -> Any:
        yield


def refused(make: Callable[[], Any], *parts: str, error: type[Exception] = SpecError) -> None:
    """It raises, and the message holds all these parts."""
    with pytest.raises(error) as caught:
        make()
    message = str(caught.value)
    assert [part for part in parts if part not in message] == [], message


def one(option: str, value: Any) -> Any:
    return {option: value}


# ---------------------------------------------------------------- options, one by one (rule 5)
WRONG: list[tuple[str, Any, str]] = [
    *[("restart", value, "'permanent', 'transient' or 'temporary'") for value in ("always", "", None, True, 1, [])],
    *[
        ("shutdown", value, "seconds >= 0, 'brutal_kill' or 'infinity'")
        for value in (-1, -0.001, math.nan, -math.inf, 10**309, True, None, "5", "never", [])
    ],
    *[("significant", value, "True or False") for value in (1, 0, None, "yes")],
    *[("join_in", value, "seconds > 0 or None") for value in (0, -1, math.inf, math.nan, 10**309, True, "1")],
    *[
        ("join_after", value, "a number of loops >= 1, math.inf or None")
        for value in (0, -1, 1.5, math.nan, -math.inf, True, "1")
    ],
    *[("backoff", value, "a Backoff(...) or None") for value in (1, 0, True, "0.1", {"initial": 1}, Backoff)],
    *[("copies", value, "a whole number >= 1") for value in (0, -1, 1.5, True, None, "2", math.inf)],
]


@pytest.mark.parametrize("option, value, takes", WRONG)
def test_s05_a_wrong_option_of_a_child_is_refused(option: str, value: Any, takes: str) -> None:
    refused(lambda: Child(work, **one(option, value)), "Child 'work'", f"{option} must be {takes}", f"not {value!r}")


@pytest.mark.parametrize("option, value, takes", [case for case in WRONG if case[0] != "significant"])
def test_s05_a_wrong_option_of_a_worker_class_is_refused_too(option: str, value: Any, takes: str) -> None:
    if value is None:
        return
    cls = type("Odd", (Plain,), {option: value})
    refused(lambda: Child(cls), "Child 'odd'", f"{option} must be {takes}", f"not {value!r}")


SUPERVISOR_WRONG: list[tuple[str, Any, str]] = [
    *[("strategy", value, "'one_for_one', 'one_for_all' or 'rest_for_one'") for value in ("one", "", None, 1)],
    *[
        ("max_restarts", value, "a whole number >= 0 or math.inf")
        for value in (-1, 1.5, math.nan, -math.inf, 10**309, True, None, "3")
    ],
    *[("max_seconds", value, "seconds > 0") for value in (0, -1, math.inf, math.nan, True, None, "5")],
    *[("auto_shutdown", value, "'never', 'any_significant' or 'all_significant'") for value in ("any", "", None, True)],
    *[case for case in WRONG if case[0] in ("restart", "shutdown", "significant")],
]


@pytest.mark.parametrize("option, value, takes", SUPERVISOR_WRONG)
def test_s05_a_wrong_option_of_a_supervisor_is_refused(option: str, value: Any, takes: str) -> None:
    make = lambda: Supervisor("app", **one(option, value))  # noqa: E731
    refused(make, "Supervisor 'app'", f"{option} must be {takes}", f"not {value!r}")


@pytest.mark.parametrize("value", ["no", 1, 0, None])
def test_s05_trap_exits_is_true_or_false_in_the_class_and_in_the_constructor(value: Any) -> None:
    class Assigns(Thread):
        def __init__(self) -> None:
            self.trap_exits = value

    wrong = rf"^Assigns: trap_exits must be True or False, not {value!r}$"
    with pytest.raises(SpecError, match=wrong):
        type("Assigns", (Thread,), {"trap_exits": value})
    with pytest.raises(SpecError, match=wrong):
        type("Assigns", (type("Mixin", (), {"trap_exits": value}), Thread), {})
    with pytest.raises(SpecError, match=wrong):
        Assigns()


def test_trap_exits_of_a_mixin_holds_as_that_of_the_class_does() -> None:
    class Trapping:
        trap_exits = True

    class Watch(Trapping, Thread):
        pass

    class Loud(Watch):
        pass

    class Quiet(Trapping, Thread):
        trap_exits = False

    assert [kind._traps_exits for kind in (Watch, Loud, Quiet)] == [True, True, False]
    assert [kind().trap_exits for kind in (Watch, Loud, Quiet)] == [True, True, False]


@pytest.mark.parametrize("on", [True, False])
def test_trap_exits_as_a_field_of_a_dataclass_has_the_default_that_is_written_there(on: bool) -> None:
    @dataclasses.dataclass
    class Watch(Thread):
        trap_exits: bool = on

    assert Watch().trap_exits is on
    assert Watch(not on).trap_exits is not on


@pytest.mark.parametrize(
    "option, value, seen",
    [
        ("restart", "temporary", "temporary"),
        ("shutdown", 0, 0.0),
        ("shutdown", 2, 2.0),
        ("shutdown", math.inf, "infinity"),
        ("shutdown", "infinity", "infinity"),
        ("shutdown", "brutal_kill", "brutal_kill"),
        ("join_in", None, None),
        ("join_after", None, None),
        ("join_after", math.inf, None),
        ("backoff", None, None),
        ("copies", 1, 1),
    ],
)
def test_s05_a_right_option_is_taken(option: str, value: Any, seen: Any) -> None:
    assert getattr(Child(work, **one(option, value)), option) == seen


@pytest.mark.parametrize("restarts", [0, 1, 10.0, math.inf])
def test_s05_a_supervisor_takes_any_number_of_restarts(restarts: float) -> None:
    assert Supervisor("app", max_restarts=restarts, max_seconds=0.001).max_restarts == restarts


@pytest.mark.parametrize(
    "option, value, takes",
    [
        ("initial", -1, "0 to inf"),
        ("factor", 0.5, "1 to inf"),
        ("maximum", -1, "0 to inf"),
        ("jitter", 1.1, "0 to 1"),
        ("jitter", -0.1, "0 to 1"),
        ("reset_after", -1, "0 to inf"),
        *[
            (name, wrong, "a number from")
            for name in ("initial", "factor")
            for wrong in (math.nan, 10**309, True, "1", None)
        ],
    ],
)
def test_s56_a_wrong_backoff_is_refused(option: str, value: Any, takes: str) -> None:
    refused(lambda: Backoff(**one(option, value)), f"Backoff: {option} must be", takes, f"not {value!r}")


@pytest.mark.parametrize("attempt, plain", [(1, 0.1), (2, 0.2), (3, 0.4), (9, 25.6), (10, 30.0), (10**6, 30.0)])
def test_s56_backoff_grows_to_its_maximum_and_jitter_moves_it(attempt: int, plain: float) -> None:
    backoff = Backoff()

    assert backoff.delay(attempt, random=0.5) == pytest.approx(plain)
    assert backoff.delay(attempt, random=0.0) == pytest.approx(plain * 0.9)
    assert backoff.delay(attempt, random=1.0) == pytest.approx(plain * 1.1)


@pytest.mark.parametrize("initial, maximum", [(0, 30.0), (30, 30.0), (60, 60), (math.inf, math.inf)])
def test_s56_the_first_delay_is_as_long_as_was_said_also_beyond_the_default_maximum(
    initial: float, maximum: float
) -> None:
    backoff = Backoff(initial, jitter=0)
    assert (backoff.delay(1, random=0.5), backoff.maximum) == (initial, maximum)
    assert backoff.delay(20, random=0.5) == (maximum if initial else 0)


def test_s56_a_maximum_that_was_given_bounds_the_first_delay_too() -> None:
    assert Backoff(initial=60, maximum=10, jitter=0).delay(1, random=0.5) == 10


def test_s56_a_backoff_that_begins_with_no_delay_has_none_however_many_the_retries() -> None:
    assert Backoff(initial=0).delay(10**6, random=0.5) == 0.0
    assert Backoff(initial=0, factor=math.inf).delay(2, random=0.5) == 0.0


# ---------------------------------------------------------------- names of options
@pytest.mark.parametrize(
    "name, suggestion",
    [
        ("restrat", "'restart'"),
        ("shut_down", "'shutdown'"),
        ("join_afer", "'join_after'"),
        ("loop_timout", "'loop_timeout'"),
    ],
)
def test_s05_an_unknown_option_of_a_child_is_refused_with_a_suggestion(name: str, suggestion: str) -> None:
    refused(lambda: Child(work, **one(name, 1)), f"unknown option {name}=1", f"did you mean {suggestion}?")


@pytest.mark.parametrize(
    "name, suggestion",
    [
        ("stratgy", "'strategy'"),
        ("max_restart", "'max_restarts'"),
        ("intensity", "did you mean 'max_restarts'?"),
        ("period", "did you mean 'max_seconds'?"),
        ("bananas", "it takes "),
    ],
)
def test_s05_an_unknown_option_of_a_supervisor_is_refused(name: str, suggestion: str) -> None:
    make = lambda: Supervisor("app", **one(name, 1))  # noqa: E731
    refused(make, "Supervisor 'app'", f"unknown option {name}=1", suggestion)


@pytest.mark.parametrize("name", ["backoff", "copies", "loop_timeout", "num_loops"])
@pytest.mark.parametrize("make", [Supervisor, DynamicSupervisor])
def test_s05_an_option_of_a_child_that_is_given_to_its_supervisor_is_refused_with_its_place(
    make: Any, name: str
) -> None:
    refused(lambda: make("app", **one(name, 1)), f"'app': {name} is an option of Child: Child(..., {name}=1)")


@pytest.mark.parametrize(
    "name, suggestion",
    [
        ("name", "id"),
        ("shutdown_timeout", "shutdown"),
        ("timeout", "loop_timeout"),
        ("runs", "join_after"),
        ("restart_policy", "restart"),
        ("replicas", "copies"),
        ("restart_sec", "backoff"),
        ("memory_limit", "max_memory"),
        ("environment", "env"),
    ],
)
def test_s05_an_option_under_its_name_in_another_tool_is_refused_with_its_name_here(name: str, suggestion: str) -> None:
    refused(lambda: Child(work, **one(name, 1)), f"unknown option {name}=1", f"did you mean {suggestion!r}?")


def test_s05_children_as_an_option_are_refused_with_the_way_to_give_them() -> None:
    refused(lambda: Supervisor("app", **one("children", [work])), "give them one by one", "Supervisor('app', first,")


@pytest.mark.parametrize("name, value", [("children", [work]), ("strategy", "one_for_all"), ("init", lambda self: [])])
def test_s05_options_in_the_body_of_a_class_of_supervisors_are_refused(name: str, value: Any) -> None:
    refused(lambda: type("App", (Supervisor,), {name: value}), f"App sets {name}", "Supervisor('App', ")


def test_a_class_of_supervisors_may_add_methods() -> None:
    class Printed(Supervisor):
        def printed(self) -> str:
            return str(self)

    assert Printed("app", work).printed() == str(Supervisor("app", work))


@pytest.mark.parametrize("make, way", [(Process, "Child(add, args=(...))"), (Thread, "call add in loop")])
def test_a_function_given_as_to_multiprocessing_is_refused_with_the_way_to_give_it(make: Any, way: str) -> None:
    refused(lambda: make(target=add, args=(1, 2)), f"{make.__name__}(target=...)", way)


@pytest.mark.parametrize("name", ["before_loop_timeout", "after_loop_timeout", "receive_timeout", "drain"])
def test_an_option_that_a_function_does_not_use_is_told(name: str) -> None:
    with pytest.warns(SpecWarning, match=f"Child 'work': {name} is given, and nothing uses it: a function"):
        Child(work, **one(name, 1))


@pytest.mark.parametrize("name", ["before_loop_timeout", "loop_timeout", "after_loop_timeout"])
def test_the_limit_of_a_hook_that_a_worker_does_not_have_is_told(name: str) -> None:
    class Answers(Process):
        def on_receive(self, message: Any) -> None: ...

    class Loops(Answers):
        def __before_loop__(self) -> None: ...

        def loop(self) -> None: ...

        def __afterloop__(self) -> None: ...

    with pytest.warns(SpecWarning, match=f"Child 'answers': {name} is given, and nothing uses it: Answers has no"):
        Child(Answers, **one(name, 1))
    Child(Loops, **one(name, 1))


def test_s05_an_unknown_option_unlike_any_other_gets_the_list() -> None:
    refused(lambda: Child(work, **one("zzz", 1)), "it takes after_loop_timeout, args, backoff", "significant")


def test_a_name_and_a_number_of_loops_for_a_class_without_a_constructor_count_as_for_its_instance() -> None:
    class Count(Thread):
        restart = "transient"

        def loop(self) -> None: ...

    for child in (Child(Count, args=("three", 3)), Child(Count, kwargs={"name": "three", "num_loops": 3})):
        assert (child.id, child.join_after) == (Child(Count("three", 3)).id, 3)
    assert Child(Count, id="other", args=("three",)).id == "other"
    assert [clone.id for clone in Child(Count, args=("a",), copies=2).expanded()] == ["a-0", "a-1"]
    with pytest.raises(SpecError, match=r"^Count: the name must be a text, not 5; for arguments of its own the class"):
        Child(Count, args=(5,))


def test_num_loops_is_another_name_of_join_after() -> None:
    spec = Child(work, num_loops=3, restart="transient")

    assert spec.join_after == spec.replace(shutdown=1.0).join_after == 3
    assert Supervisor("app", Child(work, num_loops=3, restart="transient", copies=2)).children[1].join_after == 3
    assert Child(work, num_loops=math.inf).join_after is None
    refused(lambda: Child(work, num_loops=0), "a number of loops >= 1")
    refused(lambda: Child(work, num_loops=3, join_after=3), "num_loops is another name of join_after")
    refused(lambda: Child(Supervisor("below"), num_loops=3), "supervisors have no loop")


# ---------------------------------------------------------------- where options come from (rules 3 and 6)
def test_s06_the_defaults_of_a_worker() -> None:
    spec = Child(work)

    assert (spec.restart, spec.shutdown, spec.significant) == ("permanent", 5.0, False)
    assert (spec.join_in, spec.join_after, spec.backoff, spec.copies, spec.spares) == (None, None, None, 1, 0)
    assert (spec.kind, spec.copy) == ("process", None)


def test_s06_the_defaults_of_a_supervisor() -> None:
    tree = Supervisor("app")
    spec = Child(tree)

    assert (tree.strategy, tree.max_restarts, tree.max_seconds, tree.auto_shutdown) == ("one_for_one", 3, 5.0, "never")
    assert (spec.restart, spec.shutdown, spec.significant, spec.kind) == ("permanent", "infinity", False, "supervisor")


def test_s03_options_of_the_class_come_before_the_defaults() -> None:
    spec = Child(Eager)

    assert (spec.restart, spec.shutdown, spec.join_after, spec.copies) == ("transient", 1.0, 10, 2)
    assert spec.backoff == Backoff()


def test_s03_options_of_the_instance_come_before_the_class() -> None:
    spec = Child(Own())

    assert (spec.restart, spec.shutdown, spec.join_after) == ("transient", 2.0, 7)


def test_s03_options_of_the_child_come_before_all() -> None:
    spec = Child(Own(), restart="temporary", shutdown="brutal_kill", join_after=1)

    assert (spec.restart, spec.shutdown, spec.join_after) == ("temporary", "brutal_kill", 1)


def test_s03_an_option_given_as_none_is_given() -> None:
    spec = Child(Eager, backoff=None, join_after=None)

    assert (spec.backoff, spec.join_after) == (None, None)


@pytest.mark.parametrize("never", [None, math.inf])
def test_s03_a_number_of_loops_can_be_taken_back(never: float | None) -> None:
    assert Child(Counted).join_after == 5
    assert Child(Counted, join_after=never).join_after is None


def test_s03_loops_of_the_instance_come_before_the_class() -> None:
    class Both(Own):
        join_after = 100

    assert Child(Both()).join_after == 7


def test_s03_options_of_a_nested_supervisor_are_its_own_unless_the_child_says_otherwise() -> None:
    nested = Supervisor("nested", restart="transient", shutdown=3, significant=True)

    spec = Child(nested)
    assert (spec.restart, spec.shutdown, spec.significant) == ("transient", 3.0, True)
    spec = Child(nested, restart="temporary", shutdown="infinity", significant=False)
    assert (spec.restart, spec.shutdown, spec.significant) == ("temporary", "infinity", False)


@pytest.mark.parametrize("option", [{"join_in": 1}, {"join_after": 1}, {"loop_timeout": 1}])
def test_s05_supervisors_take_no_options_about_loops(option: dict[str, Any]) -> None:
    refused(lambda: Child(Supervisor("nested"), **option), "Child 'nested'", next(iter(option)), "no loop")


# ---------------------------------------------------------------- what a child can be
@pytest.mark.parametrize(
    "what, parts",
    [
        (None, ["NoneType", "was a function called instead of being passed?"]),
        ([work], ["list", "give the children one by one"]),
        ("redis-server --port 0", ["str", "a program is a Command('redis-server', '--port', '0')"]),
        (5, ["not int: 5"]),
        ("work", ["not str: 'work'"]),
        ([work], ["not list"]),
        (object(), ["not object"]),
        (int, ["int is a class but not a worker", "derive it from suitkaise.Process or suitkaise.Thread"]),
        (threading.Thread, ["Thread is a class but not a worker", "from suitkaise.Process or suitkaise.Thread"]),
        (threading.Thread(), ["not Thread: <Thread", "Child(f, args=(...))"]),
        (Supervisor, ["Supervisor is a class", "declare a supervisor with a name: Supervisor('app')"]),
        (Startable, ["neither a process nor a thread", "suitkaise.Process or suitkaise.Thread"]),
    ],
    ids=[
        "None",
        "a list of children",
        "a command line",
        "int",
        "str",
        "list",
        "object",
        "a class",
        "a class of threading",
        "a thread of threading",
        "the class of supervisors",
        "a base class",
    ],
)
def test_s05_what_is_no_worker_is_refused(what: Any, parts: list[str]) -> None:
    refused(lambda: Child(what), *parts)
    refused(lambda: Supervisor("app", what), *parts)


def test_s05_a_child_is_no_worker() -> None:
    refused(lambda: Child(Child(work)), "not Child")


@pytest.mark.parametrize(
    "what, args, kwargs, parts",
    [
        (add, (), None, ["missing a required argument: 'left'", "add(left", "got args=()"]),
        (add, (1, 2, 3), None, ["too many positional arguments", "got args=(1, 2, 3)"]),
        (add, (1,), {"middle": 2}, ["unexpected keyword argument 'middle'", "kwargs={'middle': 2}"]),
        (add, (1,), {"left": 2}, ["multiple values for argument 'left'"]),
        (work, (1,), None, ["too many positional arguments"]),
        (lambda number: None, (), None, ["missing a required argument: 'number'"]),
        (functools.partial(add, 1), (1, 2), None, ["too many positional arguments"]),
        (Plain, (1, 2), None, ["too many positional arguments"]),
        (Scan, (), None, ["Scan(folder", "missing a required argument: 'folder'"]),
        (Scan, ("a", 1, 2), None, ["too many positional arguments"]),
        (Scan, (), {"floder": "a"}, ["folder"]),
        (Watch, (), None, ["missing a required argument: 'seen'"]),
    ],
)
def test_s05_arguments_that_do_not_fit_are_refused(what: Any, args: Any, kwargs: Any, parts: list[str]) -> None:
    refused(lambda: Child(what, id="w", args=args, kwargs=kwargs), *parts)


@pytest.mark.parametrize(
    "what, args, kwargs",
    [(add, (1,), {"right": 2}), (Scan, ("a",), None), (Scan, (), {"folder": "a", "depth": 2}), (Plain, (), None)],
)
def test_arguments_that_fit_are_recorded(what: Any, args: Any, kwargs: Any) -> None:
    spec = Child(what, args=args, kwargs=kwargs)

    assert spec.what == Recipe(what, args, kwargs or {}, "process")


def _with_one(function: Any) -> Any:
    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        return function(1, *args, **kwargs)

    return call


@_with_one
def given(one: int, two: int) -> int:
    return one + two


class Opened(Process):
    @lambda function: functools.wraps(function)(lambda self, name: function(self, name, 2))
    def __init__(self, name: str, more: int) -> None:
        super().__init__()


def test_a_decorator_may_give_a_function_or_a_constructor_arguments_of_its_own() -> None:
    assert Child(given, args=(2,)).what == Recipe(given, (2,), {}, "process")
    assert Child(Opened, args=("a",)).what == Recipe(Opened, ("a",), {}, "process")
    assert Thread.of(given, 2).args == (2,)
    refused(lambda: Child(Opened), "missing a required argument: 'name'")


def test_arguments_of_a_cached_function_that_do_not_fit_are_refused() -> None:
    cached = functools.lru_cache(lambda number: number)
    refused(lambda: Child(cached, id="w"), "missing a required argument: 'number'")


@pytest.mark.parametrize(
    "options, parts",
    [
        ({"args": "a"}, ["args must be a tuple", "not 'a'", "args=('a',)"]),
        ({"args": 1}, ["args must be a tuple", "not 1"]),
        ({"args": None}, ["args must be a tuple"]),
        ({"kwargs": [1]}, ["kwargs must be a dict"]),
        ({"kwargs": {1: 2}}, ["kwargs must be a dict with names as keys"]),
    ],
)
def test_s05_arguments_of_the_wrong_kind_are_refused(options: dict[str, Any], parts: list[str]) -> None:
    refused(lambda: Child(add, **options), *parts)


@pytest.mark.parametrize(
    "what", [Scan("a"), Dialled("a"), Supervisor("nested")], ids=["worker", "worker with __call__", "supervisor"]
)
def test_s05_arguments_for_what_is_built_already_are_refused(what: Any) -> None:
    refused(lambda: Child(what, args=("a",)), "args and kwargs go with a class or function")


def test_arguments_for_a_function_that_was_called_instead_of_being_passed_are_refused() -> None:
    refused(lambda: Child(None, args=("a",)), "not with an instance: None (was a function called")


def test_arguments_by_position_are_refused_with_the_right_way() -> None:
    child: Any = Child
    refused(lambda: child(add, 1, 2), "Child: arguments go into args: Child(add, args=(1, 2))")
    refused(lambda: child(Scan, "a", restart="transient"), "Child(Scan, args=('a',))")


def test_a_function_for_a_thread_takes_arguments_too() -> None:
    spec = Child(Thread.of(add), args=(1,), kwargs={"right": 2})

    assert spec.what == Recipe(add, (1,), {"right": 2}, "thread")
    refused(lambda: Child(Thread.of(add), args=(1, 2, 3)), "too many positional arguments")


@pytest.mark.parametrize("make", [Process.of, Thread.of], ids=["Process", "Thread"])
def test_s05_what_of_gets_must_be_a_function(make: Callable[[Any], Recipe]) -> None:
    refused(lambda: Child(make(3)), ".of takes a function, not 3")
    refused(lambda: Child(make(None)), ".of takes a function, not None (was a function called")
    refused(lambda: Child(make(Scan("a"))), ".of takes a function, not <")
    refused(lambda: Child(make(list)), "list is a class but not a worker")


def test_a_built_worker_is_recorded_as_class_and_arguments() -> None:
    assert Child(Scan("a", depth=2)).what == Recipe(Scan, ("a",), {"depth": 2}, "process")


def test_arguments_of_a_process_are_a_snapshot_and_those_of_a_thread_are_shared() -> None:
    seen: list[str] = []
    process, thread = Child(Scan, args=(seen,)), Child(Watch, args=(seen,))
    function = Child(add, args=(seen,))

    seen.append("later")

    assert process.what.args == function.what.args == ([],)  # type: ignore[union-attr]
    assert thread.what.args == (["later"],)  # type: ignore[union-attr]
    assert (process.kind, thread.kind, function.kind) == ("process", "thread", "process")


# ---------------------------------------------------------------- ids
@pytest.mark.parametrize(
    "name, id",
    [
        ("Count", "count"),
        ("CountFiles", "count_files"),
        ("HTTPServer", "http_server"),
        ("TheHTTPServer2", "the_http_server2"),
        ("Scan3D", "scan3_d"),
        ("already_snake", "already_snake"),
        ("_Private", "_private"),
        ("A", "a"),
    ],
)
def test_the_id_is_the_class_name_in_snake_case(name: str, id: str) -> None:
    assert Child(type(name, (Plain,), {})).id == id


def test_the_id_is_the_functions_name() -> None:
    assert Child(work).id == "work"
    assert Child(functools.partial(add, 1)).id == "add"
    assert Child(lambda: None).id == "lambda"


def test_the_id_is_the_name_that_a_worker_was_given() -> None:
    class Named(Process):
        def loop(self) -> None: ...

    assert Child(Named("first")).id == "first"
    assert Child(Named("first"), id="second").id == "second"
    assert Child(Named()).id == "named"


def test_the_id_is_the_name_that_the_class_sets() -> None:
    class Named(Process):
        name = "first"

        def loop(self) -> None: ...

    assert Child(Named).id == Child(Named()).id == "first"
    assert Child(Named("second")).id == "second"
    assert Child(type("Other", (Named,), {"name": None})).id == "other"


def test_the_id_of_a_supervisor_is_its_name() -> None:
    assert Child(Supervisor("nested")).id == "nested"
    assert Child(Supervisor("nested"), id="other").id == "other"


@pytest.mark.parametrize("id", ["a/b", "/", "a#1", "a\nb", "\x00"])
def test_s05_an_id_that_would_break_paths_is_refused(id: str) -> None:
    refused(lambda: Child(work, id=id), repr(id), "may not hold '/', '#' or control characters")
    refused(lambda: Supervisor(id), repr(id), "may not hold")


@pytest.mark.parametrize("id", ["*", "**", "count-*", "what?"])
def test_an_id_that_no_lookup_could_name_as_it_is_a_pattern_is_refused(id: str) -> None:
    refused(lambda: Child(work, id=id), repr(id), "may not hold '*' or '?', the wildcards of `whereis`")
    refused(lambda: Supervisor(id), repr(id), "may not hold '*' or '?'")


@pytest.mark.parametrize("id", [".", "..", "a.b", "[ab]", "a b", "über", "~", "%2E"])
def test_an_id_that_means_nothing_else_in_a_path_is_taken(id: str) -> None:
    assert Child(work, id=id).id == Supervisor(id).name == id


def test_a_member_of_an_enum_of_texts_is_its_text_as_a_name_and_as_an_option() -> None:
    words = {"FIRST": "first", "RESTART": "transient", "STRATEGY": "rest_for_one"}
    Word: Any = enum.Enum("Word", words, type=str)
    tree = Supervisor(Word.FIRST, Child(work, id=Word.FIRST, restart=Word.RESTART), strategy=Word.STRATEGY)
    assert str(tree) == "first  supervisor, rest_for_one, 3 restarts in 5 s\n└─ first  process, transient"
    with Supervisor("app", Child(Command("sleep", "60"), id=Word.FIRST)).start() as running:
        assert Word.FIRST in running
        assert running[Word.FIRST].path == running["first"].path == "app/first"
        running.terminate_child(Word.FIRST)


@pytest.mark.parametrize("id", ["", 5, b"a", ["a"]])
def test_s05_an_id_is_a_text(id: Any) -> None:
    refused(lambda: Child(work, id=id), "the id must be a text", repr(id))
    refused(lambda: Supervisor(id), "the name must be a text", repr(id), "it comes first: Supervisor('app', ...)")


def test_s04_duplicate_ids_are_refused() -> None:
    refused(lambda: Supervisor("app", work, work), "Supervisor 'app'", "two children have the id 'work'", "id=...")
    refused(lambda: Supervisor("app", Child(work, id="nested"), Supervisor("nested")), "'nested'")
    refused(lambda: Supervisor("app", Child(work, copies=2), Child(add, args=(1,), id="work-1")), "'work-1'")


def test_s04_one_id_in_two_supervisors_is_fine() -> None:
    tree = Supervisor("app", work, Supervisor("nested", work))

    assert [child.id for child in tree.children] == ["work", "nested"]


# ---------------------------------------------------------------- significant (rule 50)
def test_s50_significant_does_not_go_with_permanent() -> None:
    refused(lambda: Child(work, significant=True), "Child 'work'", "restart='transient' or 'temporary'", "rule 50")


def test_s50_significant_does_not_go_with_a_supervisor_that_never_shuts_down() -> None:
    spec = Child(work, restart="transient", significant=True)

    refused(lambda: Supervisor("app", spec), "child 'work' is significant", "auto_shutdown is 'never'", "rule 50")
    assert Supervisor("app", spec, auto_shutdown="all_significant").children == (spec,)


# ---------------------------------------------------------------- restarts of a child alone (rule 78)
def test_s78_a_child_can_have_a_limit_of_its_own() -> None:
    spec = Child(work, max_restarts=5)
    assert (spec.max_restarts, spec.max_seconds) == (5, 60.0)
    assert Child(work).max_restarts is None
    assert spec.replace(max_seconds=2).max_seconds == 2.0
    assert Child(type("Own", (Process,), {"max_restarts": 1, "max_seconds": 3.0})).max_restarts == 1
    assert [one.max_restarts for one in Supervisor("app", Child(work, copies=2, max_restarts=1)).children] == [1, 1]


def test_s78_a_limit_that_is_none_or_that_nothing_uses_is_refused() -> None:
    refused(lambda: Child(work, max_restarts=1.5), "Child 'work'", "max_restarts must be a whole number >= 0")
    refused(lambda: Child(work, max_restarts=1, max_seconds=0), "max_seconds must be seconds > 0")
    refused(lambda: Child(work, max_seconds=5), "max_seconds is the window of max_restarts")
    refused(lambda: Child(work, max_restarts=1, restart="temporary"), "a temporary child is never restarted")
    refused(lambda: Child(work, backoff=Backoff(), restart="temporary"), "backoff makes no sense here")


@pytest.mark.parametrize("strategy", ["one_for_all", "rest_for_one"])
def test_s78_siblings_that_depend_on_a_child_refuse_a_limit_of_its_own(strategy: Any) -> None:
    spec = Child(work, max_restarts=1)
    refused(lambda: Supervisor("app", spec, strategy=strategy), "child 'work'", "'one_for_one'", "rule 78")


# ---------------------------------------------------------------- immutable, replaced, copied
@pytest.mark.parametrize("spec", [Child(work), Supervisor("app", work)], ids=["child", "supervisor"])
def test_a_declaration_is_immutable(spec: Any) -> None:
    before = repr(spec)
    with pytest.raises(AttributeError, match=r"immutable.*replace\(restart=\.\.\.\)"):
        spec.restart = "temporary"
    with pytest.raises(AttributeError, match="immutable"):
        spec.anything = 1
    with pytest.raises(AttributeError, match="immutable"):
        del spec.restart
    assert repr(spec) == before


@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, lambda spec: pickle.loads(pickle.dumps(spec))])
def test_a_copied_or_pickled_declaration_is_equal(again: Any) -> None:
    tree = Supervisor("app", Child(work, restart="transient", copies=2), Supervisor("nested", Child(add, args=(1,))))

    assert again(tree) == tree
    assert str(again(tree)) == str(tree)
    assert [child.copy for child in again(tree).children] == [0, 1, None]


def test_declarations_are_compared_by_what_they_say() -> None:
    assert Child(work) == Child(work)
    assert Child(work) != Child(work, restart="transient")
    assert Child(work) != Child(work, id="other")
    assert Supervisor("a", work) == Supervisor("a", work)
    assert Supervisor("a", work) != Supervisor("a")
    assert Child(work) != "work"
    with pytest.raises(TypeError, match="unhashable"):
        hash(Child(work))


def test_replace_changes_some_options_of_a_copy() -> None:
    spec = Child(add, id="sum", args=(1,), shutdown=2, restart="transient")

    changed = spec.replace(restart="temporary", shutdown="infinity")

    assert (changed.id, changed.restart, changed.shutdown, changed.what) == ("sum", "temporary", "infinity", spec.what)
    assert (spec.restart, spec.shutdown) == ("transient", 2.0)


def test_replace_checks_again() -> None:
    refused(lambda: Child(work).replace(restart="always"), "restart must be")
    refused(lambda: Child(work).replace(restrat="temporary"), "did you mean 'restart'?")
    refused(lambda: Child(work).replace(significant=True), "rule 50")
    refused(lambda: Child(work).replace(id=""), "must be a text")
    refused(lambda: Supervisor("app", work).replace(strategy="one"), "strategy must be")
    refused(lambda: Supervisor("app", work).replace(children=[work, work]), "two children")
    for wrong in (work, None, Child(work), "work"):
        told = f"Supervisor 'app': children must be several, as [first, second], not {wrong!r}"
        refused(lambda wrong=wrong: Supervisor("app", work).replace(children=wrong), told)


def test_replace_can_change_the_arguments() -> None:
    spec = Child(Scan, args=("a",), kwargs={"depth": 2}, restart="transient")

    assert spec.replace(args=("b",)).what == Recipe(Scan, ("b",), {"depth": 2}, "process")
    assert spec.replace(kwargs={}).what == Recipe(Scan, ("a",), {}, "process")
    assert spec.replace(args=("b",), restart="temporary").restart == "temporary"
    assert Child(Scan("a")).replace(args=("b",)).what == Recipe(Scan, ("b",), {}, "process")
    refused(lambda: spec.replace(args=()), "missing a required argument: 'folder'")
    refused(lambda: spec.replace(args="b"), "args must be a tuple")
    refused(lambda: Child(Supervisor("nested")).replace(args=(1,)), "args and kwargs go with")


def test_replace_can_change_what_is_started() -> None:
    spec = Child(work, restart="transient", shutdown=1)

    assert spec.replace(what=Plain).id == "plain"
    assert spec.replace(what=Plain).shutdown == 1.0
    assert spec.replace(what=Supervisor("nested")).kind == "supervisor"


def test_replace_keeps_what_the_workers_constructor_decided() -> None:
    changed = Child(Own()).replace(shutdown="brutal_kill")

    assert (changed.restart, changed.shutdown, changed.join_after) == ("transient", "brutal_kill", 7)


def test_replace_of_a_nested_supervisors_options() -> None:
    changed = Child(Supervisor("nested", work, restart="transient")).replace(shutdown=3)

    assert (changed.id, changed.restart, changed.shutdown) == ("nested", "transient", 3.0)


def test_replace_of_a_supervisor_keeps_the_rest() -> None:
    tree = Supervisor("app", Child(work, copies=2), strategy="rest_for_one", max_restarts=7)

    changed = tree.replace(name="other", max_restarts=8)

    assert (changed.name, changed.strategy, changed.max_restarts) == ("other", "rest_for_one", 8)
    assert changed.children == tree.children
    assert [child.copy for child in changed.children] == [0, 1]
    assert tree.replace(children=[work]).children == (Child(work),)


def test_copies_are_numbered_children() -> None:
    tree = Supervisor("app", Child(add, args=(1,), copies=3, restart="transient", shutdown=1), Child(work))

    assert [child.id for child in tree.children] == ["add-0", "add-1", "add-2", "work"]
    assert [child.copy for child in tree.children] == [0, 1, 2, None]
    assert {child.copies for child in tree.children} == {1}
    assert {child.what.args for child in tree.children[:3]} == {(1,)}  # type: ignore[union-attr]
    assert {(child.restart, child.shutdown) for child in tree.children[:3]} == {("transient", 1.0)}


def test_copies_of_a_worker_keep_what_its_constructor_decided() -> None:
    tree = Supervisor("app", Child(Own(), copies=2))

    assert [(child.id, child.restart, child.shutdown, child.join_after) for child in tree.children] == [
        ("own-0", "transient", 2.0, 7),
        ("own-1", "transient", 2.0, 7),
    ]


def test_copies_of_a_supervisor() -> None:
    tree = Supervisor("app", Child(Supervisor("shard", work), copies=2))

    assert [child.id for child in tree.children] == ["shard-0", "shard-1"]


def test_a_copy_can_be_replaced_and_stays_that_copy() -> None:
    second = Supervisor("app", Child(work, copies=2)).children[1]

    assert second.replace(restart="transient").copy == 1
    assert second.replace(restart="transient").id == "work-1"


# ---------------------------------------------------------------- printing
def test_a_tree_prints_as_a_picture() -> None:
    tree = Supervisor(
        "app",
        Child(work, restart="transient", significant=True),
        Supervisor("inner", Child(work, copies=2), strategy="one_for_all", max_restarts=math.inf, max_seconds=0.5),
        Child(Supervisor("again", work), id="renamed"),
        Child(InThread),
        auto_shutdown="any_significant",
    )

    assert str(tree).splitlines() == [
        "app  supervisor, one_for_one, 3 restarts in 5 s, ends with any significant",
        "├─ work  process, transient, significant",
        "├─ inner  supervisor, one_for_all, inf restarts in 0.5 s",
        "│  ├─ work-0  process, permanent",
        "│  └─ work-1  process, permanent",
        "├─ renamed  supervisor, one_for_one, 3 restarts in 5 s",
        "│  └─ work  process, permanent",
        "└─ in_thread  thread, permanent",
    ]


def test_what_replaces_a_copy_is_that_copy() -> None:
    second = Child(work, copies=2).expanded()[1]
    assert [one.copy for one in (second, second.replace(restart="temporary"), second.replace(what=Plain))] == [1, 1, 1]


def test_reprs_say_what_was_given() -> None:
    assert repr(Child(work)) == "Child(work, id='work')"
    assert repr(Child(Plain, id="p", restart="transient")) == "Child(Plain, id='p', restart='transient')"
    assert repr(Supervisor("app", work)) == "Supervisor('app', 1 child, strategy='one_for_one')"


# ---------------------------------------------------------------- warnings
@pytest.mark.parametrize("option", ["join_after", "join_in"])
def test_a_permanent_child_that_ends_by_itself_is_warned_about(option: str) -> None:
    with pytest.warns(SpecWarning, match=rf"Child 'work': it is permanent.*{option}.*restart='transient'") as caught:
        Child(work, **one(option, 3))
    assert caught[0].filename == __file__


class EndsByItself(Process):
    join_after = 3


def test_the_warning_names_the_line_that_declares_it() -> None:
    with pytest.warns(SpecWarning) as caught:
        Supervisor("app", EndsByItself, Child(EndsByItself).replace(id="other"))
    assert [one.filename for one in caught] == [__file__] * 3


def test_the_warning_comes_once_for_all_copies() -> None:
    with pytest.warns(SpecWarning) as caught:
        Supervisor("app", Child(work, join_after=3, copies=4))
    assert len(caught) == 1


@pytest.mark.parametrize("restart", ["transient", "temporary"])
def test_others_that_end_by_themselves_are_not_warned_about(restart: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Child(work, restart=restart, join_after=3, join_in=3)
        Child(work, join_after=math.inf)


# ---------------------------------------------------------------- engines and places
@pytest.mark.parametrize(
    "make, part",
    [
        (lambda: Supervisor("app", **one("engine", "ray")), "engine must be a Ray(...), or None for this machine"),
        (lambda: Ray(**one("address", "")), "address must be 'auto', 'host:port' or None"),
        (lambda: Ray(address="ray://head:10001"), "use 'auto' there"),
        (lambda: Ray(**one("nodes", 0)), "nodes must be a whole number >= 1"),
        (lambda: Ray(nodes=2, address="auto"), "give one of them"),
        (lambda: Ray(**one("lease", 0)), "lease must be seconds > 0"),
        (lambda: Ray(**one("place", "node")), "place must be a Place(...)"),
        (lambda: Place(**one("node", 3)), "node must be"),
        (lambda: Place(**one("strategy", "anywhere")), "strategy must be 'spread' or 'pack'"),
        (lambda: Place(**one("dedicated", 1)), "dedicated must be True or False, not 1"),
        (lambda: Place(resources={"GPU": 0}), "must map names to numbers > 0"),
        (lambda: Place(resources={"GPU": math.inf}), "must map names to numbers > 0, not 'GPU' to inf"),
        (lambda: Child(work, **one("place", "gpu")), "place must be a Place(...) or None"),
        (lambda: Child(Thread.of(work), place=Place(node="a")), "threads run in the program"),
    ],
)  # fmt: skip
def test_a_wrong_engine_or_place_is_refused_where_it_is_declared(make: Callable[[], Any], part: str) -> None:
    refused(make, part)
    with pytest.raises(SpecError):
        make()


@pytest.mark.parametrize("what", [later, functools.partial(later), Asynchronous, Asynchronous()])
def test_functions_and_hooks_may_be_async(what: Any) -> None:
    assert Child(what).kind == "process"


@pytest.mark.parametrize(
    "what, who", [(yielding, "yielding is"), (functools.partial(yielding), "yielding is"), (Yielding, "Yielding.loop")]
)
def test_s05_what_yields_cannot_be_awaited_and_is_refused(what: Any, who: str) -> None:
    refused(lambda: Child(what), who, "async generator", "must not yield")


@pytest.mark.parametrize("hook", ["on_start", "before_loop", "__loop__", "after_loop", "on_finish", "on_failure"])
def test_s05_a_hook_that_yields_would_never_run_and_is_refused(hook: str) -> None:
    def yields(self: Any, *error: Any) -> Any:
        yield

    refused(
        lambda: Child(type("Stream", (Process,), {hook: yields})), f"Stream.{hook} is a generator", "must not yield"
    )


def generates() -> Any:
    yield 1


@pytest.mark.parametrize("what", [generates, functools.partial(generates)])
def test_s05_a_function_of_a_process_that_yields_would_never_run_and_is_refused(what: Any) -> None:
    refused(lambda: Child(what), "generates is a generator", "must not yield")
    Child(Thread.of(what))


@pytest.mark.parametrize(
    "hook, called",
    [
        ("on_start", "without arguments"),
        ("__loop__", "without arguments"),
        ("result", "without arguments"),
        ("handle_timeout", "without arguments"),
        ("on_receive", "with one argument, the message"),
        ("on_failure", "with one argument, the error"),
    ],
)
def test_s05_a_hook_with_other_arguments_than_it_is_called_with_is_refused(hook: str, called: str) -> None:
    def wrong(self: Any, one: int, two: int) -> None: ...

    refused(lambda: Child(type("Wrong", (Process,), {hook: wrong})), f"Wrong.{hook}(self", f"which is called {called}")


@pytest.mark.parametrize("hook", ["on_start", "loop", "__loop__", "on_receive", "on_finish", "handle_timeout"])
@pytest.mark.parametrize("value", [5, "forever", property(lambda self: 1)], ids=type)
def test_a_hook_that_is_no_method_is_refused(hook: str, value: Any) -> None:
    refused(lambda: Child(type("Wrong", (Process,), {hook: value})), f"Wrong.{hook} must be a method, not")


def test_a_hook_may_have_defaults_any_arguments_and_a_decorator_that_gives_one() -> None:
    def given(function: Any) -> Any:
        @functools.wraps(function)
        def call(self: Any) -> Any:
            return function(self, 1)

        return call

    class Right(Process):
        def on_start(self, size: int = 1) -> None: ...

        def loop(self, *rest: Any, **named: Any) -> None: ...

        @given
        def after_loop(self, one: int) -> None: ...

        @staticmethod
        def on_finish() -> None: ...

        @classmethod
        def result(cls) -> str:
            return cls.__name__

    assert Child(Right).kind == "process"


@pytest.mark.parametrize("hook", ["result", "on_receive"])
def test_a_generator_may_be_an_answer(hook: str) -> None:
    def yields(self: Any, *message: Any) -> Any:
        yield

    Child(type("Stream", (Thread,), {hook: yields}))


def test_s84_a_mailbox_is_bounded_by_the_child_or_its_class() -> None:
    bounded = type("Limited", (Plain,), {"mailbox": Bounded(3)})
    assert Child(work).mailbox is None
    assert Child(bounded).mailbox == Bounded(3, "block")
    assert Child(bounded, mailbox=None).mailbox is None
    assert Child(bounded, mailbox=Bounded(1, on_full="reject")).replace(id="x").mailbox == Bounded(1, "reject")
    refused(lambda: Child(work, mailbox=10), "mailbox must be a Bounded(...) or None, not 10")  # type: ignore[arg-type]
    refused(lambda: Child(Supervisor("a"), mailbox=Bounded(1)), "supervisors take no messages")


# ---------------------------------------------------------------- limits
@pytest.mark.parametrize("option", LIMITS)
def test_s55_a_limit_is_seconds_from_the_child_its_worker_or_its_class(option: str) -> None:
    slow = type("Slow", (Plain,), {option: 3})
    assert getattr(Child(Plain), option) is None
    assert getattr(Child(Plain, **one(option, 0.25)), option) == 0.25
    assert getattr(Child(slow), option) == 3.0
    assert getattr(Child(slow, **one(option, None)), option) is None


@pytest.mark.parametrize("option", LIMITS)
@pytest.mark.parametrize("value", [0, -1, math.inf, math.nan, "1", True])
def test_s55_a_limit_that_is_no_time_is_refused(option: str, value: Any) -> None:
    refused(lambda: Child(work, **one(option, value)), "Child 'work'", option, "seconds > 0 or None", repr(value))


@pytest.mark.parametrize("option", LIMITS)
def test_s55_supervisors_have_no_limits(option: str) -> None:
    refused(lambda: Child(Supervisor("below"), **one(option, 1.0)), option, "supervisors have no loop")


# ---------------------------------------------------------------- snapshots
def test_a_snapshot_copies_plain_containers_all_the_way_down_and_nothing_else() -> None:
    thing = object()
    value = {"list": [1, (2, [3])], "set": {4}, "bytes": bytearray(b"5"), "thing": thing}

    taken = snapshot(value)

    assert taken == value
    assert taken["list"] is not value["list"]
    assert taken["list"][1][1] is not value["list"][1][1]  # type: ignore[index]
    assert taken["set"] is not value["set"]
    assert taken["bytes"] is not value["bytes"]
    assert taken["thing"] is thing


def test_a_snapshot_keeps_sharing_and_cycles() -> None:
    shared: list[Any] = []
    cycle: list[Any] = [shared, shared]
    cycle.append(cycle)

    taken = snapshot(cycle)

    assert taken[0] is taken[1]
    assert taken[0] is not shared
    assert taken[2] is taken


@pytest.mark.parametrize("drain", [0, -1, "2", True, math.inf, math.nan])
def test_s72_a_drain_that_is_no_time_is_refused(drain: Any) -> None:
    with pytest.raises(SpecError, match="Child 'work': drain must be seconds > 0 or None"):
        Child(work, drain=drain)


@pytest.mark.parametrize("options", [{}, {"shutdown": 6.0}, {"shutdown": "brutal_kill"}])
def test_s72_a_drain_must_leave_time_for_the_rest_of_the_stop(options: Any) -> None:
    with pytest.raises(SpecError, match=r"Child 'plain': drain \(6 s\) must be less than shutdown"):
        Child(Plain, drain=6.0, **options)
    assert Child(Plain, drain=6.0, shutdown=6.5).drain == 6.0
    assert Child(Plain, drain=6.0, shutdown="infinity").drain == 6.0


def test_s72_a_class_can_set_its_own_drain() -> None:
    class Drains(Thread):
        drain = 2.0

    assert Child(Drains).drain == 2.0
    assert Child(Drains, drain=None).drain is None


def test_s72_what_takes_no_messages_takes_no_drain() -> None:
    with pytest.raises(SpecError, match="drain makes no sense here: supervisors take no messages"):
        Child(Supervisor("below"), drain=1.0)
    with pytest.raises(SpecError, match="drain makes no sense here: commands take no messages"):
        Child(Command("true"), drain=1.0)
