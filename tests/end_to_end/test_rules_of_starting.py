"""The rules of declaring and starting (3-6, 22, 50) on running trees with real processes and threads."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from suitkaise import Backoff, Child, ChildNotFound, GaveUp, Shutdown, SpecError, Supervisor
from suitkaise.events import ChildRestarting
from tests.end_to_end.kinds import Kinds, next_event, statuses
from tests.sample_workers import BriefProcess, BriefThread, BrutallyKilledRecorder, LeavingProcess, LeavingThread
from tests.support import eventually, run_program

pytestmark = pytest.mark.usefixtures("one_runtime_for_all")


def test_s03_options_of_the_child_override_those_of_the_instance_the_class_and_the_default(kinds: Kinds) -> None:
    worker: Any = LeavingProcess if kinds.kind == "process" else LeavingThread
    children = [
        kinds.child("by-default"),
        Child(worker, id="class"),
        Child(worker("transient"), id="instance"),
        Child(worker("transient"), id="child", restart="temporary"),
        Child(worker, id="child-as-the-default", restart="permanent"),  # given, although it is the default
    ]
    with Supervisor("tree", *children, max_restarts=9).start() as running:
        for ref in list(running):
            ref.tell("leave")
        after = {"by-default": "running", "instance": "finished", "child-as-the-default": "running"}
        eventually(lambda: statuses(running) == after and running["by-default"].incarnation == 2)
        eventually(lambda: running["child-as-the-default"].incarnation == 2)


@pytest.mark.parametrize("worker", [BriefProcess, BriefThread])
def test_s03_an_option_that_is_given_as_none_overrides_the_class(worker: Any) -> None:
    children = [
        Child(worker, id="class"),
        Child(worker(2), id="instance"),
        Child(worker(2), id="child", join_after=1),
        Child(worker(2), id="none", join_after=None),
    ]
    with Supervisor("tree", *children).start() as running:
        assert [running[id].result(15) for id in ("class", "instance", "child")] == [3, 2, 1]
        eventually(lambda: running["none"].ask("how many?") > 3)


def test_s03_an_option_given_with_its_default_value_overrides_the_class(tmp_path: Path) -> None:
    kinds = Kinds(tmp_path, "process")
    with Supervisor(
        "tree",
        Child(BrutallyKilledRecorder(tmp_path), id="brutal"),
        Child(BrutallyKilledRecorder(tmp_path), id="gentle", shutdown=5.0),
    ).start() as running:
        running.terminate_child("brutal")
        running.terminate_child("gentle")
    assert kinds.notes() == ["start brutal", "start gentle", "stop gentle"]


def test_s03_a_nested_supervisor_keeps_its_options_unless_its_child_overrides_them(kinds: Kinds) -> None:
    work = kinds.child("work", restart="transient", significant=True)
    inner = Supervisor("own", work, auto_shutdown="any_significant", restart="temporary")
    children = inner, Child(inner, id="kept", restart="transient"), Child(inner, id="back", restart="permanent")
    with Supervisor("tree", *children).start() as running:
        for id in ("own", "kept", "back"):
            running[f"{id}/work"].tell("leave")
        eventually(lambda: statuses(running) == {"kept": "finished", "back": "running"})
        eventually(lambda: running["back/work"].incarnation == 2)
        assert running["back/work"].ask("there?") == "there?"


HEADER = """
from pathlib import Path
from suitkaise import Child, Process, Supervisor

class Work(Process):
    def on_start(self):
        Path(f"started-{self.name}").touch()

class Needs(Work):
    def __init__(self, folder):
        self.folder = folder

"""

WRONG = {
    "s04, one id twice": ("Child(Work), Child(Work)", ["two children have the id 'work'"]),
    "s04, one id twice, by copies": ("Child(Work, copies=2), Child(Work, id='work-1')", ["the id 'work-1'"]),
    "s05, an unknown option": ("Work(), Child(Work, id='b', restrat='x')", ["'b'", "restrat='x'", "'restart'"]),
    "s05, a missing part": ("Work(), Child(Needs)", ["Needs", "missing", "'folder'"]),
    "s05, out of range": ("Work(), Child(Work, id='b', shutdown=-1)", ["'b'", "shutdown", "seconds >= 0", "-1"]),
    "s05, out of range, of the supervisor": ("Work(), max_restarts=-1", ["'tree'", "max_restarts", ">= 0", "-1"]),
    "s50, significant and permanent": (
        "Work(), Child(Work, id='b', significant=True), auto_shutdown='any_significant'",
        ["'b'", "significant", "'transient' or 'temporary'", "'permanent'"],
    ),
    "s50, significant and no auto-shutdown": (
        "Work(), Child(Work, id='b', significant=True, restart='transient')",
        ["'b'", "significant", "auto_shutdown", "'never'"],
    ),
}


@pytest.mark.parametrize("what", WRONG)
def test_s04_s05_s50_a_program_with_a_wrong_declaration_starts_no_worker(what: str, tmp_path: Path) -> None:
    children, complaint = WRONG[what]
    (tmp_path / "app.py").write_text(f"{HEADER}Supervisor('tree', {children}).run()\n")
    done = run_program([sys.executable, "app.py"], cwd=tmp_path)
    last = done.stderr.splitlines()[-1]
    assert done.returncode == 1
    assert last.startswith("suitkaise.errors.SpecError: ")
    assert [part for part in complaint if part not in last] == []
    assert not list(tmp_path.glob("started-*"))
    assert not done.left_behind


def test_s05_s50_a_running_tree_refuses_a_wrong_child(kinds: Kinds) -> None:
    with kinds.tree("a").start() as running:
        with pytest.raises(SpecError, match="auto_shutdown is 'never'"):
            running.start_child(kinds.child("b", restart="transient", significant=True))
        with pytest.raises(SpecError, match="missing"):
            running.start_child(kinds.worker)
        assert statuses(running) == {"a": "running"}
        assert running.start_child(kinds.child("b", restart="transient")).ask("there?") == "there?"
    assert kinds.notes() == ["start a", "start b", "stop b", "stop a"]


def test_s06_s22_every_default_shows_in_get_child_spec(kinds: Kinds) -> None:
    with Supervisor("tree", kinds.child("a"), kinds.tree("b", name="inner")).start() as running:
        for id in ("a", "inner/b"):
            spec = running.get_child_spec(id)
            assert (spec.restart, spec.shutdown, spec.significant) == ("permanent", 5.0, False)
            assert (spec.join_in, spec.join_after, spec.backoff) == (None, None, None)
            assert (spec.copies, spec.spares, spec.kind) == (1, 0, kinds.kind)
        inner = running.get_child_spec("inner")
        assert (inner.restart, inner.shutdown, inner.significant) == ("permanent", "infinity", False)
        assert isinstance(inner.what, Supervisor)
        assert (inner.what.strategy, inner.what.auto_shutdown) == ("one_for_one", "never")
        assert (inner.what.max_restarts, inner.what.max_seconds) == (3, 5.0)


def test_s06_by_default_three_restarts_are_allowed_and_each_child_is_restarted_alone(kinds: Kinds) -> None:
    running = kinds.tree("ab").start()
    for _ in range(3):
        kinds.crash_and_wait(running, "a")
    kinds.crash(running, "a")
    reason = running.wait(15)
    assert isinstance(reason, Shutdown)
    assert isinstance(reason.detail, GaveUp)
    assert (reason.detail.path, reason.detail.max_restarts, reason.detail.max_seconds) == ("tree/a", 3, 5.0)
    assert kinds.notes("b") == ["start b", "stop b"]


def test_s22_get_child_spec_works_in_every_state_of_a_child(kinds: Kinds) -> None:
    forever = Backoff(60, maximum=60)
    with Supervisor("tree", kinds.child("a", backoff=forever)).start() as running, running.events() as events:
        running.start_child(kinds.child("added", restart="transient", shutdown=1))
        running.terminate_child("added")
        assert running.get_child_spec("added").shutdown == 1.0
        assert running.get_child_spec("added").restart == "transient"
        kinds.crash(running, "a")
        next_event(events, ChildRestarting, "a")
        assert running.get_child_spec("a").backoff == forever
        again = running.start_child(running.get_child_spec("added").replace(id="again"))
        assert again.ask("there?") == "there?"
        assert running.get_child_spec("again").restart == "transient"


def test_s22_get_child_spec_of_an_unknown_child_is_an_error(kinds: Kinds) -> None:
    with Supervisor("tree", kinds.child("a"), kinds.tree("b", name="inner")).start() as running:
        running.terminate_child("a")
        running.delete_child("a")
        for id in ("a", "nobody", "inner/nobody", "nobody/b", "b"):
            with pytest.raises(ChildNotFound) as caught:
                running.get_child_spec(id)
            assert caught.value.path == f"tree/{id.removesuffix('/b')}"
        assert running.get_child_spec("inner/b").id == "b"
