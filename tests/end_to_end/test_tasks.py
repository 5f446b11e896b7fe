"""One-shot tasks in processes of their own, and streams of them."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError, as_completed
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from suitkaise import (
    AskTimeout,
    Child,
    ChildNotFound,
    Command,
    DynamicSupervisor,
    Killed,
    MaxChildren,
    NotSerializable,
    Process,
    RunningTree,
    Signaled,
    SpecError,
    Supervisor,
    Thread,
    WorkerDead,
    WorkerFailed,
)
from suitkaise.events import ChildStopError
from tests.support import eventually, in_background, wait_gone

pytestmark = pytest.mark.usefixtures("one_runtime_for_all")


def add(a: int, b: int = 0) -> int:
    return a + b


def fail(text: str) -> None:
    raise LookupError(text)


async def add_later(a: int, b: int) -> int:
    await asyncio.sleep(0)
    return a + b


def announce_and_wait(folder: Path, seconds: float = 600.0) -> str:
    (folder / f"{os.getpid()}.tmp").write_text("")
    (folder / f"{os.getpid()}.tmp").rename(folder / str(os.getpid()))
    time.sleep(seconds)
    return "waited"


def pid_in(folder: Path) -> int:
    names = eventually(lambda: [file.name for file in folder.iterdir() if file.name.isdigit()])
    return int(names[0])


def is_up(running: RunningTree) -> None:
    """Wait until the only task is up: a stop during its start ends it without a value."""

    def statuses() -> list[str]:
        with suppress(ChildNotFound):  # the supervisor of the tasks, which comes with the first one
            return [line.status for line in running.which_children("tasks")]
        return []

    eventually(lambda: statuses() == ["running"])


def slow_first(item: int) -> tuple[int, int]:
    time.sleep(0.2 if item == 0 else 0.0)
    return item, os.getpid()


def fail_at(item: int) -> int:
    if item == 2:
        raise ValueError("two")
    return item


@pytest.fixture
def running() -> Iterator[RunningTree]:
    with Supervisor("app").start() as running:
        yield running


# ------------------------------------------------------------ task
def test_a_task_runs_once_in_a_process_of_its_own_and_leaves_nothing_behind(running: RunningTree) -> None:
    task = running.task(os.getpid)
    assert task.get(15) != os.getpid()
    assert task.path == "app/tasks/getpid-1"
    assert running.task(add, 1, b=2).result(15) == 3
    eventually(lambda: running.which_children("tasks") == [])


def test_many_tasks_run_side_by_side(running: RunningTree) -> None:
    tasks = [running.task(add, number, 1) for number in range(10)]
    assert sorted(task.result() for task in as_completed(tasks, 30)) == list(range(1, 11))


def test_a_task_may_be_async_and_can_be_awaited(running: RunningTree) -> None:
    async def main() -> int:
        return await running.task(add_later, 2, 3)

    assert asyncio.run(main()) == 5


def test_a_local_function_can_be_a_task(running: RunningTree) -> None:
    offset = 7
    assert running.task(lambda value: value + offset, 1).get(15) == 8


def test_an_error_of_the_function_is_a_failed_worker_with_that_cause(running: RunningTree) -> None:
    with pytest.raises(WorkerFailed, match=r"'app/tasks/fail-1' ended without a result: .*no such thing") as caught:
        running.task(fail, "no such thing").get(15)
    assert isinstance(caught.value.__cause__, LookupError)
    assert "in fail" in caught.value.traceback
    assert running.status().status == "running"
    assert [report.path for report in running.crashes()] == ["app/tasks/fail-1"]


def test_a_process_that_dies_fails_its_task_alone(running: RunningTree, tmp_path: Path) -> None:
    task, other = running.task(announce_and_wait, tmp_path), running.task(add, 1)
    os.kill(pid_in(tmp_path), signal.SIGKILL)
    with pytest.raises(WorkerFailed) as caught:
        task.get(15)
    assert caught.value.reason == Signaled(9)
    assert other.get(15) == 1


def test_the_end_of_its_program_is_an_end_without_a_value(running: RunningTree) -> None:
    with pytest.raises(WorkerFailed):
        running.task(sys.exit, 3).get(15)


def test_a_task_that_is_cancelled_is_killed(running: RunningTree, tmp_path: Path) -> None:
    task = running.task(announce_and_wait, tmp_path)
    pid = pid_in(tmp_path)
    assert task.cancel()
    wait_gone(pid)
    with pytest.raises(CancelledError):
        task.get()
    assert running.crashes() == []


def test_a_task_that_is_cancelled_at_once_never_stays(running: RunningTree, tmp_path: Path) -> None:
    for _ in range(5):
        running.task(announce_and_wait, tmp_path).cancel()
    eventually(lambda: running.which_children("tasks") == [])


class SlowToUnpack:
    """Keeps the start of the process waiting that unpacks it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> Any:
        return announce_and_wait, (self.folder,)


def test_a_task_that_is_cancelled_while_it_starts_is_killed_also_by_a_stop_at_once(tmp_path: Path) -> None:
    with Supervisor("app").start() as running:
        task = running.task(add, SlowToUnpack(tmp_path))
        pid = pid_in(tmp_path)
        events = running.events()
        task.cancel()
    wait_gone(pid)
    assert [event for event in events if isinstance(event, ChildStopError)] == []


def test_a_task_that_is_done_cannot_be_cancelled(running: RunningTree) -> None:
    task = running.task(add, 1)
    task.get(15)
    assert not task.cancel()


def forks() -> int:
    child = os.fork()
    return 0 if child == 0 else os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_a_process_that_a_task_has_forked_ends_where_the_function_returns(
    running: RunningTree, capfd: pytest.CaptureFixture[str]
) -> None:
    assert running.task(forks).get(15) == 0
    assert "Traceback" not in capfd.readouterr().err


def test_a_value_or_an_argument_that_cannot_be_sent_fails_the_task(running: RunningTree) -> None:
    with pytest.raises(NotSerializable):
        running.task(add, threading.Lock()).get(15)  # type: ignore[call-overload]
    with pytest.raises(WorkerFailed, match="NotSerializable in result: result: cannot pickle"):
        running.task(threading.RLock).get(15)


def test_a_stop_lets_a_task_that_runs_return_its_value(tmp_path: Path) -> None:
    with Supervisor("app").start() as running:
        task = running.task(announce_and_wait, tmp_path, 0.3)
        is_up(running)
        pid_in(tmp_path)
    assert task.get(0) == "waited"


def test_a_task_that_outlasts_the_stop_has_failed(tmp_path: Path) -> None:
    running = Supervisor("app").start()
    task = running.task(announce_and_wait, tmp_path)
    is_up(running)
    pid_in(tmp_path)
    running.stop()
    with pytest.raises(WorkerFailed) as caught:
        task.get(0)
    assert caught.value.reason == Killed("shutdown timeout")
    with pytest.raises(WorkerDead):
        running.task(add, 1)


def test_the_tree_may_declare_the_supervisor_of_its_tasks(tmp_path: Path) -> None:
    with Supervisor("app", DynamicSupervisor("tasks", max_children=1)).start() as running:
        first, second = running.task(announce_and_wait, tmp_path), running.task(add, 1)
        with pytest.raises(MaxChildren):
            second.get(15)
        first.cancel()


class Gated(Process):
    """Is up when the file `gate` exists."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_start(self) -> None:
        (self.folder / "starts").touch()
        eventually((self.folder / "gate").exists, timeout=20)


def test_the_first_tasks_do_not_hold_up_their_caller_while_another_child_starts(tmp_path: Path) -> None:
    with Supervisor("app").start() as running:
        starting = in_background(lambda: running.start_child(Gated(tmp_path)))
        eventually((tmp_path / "starts").exists)
        first, second, third = running.task(add, 1), running.task(announce_and_wait, tmp_path), running.task(fail, "x")
        assert second.cancel()
        assert not starting.done()
        (tmp_path / "gate").touch()
        assert first.get(15) == 1
        with pytest.raises(WorkerFailed, match="LookupError"):
            third.get(15)
        assert starting.result(15).status == "running"
        assert [line.id for line in running.which_children("tasks")] == []


def test_tasks_that_wait_for_their_supervisor_when_the_tree_is_stopped_have_failed(tmp_path: Path) -> None:
    with Supervisor("app").start() as running:
        starting = in_background(lambda: running.start_child(Gated(tmp_path)))
        eventually((tmp_path / "starts").exists)
        task = running.task(add, 1)
        assert not starting.done()
        running.stop()
    with pytest.raises(WorkerDead):
        task.get(15)


def test_another_child_of_that_name_is_in_the_way() -> None:
    class Other(Thread): ...

    with (
        Supervisor("app", Child(Other, id="tasks")).start() as running,
        pytest.raises(SpecError, match="rename the child"),
    ):
        running.task(add, 1)


def test_a_task_after_the_supervisor_of_the_tasks_was_deleted_gets_a_new_one(running: RunningTree) -> None:
    for _ in range(2):
        assert running.task(add, 1, 2).get(15) == 3
        running.terminate_child("tasks")
        with pytest.raises(ChildNotFound, match="no running supervisor at 'app/tasks'"):
            running.task(add, 1, 2)
        running.restart_child("tasks")
        assert running.task(add, 1, 2).get(15) == 3
        running.terminate_child("tasks")
        running.delete_child("tasks")


class Worker(Process): ...


def names(**given: int) -> list[str]:
    return sorted(given)


@pytest.mark.parametrize("args", [(), (1,)])
@pytest.mark.parametrize(
    "what",
    [Worker, Worker(), Supervisor("x"), None, 3, "ls", Command("sleep", "5"), Process.of(names), Child(names)],
)
def test_what_is_no_function_is_no_task_and_the_error_offers_nothing_but_a_function(
    running: RunningTree, what: Any, args: tuple[int, ...]
) -> None:
    with pytest.raises(SpecError, match=r"^a task is a function that is called once, not"):
        running.task(what, *args)


def test_a_coroutine_is_no_task_and_the_error_asks_for_its_function(running: RunningTree) -> None:
    coroutine: Any = add_later(1, 2)
    with pytest.raises(SpecError, match="was a function called instead of being passed"):
        running.task(coroutine)
    coroutine.close()


def test_a_class_is_no_task_and_the_error_tells_how_to_call_it(running: RunningTree) -> None:
    with pytest.raises(SpecError, match="not the class Fraction; give it lambda: Fraction"):
        running.task(Fraction, 3)
    with pytest.raises(SpecError, match="not the class Fraction"):
        list(running.stream(Fraction, [3]))


def test_an_argument_of_the_function_may_have_any_name(running: RunningTree) -> None:
    assert running.task(names, function=1, self=2, args=3, kwargs=4).get(20) == ["args", "function", "kwargs", "self"]


def test_arguments_that_do_not_fit_are_told_at_once(running: RunningTree) -> None:
    with pytest.raises(SpecError):
        running.task(add, 1, 2, 3)  # type: ignore[call-overload]


# ------------------------------------------------------------ stream
def test_a_stream_gives_the_values_in_the_order_of_the_items(running: RunningTree) -> None:
    results = list(running.stream(slow_first, range(6), limit=3))
    assert [item for item, _ in results] == list(range(6))
    assert len({pid for _, pid in results}) == 6


def test_a_stream_has_at_most_so_many_tasks_at_a_time_and_takes_items_only_then(running: RunningTree) -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for number in itertools.count():
            taken.append(number)
            yield number

    stream = running.stream(add, items(), limit=2)
    assert taken == []
    for number in range(5):
        assert next(stream) == number
        assert len(taken) <= number + 3
    stream.close()
    eventually(lambda: running.which_children("tasks") == [])


def test_an_error_ends_a_stream_and_cancels_the_rest(running: RunningTree) -> None:
    got: list[int] = []
    with pytest.raises(WorkerFailed) as caught:
        got.extend(running.stream(fail_at, itertools.count(), limit=2))
    assert str(caught.value.__cause__) == "two"
    eventually(lambda: running.which_children("tasks") == [])


def three_items() -> Iterator[int]:
    yield from range(3)
    raise LookupError("no fourth item")


def test_an_error_of_the_items_comes_at_its_place_after_the_values_of_the_items_before(running: RunningTree) -> None:
    stream = running.stream(slow_first, three_items(), limit=5)
    assert [next(stream)[0] for _ in range(3)] == [0, 1, 2]
    with pytest.raises(LookupError, match="no fourth item"):
        next(stream)
    eventually(lambda: running.which_children("tasks") == [])
    with pytest.raises(StopIteration):
        next(stream)


def test_an_item_that_cannot_be_sent_is_an_error_at_its_place(running: RunningTree) -> None:
    stream = running.stream(add, [1, 2, threading.Lock(), 4], limit=4)
    assert [next(stream), next(stream)] == [1, 2]
    with pytest.raises(NotSerializable):
        next(stream)


def test_an_interruption_while_an_item_is_made_ends_a_stream_at_once(running: RunningTree, tmp_path: Path) -> None:
    def items() -> Iterator[Path]:
        yield tmp_path
        pid_in(tmp_path)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        next(running.stream(announce_and_wait, items(), limit=2))
    eventually(lambda: running.which_children("tasks") == [])


def test_a_stream_has_a_time_out_for_each_value(running: RunningTree, tmp_path: Path) -> None:
    with pytest.raises(AskTimeout, match=r"'app/tasks/announce_and_wait-\d+' has not ended after 0\.2 s") as caught:
        list(running.stream(announce_and_wait, [tmp_path], timeout=0.2))
    assert (caught.value.path or "").startswith("app/tasks/announce_and_wait-")
    eventually(lambda: running.which_children("tasks") == [])


def test_streams_in_an_event_loop_give_the_values_in_order_beside_each_other(running: RunningTree) -> None:
    async def values(limit: int) -> list[int]:
        return [item async for item, _ in running.stream(slow_first, range(4), limit=limit)]

    async def main() -> list[list[int]]:
        return await asyncio.gather(values(2), values(3))

    assert asyncio.run(main()) == [[0, 1, 2, 3], [0, 1, 2, 3]]


def test_a_stream_that_an_event_loop_leaves_cancels_its_tasks(running: RunningTree) -> None:
    async def first() -> int:
        async for value in running.stream(add, itertools.count(7), limit=3):
            return value
        raise AssertionError

    assert asyncio.run(first()) == 7
    eventually(lambda: running.which_children("tasks") == [])


def test_a_stream_whose_reader_is_cancelled_is_closed(running: RunningTree, tmp_path: Path) -> None:
    async def main() -> None:
        stream = running.stream(announce_and_wait, [tmp_path, tmp_path], limit=2)
        reader = asyncio.ensure_future(anext(stream))
        await asyncio.to_thread(pid_in, tmp_path)
        reader.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reader
        with pytest.raises(StopAsyncIteration):
            await anext(stream)
        await asyncio.to_thread(eventually, lambda: running.which_children("tasks") == [])

    asyncio.run(main())


def test_an_error_ends_a_stream_in_an_event_loop_after_the_values_before(running: RunningTree) -> None:
    got: list[int] = []

    async def main() -> None:
        async for value in running.stream(fail_at, itertools.count(), limit=2):
            got.append(value)

    with pytest.raises(WorkerFailed) as caught:
        asyncio.run(main())
    assert got == [0, 1]
    assert str(caught.value.__cause__) == "two"
    eventually(lambda: running.which_children("tasks") == [])


def test_a_stream_in_an_event_loop_has_a_time_out_for_each_value(running: RunningTree, tmp_path: Path) -> None:
    async def main() -> None:
        async for _ in running.stream(announce_and_wait, [tmp_path], timeout=0.2):
            raise AssertionError

    with pytest.raises(AskTimeout, match=r"'app/tasks/announce_and_wait-\d+' has not ended after 0\.2 s"):
        asyncio.run(main())
    eventually(lambda: running.which_children("tasks") == [])


@pytest.mark.parametrize("limit", [0, -1, 1.5, True, "2"])
def test_a_limit_that_is_none_is_refused_at_once(running: RunningTree, limit: Any) -> None:
    with pytest.raises(SpecError, match="limit must be a whole number >= 1"):
        running.stream(add, [1], limit=limit)


def test_a_stream_of_nothing_is_empty(running: RunningTree) -> None:
    assert list(running.stream(add, [])) == []
