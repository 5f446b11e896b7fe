"""Incidents: one story for each failure, from the crash until all is up again."""

from __future__ import annotations

from typing import Any

from suitkaise.observer.incidents import KEPT, LATE, MOST_STEPS, Incidents
from tests.observer.told import Story


def incidents_of(story: Story) -> list[dict[str, Any]]:
    incidents = Incidents()
    incidents.feed(story.events, story.reports)
    return incidents.whole()


def kinds(incident: dict[str, Any]) -> list[str]:
    return [f"{step['path'].rpartition('/')[2]} {step['event']}" for step in incident["steps"]]


def crash(story: Story, path: str = "app/a", verdict: str = "restarts") -> Story:
    return story.tell("child_exited", path, verdict=verdict, reason="ValueError in loop: no", where="app.py:3")


def test_a_crash_and_the_restart_are_one_incident() -> None:
    story = crash(Story()).tell("child_restarting", "app/a").tell("child_started", "app/a")
    (incident,) = incidents_of(story)
    assert kinds(incident) == ["a child_exited", "a child_restarting", "a child_started"]
    assert (incident["state"], incident["path"], incident["where"]) == ("recovered", "app/a", "app.py:3")
    assert incident["reason"] == "ValueError in loop: no"
    assert incident["reports"] == ["r1"]
    assert round(incident["ended"] - incident["began"], 1) == 0.2


def test_it_is_open_while_the_worker_is_down() -> None:
    (incident,) = incidents_of(crash(Story()).tell("child_restarting", "app/a"))
    assert (incident["state"], incident["ended"]) == ("open", None)


def test_siblings_that_the_strategy_restarts_belong_to_it() -> None:
    story = crash(Story()).tell("child_restarting", "app/a").tell("child_stopped", "app/b")
    story.tell("child_started", "app/a").tell("child_started", "app/b").tell("child_started", "app/new")
    (incident,) = incidents_of(story)
    assert kinds(incident)[2:] == ["b child_stopped", "a child_started", "b child_started"]
    assert incident["affected"] == ["app/a", "app/b"]
    assert (incident["state"], incident["ended"]) == ("recovered", 100.5)


def test_a_further_crash_before_the_end_belongs_to_it() -> None:
    story = crash(crash(Story()).tell("child_restarting", "app/a"), "app/b").tell("child_restarting", "app/b")
    (incident,) = incidents_of(story.tell("child_started", "app/a"))
    assert (incident["state"], incident["reports"]) == ("open", ["r1", "r3"])
    assert incidents_of(story.tell("child_started", "app/b"))[0]["state"] == "recovered"


def test_a_crash_afterwards_is_another_one() -> None:
    story = crash(Story()).tell("child_restarting", "app/a").tell("child_started", "app/a")
    assert [one["state"] for one in incidents_of(crash(story))] == ["recovered", "open"]


def test_crashes_below_different_supervisors_are_different_ones() -> None:
    story = crash(crash(Story(), "app/x/a"), "app/y/a")
    assert [one["scope"] for one in incidents_of(story)] == ["app/x", "app/y"]


def test_a_crash_elsewhere_is_another_one_also_while_a_worker_above_is_down() -> None:
    story = crash(Story()).tell("child_restarting", "app/a")
    crash(story, "app/s/b").tell("child_restarting", "app/s/b").tell("child_started", "app/s/b")
    assert [(one["scope"], one["state"]) for one in incidents_of(story)] == [("app", "open"), ("app/s", "recovered")]


def test_what_is_below_a_sibling_that_is_restarted_belongs_to_it() -> None:
    story = crash(Story()).tell("child_restarting", "app/a").tell("supervisor_stopping", "app/s")
    story.tell("child_stopped", "app/s/x").tell("supervisor_stopped", "app/s").tell("child_stopped", "app/s")
    story.tell("child_started", "app/s/x").tell("child_started", "app/s").tell("child_started", "app/a")
    (incident,) = incidents_of(story)
    assert (len(incident["steps"]), incident["state"]) == (9, "recovered")


def test_a_supervisor_that_gives_up_passes_it_to_the_one_above() -> None:
    story = (
        crash(Story(), "app/s/a", "gives up").tell("supervisor_gave_up", "app/s").tell("supervisor_stopping", "app/s")
    )
    story.tell("child_stopped", "app/s/b").tell("supervisor_stopped", "app/s").tell("child_exited", "app/s", clean=True)
    story.tell("child_restarting", "app/s").tell("child_started", "app/s/a").tell("child_started", "app/s/b")
    (incident,) = incidents_of(story)
    assert (incident["state"], incident["scope"]) == ("open", "app")
    (incident,) = incidents_of(story.tell("supervisor_started", "app/s").tell("child_started", "app/s"))
    assert incident["state"] == "recovered"
    assert len(incident["steps"]) == 11


def test_a_tree_that_gives_up_is_its_end() -> None:
    story = crash(Story(), verdict="gives up").tell("supervisor_gave_up", "app").tell("supervisor_stopping", "app")
    story.tell("child_stopped", "app/b").tell(
        "supervisor_stopped", "app", text="supervisor stopped: shutdown (gave up)"
    )
    assert [one["state"] for one in incidents_of(story)] == ["gave up"]


def test_a_worker_that_is_not_restarted_stays_down() -> None:
    assert [one["state"] for one in incidents_of(crash(Story(), verdict="stays down"))] == ["down"]


def test_a_worker_that_is_given_up_alone_stays_down() -> None:
    story = crash(Story(), verdict="is given up").tell("child_given_up", "app/a")
    assert [one["state"] for one in incidents_of(story)] == ["down"]


def test_a_failed_start_is_one_and_a_clean_end_is_none() -> None:
    assert incidents_of(Story().tell("child_exited", "app/a", clean=True)) == []
    story = Story().tell("child_start_failure", "app/a", verdict="restarts", reason="OSError in on_start")
    assert incidents_of(story)[0]["reason"] == "OSError in on_start"


def test_the_state_decides_where_no_event_has_told_the_end() -> None:
    incidents = Incidents()
    story = crash(crash(Story()), "app/b")
    incidents.feed(story.events, [])
    incidents.settle({"app/a": "running", "app/b": "running"}, 100.2 + LATE / 2)
    assert incidents.whole()[0]["state"] == "open"
    incidents.settle({"app/a": "running", "app/b": "restarting"}, 100.2 + LATE)
    assert incidents.whole()[0]["state"] == "open"
    incidents.settle({"app/a": "running", "app/b": "crashed"}, 100.2 + LATE)
    assert incidents.whole()[0]["state"] == "down"


def test_only_changed_ones_are_told_again() -> None:
    incidents = Incidents()
    story = crash(Story())
    incidents.feed(story.events, story.reports)
    assert len(incidents.changed()) == 1
    assert incidents.changed() == []
    incidents.feed(crash(Story(), "other/x").events, [])
    assert [one["path"] for one in incidents.changed()] == ["other/x"]


def test_a_worker_that_fails_all_the_time_hides_no_incident_of_another() -> None:
    story = crash(Story(), "app/rare/x")
    for _ in range(2 * KEPT):
        crash(story, "app/often/x").tell("child_restarting", "app/often/x").tell("child_started", "app/often/x")
    incidents = Incidents()
    incidents.feed(story.events, story.reports)
    kept = [one["id"] for one in incidents.whole()]
    assert (len(kept), kept[0], kept[1]) == (KEPT, 1, KEPT + 3)
    assert incidents.dropped() == list(range(2, KEPT + 3))  # its oldest ones
    assert incidents.dropped() == []


def test_all_of_it_is_bounded() -> None:
    incidents = Incidents()
    for number in range(KEPT + 20):
        story = crash(Story(), f"app/s{number}/a")
        for _ in range(MOST_STEPS):
            story.tell("child_restarting", f"app/s{number}/a")
        incidents.feed(story.events, story.reports)
    kept = incidents.whole()
    assert len(kept) == KEPT
    assert kept[0]["path"] == "app/s20/a"
    assert (len(kept[0]["steps"]), kept[0]["more"]) == (MOST_STEPS, 1)
