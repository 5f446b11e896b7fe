"""The lines and the data of the terminal observer, without a terminal."""

from __future__ import annotations

from typing import Any

import pytest

from suitkaise.errors import AskTimeout, RuntimeGone, SpecError
from suitkaise.messaging.answer import Answer
from suitkaise.messaging.log_reader import LogReader
from suitkaise.observer.observation import Observation
from suitkaise.observer.terminal import source as sources
from suitkaise.observer.terminal.detail import detail_of
from suitkaise.observer.terminal.lines import COLUMNS, Line, lines_of, to_rows
from suitkaise.observer.terminal.source import SHOWN_AS_FAILED, Source
from suitkaise.observer.words import with_room
from tests.observer.told import Story, overview, supervisor, worker


class Lines:
    """A connection whose program tells one line at first, three lines then, and nothing more."""

    def __init__(self) -> None:
        self.asked = 0

    def request(self, kind: str, path: str, argument: dict[str, Any]) -> Answer[Any]:
        self.asked += 1
        answer: Answer[Any] = Answer()
        texts = {1: [f"{path}: first"], 2: ["second", "third", "fourth"]}.get(self.asked)
        assert ("last" in argument) == (self.asked == 1)
        assert argument.get("seen") == {2: {path: 1}, 3: {path: 9}}.get(self.asked)
        if texts is not None:
            lines = [(path, 1, "stdout", 100.0, text) for text in texts]
            told = {"lines": lines, "skipped": {path: 5} if self.asked == 2 else {}, "ended": False}
            answer.set_result(told | {"seen": {path: 1 if self.asked == 1 else 9}})
        return answer


class Told:
    """A program that tells what the test has put here."""

    def __init__(self, *trees: Any) -> None:
        self.trees = trees
        self.story = Story()
        self.error: Exception | None = None
        self.closed = False

    def events_after(self, number: int) -> dict[str, Any]:
        if self.error is not None:
            raise self.error
        return {"last": len(self.story.events), "events": self.story.events[number:], "reports": self.story.reports}

    def overview(self) -> Any:
        return overview(*self.trees)

    def log(self, path: str, *, last: int) -> LogReader:
        return LogReader(Lines(), path, last=last)  # type: ignore[arg-type]

    def close(self) -> None:
        self.closed = True


def observed(*trees: Any) -> Observation:
    observation = Observation(Told(*trees))  # type: ignore[arg-type]
    observation.look(everything=True)
    return observation


TREE = supervisor(
    "app",
    supervisor("app/jobs", worker("app/jobs/a", pid=None), worker("app/jobs/b", pid=None, queued=7)),
    worker("app/c", pid=None, kind="thread", queued=2, status="suspended"),
)


def shown(lines: list[Line]) -> list[str]:
    return [line.name for line in lines]


def test_the_lines_are_the_tree_in_start_order() -> None:
    assert shown(lines_of(observed(TREE), 0.0)) == ["app", "├─ jobs", "│  ├─ a", "│  └─ b", "└─ c"]


def test_a_part_of_the_tree_is_shown_alone() -> None:
    assert shown(lines_of(observed(TREE), 0.0, scope="app/jobs")) == ["app/jobs", "├─ a", "└─ b"]


def test_several_trees_stand_one_below_the_other() -> None:
    lines = lines_of(observed(TREE, supervisor("other", worker("other/x", pid=None))), 0.0)
    assert shown(lines)[-3:] == ["└─ c", "other", "└─ x"]


@pytest.mark.parametrize("text", ["jobs/b", "JOBS/B"])
def test_a_filter_keeps_what_holds_the_text_and_the_supervisors_above(text: str) -> None:
    assert [line.path for line in lines_of(observed(TREE), 0.0, text=text)] == ["app", "app/jobs", "app/jobs/b"]


def test_a_filter_looks_at_the_state_and_the_kind_too() -> None:
    assert [line.path for line in lines_of(observed(TREE), 0.0, text="suspended")] == ["app", "app/c"]
    assert [line.path for line in lines_of(observed(TREE), 0.0, text="thread")] == ["app", "app/c"]


def test_sorted_lines_are_the_workers_the_highest_figure_first() -> None:
    assert shown(lines_of(observed(TREE), 0.0, sort="queued")) == ["app/jobs/b", "app/c", "app/jobs/a"]


def test_a_name_cannot_steer_the_terminal() -> None:
    evil = worker("app/x", pid=None, last_exit="\x1b[2Jgone\nforged", last_exit_clean=False, status="crashed")
    (line,) = [line for line in lines_of(observed(supervisor("app", evil)), 0.0) if line.path == "app/x"]
    assert "\x1b" not in line.doing
    assert "\n" not in line.doing


@pytest.mark.parametrize("width", [16, 20, 25])
def test_the_name_of_a_worker_deep_in_the_tree_has_room_in_a_narrow_terminal(width: int) -> None:
    for depth in range(20):
        line = "│  " * depth + "└─ worker"
        shown = with_room(line, width)
        assert len(shown) <= width
        assert shown.endswith("└─ worker")
        assert (shown == line) == (len(line) <= width)


def test_the_detail_of_a_worker_tells_how_long_its_last_loop_took_however_long_that_was() -> None:
    slow = observed(supervisor("app", worker("app/x", pid=None, last_loop_time=5.0)))
    assert "the last took 5.0 s" in detail_of(slow, "app/x", 0.0).plain


def test_the_lines_as_a_table_have_a_cell_for_each_column() -> None:
    rows = to_rows(lines_of(observed(TREE), 0.0))
    assert rows[0][0] == "app"
    assert {len(row) for row in rows} == {1 + len(COLUMNS) + 1}


# ---------------------------------------------------------------- the source
def source_of(monkeypatch: pytest.MonkeyPatch, *programs: Told) -> Source:
    monkeypatch.setattr(sources, "SECONDS", 0.0)
    waiting = list(programs)
    monkeypatch.setattr(sources, "ObservedProgram", lambda directory: waiting.pop(0))
    return Source(lambda: "somewhere" if waiting else None)


def test_without_a_program_the_source_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    source = source_of(monkeypatch)
    source.look()
    assert source.contact == "waiting"
    assert source.observation is None


def test_a_program_that_does_not_answer_is_silent_until_it_answers_again(monkeypatch: pytest.MonkeyPatch) -> None:
    told = Told(TREE)
    source = source_of(monkeypatch, told)
    source.look()
    told.error = AskTimeout("no answer", path="")
    source.look()
    silent = source.contact
    told.error = None
    source.look()
    assert (silent, source.contact) == ("silent", "live")


def test_a_program_that_has_ended_stays_to_be_seen_until_the_next_one_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = Told(TREE), Told(supervisor("app"))
    source = source_of(monkeypatch, first)
    source.look()
    first.error = RuntimeGone("gone")
    source.look()
    source.look()
    assert (source.contact, first.closed) == ("ended", True)
    assert source.observation is not None
    assert "app/jobs/a" in source.observation.rows
    with pytest.raises(RuntimeGone):
        source.change("restart", "app/c")
    with pytest.raises(SpecError):
        source.signal("app/c", 15)

    source = source_of(monkeypatch, first, second)
    source.look()
    source.look()
    assert source.contact == "live"
    assert list(source.observation.rows) == ["app"] if source.observation is not None else False


def test_a_worker_that_has_failed_is_shown_so_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    told = Told(TREE)
    told.story.tell("child_exited", "app/jobs/a", reason="x", where="")
    monkeypatch.setattr(sources.time, "time", lambda: 100.2)  # right after the event
    source = source_of(monkeypatch, told)
    source.look()
    assert source.observation is not None
    for now, state in ((100.2, "crashed"), (100.2 + SHOWN_AS_FAILED, "running")):
        lines = {line.path: line for line in lines_of(source.observation, now, failed=source.failed)}
        assert lines["app/jobs/a"].state == state


def test_the_log_begins_with_the_last_lines_and_goes_on_and_counts_what_was_skipped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source = source_of(monkeypatch, Told(TREE))
    assert source.lines("app/jobs/a") == []
    source.look()

    def texts(path: str) -> list[str]:
        return [line[4] for line in source.lines(path)]

    assert texts("app/jobs/a") == ["first"]
    more = ["[5 lines were skipped]", "second", "third", "fourth"]
    assert texts("app/jobs/a") == ["first", *more]
    assert texts("app/jobs/a") == ["first", *more]  # nothing has come
    assert texts("app/jobs") == ["first"]  # another worker's log begins anew
