"""A running supervisor takes the same requests from the program, from its threads and from its processes."""

import contextlib
import os
import threading
from concurrent.futures import Future, wait
from typing import Any

import pytest

from suitkaise import (
    Child,
    ChildAlreadyStarted,
    ChildNotFound,
    ChildRunning,
    ChildStartFailed,
    DeadlockError,
    DynamicSupervisor,
    Process,
    Reject,
    Shutdown,
    SpecError,
    SuitkaiseError,
    Supervisor,
    SupervisorRef,
    Thread,
    WorkerRef,
    whereis,
)
from suitkaise.messaging.protocol import RequestKind
from suitkaise.messaging.router import router
from tests.sample_workers import CountingProcess, CountingThread, Echo, EchoThread
from tests.support import eventually, in_background, interrupted_at_each_line

pytestmark = pytest.mark.usefixtures("one_runtime_for_all")


class _Caller:
    """Calls a method of a supervisor's ref and answers its value."""

    def on_receive(self, message):
        path, method, *arguments = message
        try:
            return getattr(whereis(path), method)(*arguments)
        except SuitkaiseError as error:
            raise Reject(error) from error


class CallerProcess(_Caller, Process):
    pass


class CallerThread(_Caller, Thread):
    pass


class Fails(Process):
    def on_start(self):
        raise OSError("no start")


callers = pytest.mark.parametrize("caller", [CallerProcess, CallerThread, None], ids=["process", "thread", "hub"])


@contextlib.contextmanager
def tree_with_caller(caller):
    """Yield a running tree, and `do(method, *arguments)`, which lets the caller call a method of `tree/team`."""
    tree = Supervisor("tree", Child(caller or CallerThread, id="caller"), Supervisor("team", Child(Echo)))
    with tree.start() as running:

        def do(method, *arguments):
            if caller is None:
                return getattr(whereis("tree/team"), method)(*arguments)
            return running["caller"].ask(("tree/team", method, *arguments))

        yield running, do


@callers
def test_children_are_started_terminated_restarted_deleted_and_listed(caller):
    with tree_with_caller(caller) as (running, do):
        ref = do("start_child", Child(Echo, id="second"))
        assert ref == WorkerRef("tree/team/second")
        assert ref.ask("hello") == "hello"
        assert [line.id for line in do("which_children")] == ["echo", "second"]
        assert do("terminate_child", "second") is None
        assert [str(line.status) for line in do("which_children")] == ["running", "stopped"]
        assert do("count_children") == running.count_children("team")
        assert do("restart_child", "second").ask("back?") == "back?"
        do("terminate_child", "second")
        do("delete_child", "second")
        assert [line.id for line in do("which_children")] == ["echo"]
        assert do("get_child_spec", "echo") == running.get_child_spec("team/echo")


@callers
def test_s08_s10_s17_s19_refusals_are_the_same_from_everywhere(caller):
    with tree_with_caller(caller) as (_, do):
        with pytest.raises(ChildAlreadyStarted) as taken:
            do("start_child", Child(Echo))
        assert taken.value.ref == WorkerRef("tree/team/echo")
        with pytest.raises(ChildRunning):
            do("restart_child", "echo")
        with pytest.raises(ChildRunning):
            do("delete_child", "echo")
        with pytest.raises(ChildStartFailed, match="no start"):
            do("start_child", Child(Fails))
        for method in ("terminate_child", "restart_child", "delete_child", "get_child_spec", "suspend", "resume"):
            with pytest.raises(ChildNotFound):
                do(method, "nobody")
        with pytest.raises(SpecError):
            do("start_child", 42)
        assert [line.id for line in do("which_children")] == ["echo"]


@callers
def test_a_request_reaches_a_nested_supervisor_by_its_path(caller):
    with tree_with_caller(caller) as (running, do):
        inner = do("start_child", Supervisor("inner", Child(Echo)))
        assert isinstance(inner, SupervisorRef)
        assert inner.start_child(EchoThread).path == "tree/team/inner/echo_thread"
        do("terminate_child", "inner/echo")
        assert not running["team/inner/echo"].is_alive()
        assert do("restart_child", "inner/echo").ask(1) == 1
        with pytest.raises(ChildNotFound, match="no running supervisor at 'tree/team/echo': it is a worker"):
            do("terminate_child", "echo/below")


def test_whereis_returns_a_supervisor_ref_or_a_worker_ref():
    with tree_with_caller(None) as (running, _):
        assert type(whereis("tree")) is SupervisorRef
        assert type(running["team"]) is SupervisorRef
        assert type(running["team/echo"]) is WorkerRef
        assert [type(line.ref) for line in running.which_children()] == [WorkerRef, SupervisorRef]
        assert whereis("tree").status == "running"
        assert whereis("tree").pid == os.getpid()
        with pytest.raises(SuitkaiseError, match="'tree/team' is a supervisor; it takes no messages"):
            running["team"].tell("hello")
        with pytest.raises(SuitkaiseError, match="'tree' is a supervisor; it takes no messages"):
            whereis("tree").ask("hello")


def test_a_tree_ends_when_its_root_gets_a_stop_request():
    with Supervisor("tree", Child(Echo)).start() as running:
        root = whereis("tree")
        with pytest.raises(SuitkaiseError, match="'tree' is a root, so no supervisor could recall it"):
            root.recall()
        root.rejoin()
        assert root.join(15) == Shutdown()
        assert running.wait(15) == Shutdown()


class WaitsForItself(Process):
    """Makes a request in a hook that could only be answered after that hook has ended."""

    def __init__(self, hook):
        self.hook = hook

    def on_start(self):
        match self.hook:
            case "on_start":
                self.whereis("tree").start_child(Child(Echo, id="late"))
            case "recall in on_start":
                self.whereis("tree/echo").recall()

    def on_receive(self, message):
        self.whereis("tree").terminate_child(message)


def test_a_worker_that_would_wait_for_its_own_end_gets_a_deadlock_error():
    tree = Supervisor("tree", Supervisor("team", Child(WaitsForItself("on_receive"))), max_restarts=0)
    with tree.start() as running:
        with pytest.raises(ChildNotFound):
            running["team/waits_for_itself"].proxy().on_receive("nobody").get()
    for target in ("team/waits_for_itself", "team"):
        with tree.start() as running, pytest.raises(DeadlockError, match=r"call self\.rejoin\(\)"):
            running["team/waits_for_itself"].ask(target)


def test_a_request_in_on_start_that_would_wait_for_that_start_is_a_deadlock_error():
    with pytest.raises(ChildStartFailed, match=r"DeadlockError.*is being started by 'tree'"):
        Supervisor("tree", Child(WaitsForItself("on_start"))).start()


def test_a_recall_of_a_sibling_in_on_start_is_a_deadlock_error():
    tree = Supervisor("tree", Echo, Child(WaitsForItself("recall in on_start"), start_timeout=15.0))
    with pytest.raises(ChildStartFailed, match=r"DeadlockError.*is being started by 'tree'"):
        tree.start()


def test_requests_of_many_threads_and_workers_are_all_answered():
    with Supervisor("tree", Child(CallerProcess, id="caller"), Supervisor("team")).start() as running:
        refs, lock = [], threading.Lock()

        def add_and_terminate(number):
            ref = running["caller"].ask(("tree/team", "start_child", Child(Echo, id=f"p{number}")), timeout=20)
            with lock:
                refs.append(ref)
            running["team"].terminate_child(f"p{number}")

        threads = [threading.Thread(target=add_and_terminate, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        assert len(refs) == 8
        assert running.count_children("team").specs == 8
        assert running.count_children("team").active == 0


# ------------------------------------------------------------ suspension
@pytest.mark.parametrize("worker", [CountingProcess, CountingThread])
def test_a_suspended_worker_neither_loops_nor_takes_messages_until_it_is_resumed(worker):
    with Supervisor("tree", Child(worker, id="counts")).start() as running:
        ref = running["counts"]
        running.suspend("counts")
        assert ref.status == "suspended"
        first = ref.ask_future("how far?")
        eventually(lambda: (view := on_the_board("tree/counts")) is not None and view.phase.hook == "waiting")
        loops = on_the_board("tree/counts").loops
        assert not first.done()
        running.resume("counts")
        assert ref.status == "running"
        assert first.get(15) >= loops
        eventually(lambda: on_the_board("tree/counts").loops > loops)


@pytest.mark.parametrize("worker", [Echo, EchoThread])
def test_messages_to_a_suspended_worker_without_a_loop_wait_in_its_mailbox(worker):
    with Supervisor("tree", Child(worker, id="echo")).start() as running:
        assert running["echo"].ask(0) == 0
        running.suspend("echo")
        answers = [running["echo"].ask_future(number) for number in range(3)]
        assert not any(answer.done() for answer in answers)
        running.resume("echo")
        running.resume("echo")
        assert [answer.get(15) for answer in answers] == [0, 1, 2]


@pytest.mark.parametrize("worker", [CountingProcess, CountingThread])
def test_a_suspended_worker_can_be_stopped_and_is_not_suspended_after_a_restart(worker):
    with Supervisor("tree", Child(worker, id="counts")).start() as running:
        running.suspend("counts")
        running.recall("counts")
        assert running["counts"].status == "running"
        assert running["counts"].ask("how far?") >= 0
        running.suspend("counts")
        assert running.stop(timeout=15) == Shutdown("stop")


def test_a_supervisor_is_suspended_by_suspending_its_workers():
    with Supervisor("tree", Supervisor("team", Child(Echo), Child(EchoThread))).start() as running:
        running.suspend("team")
        assert [str(line.status) for line in running.which_children("team")] == ["suspended", "suspended"]
        answers = [running[f"team/{id}"].ask_future(1) for id in ("echo", "echo_thread")]
        running.resume("team")
        assert [answer.get(15) for answer in answers] == [1, 1]
        assert [str(line.status) for line in running.which_children("team")] == ["running", "running"]


def test_a_worker_that_is_suspended_and_resumed_at_the_same_time_is_what_its_status_tells():
    with Supervisor("tree", EchoThread).start() as running:
        mailbox = running._root.handles["echo_thread"].mailbox
        resumed: list[Future[None]] = []

        def resume_meanwhile():
            resumed.append(in_background(lambda: running.resume("echo_thread")))
            wait(resumed, timeout=0.1)  # it may have to wait for the end of `suspend`

        for _ in interrupted_at_each_line(lambda: lambda: running.suspend("echo_thread"), resume_meanwhile):
            resumed.pop().result(15)
            assert (str(running["echo_thread"].status) == "suspended") == mailbox.suspended


def test_s64_the_suspension_of_a_removed_child_is_not_kept():
    with Supervisor("tree", DynamicSupervisor("team")).start() as running:
        for _ in range(3):
            id = running.start_child(EchoThread, under="team").name
            running.suspend(f"team/{id}")
            running.terminate_child(f"team/{id}")
        assert not running._root.child("team").handles  # which know it


def on_the_board(path):
    """Return what the status board shows of the worker; None: nothing yet."""
    return router().request(RequestKind.STATS, path).get()[3]


class Ends(Thread):
    """Stops its own tree, by its ref or by the running tree."""

    def __init__(self, trees: list[Any]) -> None:
        self.trees = trees

    def on_receive(self, message: Any) -> None:
        if message == "by its ref":
            whereis("app").rejoin()
        else:
            self.trees[0].stop()


def test_a_worker_that_stops_its_own_tree_is_refused_and_nothing_is_stopped() -> None:
    trees: list[Any] = []
    with Supervisor("app", Ends(trees), Echo).start() as running:
        trees.append(running)
        with pytest.raises(DeadlockError, match=r"^'app/ends' is a worker of 'app' .* call whereis\('app'\)"):
            running["ends"].ask("by the tree")
        assert running["echo"].ask(1) == 1
        running["ends"].ask("by its ref")
        assert running.wait(15) == Shutdown()
