"""Rules 61-68: what the tests of OTP and Elixir check beyond rules 1-60."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest

from suitkaise import DynamicSupervisor, Supervisor, Thread
from suitkaise.errors import ChildStartFailed, WorkerDead
from suitkaise.events import ChildExited
from suitkaise.exits import Crashed, ExitCode, ExitReason, Hung, Killed, Normal, Shutdown, Signaled
from suitkaise.policy.actions import (
    Begin,
    DeleteChild,
    Exited,
    Ignored,
    KillAll,
    Ready,
    Recall,
    Refuse,
    RestartChild,
    StartChild,
    TerminateChild,
)
from suitkaise.policy.dynamic import DynamicPolicy
from suitkaise.policy.static import StaticPolicy
from suitkaise.specs import Child
from suitkaise.status import Status
from tests.policy.driver import BOOM, Driver, begun, child, children, pool, supervisor

RESTARTS = ["permanent", "transient", "temporary"]
STRATEGIES = ["one_for_one", "one_for_all", "rest_for_one"]
ENDS: list[ExitReason] = [Normal(), Shutdown(), Shutdown("why"), BOOM, ExitCode(3), Signaled(9), Hung("loop", 1.0)]


# ------------------------------------------------------------ 61: ends while the supervisor stops
@pytest.mark.parametrize("reason", ENDS, ids=str)
@pytest.mark.parametrize("restart", RESTARTS)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_s61_a_child_that_exits_by_itself_while_the_supervisor_stops_is_not_stopped_again(
    strategy: str, restart: str, reason: ExitReason
) -> None:
    tree = begun([child("a"), child("b", restart), child("c")], strategy=strategy, max_restarts=0)
    tree.plan_stops("c", "waits")
    tree.stop(Shutdown("asked"))

    tree.exits("b", reason)

    assert [event.path for event in tree.events_of(ChildExited)] == ["top/b"]
    assert tree.take_story() == ["stop c"]
    tree.exits("c", Shutdown())
    assert tree.take_story("stop", "start", "end") == ["stop a", "end"]
    assert tree.ended == Shutdown("asked")
    assert tree.policy.restarts_used(0.0) == 0


@pytest.mark.parametrize("mode", ["any_significant", "all_significant"])
@pytest.mark.parametrize("restart", ["transient", "temporary"])
def test_s61_a_significant_exit_while_the_supervisor_stops_does_not_change_its_reason(mode: str, restart: str) -> None:
    tree = begun([child("a", restart, significant=True), child("b")], auto_shutdown=mode)
    tree.plan_stops("b", "waits")
    tree.stop(Shutdown("asked"))

    tree.exits("a", Normal())
    tree.exits("b", Shutdown())

    assert tree.ended == Shutdown("asked")


def test_s61_a_supervisor_that_gives_up_or_shuts_down_stops_in_the_same_way() -> None:
    for ending in ("crash", "significant"):
        tree = begun(
            [child("a"), child("b", "transient", significant=True), child("c")],
            max_restarts=0,
            auto_shutdown="any_significant",
        )
        tree.plan_stops("c", "waits")
        tree.exits("b", BOOM if ending == "crash" else Normal())
        why = tree.policy.reason

        tree.crash("a")
        tree.exits("c", Shutdown())

        assert tree.take_story("start", "stop", "end") == ["stop c", "end"]
        assert tree.ended == why


@pytest.mark.parametrize("restart", RESTARTS)
def test_s61_a_dynamic_supervisor_does_the_same(restart: str) -> None:
    tree = pool([child(id, restart) for id in "abcd"], max_restarts=0)
    for id in "abcd":
        tree.plan_stops(id, "waits")
    tree.stop(Shutdown("asked"))

    for id, reason in zip("abcd", (Normal(), Shutdown(), Shutdown("why"), BOOM), strict=True):
        tree.exits(id, reason)

    assert tree.take_story("start", "end") == ["end"]
    assert tree.ended == Shutdown("asked")


# ------------------------------------------------------------ 62: no such child
REQUESTS = [
    (StartChild, child("new")),
    (StartChild, child("a")),
    (TerminateChild, "a"),
    (RestartChild, "a"),
    (DeleteChild, "a"),
    (Recall, "a"),
    (TerminateChild, "nobody"),
]


@pytest.mark.parametrize("kind", ["static", "dynamic"])
@pytest.mark.parametrize("when", ["stopping", "ended"])
@pytest.mark.parametrize("request_, what", REQUESTS)
def test_s62_a_supervisor_that_stops_or_has_ended_refuses_at_once(
    request_: Any, what: Any, when: str, kind: str
) -> None:
    tree = begun(children("ab")) if kind == "static" else pool(children("ab"))
    tree.plan_stops("b", "waits")
    tree.stop(Shutdown("asked"))
    if when == "ended":
        tree.exits("b", Shutdown())
        assert tree.ended is not None
    before = tree.statuses()

    refused = tree.ask(request_, what)

    assert isinstance(refused, WorkerDead)
    assert (refused.path, refused.reason) == (tree.spec.name, Shutdown("asked"))
    assert tree.statuses() == before


@pytest.mark.parametrize("how", ["stops", "is killed", "gives up", "shuts down"])
def test_s62_waiting_requests_are_refused_when_the_supervisor_ends(how: str) -> None:
    tree = begun(
        [child("a"), child("b", "transient", significant=True)], max_restarts=0, auto_shutdown="any_significant"
    )
    tree.plan_starts("slow", "waits")
    waiting = [tree.post_request(StartChild, child("slow")), tree.post_request(TerminateChild, "a")]
    tree.settle()
    assert [tree.answer(number) for number in waiting] == [None, None]

    match how:
        case "stops":
            tree.stop()
        case "is killed":
            tree.halt()
        case "gives up":
            tree.crash("a")
        case "shuts down":
            tree.exits("b", Normal())

    assert [type(tree.answer(number)) for number in waiting] == [WorkerDead, WorkerDead]
    assert tree.ended is not None


# ------------------------------------------------------------ 63: starts that fail
FAILURES: list[ExitReason] = [
    Crashed("on_start", OSError("no such port")),
    Crashed("on_start", KeyboardInterrupt()),
    Normal(),  # sys.exit() before it was ready
    ExitCode(3),
    Signaled(9),
    Hung("on_start", 1.0),
    Shutdown("chose to end"),
]


@pytest.mark.parametrize("reason", FAILURES, ids=str)
@pytest.mark.parametrize("restart", RESTARTS)
def test_s63_an_exit_before_ready_is_a_failed_start_for_every_reason(restart: str, reason: ExitReason) -> None:
    tree = begun(children("a"), max_restarts=0)
    tree.plan_starts("new", "waits")
    number = tree.post_request(StartChild, child("new", restart))
    tree.settle()

    tree.exits("new", reason)

    refused = tree.answer(number)
    assert isinstance(refused, ChildStartFailed)
    assert (refused.path, refused.reason) == ("top/new", reason)
    assert tree.statuses() == {"a": "running"}


@pytest.mark.parametrize("reason", FAILURES, ids=str)
@pytest.mark.parametrize("restart", RESTARTS)
def test_s63_so_it_is_when_the_supervisor_starts(restart: str, reason: ExitReason) -> None:
    tree = Driver(supervisor(child("a"), child("b", restart), child("c")), begin_now=False)
    tree.plan_starts("b", "waits")
    tree.begin()

    tree.exits("b", reason)

    assert tree.take_story("start", "stop", "end") == ["start a", "start b", "stop a", "end"]
    assert isinstance(tree.ended, Shutdown)
    assert (tree.ended.detail.path, tree.ended.detail.reason) == ("top/b", reason)


@pytest.mark.parametrize("reason", FAILURES, ids=str)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_s63_a_start_that_fails_in_a_restart_is_tried_again_for_every_reason(strategy: str, reason: ExitReason) -> None:
    tree = begun(children("ab", "transient"), strategy=strategy)
    tree.plan_starts("a", "waits", "ok")
    tree.crash("a")

    tree.exits("a", reason)

    assert tree.running() == "ab"
    assert tree.starts_of["a"] == 3
    assert tree.policy.restarts_used(0.0) == 2


# ------------------------------------------------------------ 64: what is kept of those that are gone
class Argument:
    """An object that a worker gets as an argument."""


class Holds(Thread):
    def __init__(self, argument: Argument) -> None:
        self.argument = argument


@pytest.mark.parametrize("kind", [Supervisor, DynamicSupervisor])
@pytest.mark.parametrize("end", ["ended", "crashed", "terminated", "deleted", "failed", "ignored"])
def test_s64_nothing_is_kept_of_a_child_that_is_removed(end: str, kind: type[Supervisor]) -> None:
    top = kind("top")
    policy = (DynamicPolicy if kind is DynamicSupervisor else StaticPolicy)(top, "top")
    argument = Argument()
    remembered = weakref.ref(argument)
    restart = "permanent" if end in ("deleted", "failed") else "temporary"
    policy.handle(Begin(), 0.0)
    policy.handle(StartChild(1, Child(Holds, args=(argument,), id="a", restart=restart)), 0.0)
    del argument
    match end:
        case "failed":
            policy.handle(Exited("a", 1, Crashed("on_start", OSError())), 0.0)
        case "ignored":
            policy.handle(Ignored("a", 1), 0.0)
        case _:
            policy.handle(Ready("a", 1), 0.0)
            assert remembered() is not None  # it can be recalled as long as it is listed
            if end in ("terminated", "deleted"):
                policy.handle(TerminateChild(2, "a"), 0.0)
            policy.handle(Exited("a", 1, Crashed("loop", OSError()) if end == "crashed" else Normal()), 0.0)
            if end == "deleted" and kind is Supervisor:
                policy.handle(DeleteChild(3, "a"), 0.0)

    gc.collect()

    assert policy.which_children() == []
    assert remembered() is None


# ------------------------------------------------------------ 65: a supervisor that is killed
def nobody(tree: Driver) -> None:
    """Leave the tree as it is."""


def one_is_starting(tree: Driver) -> None:
    tree.plan_starts("b", "waits")
    tree.crash("b")


def one_waits_for_its_retry(tree: Driver) -> None:
    tree.plan_starts("b", "fails")
    tree.handle(Exited("b", tree.instances.pop("b").incarnation, BOOM))


def one_is_being_stopped(tree: Driver) -> None:
    tree.plan_stops("b", "waits")
    tree.post_request(TerminateChild, "b")
    tree.settle()


def it_stops(tree: Driver) -> None:
    tree.plan_stops("c", "waits")
    tree.stop()


@pytest.mark.parametrize(
    "meanwhile", [nobody, one_is_starting, one_waits_for_its_retry, one_is_being_stopped, it_stops]
)
@pytest.mark.parametrize("kind", [*STRATEGIES, "dynamic"])
def test_s65_a_supervisor_that_is_killed_takes_all_children_with_it(kind: str, meanwhile: Any) -> None:
    tree = pool(children("abc")) if kind == "dynamic" else begun(children("abc"), strategy=kind)
    meanwhile(tree)
    alive = set(tree.instances)
    tree.take_story()

    tree.handle(KillAll("shutdown timeout"))

    assert {line.split()[1] for line in tree.take_story("kill")} >= alive
    tree.settle()
    assert tree.take_story("start", "stop") == []
    assert tree.instances == {}
    assert tree.ended == Killed("shutdown timeout")


@pytest.mark.parametrize("restart, comes_back", [("permanent", True), ("transient", True), ("temporary", False)])
def test_s65_to_its_own_supervisor_that_is_an_abnormal_end(restart: str, comes_back: bool) -> None:
    outer = begun([Child(Supervisor("inner", restart=restart)), child("b")])  # type: ignore[arg-type]

    outer.exits("inner", Killed("ref.kill()"))

    assert outer.take_story("start") == (["start inner"] if comes_back else [])


# ------------------------------------------------------------ 66: a child that does not react
def test_s66_a_silent_child_delays_a_stop_by_no_more_than_its_shutdown() -> None:
    tree = begun([child("a"), child("deaf", shutdown=2.0), child("c")])
    tree.plan_stops("deaf", "waits")

    waiting = [tree.post_request(TerminateChild, id) for id in ("deaf", "c")]
    tree.settle()
    assert tree.statuses() == {"a": "running", "deaf": "stopping", "c": "running"}
    tree.crash("a")
    assert tree.statuses()["a"] == "running"  # other children are restarted meanwhile
    assert [tree.answer(number) for number in waiting] == [None, None]

    tree.advance(2.0)

    assert [tree.answer(number) for number in waiting] == ["ok", "ok"]
    assert tree.take_story()[-4:] == ["kill deaf (shutdown timeout)", "reply", "stop c", "reply"]


def test_s66_and_the_supervisor_stops_all_the_same() -> None:
    tree = begun([child("a"), child("deaf", shutdown=2.0), child("c")])
    tree.plan_stops("deaf", "waits")
    tree.stop()

    tree.advance(2.0)

    assert tree.take_story() == ["stop c", "stop deaf", "kill deaf (shutdown timeout)", "stop a", "end"]
    assert tree.ended == Shutdown()


# ------------------------------------------------------------ 68: a fault in the supervisor itself
def test_s68_after_an_internal_error_a_supervisor_decides_nothing_and_refuses_requests() -> None:
    driver = begun(children("ab"))
    driver.policy.abort(BOOM)
    assert [(info.status, info.last_exit) for info in driver.policy.which_children()] == [
        (Status.STOPPED, Killed(str(BOOM)))
    ] * 2
    assert driver.policy.handle(Exited("a", 1, BOOM), 1.0) == []
    assert driver.policy.handle(Begin(), 1.0) == []
    [refusal] = driver.policy.handle(RestartChild("who asks", "a"), 1.0)
    assert isinstance(refusal, Refuse)
    assert isinstance(refusal.error, WorkerDead)
    assert refusal.error.reason == BOOM
