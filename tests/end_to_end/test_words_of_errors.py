"""What a user reads who has made one of the usual mistakes."""

from __future__ import annotations

import asyncio
import socket
import sys
from pathlib import Path
from typing import Any

import pytest

from suitkaise import (
    Child,
    ChildStartFailed,
    NotSerializable,
    Process,
    SpecError,
    SpecWarning,
    SuitkaiseError,
    Supervisor,
    Thread,
    WorkerRef,
    whereis,
)
from tests.support import run_program

COMMAND = [sys.executable, "-m", "suitkaise"]


def named(**body: Any) -> Any:
    return type(Process)("Made", (Process,), body)


@pytest.mark.parametrize(
    "name, value, near",
    [
        ("restrat", "transient", "restart"),
        ("loop_timout", 1.0, "loop_timeout"),
        ("shutdwn", 1, "shutdown"),
        ("loopTimeout", 1.0, "loop_timeout"),
        ("on_recieve", lambda self, message: None, "on_receive"),
        ("on_strat", lambda self: None, "on_start"),
        ("onStart", lambda self: None, "on_start"),
        ("run", lambda self: None, "loop"),
        ("handle_call", lambda self, message, sender: None, "on_receive"),
        ("terminate", lambda self, reason: None, "on_finish"),
        ("on_stop", lambda self: None, "on_finish"),
    ],
)
def test_a_name_that_is_nearly_an_option_or_a_hook_is_told_when_the_class_is_declared(
    name: str, value: Any, near: str
) -> None:
    with pytest.warns(SpecWarning, match=rf"Child 'made': Made has {name}.*; did you mean {near}\?") as told:
        Child(named(**{name: value}))
    assert told[0].filename == __file__


@pytest.mark.parametrize("name", ["results", "look", "pool", "start_time", "restarts", "train", "total", "_restrat"])
def test_a_name_of_the_users_own_is_not_told(name: str) -> None:
    Child(named(**{name: 1}))
    Child(named(**{name: lambda self: None}))


def test_run_may_be_a_method_that_messages_call() -> None:
    Child(named(run=lambda self, job: job))
    Child(named(run=lambda self: None, loop=lambda self: None))


def test_the_hooks_of_other_libraries_may_be_methods_beside_those_here() -> None:
    nothing = lambda self: None  # noqa: E731
    Child(named(handle_call=nothing, on_receive=lambda self, message: None, terminate=nothing, __onfinish__=nothing))


def test_a_worker_is_a_process_or_a_thread() -> None:
    with pytest.raises(SpecError, match="Both derives from Process and from Thread; derive from one of them"):
        type(Process)("Both", (Process, Thread), {})


@pytest.mark.parametrize("base", [Process, Thread])
def test_a_failure_of_the_constructor_in_the_worker_names_it(base: Any) -> None:
    class Fails(base):  # type: ignore[misc]
        def __init__(self) -> None:
            if self._worker_context is not None:
                raise OSError("no disk")

    with pytest.raises(ChildStartFailed, match="OSError in __init__: no disk"):
        Supervisor("app", Fails).start()


def test_a_method_that_a_ref_does_not_have_points_to_the_proxy() -> None:
    class Adds(Thread):
        def add(self, number: int) -> int:
            return number + 1

    with Supervisor("app", Adds).start() as running:
        ref: Any = running["adds"]
        with pytest.raises(
            AttributeError, match=r"'add'; a method of the worker is called by ref.proxy\(\).add\(...\)"
        ):
            ref.add(1)
        assert ref.proxy().add(1).get() == 2


def test_a_declaration_that_is_used_as_if_it_ran_tells_how_it_is_started() -> None:
    tree: Any = Supervisor("app")
    with (
        pytest.raises(TypeError, match=r"is a declaration; start it: with Supervisor\(...\).start\(\) as running:"),
        tree,
    ):
        pass

    async def enter() -> None:
        async with tree:
            pass

    with pytest.raises(TypeError, match=r"is a declaration; start it: async with tree.start_async\(\) as running:"):
        asyncio.run(enter())
    with pytest.raises(TypeError, match=r"is a declaration; start it: running = tree.start\(\)"):
        tree["worker"].ask("hello")
    with pytest.raises(AttributeError, match=r"no attribute 'stop'; a running tree has it: running = tree.start\(\)"):
        tree.stop()
    with pytest.raises(AttributeError, match=r"no attribute 'fly'\Z"):
        tree.fly()


def test_a_start_in_an_event_loop_that_is_not_awaited_tells_how_to_await_it() -> None:
    starting: Any = Supervisor("app").start_async()
    told = r"running = await tree\.start_async\(\)"
    with pytest.raises(TypeError, match=told), starting:
        pass
    with pytest.raises(TypeError, match=told):
        starting["worker"]
    with pytest.raises(AttributeError, match=rf"no attribute 'stop'; .*{told}"):
        starting.stop()


@pytest.mark.parametrize("name, hint", [("add", ""), ("task", "; the program that has started the tree calls .*")])
def test_a_method_that_the_ref_of_a_supervisor_does_not_have_points_to_no_proxy(name: str, hint: str) -> None:
    with (
        Supervisor("app").start(),
        pytest.raises(AttributeError, match=rf"'SupervisorRef' object has no attribute '{name}'{hint}\Z"),
    ):
        getattr(whereis("app"), name)


def test_the_help_lists_each_command_with_words() -> None:
    text = run_program([*COMMAND, "--help"]).check().stdout
    assert "SUPPRESS" not in text
    assert {"run", "top", "logs", "crashes", "doctor"} <= set(text.split())


APP = """
from suitkaise import *
class A(Process):
    restart, significant, loop_timeout = "temporary", True, 0.05
    def loop(self):
        {loop}
        self.rejoin()
tree = Supervisor("app", A, auto_shutdown="any_significant")
"""


@pytest.mark.parametrize(
    "name, whose", [("suitkaise", "the package suitkaise"), ("queue", "Python's own module 'queue'")]
)
def test_a_file_that_hides_a_module_is_one_sentence(name: str, whose: str, tmp_path: Path) -> None:
    (tmp_path / f"{name}.py").write_text("")
    (tmp_path / "app.py").write_text(APP.format(loop="pass"))
    done = run_program([str(Path(sys.executable).with_name("suitkaise")), "run", "app.py"], cwd=tmp_path)
    assert done.returncode == 1
    text = f"suitkaise: SuitkaiseError: the file '{tmp_path}/{name}.py' hides {whose}"
    assert done.stderr.startswith(text), done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("place", ["socket.socket", "_thread.start_new_thread"])
@pytest.mark.parametrize("package", ["gevent", "eventlet"])
def test_sockets_or_threads_that_gevent_or_eventlet_has_replaced_are_refused_at_the_start(
    package: str, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Patched(socket.socket): ...

    Patched.__module__ = f"{package}.their_module"
    monkeypatch.setattr(place, Patched)
    with pytest.raises(SuitkaiseError, match=f"^{package} has replaced Python's sockets or threads"):
        Supervisor("app").start()


@pytest.mark.parametrize("call, error", [("breakpoint()", "RuntimeError"), ("input()", "EOFError")])
def test_a_debugger_in_a_worker_is_one_clear_error(call: str, error: str, tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(APP.format(loop=call))
    done = run_program([*COMMAND, "run", "app.py"], cwd=tmp_path)
    assert f"{error} in loop: {call} cannot work here: 'app/a' runs in a process without a terminal; " in done.stderr
    assert "`suitkaise run --debug FILE`" in done.stderr


def test_with_debug_the_workers_have_the_terminal_and_no_time_limit(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(APP.format(loop='self.wait(0.3); print("read", input())'))
    script = f"echo hello | {sys.executable} -m suitkaise run --debug app.py"
    done = run_program(["sh", "-c", script], cwd=tmp_path).check()
    assert done.stdout == "read hello\n"


def test_a_worker_without_a_loop_is_told_that_nothing_counts_its_loops() -> None:
    """The class-based setup of the concept has no loop: given without its function, it waits for messages for ever."""
    ended = run_program("""
from suitkaise import xprocess, skthreading

class UiProcess(xprocess.Process):
    def __beforeloop__(self): ...

class Waits(skthreading.SKThread):
    def on_receive(self, message): ...

with xprocess.CrossProcessing() as xp:
    xp.create_process(UiProcess("UI_handler", 3))
    skthreading.create_thread(Waits)
    skthreading.shutdown()
""").check()
    warned = "xprocess/UI_handler: no loop: it waits for messages, and nothing uses its number of loops, before_loop"
    assert ended.stderr.splitlines() == [warned]


class Work(Thread):
    @property
    def broken(self) -> int:
        return self.missing  # type: ignore[attr-defined,no-any-return]

    def on_receive(self, name: str) -> str:
        try:
            return str(getattr(self, name))
        except AttributeError as error:
            return str(error)


def test_a_worker_names_who_starts_it_and_who_reaches_it() -> None:
    for worker in (Work, Work()):
        with pytest.raises(AttributeError, match=r"no attribute 'start'; .* Supervisor\('app', Work\)\.start\(\)"):
            worker.start()  # type: ignore[union-attr]
    for name, meant in (("join", r"join\(\)"), ("terminate", r"rejoin\(\)"), ("ask", r"ask\(\.\.\.\)")):
        with pytest.raises(AttributeError, match=rf"no attribute '{name}'; .*: running\[id\]\.{meant}"):
            getattr(Work(), name)
    with Supervisor("app", Work).start() as running:
        assert "has no attribute 'stop'; a running worker ends by self.rejoin()" in running["work"].ask("stop")
        for name, meant in (("logger", "self.log"), ("sleep", "self.wait(seconds)"), ("actor_ref", "self.ref")):
            assert running["work"].ask(name) == f"'Work', a worker, has no attribute {name!r}; use {meant}"


def test_what_a_property_of_a_worker_does_not_find_is_told_and_what_a_mixin_has_is_found() -> None:
    class Startable:
        def start(self) -> str:
            return "its own"

    class Both(Thread, Startable):
        pass

    with pytest.raises(AttributeError, match="'Work' object has no attribute 'missing'"):
        _ = Work().broken
    assert Both().start() == "its own"
    assert not hasattr(Work, "stop")


@pytest.mark.parametrize("worker_first", [True, False])
def test_what_the_getattr_of_a_mixin_gives_is_found_before_and_behind_the_worker(worker_first: bool) -> None:
    class Delegates:
        def __getattr__(self, name: str) -> str:
            if name[:1] == "_":
                raise AttributeError(name)
            return f"its {name}"

    bases = (Thread, Delegates) if worker_first else (Delegates, Thread)
    worker: Any = type("Both", bases, {})()
    assert (worker.join, worker.anything) == ("its join", "its anything")
    assert not hasattr(worker, "_private")


def test_a_running_tree_names_what_other_libraries_call_by_another_name() -> None:
    with Supervisor("app", Work).start() as running:
        for name, meant in (("join", r"wait\(\)"), ("terminate", r"stop\(\)"), ("add_child", r"start_child")):
            with pytest.raises(
                AttributeError, match=rf"'RunningTree' object has no attribute '{name}'; use running.{meant}"
            ):
                getattr(running, name)
        with pytest.raises(AttributeError, match=r"no attribute 'other'$"):
            running.other  # type: ignore[attr-defined]  # noqa: B018


class HandsOut(Process):
    def on_receive(self, message: Any) -> Any:
        return self.send_after(60.0, message) if message == "timer" else self.tree.watch(message)


def test_what_belongs_to_one_process_tells_so_when_it_is_sent_to_another_one() -> None:
    with Supervisor("app", HandsOut).start() as running, running.events() as events:
        worker = running["hands_out"]
        for sent, words in (
            (running, r"a running tree belongs to its program; others find its supervisor by whereis\('app'\)"),
            (events, "the events of a tree are read in the program that runs it; send the events"),
        ):
            with pytest.raises(NotSerializable, match=rf"message: .*{words}"):
                worker.tell(sent)
        for asked, words in (
            ("timer", "a timer belongs to the worker that has set it, and can be cancelled there only"),
            ("path", r"a watch belongs to the process that has opened it; call tree\.watch in the other one"),
        ):
            with pytest.raises(NotSerializable, match=rf"answer: .*{words}"):
                worker.ask(asked)


def test_a_ref_names_what_other_libraries_call_by_another_name() -> None:
    ref = WorkerRef("app/work")
    for name, meant in (
        ("terminate", r"kill\(\) or ref.rejoin\(\)"),
        ("stop", r"rejoin\(\)"),
        ("get", r"result\(\)"),
        ("cast", r"tell\(\.\.\.\)"),
    ):
        with pytest.raises(
            AttributeError, match=rf"no attribute '{name}'; use ref.{meant}; a method .*proxy\(\).{name}"
        ):
            getattr(ref, name)
