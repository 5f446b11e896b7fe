from __future__ import annotations

import asyncio
import logging
import math
import os
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any, cast

import pytest

from suitkaise.errors import StorageError, StorageGone
from suitkaise.platform import threads
from suitkaise.storage import history, watchers
from suitkaise.storage import watch as watch_module
from suitkaise.storage.history import Change
from suitkaise.storage.tree import Tree
from suitkaise.storage.watch import Watch
from tests.storage.support import Storage, run_in_process
from tests.support import GRACE, alarms, eventually, in_background

SOON = 20.0  # seconds


def watches_of(storage: Storage) -> list[Watch]:
    return watch_module._watches_of(str(storage.tree.directory))


def kinds_of(watch: Watch, count: int) -> list[tuple[str, str, str]]:
    return [(change.path, change.name, change.kind) for change in (watch.get(SOON) for _ in range(count))]


def test_each_change_is_an_event_with_path_name_revision_and_kind(tree: Tree) -> None:
    with tree.watch("w") as watch:
        tree.add("a", 1, "w")
        tree.update("a", 2, "w")
        tree.increment("n", path="w")
        tree.remove("a", "w")
        first = watch.get(SOON)
        assert first == Change("w", "a", first.revision, "added")
        assert kinds_of(watch, 3) == [("w", "a", "updated"), ("w", "n", "added"), ("w", "a", "removed")]
        assert watch.revision == first.revision + 3
        assert tree.revision("n", "w") == first.revision + 2


def test_a_watch_of_a_path_covers_what_lies_below_and_nothing_else(tree: Tree) -> None:
    with tree.watch("w") as watch, tree.watch("") as everything:
        for path in ("", "wide", "w", "w/deep/er", "v"):
            tree.add("x", 1, path)
        tree.add("n" * 600, 1, "w/" + "p" * 300)
        assert [change[0] for change in kinds_of(watch, 3)] == ["w", "w/deep/er", "w/" + "p" * 300]
        assert len(kinds_of(everything, 6)) == 6


def test_a_transaction_is_seen_as_a_whole_after_its_commit(tree: Tree) -> None:
    with tree.watch("w") as watch:
        with tree.transaction():
            tree.add("a", 1, "w")
            tree.add("b", 1, "w")
            with pytest.raises(TimeoutError):
                watch.get(timeout=0)
        assert kinds_of(watch, 2) == [("w", "a", "added"), ("w", "b", "added")]


def test_the_removal_of_a_dead_workers_entries_is_seen(tree: Tree) -> None:
    from suitkaise.messaging.identity import set_owner

    set_owner("w/watched#1")
    try:
        tree.add("mine", 1, "w", metadata={"remove_on_process_join": True})
    finally:
        set_owner(None)
    with tree.watch("w") as watch:
        tree.forget_owner("w/watched#1")
        assert kinds_of(watch, 1) == [("w", "mine", "removed")]


def test_the_path_of_a_watch_defaults_to_the_callers_file(tree: Tree) -> None:
    with tree.watch() as watch:
        tree.add("here", 1)
        assert kinds_of(watch, 1) == [("tests/storage/test_watch", "here", "added")]


def test_a_for_loop_ends_when_another_thread_closes_the_watch(tree: Tree) -> None:
    watch = tree.watch("w")
    seen = in_background(lambda: [change.name for change in watch])
    tree.add("a", 1, "w")
    eventually(lambda: watch.revision >= tree.revision("a", "w"))
    watch.close()
    assert seen.result(SOON) == ["a"]
    with pytest.raises(StorageError, match="is closed"):
        watch.get()


def test_a_callback_runs_in_a_thread_of_its_own_until_the_watch_is_closed(
    tree: Tree, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[tuple[str, threading.Thread]] = []

    def callback(change: Change) -> None:
        seen.append((change.name, threading.current_thread()))
        if change.name == "bad":
            raise ValueError("a fault in the callback")

    with caplog.at_level(logging.ERROR, "suitkaise.storage"):
        watch = tree.watch("w", callback)
        for name in ("a", "bad", "b"):
            tree.add(name, 1, "w")
        eventually(lambda: len(seen) == 3)
        eventually(lambda: "a fault in the callback" in caplog.text)
    watch.close()
    tree.add("late", 1, "w")
    assert [name for name, _ in seen] == ["a", "bad", "b"]
    threads = {thread for _, thread in seen}
    assert threads.isdisjoint({threading.current_thread()})
    assert not any(thread.is_alive() for thread in threads)


async def is_async(change: Change) -> None: ...


@pytest.mark.parametrize("callback, got", [("follow", "'follow'"), (is_async, "an async function, whose calls")])
def test_what_cannot_be_called_with_a_change_is_no_callback(tree: Tree, callback: Any, got: str) -> None:
    with pytest.raises(TypeError, match=f"callback must be a plain function of one change, not {got}"):
        tree.watch("w", callback)
    with tree.watch("w") as watch, pytest.raises(TypeError, match="callback must be a plain function of one change"):
        watch.call(callback)


def test_a_callback_that_takes_no_change_is_refused_at_once(tree: Tree) -> None:
    with pytest.raises(TypeError, match=r"callback is called with one change, and <.*> is \(\): too many positional"):
        tree.watch("w", lambda: None)  # type: ignore[arg-type, misc]
    tree.watch("w", print).close()  # which takes anything


def test_the_timeout_of_get_is_a_number_and_may_be_infinite(tree: Tree) -> None:
    with tree.watch("w") as watch:
        with pytest.raises(TypeError, match="timeout must be seconds, or None for ever, not '5'"):
            watch.get(timeout="5")  # type: ignore[arg-type]
        tree.add("a", 1, "w")
        assert watch.get(timeout=math.inf).name == "a"


def test_a_timer_of_the_program_does_not_prolong_the_wait_for_a_change(tree: Tree) -> None:
    with tree.watch("p") as watch, alarms(lambda *_: None, 0.02):
        rescue = threading.Timer(GRACE, Tree(tree.directory).add, ("late", 1), {"path": "p"})
        rescue.start()
        with pytest.raises(TimeoutError, match="changed in time"):
            watch.get(0.2)
        rescue.cancel()


def test_a_watch_whose_thread_cannot_be_started_is_closed(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    tree.add("there", 1, path="w")
    with monkeypatch.context() as without:
        without.setattr(threading.Thread, "start", fail)
        with pytest.raises(RuntimeError, match="new thread") as failed:
            tree.watch("w", lambda change: None)
    tree.close()  # closes the watches that there are, which the traceback still holds
    del failed
    with tree.watch("w") as watch:
        tree.add("there", 2, path="w")
        assert watch.get(10).kind == "updated"


def test_a_callback_may_close_its_own_watch(tree: Tree) -> None:
    seen: list[Change] = []
    watch = tree.watch("w", lambda change: (seen.append(change), watch.close()))
    tree.add("a", 1, "w")
    eventually(lambda: watch._thread is not None and not watch._thread.is_alive())
    tree.add("b", 1, "w")
    assert [change.name for change in seen] == ["a"]


def test_a_callback_gets_its_changes_also_where_no_thread_can_be_started_any_more(
    tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(self: threading.Thread) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    reserve = threads.Reserve(1)
    monkeypatch.setattr(threads, "_reserve", reserve)
    monkeypatch.setattr("suitkaise.storage.watch._END_OF_CALLBACK", SOON)
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", start)
        seen: Future[str] = Future()
        watch = tree.watch("w", lambda change: (watch.close(), seen.set_result(change.name)))
    tree.add("a", 1, "w")
    assert seen.result(SOON / 2) == "a"
    reserve.close()


def test_async_for_waits_without_blocking_the_event_loop_and_loses_nothing_to_a_time_out(tree: Tree) -> None:
    async def main() -> list[str]:
        with tree.watch("w") as watch:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.01):
                    await anext(watch)
            seen: list[str] = []

            async def collect() -> None:
                async for change in watch:
                    seen.append(change.name)

            task = asyncio.create_task(collect())
            for name in "abc":
                await asyncio.to_thread(tree.add, name, 1, "w")
            await asyncio.to_thread(eventually, lambda: len(seen) == 3)
            watch.close()
            await asyncio.wait_for(task, SOON)
            return seen

    assert asyncio.run(main()) == ["a", "b", "c"]


def test_a_watch_with_a_callback_is_read_by_its_callback_alone(tree: Tree) -> None:
    async def read(watch: Watch) -> None:
        await anext(watch)

    with tree.watch("w", lambda change: None) as watch:
        for reads in (watch.get, lambda: next(watch), lambda: asyncio.run(read(watch))):
            with pytest.raises(RuntimeError, match="the callback of the watch of 'w' gets its changes; open another"):
                reads()
    assert list(watch) == []


def test_a_second_task_that_reads_the_same_watch_is_refused(tree: Tree) -> None:
    async def main() -> None:
        with tree.watch("w") as watch:
            first = asyncio.ensure_future(anext(watch))
            await asyncio.sleep(0)
            with pytest.raises(RuntimeError, match="another thread or task"):
                await anext(watch)
            first.cancel()
            await asyncio.wait([first])

    asyncio.run(main())


def test_changes_before_the_watch_are_seen_from_a_given_revision(tree: Tree) -> None:
    tree.add("a", 1, "w")
    since = tree.revision("a", "w")
    tree.add("b", 1, "w")
    tree.remove("a", "w")
    with tree.watch("w", since=since) as watch:
        assert kinds_of(watch, 2) == [("w", "b", "added"), ("w", "a", "removed")]
    with tree.watch("w", since=watch.revision) as again:
        tree.add("c", 1, "w")
        assert kinds_of(again, 1) == [("w", "c", "added")]


@pytest.mark.parametrize("since", [-1, 1.5, True, "7", 1 << 63])
def test_a_revision_must_be_an_int(tree: Tree, since: Any) -> None:
    with pytest.raises(ValueError, match="since must be a revision, an int from 0 to 2"):
        tree.watch("w", since=since)


def test_a_revision_that_the_storage_never_had_is_an_overflow(tree: Tree) -> None:
    with tree.watch("w", since=1 << 40) as watch:
        tree.add("a", 1, "w")
        assert kinds_of(watch, 2) == [("w", "", "overflow"), ("w", "a", "added")]


@pytest.fixture
def watched(storage: Storage) -> Iterator[Watch]:
    with storage.tree.watch("w") as watch:
        yield watch


def test_nothing_is_missed_while_the_server_is_killed_again_and_again(storage: Storage, watched: Watch) -> None:
    expected = []
    for number in range(60):
        storage.tree.add(f"n{number}", number, "w", wait=number % 3 > 0)
        storage.tree.remove(f"n{number}", "w", wait=number % 2 > 0)
        expected += [("w", f"n{number}", "added"), ("w", f"n{number}", "removed")]
        if number % 6 == 5:
            storage.restart()
    storage.tree.flush()
    assert kinds_of(watched, 120) == expected


def test_async_for_goes_on_after_the_server_was_killed(storage: Storage, watched: Watch) -> None:
    async def main() -> list[str]:
        seen = []
        for name in "abcd":
            await asyncio.to_thread(storage.tree.add, name, 1, "w")
            seen.append((await asyncio.wait_for(anext(watched), SOON)).name)
            await asyncio.to_thread(storage.restart)
        return seen

    assert asyncio.run(main()) == list("abcd")


def test_a_watcher_that_was_away_for_too_long_is_told_to_read_anew(storage: Storage) -> None:
    storage.tree.add("first", 1, "w")
    since = storage.tree.revision("first", "w")
    storage.tree.add("second", 1, "w")
    storage.restart()  # nobody has watched, so no changes were stored
    with storage.tree.watch("w", since=since) as watch:
        assert kinds_of(watch, 1) == [("w", "", "overflow")]
        assert watch.revision == storage.tree.revision("second", "w")


def test_a_watcher_that_never_reads_harms_nobody_and_gets_merged_changes_then(storage: Storage) -> None:
    tree = storage.tree
    with tree.watch("w") as lazy, tree.watch("other") as keen:
        for _ in range(60):
            for number in range(100):
                tree.add("n" * 400 + str(number), 1, "w", wait=False)
        tree.add("last", 1, "other")
        assert kinds_of(keen, 1) == [("other", "last", "added")]
        seen = kinds_of(lazy, 1)
        while lazy.revision < tree.revision("last", "other") - 1:
            seen += kinds_of(lazy, 1)
        assert {kind for _, _, kind in seen} <= {"added", "updated"}
        assert len({name for _, name, _ in seen}) == 100
        assert len(seen) < 6000, "the changes were merged"


def test_a_watcher_that_lags_far_behind_gets_an_overflow(storage: Storage) -> None:
    tree = storage.tree
    with tree.watch("w") as lazy:
        for number in range(4 * history.MAX_CHANGES):
            tree.add("n" * 200 + str(number % 20_000), 1, "w", wait=False)
        tree.flush()
        while lazy.get(SOON).kind != "overflow":
            pass
        tree.add("after", 1, "w")
        while lazy.get(SOON).name != "after":
            pass


def test_a_quiet_watcher_resumes_without_an_overflow_after_many_changes_elsewhere(storage: Storage) -> None:
    tree = storage.tree
    with tree.watch("quiet") as quiet:
        for number in range(3 * history.MAX_CHANGES):
            tree.add(f"n{number % 10}", 1, "busy", wait=False)
        tree.flush()
        with pytest.raises(TimeoutError):
            quiet.get(timeout=0.1)
        assert quiet.revision > history.MAX_CHANGES


def test_a_watch_of_a_storage_that_is_gone_raises_storage_gone(storage: Storage, watched: Watch) -> None:
    storage.kill()
    storage.listener.close()
    with pytest.raises(StorageGone):
        next(watched)
    with pytest.raises(StorageGone):
        storage.tree.watch("w")


def test_a_storage_that_does_not_answer_is_an_error_of_the_watch(storage: Storage) -> None:
    storage.kill()
    with pytest.raises(StorageError, match=r"did not answer the watch of 'w' within 0\.1 seconds"):
        Tree(storage.directory, timeout=0.1).watch("w")


def test_a_watch_that_is_closed_while_it_begins_ends_at_once(storage: Storage) -> None:
    storage.kill()
    tree = Tree(storage.directory, timeout=600)
    begun = in_background(lambda: list(tree.watch("w")))
    eventually(lambda: [watch for watch in watches_of(storage) if watch._sock is not None])
    tree.close()
    assert begun.result(SOON) == []


def test_a_watch_that_is_closed_just_as_its_reader_ends_leaves_no_connection(tree: Tree) -> None:
    watch = tree.watch("w")
    lock: Any = watch._reading

    class Fence:
        acquire = lock.acquire

        def release(self) -> None:
            watch._reading = lock
            watch.close()  # another thread closes it after the reader's last look
            lock.release()

    watch._reading = cast(Any, Fence())
    with pytest.raises(TimeoutError):
        watch.get(0)
    assert watch._sock is None


def test_a_callback_that_exits_gets_the_next_change_nevertheless(tree: Tree, caplog: pytest.LogCaptureFixture) -> None:
    seen: list[str] = []

    def callback(change: Change) -> None:
        seen.append(change.name)
        sys.exit("enough")

    with tree.watch("w", callback):
        tree.add("a", 1, "w")
        tree.add("b", 1, "w")
        eventually(lambda: seen == ["a", "b"])
    assert "the callback of the watch of 'w' failed" in caplog.text


def test_a_watch_whose_callback_is_not_called_any_more_is_closed(
    tree: Tree, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> socket.socket:
        raise StorageError("another user listens there")

    monkeypatch.setattr(watch_module, "MOST_WATCHES", 1)
    watch = tree.watch("w", print)
    thread = watch._thread
    assert thread is not None
    with monkeypatch.context() as patched:
        patched.setattr(watch_module, "open_socket", refuse)
        watch._shut_down()
        thread.join(SOON)
    assert "the watch of 'w' has ended: another user listens there" in caplog.text
    with pytest.raises(StorageError, match="the watch of 'w' is closed"):
        watch.get(0)
    tree.watch("v").close()  # there is room for another one


def test_closing_the_tree_closes_its_watches(storage: Storage, watched: Watch) -> None:
    seen = in_background(lambda: list(watched))
    storage.tree.close()
    assert seen.result(SOON) == []


def test_a_forked_child_watches_with_a_connection_of_its_own(storage: Storage, watched: Watch) -> None:
    storage.tree.add("before", 1, "w")
    child = os.fork()
    if child == 0:
        code = 1
        try:
            code = 0 if kinds_of(watched, 1) == [("w", "before", "added")] else 2
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    assert kinds_of(watched, 1) == [("w", "before", "added")]


def test_another_process_is_told(storage: Storage) -> None:
    program = """
import sys
from suitkaise.storage.tree import Tree
with Tree(sys.argv[1]).watch("w") as watch:
    print("ready", flush=True)
    for change in watch:
        print(change.name, change.kind, flush=True)
"""
    with run_in_process(program, storage.directory) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        storage.tree.add("a", 1, "w")
        assert process.stdout.readline() == "a added\n"
        process.kill()
        storage.tree.add("b", 1, "w")
        assert storage.tree.get("b", "w") == 1


def test_a_watch_that_is_dropped_closes_its_connection(storage: Storage) -> None:
    storage.tree.add("a", 1, "w")
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(50):
        for change in storage.tree.watch("w", since=0):
            assert change.name == "a"
            break
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_reader_that_goes_on_from_the_midst_of_merged_changes_misses_none(tree: Tree) -> None:
    def write(name: str) -> None:
        for number in range(watchers.MERGE_ABOVE + 1):
            tree.add(name, number, "w", wait=False)
        tree.flush()

    tree.add("known", 1, "w")
    since = tree.revision("known", "w")
    tree.remove("known", "w")
    tree.add("first", 1, "w")
    write("a")
    tree.add("known", 2, "w")  # who goes on from before this would see it come and go, and so nothing of it
    tree.remove("known", "w")
    write("b")
    with tree.watch("w", since=since) as watch:
        assert watch.get(timeout=GRACE).name == "first"
    with tree.watch("w", since=watch.revision) as watch:
        seen = [watch.get(timeout=GRACE) for _ in range(3)]
        assert [(one.name, one.kind) for one in seen] == [("a", "added"), ("known", "removed"), ("b", "added")]
    assert watch.revision == tree.revision("b", "w")


def test_the_changes_of_one_batch_are_merged_only_above_the_limit(tree: Tree) -> None:
    count = watchers.MERGE_ABOVE
    with tree.watch("w") as watch:
        with tree.transaction():
            for number in range(count):
                tree.add(f"n{number}", 1, "w")
        assert len(kinds_of(watch, count)) == count
        assert watch.revision == tree.revision(f"n{count - 1}", "w")


@pytest.mark.parametrize(
    "read", [next, lambda watch: watch.get(), lambda watch: watch.get(SOON)], ids=["next", "get", "get with a time-out"]
)
def test_an_alarm_ends_the_wait_for_a_change_and_the_watch_goes_on(tree: Tree, read: Callable[[Watch], Change]) -> None:
    def out_of_time(*_: object) -> None:
        raise TimeoutError("of the alarm")

    rescue = threading.Timer(GRACE, tree.add, ("late", 1, "p"))
    with tree.watch("p") as watch:
        with alarms(out_of_time, 600.0, first=0.05):
            rescue.start()
            with pytest.raises(TimeoutError, match="of the alarm"):
                read(watch)
        rescue.cancel()
        rescue.join()
        tree.add("n", 1, path="p")
        assert read(watch).name == "n"


def test_a_signal_handler_that_reads_the_watch_that_its_thread_reads_is_refused(tree: Tree) -> None:
    refused: list[str] = []

    def handle(*_: object) -> None:
        with pytest.raises(RuntimeError, match="give it a watch of its own") as caught:
            watch.get(5.0)
        refused.append(str(caught.value))
        tree.add("n", 1, path="p")

    with tree.watch("p") as watch, alarms(handle, 10.0, first=0.05):
        assert watch.get(20.0).name == "n"
    assert refused
