"""The rows of a page: what changes between two overviews."""

from __future__ import annotations

from suitkaise.observer.model import Model
from tests.observer.told import overview, supervisor, worker


def test_the_first_overview_is_told_whole() -> None:
    changes = Model().update(overview(supervisor("app", worker("app/a"), supervisor("app/s", worker("app/s/b")))))
    assert changes["order"] == ["app", "app/a", "app/s", "app/s/b"]
    assert [changes["rows"][path]["depth"] for path in changes["order"]] == [0, 1, 1, 2]
    assert changes["program"]["pid"] == 1
    assert changes["rows"]["app/a"]["started"] == 95.0


def test_later_only_what_has_changed_is_told() -> None:
    model = Model()
    model.update(overview(supervisor("app", worker("app/a"))))
    changes = model.update(overview(supervisor("app", worker("app/a", uptime=6.0, loops=90), uptime=6.0), time=101.0))
    assert changes == {"rows": {}, "removed": []}
    down = worker("app/a", status="crashed", pid=None, uptime=None)
    changes = model.update(overview(supervisor("app", down, uptime=7.0), time=102.0))
    assert changes["rows"] == {"app/a": {"status": "crashed", "pid": None, "started": None}}


def test_a_start_time_does_not_jitter() -> None:
    model = Model()
    model.update(overview(supervisor("app", worker("app/a"))))
    changes = model.update(overview(supervisor("app", worker("app/a", uptime=5.9), uptime=6.0), time=101.0))
    assert changes["rows"] == {}
    changes = model.update(
        overview(supervisor("app", worker("app/a", uptime=0.1, incarnation=2), uptime=7.0), time=102.0)
    )
    assert changes["rows"]["app/a"] == {"incarnation": 2, "started": 101.9}


def test_rows_that_are_gone_are_told_and_facts_that_are_gone_are_none() -> None:
    model = Model()
    model.update(overview(supervisor("app", worker("app/a"), worker("app/b"))))
    child = worker("app/b")
    del child["restart"]
    changes = model.update(overview(supervisor("app", child)))
    assert (changes["removed"], changes["order"]) == (["app/a"], ["app", "app/b"])
    assert changes["rows"] == {"app/b": {"restart": None}}


def test_loops_per_second_are_those_of_one_incarnation() -> None:
    model = Model()
    for time, facts in ((100.0, {}), (102.0, {"loops": 30}), (104.0, {"loops": 5, "serial": 2})):
        model.update(overview(supervisor("app", worker("app/a", **facts)), time=time))
        rate = model.figures["app/a"]["rate"]
        assert rate == {100.0: None, 102.0: 10.0, 104.0: None}[time]


def test_a_long_phase_is_told_with_its_seconds() -> None:
    model = Model()
    model.update(overview(supervisor("app", worker("app/a", in_phase=1.0), worker("app/b", in_phase=12.3))))
    assert [figures["in_phase"] for figures in model.figures.values()] == [None, 12]
