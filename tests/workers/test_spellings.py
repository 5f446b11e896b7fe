"""A hook may be written under any of its spellings: `before_loop`, `__beforeloop__`, `__before_loop__`."""

from __future__ import annotations

import abc
import pickle
import re
from collections.abc import Callable
from typing import Any
from unittest import mock

import cloudpickle
import pytest

from suitkaise import Child, Process, SpecError, Thread
from suitkaise.specs import Recipe
from suitkaise.specs.spellings import HOOKS, spellings_of
from suitkaise.workers.hooks import build, hook_of, is_async
from suitkaise.workers.worker import Worker
from suitkaise.workers.worker_type import LoopNumber
from tests.support import ROOT
from tests.workers.harness import harnesses

SPELLED = [(hook, spelling) for hook in HOOKS for spelling in spellings_of(hook)]


def a_class(bases: tuple[type, ...] = (Process,), **body: Any) -> Any:
    return type(bases[0])("Made", bases, body)


def calls_of(cls: Any, hook: str, *args: Any) -> list[str]:
    worker = build(Recipe(cls), None)
    worker.__dict__["calls"] = calls = []
    found = hook_of(worker, hook)
    assert found is not None
    found(*args)
    return calls


def noting(name: str, then: Callable[[Any], Any] = lambda worker: None) -> Callable[..., Any]:
    def note(self: Any, *args: Any) -> Any:
        self.calls.append(name)
        return then(self)

    return note


@pytest.mark.parametrize("hook, spelling", SPELLED)
def test_a_hook_is_found_under_each_spelling(hook: str, spelling: str) -> None:
    function = noting("it")
    cls = a_class(**{spelling: function})
    assert calls_of(cls, hook) == ["it"]
    assert [vars(cls)[name] for name in spellings_of(hook)] == [function] * len(spellings_of(hook))


@pytest.mark.parametrize("hook, spelling", SPELLED)
def test_the_base_worker_has_each_spelling(hook: str, spelling: str) -> None:
    assert getattr(Worker, spelling) is getattr(Worker, hook)
    assert hook_of(build(Recipe(a_class()), None), hook) is None


@pytest.mark.parametrize("of_base", spellings_of("before_loop"))
@pytest.mark.parametrize("of_derived", spellings_of("before_loop"))
@pytest.mark.parametrize("called", spellings_of("before_loop"))
def test_super_reaches_the_hook_of_a_base_under_any_spelling(of_base: str, of_derived: str, called: str) -> None:
    base = a_class(**{of_base: noting("base")})
    cls = a_class((base,), **{of_derived: noting("derived", lambda worker: getattr(super(cls, worker), called)())})
    assert calls_of(cls, "before_loop") == ["derived", "base"]


@pytest.mark.parametrize("of_mixin", spellings_of("before_loop"))
@pytest.mark.parametrize("of_derived", spellings_of("before_loop"))
@pytest.mark.parametrize("called", spellings_of("before_loop"))
def test_super_reaches_a_mixin_and_the_base_behind_it(of_mixin: str, of_derived: str, called: str) -> None:
    def of_the_mixin(self: Any) -> None:
        self.calls.append("mixin")
        getattr(super(mixin, self), called)()

    base = a_class(__before_loop__=noting("base"))
    mixin = type("Mixin", (), {of_mixin: of_the_mixin})
    before = dict(vars(mixin))
    cls = a_class(
        (mixin, base), **{of_derived: noting("derived", lambda worker: getattr(super(cls, worker), called)())}
    )  # type(mixin) is type: the metaclass is found by Python
    assert calls_of(cls, "before_loop") == ["derived", "mixin", "base"]
    assert dict(vars(mixin)) == before, "a mixin stays as it is"


def test_hooks_of_two_mixins_call_each_other() -> None:
    class First:
        def __loop__(self) -> None:
            self.calls.append("first")
            super().loop()  # type: ignore[misc]

    class Second:
        def loop(self) -> None:
            self.calls.append("second")
            super().__loop__()  # type: ignore[misc]

    class Base(Process):
        def __loop__(self) -> None:
            self.calls.append("base")
            super().loop()

    class Both(First, Second, Base): ...

    class Swapped(Second, First, Base): ...

    class Derived(Both): ...

    class Twice(Derived, Base): ...

    assert calls_of(Both, "loop") == ["first", "second", "base"]
    assert calls_of(Swapped, "loop") == ["second", "first", "base"]
    assert calls_of(Derived, "loop") == calls_of(Twice, "loop") == ["first", "second", "base"]


def test_the_most_derived_class_decides_whichever_spelling_it_uses() -> None:
    class Base(Process):
        def __beforeloop__(self) -> None:
            self.calls.append("base")

    class Derived(Base):
        def before_loop(self) -> None:
            self.calls.append("derived")

    class Again(Derived):
        def __before_loop__(self) -> None:
            self.calls.append("again")

    assert calls_of(Derived, "before_loop") == ["derived"]
    assert calls_of(Again, "before_loop") == ["again"]


def test_a_mixin_that_stands_behind_the_worker_class_does_not_count() -> None:
    class Looping:
        def __loop__(self) -> None: ...

    class Made(Process, Looping): ...

    assert hook_of(build(Recipe(Made), None), "loop") is None


@pytest.mark.parametrize("hook", [hook for hook in HOOKS if len(spellings_of(hook)) > 1])
def test_a_class_with_one_hook_under_two_spellings_is_refused(hook: str) -> None:
    one, other = spellings_of(hook)[:2]
    body = {one: lambda self: None, other: lambda self: None}
    with pytest.raises(SpecError, match=rf"Made defines {one} and {other}, which are two spellings of one hook"):
        a_class(**body)
    mixin = type("Mixin", (), body)
    with pytest.raises(SpecError, match=rf"Mixin defines {one} and {other}"):
        a_class((mixin, Process))


def test_one_function_under_two_spellings_is_no_contradiction() -> None:
    function = noting("it")
    assert calls_of(a_class(loop=function, __loop__=function), "loop") == ["it"]


@pytest.mark.parametrize(
    "name, meant",
    [
        ("__befor_loop__", "__before_loop__"),
        ("__onFinish__", "__onfinish__"),
        ("__before__loop__", "__before_loop__"),
        ("__loops__", "__loop__"),
        ("__prerun__", "__beforeloop__"),  # the names in suitkaise 0.4
        ("__run__", "__loop__"),
        ("__postrun__", "__afterloop__"),
        ("__error__", "on_failure"),
    ],
)
def test_a_name_that_is_nearly_a_hook_is_refused(name: str, meant: str) -> None:
    with pytest.raises(SpecError, match=rf"Made defines {name}, which nothing calls; did you mean {meant}\?"):
        a_class(**{name: lambda self: None})


def test_pythons_own_names_are_no_misspelled_hooks() -> None:
    names = [
        "__floor__",
        "__bool__",
        "__contains__",
        "__copy__",
        "__call__",
        "__aenter__",
        "__lt__",
        "__post_init__",
        "__len__",
    ]
    a_class(**{name: lambda self, *args: None for name in names})


@pytest.mark.parametrize(
    "hook, spelling", [(hook, name) for hook, name in SPELLED if hook not in ("on_receive", "result")]
)
def test_a_generator_under_any_spelling_is_refused(hook: str, spelling: str) -> None:
    def stream(self: Any) -> Any:
        yield 1

    with pytest.raises(SpecError, match=rf"Made\.{spelling} is a generator"):
        Child(a_class(**{spelling: stream}))
    mixin = type("Mixin", (), {spelling: stream})
    with pytest.raises(SpecError, match=rf"Made\.{spelling} is a generator"):
        Child(a_class((mixin, Process)))


@pytest.mark.parametrize("hook, spelling", SPELLED)
def test_an_async_hook_under_any_spelling_needs_an_event_loop(hook: str, spelling: str) -> None:
    async def later(self: Any, *args: Any) -> None: ...

    assert is_async(Recipe(a_class(**{spelling: later})))
    mixin = type("Mixin", (), {spelling: later})
    assert is_async(Recipe(a_class((mixin, Process))))
    assert not is_async(Recipe(a_class(**{spelling: lambda self: None})))


def test_a_hook_that_is_replaced_later_is_replaced_under_all_spellings() -> None:
    cls = a_class(__loop__=noting("old"))
    with mock.patch.object(cls, "__loop__", noting("new")):
        assert calls_of(cls, "loop") == ["new"]
    assert calls_of(cls, "loop") == ["old"]


def test_an_abstract_hook_may_be_implemented_under_another_spelling() -> None:
    class Base(Process, abc.ABC):
        @abc.abstractmethod
        def __loop__(self) -> None: ...

    class Made(Base):
        def loop(self) -> None:
            self.calls.append("made")

    with pytest.raises(TypeError, match="abstract"):
        Base()  # type: ignore[abstract]
    assert calls_of(Made, "loop") == ["made"]


def test_a_class_that_travels_by_value_keeps_its_spellings() -> None:
    class Mixin:
        def __before_loop__(self) -> None:
            self.calls.append("mixin")

    class Made(Mixin, Process):
        def before_loop(self) -> None:
            self.calls.append("made")
            super().__beforeloop__()

    copy = pickle.loads(cloudpickle.dumps(Made))
    assert copy is not None
    assert calls_of(copy, "before_loop") == ["made", "mixin"]


def test_private_names_are_of_the_class_that_writes_them(tmp_path: Any) -> None:
    class Base(Process):
        def __init__(self) -> None:
            super().__init__("private", num_loops=2)
            self.__count = 0

        def __loop__(self) -> int:
            self.__count += 1
            return self.__count

    class Derived(Base):
        def __init__(self) -> None:
            super().__init__()
            self.__count = 10

        def __result__(self) -> Any:
            return self.__count, self.last_result

    with harnesses(tmp_path) as make:
        assert make(Derived()).run().result.value == (10, 2)


def test_all_hooks_of_the_concept_run_in_their_order(tmp_path: Any) -> None:
    calls: list[str] = []

    class Concept(Thread):
        def __init__(self, name: str, num_loops: float | None = None) -> None:
            super().__init__(name, num_loops)

        def __onstart__(self) -> None:
            calls.append("start")

        def __beforeloop__(self) -> None:
            calls.append(f"before {self.get_current_loop} of {self.num_loops}{' last' if self.last_loop else ''}")

        def __loop__(self) -> None:
            calls.append(f"loop {self.get_current_loop()}")

        def __afterloop__(self) -> None:
            calls.append("after" if self.last_loop_time >= 0 else "?")

        def __onfinish__(self) -> None:
            calls.append("finish")

        def __onreceive__(self, message: str) -> None:
            calls.append(message)

        def __result__(self) -> str:
            return "result"

    with harnesses(tmp_path) as make:
        one = make(Concept("ui", 2))
        one.tell("message")
        assert one.run().result.value == "result"
    calls.remove("message")
    assert calls == ["start", "before 1 of 2", "loop 1", "after", "before 2 of 2 last", "loop 2", "after", "finish"]


def test_on_failure_is_called_under_its_other_spelling(tmp_path: Any) -> None:
    seen: list[str] = []

    class Fails(Thread):
        def __loop__(self) -> None:
            raise ValueError("no")

        def __on_failure__(self, error: Exception) -> None:
            seen.append(str(error))

    with harnesses(tmp_path) as make:
        make(Fails()).run()
    assert seen == ["no"]


# ---------------------------------------------------------------- get_current_loop, get_pid, process_name
def test_the_current_loop_may_be_read_and_called() -> None:
    worker = a_class()("ui")
    assert (f"{worker.name}-{worker.get_current_loop}", worker.get_current_loop()) == ("ui-0", 0)
    assert (Process.get_current_loop(), Thread.get_current_loop()) == (0, 0)


def test_a_loop_number_travels_as_a_plain_number() -> None:
    for copy in (pickle.loads(pickle.dumps(LoopNumber(3))), cloudpickle.loads(cloudpickle.dumps(LoopNumber(3)))):
        assert (type(copy), copy) == (int, 3)


def test_the_class_knows_the_loop_and_the_pid_of_the_worker_that_runs_here(tmp_path: Any) -> None:
    class Asks(Thread):
        def loop(self) -> Any:
            return (
                Process.get_current_loop(),
                Thread.get_current_loop(),
                Process.get_pid() == self.get_pid() == self.pid,
            )

    with harnesses(tmp_path) as make:
        assert make(Asks("ui", 3)).run().result.value == (3, 3, True)


def test_the_name_is_the_process_name_unless_the_class_has_its_own() -> None:
    class Own(Process):
        process_name = "own"

    assert (a_class()("ui").process_name, Own("ui").process_name) == ("ui", "own")


# ---------------------------------------------------------------- the page
def test_the_page_lists_the_spellings() -> None:
    page = (ROOT / "docs" / "reference" / "worker_names.md").read_text(encoding="utf-8")
    section = page.split("## The spellings of the hooks\n")[1].split("\n## ")[0]
    rows = [tuple(re.findall(r"`(\w+)`", row)) for row in section.splitlines() if row.startswith("| `")]
    assert rows == [spellings_of(hook) for hook in HOOKS]
