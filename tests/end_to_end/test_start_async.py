"""Trees in an event loop: nothing blocks it, and cancellation leaves nothing."""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from suitkaise import Child, ChildStartFailed, Process, Shutdown, Supervisor
from suitkaise.runtime import runtime
from tests.support import eventually, run_program


class Slow(Process):
    """Takes `seconds` to start and up to 0.3 s to finish; makes a file at each step."""

    def __init__(self, folder: Path, seconds: float) -> None:
        self.folder = folder
        self.seconds = seconds

    def on_start(self) -> None:
        (self.folder / "starts").touch()
        self.wait(self.seconds)
        (self.folder / "started").touch()

    def on_receive(self, message: Any) -> Any:
        return message

    def on_finish(self) -> None:
        time.sleep(min(self.seconds, 0.3))
        (self.folder / "finished").touch()


class Fails(Process):
    def on_start(self) -> None:
        raise OSError("no disk")


class Pulse:
    """Counts how often the event loop runs a task that sleeps for 5 ms."""

    async def __aenter__(self) -> Pulse:
        self.beats = 0
        self._task = asyncio.ensure_future(self._beat())
        return self

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(0.005)
            self.beats += 1

    async def __aexit__(self, *error: object) -> None:
        self._task.cancel()


async def until(file: Path) -> None:
    await asyncio.to_thread(eventually, file.exists, timeout=10)


def test_the_loop_goes_on_while_the_tree_starts_and_stops(tmp_path: Path) -> None:
    async def main() -> int:
        async with Pulse() as pulse:
            async with Supervisor("tree", Slow(tmp_path, 0.5)).start_async() as running:
                during_start = pulse.beats
                assert (tmp_path / "started").exists()
                assert await running["slow"].ask_future("hello") == "hello"
                before_stop = pulse.beats
            assert (tmp_path / "finished").exists()
            assert pulse.beats > before_stop
            return during_start

    assert asyncio.run(main()) > 5
    assert runtime.current() is None


def test_the_first_start_of_a_program_does_not_import_the_library_in_the_loop() -> None:
    program = """
import asyncio, sys, threading
from suitkaise import Supervisor

class Imports:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name.startswith("suitkaise") and threading.current_thread() is threading.main_thread():
            print(name)

async def main():
    sys.meta_path.insert(0, Imports)
    async with Supervisor("app").start_async():
        sys.meta_path.remove(Imports)

asyncio.run(main())
"""
    small = {"suitkaise.runtime", "suitkaise.runtime.start", "suitkaise.platform", "suitkaise.platform.flag"}
    small |= {"suitkaise.messaging", "suitkaise.messaging.held_back"}
    assert set(run_program(program).check().stdout.split()) <= small


def test_start_async_can_be_awaited_and_the_tree_stopped_later(tmp_path: Path) -> None:
    async def main() -> None:
        running = await Supervisor("tree", Slow(tmp_path, 0.01)).start_async()
        async with running:
            assert await running["slow"].ask_future(1) == 1

    asyncio.run(main())
    assert runtime.current() is None


def test_a_start_that_fails_raises_as_start_does() -> None:
    async def main() -> None:
        async with Supervisor("tree", Fails).start_async():
            raise AssertionError("not reached")

    with pytest.raises(ChildStartFailed, match="no disk"):
        asyncio.run(main())
    assert runtime.current() is None


def test_an_exception_in_the_block_stops_the_tree(tmp_path: Path) -> None:
    async def main() -> None:
        async with Supervisor("tree", Slow(tmp_path, 0.01)).start_async():
            raise LookupError("in the block")

    with pytest.raises(LookupError, match="in the block"):
        asyncio.run(main())
    assert (tmp_path / "finished").exists()
    assert runtime.current() is None


@pytest.mark.parametrize("times", [1, 3])
def test_a_cancellation_during_the_start_stops_the_children_started_so_far(tmp_path: Path, times: int) -> None:
    async def main() -> None:
        tree = Supervisor("tree", Child(Slow, args=(tmp_path, 60.0), shutdown=5.0))
        starting = asyncio.ensure_future(tree.start_async().__aenter__())
        await until(tmp_path / "starts")
        for _ in range(times):
            starting.cancel()
            await asyncio.sleep(0)
        with pytest.raises(asyncio.CancelledError):
            await starting
        assert runtime.current() is None

    asyncio.run(main())


def test_a_cancellation_in_the_block_stops_the_tree_first(tmp_path: Path) -> None:
    async def main() -> None:
        async def use() -> None:
            async with Supervisor("tree", Slow(tmp_path, 0.01)).start_async():
                (tmp_path / "in the block").touch()
                await asyncio.sleep(60)

        using = asyncio.ensure_future(use())
        await until(tmp_path / "in the block")
        using.cancel()
        with pytest.raises(asyncio.CancelledError):
            await using
        assert (tmp_path / "finished").exists()

    asyncio.run(main())
    assert runtime.current() is None


def test_a_tree_starts_and_stops_while_all_threads_of_the_loops_executor_are_busy(tmp_path: Path) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(1))
        started = threading.Event()
        starting = loop.run_in_executor(None, started.wait, 20)
        async with Supervisor("tree", Slow(tmp_path, 0.01)).start_async() as running:
            started.set()
            joining = loop.run_in_executor(None, running["slow"].join, 20)
        assert await starting
        assert isinstance(await joining, Shutdown)

    asyncio.run(main())
    assert runtime.current() is None


def test_the_end_of_asyncio_run_waits_for_a_stop_that_is_under_way(tmp_path: Path) -> None:
    async def main() -> None:
        async def use() -> None:
            async with Supervisor("tree", Child(Lingers, args=(tmp_path,), shutdown=30.0)).start_async():
                pass
            raise AssertionError("not reached")

        async def finish() -> None:
            try:
                await asyncio.sleep(60)
            finally:
                (tmp_path / "enough").touch()

        using, finishing = asyncio.ensure_future(use()), asyncio.ensure_future(finish())
        using.add_done_callback(lambda _: ended.append(runtime.current()))
        await until(tmp_path / "finishes")
        assert not finishing.done()

    ended: list[Any] = []
    asyncio.run(main())
    assert ended == [None]


class Lingers(Process):
    """Finishes only once the file `enough` exists."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_finish(self) -> None:
        (self.folder / "finishes").touch()
        eventually((self.folder / "enough").exists, timeout=20)


@pytest.mark.parametrize("way", ["a start that is entered", "a tree that is entered"])
def test_a_cancellation_during_the_stop_waits_for_the_stop(tmp_path: Path, way: str) -> None:
    async def main() -> None:
        async def use() -> None:
            started = Supervisor("tree", Child(Lingers, args=(tmp_path,), shutdown=30.0)).start_async()
            async with started if way == "a start that is entered" else await started:
                pass

        using = asyncio.ensure_future(use())
        await until(tmp_path / "finishes")
        for _ in range(3):
            using.cancel()
            for _ in range(3):
                await asyncio.sleep(0)
        assert not using.done()
        (tmp_path / "enough").touch()
        with pytest.raises(asyncio.CancelledError):
            await using
        assert runtime.current() is None

    asyncio.run(main())


def test_two_trees_start_side_by_side(tmp_path: Path) -> None:
    async def main() -> None:
        folders = [tmp_path / name for name in "ab"]
        for folder in folders:
            folder.mkdir()
        trees = [Supervisor(folder.name, Slow(folder, 0.3)) for folder in folders]
        first, second = await asyncio.gather(*(tree.start_async() for tree in trees))
        async with first, second:
            assert await first["slow"].ask_future(1) == 1
            assert await second["slow"].ask_future(2) == 2

    asyncio.run(main())
    assert runtime.current() is None
