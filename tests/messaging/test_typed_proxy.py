"""Proxies with the type of the worker's class: what they do, and what type checkers make of them."""

from __future__ import annotations

import asyncio
import copy
import functools
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Generic, TypeVar

import pytest

from suitkaise import AskTimeout, DeadlockError, Supervisor, Thread, WorkerProxy, WorkerRef
from suitkaise.messaging import codec
from tests.support import mypy_errors

RELEASE = threading.Event()

T = TypeVar("T")


class Count(Thread):
    """Has methods and attributes of all kinds."""

    unit = "apples"

    def on_start(self) -> None:
        self.total = 0

    def on_receive(self, message: Any) -> Any:
        return self.ref.proxy(Count).double

    def add(self, number: int, *, times: int = 1) -> int:
        if number < 0:
            raise ValueError("negative")
        self.total += number * times
        return self.total

    add_five = functools.partialmethod(add, 5)

    @property
    def double(self) -> int:
        return self.total * 2

    @functools.cached_property
    def first_total(self) -> int:
        return self.total

    @staticmethod
    def half(number: int) -> float:
        return number / 2

    async def later(self, number: int) -> int:
        await asyncio.sleep(0)
        return number

    def never(self) -> None:
        RELEASE.wait(30)

    def _private(self) -> None: ...


class Box(Thread, Generic[T]):
    """Is generic."""

    def put(self, thing: T) -> list[T]:
        return [thing]


def test_calls_and_attributes_wait_for_the_answer() -> None:
    with Supervisor("app", Count).start() as running:
        count = running["count"].proxy(Count)
        assert (count.add(2, times=3), count.total, count.double, count.unit, count.half(5)) == (
            6,
            6,
            12,
            "apples",
            2.5,
        )
        assert repr(count) == "WorkerRef('app/count').proxy(Count)"
        assert isinstance(running["count"].proxy(), WorkerProxy)


def test_a_cached_property_is_read_as_any_property() -> None:
    with Supervisor("app", Count).start() as running:
        count = running["count"].proxy(Count)
        count.add(3)
        assert (count.first_total, count.add(1), count.first_total) == (3, 4, 3)


def test_what_the_runtime_knows_of_a_worker_is_read_as_any_attribute() -> None:
    with Supervisor("app", Count).start() as running:
        count = running["count"].proxy(Count)
        assert (count.path, count.kind, count.copy, count.process_name) == ("app/count", "thread", None, "count")
        assert count.metadata["name"] == count.name == "count"


def test_a_method_that_is_made_of_another_one_is_called() -> None:
    with Supervisor("app", Count).start() as running:
        assert running["count"].proxy(Count).add_five() == 5


def test_a_timeout_without_a_class_which_would_limit_nothing_is_refused() -> None:
    proxy: Any = WorkerRef("app/count").proxy
    with pytest.raises(TypeError, match=r"without the class, write get\(timeout\)"):
        proxy(timeout=0.5)


@pytest.mark.parametrize("wrong", [Count(), "Count", 3], ids=["a worker", "a name", "a number"])
def test_what_is_no_class_is_refused(wrong: Any) -> None:
    with pytest.raises(TypeError, match="proxy takes the class of the worker, not "):
        WorkerRef("app/count").proxy(wrong)


def test_an_async_method_is_awaited() -> None:
    with Supervisor("app", Count).start() as running:
        count = running["count"].proxy(Count)

        async def main() -> int:
            return await count.later(1) + await count.later(2)

        assert asyncio.run(main()) == 3


def test_a_generic_class_may_have_type_parameters() -> None:
    with Supervisor("app", Box[int]).start() as running:
        assert running["box"].proxy(Box[int]).put(3) == [3]


def test_the_call_of_an_async_method_is_a_coroutine_as_the_class_has_it() -> None:
    with Supervisor("app", Count).start() as running:
        count = running["count"].proxy(Count)

        async def main() -> list[int]:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(count.later(number)) for number in range(3)]
            return [task.result() for task in tasks]

        assert asyncio.run(main()) == [0, 1, 2]
        assert asyncio.run(count.later(4)) == 4


def test_a_call_of_an_async_method_that_is_not_awaited_is_told_by_python() -> None:
    with Supervisor("app", Count).start() as running, pytest.warns(RuntimeWarning, match="'later' was never awaited"):
        running["count"].proxy(Count).later(1)


def test_wrong_names_and_arguments_are_errors_of_the_caller() -> None:
    with Supervisor("app", Count).start() as running:
        count: Any = running["count"].proxy(Count)
        with pytest.raises(TypeError, match="add"):
            count.add()
        with pytest.raises(AttributeError, match="nothing"):
            count.nothing  # noqa: B018
        with pytest.raises(AttributeError, match="'_private' is private"):
            count._private()
        with pytest.raises(AttributeError, match="a proxy cannot set 'total'"):
            count.total = 5
        assert running["count"].incarnation == 1


def test_a_proxy_waits_no_longer_than_its_time_out() -> None:
    with Supervisor("app", Count).start() as running:
        with pytest.raises(AskTimeout):
            running["count"].proxy(Count, timeout=0.05).never()
        RELEASE.set()
        with pytest.raises(TypeError, match="timeout must be seconds"):
            running["count"].proxy(Count, timeout="soon")  # type: ignore[call-overload]


def test_a_worker_that_asks_itself_by_a_proxy_is_told() -> None:
    with Supervisor("app", Count, max_restarts=100).start() as running, pytest.raises(DeadlockError):
        running["count"].ask("about yourself")


@pytest.mark.parametrize("travel", [copy.copy, copy.deepcopy, lambda proxy: codec.loads(codec.dumps(proxy))])
def test_a_proxy_can_be_copied_and_sent(travel: Callable[[Any], Any]) -> None:
    with Supervisor("app", Count).start() as running:
        assert travel(running["count"].proxy(Count)).add(2) == running["count"].proxy(Count).add(0)


GOOD = """
from typing import assert_type
from suitkaise import Process, WorkerProxy, WorkerRef

class Count(Process):
    unit: str = "apples"
    def add(self, number: int, *, times: int = 1) -> int:
        return number
    async def later(self, number: int) -> str:
        return ""

async def use(ref: WorkerRef) -> None:
    count = ref.proxy(Count)
    assert_type(count.add(2, times=3), int)
    assert_type(count.unit, str)
    assert_type(await count.later(1), str)
    assert_type(ref.proxy(), WorkerProxy)
    assert_type(ref.proxy().add(2).done(), bool)
"""

BAD = """
    count.add("2")
    count.addd(2)
    count.add(2, often=3)
"""


def test_mypy_knows_the_methods_of_the_class(tmp_path: Path) -> None:
    errors = mypy_errors(GOOD + BAD, tmp_path)
    assert len(errors) == 3, errors
    assert 'Argument 1 to "add" of "Count" has incompatible type "str"' in errors[0]
    assert '"Count" has no attribute "addd"' in errors[1]
    assert 'Unexpected keyword argument "often"' in errors[2]
