"""The storage is shared by all workers, and complete after any kill."""

from __future__ import annotations

import math
import os
import shutil
import signal
import socket
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from suitkaise import Child, Process, Supervisor, Thread, current_worker, sktree, whereis
from suitkaise.errors import AskTimeout, ChildNotFound, EntryNotFound, StorageDamaged, StorageError, SuitkaiseError
from suitkaise.runtime import runtime, storage_actor, storage_service
from suitkaise.specs import SupervisorSpec
from suitkaise.storage import connect
from suitkaise.storage.backends.store import Store
from suitkaise.storage.client import SOCKET
from suitkaise.storage.index import ALWAYS_INDEXED
from suitkaise.storage.tree import Tree
from tests.support import GRACE, eventually, in_background, is_alive, run_program, start_program, wait_gone

ENGINES = ("lmdb", "sqlite")


class Adder(Process):
    """Increments a counter, and notes each step only after it was acknowledged."""

    restart = "transient"

    def __init__(self, upto: int) -> None:
        self.upto = upto

    def loop(self) -> None:
        self.tree.increment("total", path="sums")
        self.tree.add(f"last-{self.copy}", self.current_loop, path="sums")
        if self.current_loop == self.upto:
            self.rejoin()


class Marker(Process):
    def on_start(self) -> None:
        self.tree.add("goes", self.pid, path="marks", metadata=self.metadata)
        self.tree.add("stays", self.pid, path="marks")

    def loop(self) -> None:
        self.wait(60.0)


class ThreadMarker(Thread):
    restart = "transient"

    def loop(self) -> None:
        self.tree.add("of-thread", 1, path="marks", metadata=self.metadata)
        self.rejoin()


def kill_storage() -> int:
    def running() -> int | None:
        pid = whereis("sktree/storage").pid
        return pid if pid is not None and is_alive(pid) else None  # the supervisor may not know of the last end yet

    pid = eventually(running)
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    return pid


def test_killing_the_storage_actor_under_load_loses_and_repeats_nothing() -> None:
    tree = sktree.connect()
    try:
        with Supervisor("sums", Child(Adder, args=(2000,), copies=3), max_restarts=math.inf).start() as running:
            for _ in range(10):
                wait_gone(kill_storage())
                seen = tree.get("total", path="sums", default=0)
                eventually(lambda seen=seen: tree.get("total", path="sums", default=0) > seen, timeout=20)
                if tree.get("total", path="sums") == 6000:
                    break
            for ref in running:
                ref.join(timeout=40.0)
        assert tree.get("total", path="sums") == 6000
        assert {tree.get(f"last-{copy}", path="sums") for copy in range(3)} == {2000}
        assert whereis("sktree/storage").incarnation > 3
    finally:
        sktree.disconnect()


def test_reads_go_on_while_the_storage_actor_is_stopped() -> None:
    tree = sktree.connect()
    try:
        tree.add("x", 1, path="a")
        pid = whereis("sktree/storage").pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        assert [tree.get("x", path="a") for _ in range(100)] == [1] * 100
        os.kill(pid, signal.SIGCONT)
        tree.add("x", 2, path="a")
        assert tree.get("x", path="a") == 2
    finally:
        sktree.disconnect()


def test_marked_entries_are_removed_with_a_killed_incarnation() -> None:
    tree = sktree.connect()
    try:
        with Supervisor("app", Marker).start() as running:
            first = tree.get("goes", path="marks")
            os.kill(first, signal.SIGKILL)
            second = eventually(lambda: (new := tree.get("goes", path="marks", default=first)) != first and new)
            eventually(lambda: second == tree.get("stays", path="marks") == running["marker"].pid)
        with pytest.raises(EntryNotFound):
            tree.get("goes", path="marks")
        assert tree.get("stays", path="marks") == second
    finally:
        sktree.disconnect()


def test_marked_entries_are_removed_with_a_thread_worker() -> None:
    tree = sktree.connect()
    try:
        with Supervisor("app", ThreadMarker).start() as running:
            running["thread_marker"].join(timeout=10.0)
        assert tree.get_all_from("marks") == {}
    finally:
        sktree.disconnect()


def test_a_storage_that_only_workers_use_starts_with_the_first_use() -> None:
    with Supervisor("sums", Child(Adder, args=(3,), copies=2)).start() as running:
        for ref in running:
            ref.join(timeout=20.0)
        assert sktree.connect().get("total", path="sums") == 6
        sktree.disconnect()


@pytest.mark.parametrize("engine", ENGINES)
def test_a_durable_storage_is_there_again_at_the_next_run(tmp_path: Path, engine: str) -> None:
    program = """
import os, signal, sys
from suitkaise import sktree
tree = sktree.connect(sys.argv[1], durable=True, engine=sys.argv[2] or None)
print(tree.increment("runs", path="p"), flush=True)
if sys.argv[3]:
    os.kill(os.getpid(), signal.SIGKILL)
"""
    state = str(tmp_path / "state")
    for run, (named, killed) in enumerate([(engine, ""), ("", "killed"), ("", "")], start=1):
        assert run_program(program, state, named, killed).stdout == f"{run}\n"
    other = run_program(program, state, next(name for name in ENGINES if name != engine), "")
    assert other.returncode == 1
    assert f"was made with engine='{engine}'" in other.stderr


def add_while_the_storage_is_killed(tree: Tree, times: int) -> None:
    """Let two workers add one to `total`, each that many times, while the storage actor is killed five times."""
    with Supervisor("sums", Child(Adder, args=(times,), copies=2), max_restarts=math.inf).start() as running:
        for _ in range(5):
            wait_gone(kill_storage())
            seen = tree.get("total", path="sums", default=0)
            eventually(
                lambda seen=seen: tree.get("total", path="sums", default=0) > seen or seen == 2 * times, timeout=20
            )
        for ref in running:
            ref.join(timeout=40.0)


def test_workers_share_a_storage_in_sqlite_and_nothing_is_lost_when_its_actor_is_killed() -> None:
    tree = sktree.connect(engine="sqlite")
    try:
        add_while_the_storage_is_killed(tree, 300)
        assert tree.get("total", path="sums") == 600
        with pytest.raises(StorageError, match="runs with engine='sqlite', not 'lmdb'"):
            sktree.connect(engine="lmdb")
        assert sktree.connect(engine="sqlite").get("total", path="sums") == 600
    finally:
        sktree.disconnect()


def test_a_watch_misses_nothing_while_workers_write_and_the_storage_actor_is_killed() -> None:
    tree = sktree.connect()
    names: list[str] = []
    try:
        tree.watch("sums", lambda change: names.append(change.name or change.kind))
        tree.add("first", 1, path="sums")
        eventually(lambda: names == ["first"])  # what was written before the storage knows of the watch could be missed
        add_while_the_storage_is_killed(tree, 200)
        eventually(lambda: len(names) == 801)
        assert names.count("total") == 400
        assert names.count("last-0") == names.count("last-1") == 200
    finally:
        sktree.disconnect()


class DeclaresIndex(Process):
    def on_start(self) -> None:
        assert sktree.connect(index=["declared by a worker"]) is self.tree

    def loop(self) -> None:
        self.wait(60.0)


def test_a_program_that_connects_again_and_again_has_one_handle() -> None:
    tree = sktree.connect()
    try:
        assert sktree.connect() is tree
        assert sktree.connect(index=["kind"]) is tree
    finally:
        sktree.disconnect()
    assert sktree.connect() is not tree
    sktree.disconnect()


def test_a_signal_handler_may_connect_while_its_worker_connects(monkeypatch: pytest.MonkeyPatch) -> None:
    def make(directory: str) -> Tree:
        if not handled:
            handled.append(None)
            handled[0] = connect.attach()  # as a handler does that runs in the midst of it
        return Tree(directory)

    handled: list[Any] = []
    place = str(sktree.connect().directory)
    monkeypatch.setattr("suitkaise.storage.tree.Tree", make)
    assert in_background(connect.attach).result(GRACE) is handled[0] is connect.attach()
    connect.detach(place)
    sktree.disconnect()


def test_a_declared_index_is_kept_in_a_durable_storage(tmp_path: Path) -> None:
    for wrong in ("kind", [5], None):
        with pytest.raises(TypeError, match="index must be a list of metadata keys"):
            sktree.connect(index=wrong)  # type: ignore[arg-type]
    for index in (["kind"], ["size"], []):
        tree = sktree.connect(tmp_path, durable=True, index=index)
        tree.add(f"n{index}", 1, path="p", metadata={"kind": "k", "size": len(index)})
        with Supervisor("app", DeclaresIndex).start():
            pass
        sktree.disconnect()
    store = Store(tmp_path)
    assert store.declared - set(ALWAYS_INDEXED) == {"kind", "size", "declared by a worker"}
    store.close()
    tree = sktree.connect(tmp_path, durable=True)
    assert len(tree.select_all_with({"kind": "k"}, "p")) == 3
    tree.deselect()
    sktree.disconnect()


def test_a_durable_storage_may_have_a_path_longer_than_a_unix_address(tmp_path: Path) -> None:
    tree = sktree.connect(tmp_path / ("long" * 30) / ("name" * 30), durable=True)
    try:
        tree.add("a", 1)
        assert tree.get("a") == 1
    finally:
        sktree.disconnect()


def test_a_directory_that_cannot_even_be_looked_at_is_a_storage_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"the storage cannot be at '.*/n+': .*File name too long"):
        sktree.connect(tmp_path / ("n" * 300), durable=True)


def test_a_directory_is_the_same_by_any_link_to_it(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "state")
    tree = sktree.connect(tmp_path / "state", durable=True)
    try:
        assert sktree.connect(tmp_path / "link", durable=True) is tree
        with pytest.raises(SuitkaiseError, match="a program has one storage"):
            sktree.connect(tmp_path, durable=True)
    finally:
        sktree.disconnect()


@pytest.mark.parametrize("engine", ENGINES)
def test_a_durable_storage_serves_one_program_at_a_time(tmp_path: Path, engine: str) -> None:
    sktree.connect(tmp_path / "state", durable=True, engine=engine)
    try:
        other = "import sys\nfrom suitkaise import sktree\nsktree.connect(sys.argv[1], durable=True)\n"
        finished = run_program(other, str(tmp_path / "state"))
        assert finished.returncode == 1
        assert "in use by another program" in finished.stderr
    finally:
        sktree.disconnect()


def test_of_programs_that_begin_to_use_a_directory_at_the_same_time_one_gets_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(tmp_path / SOCKET)
    left = socket.socket(socket.AF_UNIX)  # by an earlier program
    left.bind(path)
    left.close()
    looked, go_on, is_served = threading.Event(), threading.Event(), storage_actor.is_served

    def held_up(path: str) -> bool:
        served = is_served(path)
        if not looked.is_set():
            looked.set()
            go_on.wait(0.2)
        return served

    def declare() -> socket.socket:
        return storage_actor.declare("sktree", str(tmp_path), durable=True, engine="lmdb")[1]

    monkeypatch.setattr(storage_actor, "is_served", held_up)
    first = in_background(declare)
    assert looked.wait(GRACE)
    second = in_background(declare)
    second.add_done_callback(lambda _: go_on.set())
    with first.result(GRACE):
        with pytest.raises(StorageError, match="in use by another program"):
            second.result(GRACE).close()
        assert is_served(path)


KILLED = """
import sys
from pathlib import Path
from suitkaise import Process, Supervisor, sktree

folder = Path(sys.argv[1])

class Works(Process):
    def on_start(self):
        self.tree.add("first", 1, path="app")

    def loop(self):
        print("works", flush=True)
        self.wait(600)

    def on_finish(self):
        print("finishes", flush=True)
        while not (folder / "gate").exists():
            pass
        self.tree.add("last", 1, path="app")

sktree.connect(folder / "state", durable=True)
Supervisor("app", Works).start().wait()
"""


def test_a_program_waits_for_the_workers_of_a_killed_one_that_use_its_storage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_served = storage_actor.is_served

    def seen_in_use(path: str) -> bool:
        served = is_served(path)
        (tmp_path / "gate").touch()
        return served

    with start_program(KILLED, str(tmp_path)) as program:
        program.expect("works")
        with pytest.raises(StorageError, match="in use by another program"):
            sktree.connect(tmp_path / "state", durable=True)
        program.send_signal(signal.SIGKILL)
        program.wait()
        program.expect("finishes")
        monkeypatch.setattr(storage_actor, "is_served", seen_in_use)
        try:
            assert sktree.connect(tmp_path / "state", durable=True).get("last", path="app") == 1
        finally:
            sktree.disconnect()


def test_entries_of_a_worker_of_the_main_file_have_the_path_of_that_file(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / "part").mkdir()
    program = tmp_path / "part" / "app.py"
    program.write_text(
        "from suitkaise import Child, Process, Supervisor\n\n"
        "class Stores(Process):\n"
        "    def loop(self):\n"
        "        self.tree.add('limit', 1)\n"
        "        print(self.tree.containers())\n"
        "        self.rejoin()\n\n"
        "with Supervisor('app', Child(Stores, restart='transient')).start() as running:\n"
        "    running['stores'].join(timeout=30)\n"
    )
    assert run_program([sys.executable, str(program)], cwd=tmp_path).check().stdout == "['part/app']\n"


def test_a_storage_that_starts_while_its_program_ends_is_ended_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    program = runtime.enter()
    starting, go_on = threading.Event(), threading.Event()

    def prepare(*arguments: Any) -> None:
        starting.set()
        assert go_on.wait(GRACE)
        prepared(*arguments)

    prepared = storage_service.prepare
    monkeypatch.setattr(storage_service, "prepare", prepare)
    service = program.storage
    started = in_background(service.directory)
    assert starting.wait(GRACE)
    closed = in_background(service.close)
    go_on.set()
    started.result(GRACE)
    closed.result(GRACE)
    try:
        with pytest.raises(ChildNotFound):
            whereis("sktree/storage").pid  # noqa: B018
    finally:
        service.close()
        runtime.leave()


def test_a_storage_is_not_started_after_the_end_of_its_program() -> None:
    program = runtime.enter()
    runtime.leave()
    with pytest.raises(StorageError, match="the program ends, so its storage is not started any more"):
        program.storage.directory()
    assert not os.path.exists(program.directory)


@pytest.mark.parametrize("arguments", [{"durable": True}, {"directory": "somewhere"}])
def test_durable_needs_a_directory_and_a_directory_needs_durable(arguments: dict[str, object]) -> None:
    with pytest.raises(StorageError, match="durable storage needs a directory"):
        sktree.connect(**arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize("directory", ["", b"state", 5, "a\0b"])
def test_a_directory_that_cannot_be_is_refused_and_an_empty_text_is_not_the_working_folder(directory: Any) -> None:
    with pytest.raises(StorageError, match=r"^connect: directory must be the path of a directory, or None, not "):
        sktree.connect(directory, durable=True)


@pytest.mark.parametrize("engine", [b"lmdb", 5, ["sqlite"]])
def test_an_engine_that_is_no_text_is_refused(engine: Any) -> None:
    with pytest.raises(StorageError, match=r"^connect: engine must be 'lmdb', 'sqlite', the URL of a server, or None"):
        sktree.connect(engine=engine)


@pytest.mark.parametrize("wrong", ["yes", 1, None])
def test_durable_is_true_or_false(wrong: Any) -> None:
    with pytest.raises(StorageError, match=f"^connect: durable must be True or False, not {wrong!r}$"):
        sktree.connect("state/", durable=wrong)


def test_the_storage_of_a_program_that_does_not_disconnect_ends_with_the_program() -> None:
    finished = run_program("from suitkaise import sktree\nsktree.connect().add('x', 1)\nprint('done')\n").check()
    assert finished.stdout == "done\n"


def test_disconnect_raises_the_refused_writes_and_leaves_nothing_behind() -> None:
    tree = sktree.connect()
    tree.add("a", 1, path="p")
    again = sktree.connect()
    again.update("nothing", 2, path="p", wait=False)
    with pytest.raises(EntryNotFound, match="there is no 'nothing' in 'p'"):
        sktree.disconnect()
    assert runtime.current() is None
    sktree.disconnect()


class Idle(Thread):
    """Waits for messages."""


def test_s45_the_time_out_of_stop_covers_the_storage_too() -> None:
    sktree.connect()
    storage = eventually(lambda: whereis("sktree/storage").pid)
    running = Supervisor("idle", Idle(), Child(Idle, id="another")).start()
    os.kill(storage, signal.SIGSTOP)
    began = time.monotonic()
    try:
        for wait in (running.stop, running.wait):
            with pytest.raises(AskTimeout, match=r"'idle' has ended, but is still being cleared away after 1\.0 s"):
                wait(1.0)
        assert time.monotonic() - began < 8.0
    finally:
        os.kill(storage, signal.SIGCONT)
    assert running.wait(20.0) == running.stop()
    sktree.disconnect()
    assert runtime.current() is None


def test_a_storage_that_does_not_answer_is_waited_for_once_at_the_end_of_many_workers(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(Tree.__init__, "__kwdefaults__", {"timeout": 2.0})
    sktree.connect()
    storage = eventually(lambda: whereis("sktree/storage").pid)
    running = Supervisor("idle", Child(Idle, copies=20)).start()
    os.kill(storage, signal.SIGSTOP)
    try:
        running.stop()
        logged = [record.getMessage() for record in caplog.records if "were not removed" in record.getMessage()]
        assert 1 <= len(logged) <= 3
    finally:
        os.kill(storage, signal.SIGCONT)
    sktree.disconnect()


def test_owned_entries_that_cannot_be_removed_are_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(tree: Tree, owner: str) -> None:
        raise StorageError("no room") if "another" in owner else ZeroDivisionError("a fault")

    monkeypatch.setattr(Tree, "forget_owner", refuse)
    sktree.connect()
    with Supervisor("idle", Idle(), Child(Idle, id="another")).start():
        pass
    sktree.disconnect()
    logged = [record.getMessage() for record in caplog.records if "were not removed" in record.getMessage()]
    assert [text.partition("#")[0].split()[-1] for text in logged] == ["idle/another", "idle/idle"]
    assert [text.rpartition(": ")[2] for text in logged] == ["no room", "a fault"]


def test_a_storage_that_cannot_be_opened_again_is_given_up_and_its_clients_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(storage_service, "FAILED_STARTS", 3)
    place = tmp_path / "state"
    tree = sktree.connect(place, durable=True)
    try:
        tree.add("name", 1, path="")
        shutil.rmtree(place)
        kill_storage()
        with pytest.raises(StorageError) as gone:
            while True:
                tree.add("name", 2, path="")
        assert "is gone" in str(gone.value)
        eventually(lambda: any("is given up: it could not be opened 3 times" in line for line in caplog.messages))
    finally:
        sktree.disconnect()


class DiesAtItsStart(Process):
    def __init__(self, number: int) -> None:
        self.number = number

    def on_start(self) -> None:
        os.kill(os.getpid(), self.number)


@pytest.mark.parametrize("number, kind", [(signal.SIGKILL, StorageError), (signal.SIGBUS, StorageDamaged)])
def test_a_storage_whose_actor_dies_at_its_start_is_told_as_damaged_only_if_reading_may_have_killed_it(
    number: int, kind: type, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def declare(name: str, *arguments: Any, **options: Any) -> tuple[SupervisorSpec, socket.socket]:
        return SupervisorSpec(name, DiesAtItsStart(number)), socket.socket()

    monkeypatch.setattr(storage_actor, "declare", declare)
    with pytest.raises(StorageError, match=f"cannot be opened: signal {number:d}") as refused:
        sktree.connect(tmp_path / "state", durable=True)
    assert type(refused.value) is kind


class CleansUp(Process):
    def __init__(self, given: Tree) -> None:
        self.given = given

    def on_receive(self, name: str) -> dict[str, Any]:
        self.given.add(name, 1, path="entries", metadata={"remove_on_process_join": True})
        self.cleanup()
        return self.given.get_all_from("entries")


def test_cleanup_removes_what_the_worker_has_stored_through_another_handle_than_its_own() -> None:
    try:
        with Supervisor("app", CleansUp(sktree.connect())).start() as running:
            assert running["cleans_up"].ask("removed", timeout=20.0) == {}
    finally:
        sktree.disconnect()


class Stores(Process):
    restart = "transient"

    def on_start(self) -> None:
        self.stored = threading.Event()
        self.start_thread(self.store)

    def store(self) -> None:
        tree = sktree.connect()
        tree.add("kept", 1, path="entries")
        tree.add("removed", 2, path="entries", metadata={"remove_on_process_join": True})
        self.stored.set()
        worker = current_worker()
        assert worker is not None
        worker.wait(60)

    def loop(self) -> None:
        if self.stored.wait(0.01):
            self.rejoin()

    def result(self) -> Any:
        return self.tree.get_all_from("entries")


def test_what_a_thread_puts_into_the_storage_belongs_to_its_worker() -> None:
    tree = sktree.connect()
    try:
        with Supervisor("app", Stores()).start() as running:
            assert running["stores"].result(15) == {"kept": 1, "removed": 2}
            eventually(lambda: tree.get_all_from("entries") == {"kept": 1})
    finally:
        sktree.disconnect()
