"""A running tree shows itself, and can be started again in an interactive session."""

from __future__ import annotations

import gc
import logging
import sys
import weakref
from contextlib import suppress

import pytest

from suitkaise import (
    AskTimeout,
    Backoff,
    Child,
    ChildNotFound,
    Crashed,
    DynamicSupervisor,
    SuitkaiseError,
    Supervisor,
    Thread,
    WorkerDead,
    whereis,
)
from suitkaise.status import Status, TreeStatus
from tests.support import eventually, interrupted_at_each_line


class Waits(Thread):
    def on_receive(self, message: str) -> None:
        raise LookupError(message)


def test_print_shows_the_tree_with_its_state() -> None:
    with Supervisor("app", Waits, Supervisor("below", Child(Waits, id="other"))).start() as running:
        assert str(running) == (
            "app  supervisor  running\n  waits  thread  running\n  below  supervisor  running\n"
            "    other  thread  running"
        )
        assert repr(running) == "RunningTree('app', running)"
    assert str(running).startswith("app  supervisor  stopped  last exit: shutdown")


def test_a_tree_that_gave_up_has_failed_and_requests_are_told_that_it_has_ended() -> None:
    with Supervisor("app", Waits, max_restarts=0).start() as running:
        happened = running.events()
        running["waits"].tell("a crash")
        list(happened)  # until the tree has ended
        assert running.status().status is Status.FAILED
        assert str(running).startswith("app  supervisor  failed  last exit: shutdown (gave up: 'app/waits'")
        assert list(running.events()) == []
        with pytest.raises(WorkerDead, match=r"supervisor 'app' has ended: shutdown \(gave up"):
            running.start_child(Waits)


class Holds(Thread):
    def __init__(self, held: object) -> None:
        super().__init__()
        self.held = held

    def on_receive(self, message: str) -> None: ...


class Large:
    """Stands for an argument that takes much memory."""


def test_a_tree_that_has_ended_lets_go_of_the_arguments_of_its_workers(one_runtime_for_all: None) -> None:
    large = Large()
    alive = weakref.ref(large)
    tree = Supervisor("app", Child(Holds, args=(large,)), Supervisor("below", Child(Holds, args=(large,), id="other")))
    with tree.start() as running:
        refs = [whereis("app"), *running]
    del tree, running, large
    eventually(lambda: (gc.collect(), alive() is None)[1])
    assert [(ref.path, str(ref.status)) for ref in refs] == [
        ("app", "stopped"), ("app/holds", "stopped"), ("app/below", "stopped"), ("app/below/other", "stopped"),
    ]  # fmt: skip


def test_a_child_that_was_removed_before_its_tree_ended_keeps_nothing_of_the_tree(one_runtime_for_all: None) -> None:
    large = Large()
    alive = weakref.ref(large)
    tree = Supervisor("app", Child(Holds, args=(large,)), Child(Holds, args=(1,), id="gone", restart="temporary"))
    with tree.start() as running:
        gone = running["gone"]
        running.terminate_child(gone)
        assert str(gone.status) == "stopped"
    del tree, running, large
    eventually(lambda: (gc.collect(), alive() is None)[1])
    assert str(gone.status) == "stopped"


def test_a_tree_that_has_ended_is_not_kept_by_a_restart_that_was_due_in_an_hour(one_runtime_for_all: None) -> None:
    class Fails(Holds):
        def on_receive(self, message: str) -> None:
            raise ValueError(message)

    large = Large()
    alive = weakref.ref(large)
    with Supervisor("app", Child(Fails, args=(large,), backoff=Backoff(3600.0, 3600.0))).start() as running:
        ref = running["fails"]
        ref.tell("an error")
        eventually(lambda: ref.status is Status.RESTARTING)
    del running, large
    eventually(lambda: (gc.collect(), alive() is None)[1])


def test_a_dynamic_supervisor_that_has_ended_is_not_kept_by_the_time_that_its_children_had(
    one_runtime_for_all: None,
) -> None:
    with DynamicSupervisor("app").start() as running:
        running.start_child(Child(Waits, shutdown=3600.0))
    tree = weakref.ref(running)
    del running
    eventually(lambda: (gc.collect(), tree() is None)[1])


def test_a_child_may_be_named_by_its_ref() -> None:
    with Supervisor("app", Supervisor("below", Waits)).start() as running, Supervisor("other", Waits).start() as other:
        ref = running["below/waits"]
        assert all(each in running for each in running)
        assert ref not in other
        running.suspend(ref)
        running.resume(ref)
        assert running.recall(ref) == ref
        running.terminate_child(ref)
        assert ref.status is Status.STOPPED
        running.restart_child(ref)
        whereis("app/below").terminate_child(ref)  # type: ignore[attr-defined]
        assert running.get_child_spec(ref).id == "waits"
        with pytest.raises(ChildNotFound, match="'app/below/waits' is not below 'other'"):
            other.terminate_child(ref)
        running.delete_child(ref)
        assert ref not in running


def test_the_supervisor_that_a_request_is_for_may_be_named_by_its_ref() -> None:
    with Supervisor("app", Supervisor("below", Waits)).start() as running, Supervisor("other").start() as other:
        below, root = running["below"], whereis("app")
        second = running.start_child(Child(Waits, id="second"), under=below)
        assert second.path == "app/below/second"
        assert [line.id for line in running.which_children(below)] == ["waits", "second"]
        assert running.count_children(below) == root.count_children(below)  # type: ignore[attr-defined]
        assert running.which_children(root) == running.which_children()
        with pytest.raises(ChildNotFound, match="'app/below' is not below 'other'"):
            other.which_children(below)
        with pytest.raises(ChildNotFound, match="'app' is not below 'app'"):
            running.terminate_child(root)


@pytest.mark.parametrize("ask", ["which_children", "count_children"])
def test_a_supervisor_that_is_named_by_something_else_is_a_type_error(ask: str) -> None:
    with Supervisor("app").start() as running:
        for administration in (running, whereis("app")):
            with pytest.raises(TypeError, match="by its id, its path or its ref, not by 3"):
                getattr(administration, ask)(3)


def test_what_is_no_path_and_no_ref_is_a_type_error() -> None:
    with Supervisor("app", Waits).start() as running:
        with pytest.raises(TypeError, match="by its id, its path or its ref, not by 3"):
            running.terminate_child(3)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="a str, not 3"):
            whereis(3)  # type: ignore[arg-type]


def test_a_whole_path_is_not_found_and_the_error_tells_the_relative_one() -> None:
    with Supervisor("app", Waits).start() as running:
        with pytest.raises(
            ChildNotFound, match=r"^paths are relative to the tree: 'waits'; no worker at .* mean 'app/waits'\?$"
        ):
            running["app/waits"]


def test_a_notebook_shows_the_tree_with_all_text_escaped() -> None:
    error = Crashed("loop", ValueError("<script>"))
    tree = TreeStatus(
        "a&b",
        "supervisor",
        Status.RUNNING,
        1,
        0,
        None,
        (TreeStatus("a&b/w", "thread", Status.CRASHED, None, 3, error),),
    )
    html = tree._repr_html_()
    assert "<td>a&amp;b</td><td>supervisor</td><td>running</td>" in html
    assert "<td>3</td><td>ValueError in loop: &lt;script&gt;</td>" in html
    with Supervisor("app", Waits).start() as running:
        assert "waits</td><td>thread</td><td>running</td>" in running._repr_html_()


def test_in_an_interactive_session_a_tree_replaces_the_one_of_its_name(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sys, "ps1", ">>> ", raising=False)
    first = Supervisor("app", Waits).start()
    with Supervisor("app", Waits).start() as second:
        assert first.status().status == "stopped"
        assert second["waits"].is_alive()
        with Supervisor("other").start():
            pass
    lines = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert lines == ["a tree named 'app' runs already in this session; it is stopped, and replaced by this one"]


def test_in_a_program_a_second_tree_of_a_name_is_an_error() -> None:
    with (
        Supervisor("app", Waits).start() as running,
        pytest.raises(SuitkaiseError, match="a tree named 'app' runs already") as caught,
    ):
        Supervisor("app", Waits).start()
    assert caught.value.path == "app"
    assert running.status().status == "stopped"


@pytest.mark.timeout(60)
def test_a_signal_handler_may_await_the_end_of_a_tree_at_any_moment_of_its_threads_wait() -> None:
    with Supervisor("app", Waits).start() as running:

        def wait() -> bool:
            with suppress(AskTimeout):
                running.wait(0.001)
            return running["waits"].is_alive()

        assert all(interrupted_at_each_line(lambda: wait, wait))
