"""A running tree shows itself, and can be started again in an interactive session."""

from __future__ import annotations

import logging
import sys

import pytest

from suitkaise import Child, Crashed, SuitkaiseError, Supervisor, Thread
from suitkaise.status import Status, TreeStatus


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
        pytest.raises(SuitkaiseError, match="a tree named 'app' runs already"),
    ):
        Supervisor("app", Waits).start()
    assert running.status().status == "stopped"
