"""Process groups, topics and wildcards, between real processes and threads, through restarts and full inboxes."""

from __future__ import annotations

import os
import pickle
import signal
import threading
from collections import Counter
from typing import Any

import pytest

from suitkaise import (
    Child,
    ChildNotFound,
    DynamicSupervisor,
    NotSerializable,
    Process,
    Published,
    Supervisor,
    Thread,
    WorkerDead,
    group,
    publish,
    whereis,
    whereis_all,
)
from suitkaise.events import DeadLetter
from suitkaise.workers.worker import Worker
from tests.end_to_end.kinds import next_event
from tests.support import eventually

pytestmark = pytest.mark.usefixtures("one_runtime_for_all")


class Member(Worker):
    """Joins the groups and subscribes to the patterns that it is given; carries out what a message says."""

    def __init__(self, groups: tuple[str, ...] = (), patterns: tuple[str, ...] = ()) -> None:
        self.groups = groups
        self.patterns = patterns

    def on_start(self) -> None:
        self.seen: list[Any] = []
        for name in self.groups:
            self.join_group(name)
        for pattern in self.patterns:
            self.subscribe(pattern)

    def on_receive(self, message: Any) -> Any:
        match message:
            case "who":
                return self.ref.path
            case "seen":
                return list(self.seen)
            case ("join", name):
                return self.join_group(name)
            case ("leave", name):
                return self.leave_group(name)
            case ("subscribe", pattern, most):
                return self.subscribe(pattern, most=most)
            case ("unsubscribe", pattern):
                return self.unsubscribe(pattern)
            case ("tell group", name, what):
                return group(name).tell(what)
            case ("ask group", name, what):
                return group(name).ask(what)
            case ("members", name):
                return [ref.path for ref in group(name).members()]
            case ("publish", topic, what):
                return publish(topic, what)
            case ("where", pattern):
                return [ref.path for ref in whereis(pattern)]  # type: ignore[attr-defined]
            case (threading.Event() as started, threading.Event() as release):
                started.set()
                return release.wait(60)
        self.seen.append((message.topic, message.message) if isinstance(message, Published) else message)
        return None


class MemberProcess(Member, Process):
    pass


class MemberThread(Member, Thread):
    pass


CLASSES = {"process": MemberProcess, "thread": MemberThread}
both = pytest.mark.parametrize("kind", CLASSES)


def member(kind: str, id: str, groups: tuple[str, ...] = (), patterns: tuple[str, ...] = (), **options: Any) -> Child:
    return Child(CLASSES[kind], args=(groups, patterns), id=id, **options)


def paths(name: str) -> list[str]:
    return [ref.path for ref in group(name).members()]


# ------------------------------------------------------------ groups
@both
def test_members_are_told_all_and_asked_in_turn_from_the_program_and_from_workers(kind: str) -> None:
    children = [member("process", "a", ("g",)), member("thread", "b", ("g",)), member(kind, "c")]
    with Supervisor("app", *children).start() as running:
        assert paths("g") == running["c"].ask(("members", "g")) == ["app/a", "app/b"]
        assert group("g").tell("hello") == running["c"].ask(("tell group", "g", ["listed"])) == 2
        for id in "ab":
            assert running[id].ask("seen") == ["hello", ["listed"]]
        assert Counter(group("g").ask("who") for _ in range(10)) == {"app/a": 5, "app/b": 5}
        assert Counter(running["c"].ask(("ask group", "g", "who")) for _ in range(4)) == {"app/a": 2, "app/b": 2}
        assert group("g").ask_future("who").get() in {"app/a", "app/b"}


def test_what_cannot_be_sent_to_one_of_them_is_sent_to_none() -> None:
    children = [member(kind, kind, ("all",), ("news",)) for kind in ("thread", "process")]
    with Supervisor("groups", *children).start() as running:
        with pytest.raises(NotSerializable):
            group("all").tell(threading.Lock())
        with pytest.raises(NotSerializable):
            publish("news", threading.Lock())
        assert running["thread"].ask("seen") == []
        assert group("all").tell("text") == publish("news", "text") == 2


@both
def test_a_member_asks_the_others(kind: str) -> None:
    with Supervisor("app", member(kind, "a", ("g",)), member("thread", "b", ("g",))).start() as running:
        assert {running["a"].ask(("ask group", "g", "who")) for _ in range(3)} == {"app/b"}
        running["b"].ask(("leave", "g"))
        with pytest.raises(ChildNotFound, match="the group 'g' has no other members"):
            running["a"].ask(("ask group", "g", "who"))


@both
def test_each_member_is_asked_in_its_turn_also_where_members_ask(kind: str) -> None:
    with Supervisor("app", *(member(kind, id, ("g",)) for id in "abc")).start() as running:
        asked = [running[asker].ask(("ask group", "g", "who")) for _ in range(3) for asker in "ab"]
        assert asked == ["app/b", "app/a", "app/c", "app/a", "app/b", "app/c"]
        asked = [running["c"].ask(("ask group", "g", "who")), group("g").ask("who"), group("g").ask("who")]
        assert asked == ["app/a", "app/b", "app/c"]


def test_a_group_without_members_takes_no_question_and_tells_nobody() -> None:
    with Supervisor("app", Supervisor("empty")).start():
        assert (paths("g"), group("g").tell("hello")) == ([], 0)
        with pytest.raises(ChildNotFound, match="the group 'g' has no members"):
            group("g").ask("who")


@both
def test_to_join_twice_is_to_join_once_and_to_leave_without_being_a_member_is_no_error(kind: str) -> None:
    with Supervisor("app", member(kind, "a", ("g", "g"))).start() as running:
        assert paths("g") == ["app/a"]
        running["a"].ask(("leave", "g"))
        running["a"].ask(("leave", "g"))
        assert paths("g") == []
        running["a"].ask(("join", "g"))
        assert paths("g") == ["app/a"]


@both
def test_a_member_leaves_when_its_incarnation_ends_and_a_restarted_one_joins_anew(kind: str) -> None:
    with Supervisor("app", member(kind, "a", ("g",)), member(kind, "b")).start() as running:
        running["b"].ask(("join", "g"))
        assert paths("g") == ["app/a", "app/b"]
        for id in "ab":
            running.recall(id)
        assert paths("g") == ["app/a"]  # `b` has not joined in its `on_start`
        running.terminate_child("a")
        assert paths("g") == []


def test_a_killed_member_leaves_at_once() -> None:
    with Supervisor("app", member("process", "a", ("g",), restart="temporary"), Supervisor("more")).start() as running:
        pid = running["a"].pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        eventually(lambda: not paths("g"))


def test_a_group_is_picklable_and_equal_by_name() -> None:
    assert pickle.loads(pickle.dumps(group("g"))) == group("g") != group("h")
    with pytest.raises(ValueError, match="the name of a group"):
        group("")


# ------------------------------------------------------------ topics
@both
def test_subscribers_get_what_is_published_under_matching_topics_from_anywhere(kind: str) -> None:
    children = [
        member(kind, "all", (), ("**",)), member(kind, "orders", (), ("orders/*",)), member(kind, "none"),
    ]  # fmt: skip
    with Supervisor("app", *children).start() as running:
        assert publish("orders/new", 17) == 2
        assert running["none"].ask(("publish", "stock/low", {"screws"})) == 1
        assert running["all"].ask("seen") == [("orders/new", 17), ("stock/low", {"screws"})]
        assert running["orders"].ask("seen") == [("orders/new", 17)]
        assert running["none"].ask("seen") == []


@both
def test_a_worker_that_matches_twice_gets_a_message_once(kind: str) -> None:
    with Supervisor("app", member(kind, "a", (), ("**", "x/*", "x/y"))).start() as running:
        assert publish("x/y", 1) == 1
        assert running["a"].ask("seen") == [("x/y", 1)]
        for pattern in ("**", "x/*"):
            running["a"].ask(("unsubscribe", pattern))
        assert (publish("x/z", 2), publish("x/y", 3)) == (0, 1)
        assert running["a"].ask("seen") == [("x/y", 1), ("x/y", 3)]


@both
def test_what_the_publisher_sends_by_a_ref_goes_behind_what_it_has_published(kind: str) -> None:
    with Supervisor("app", member(kind, "a", ("g",), ("n",))).start() as running:
        for number in range(100):
            assert running["a"].ask("who") == "app/a"
            publish("n", number)
            assert running["a"].ask("seen")[-1] == ("n", number)
            group("g").tell(("subscribe", f"more-{number}", 10))
            assert running["a"].ask("who") == "app/a"
            assert publish(f"more-{number}", number) == 1


@both
def test_a_subscription_ends_with_its_incarnation(kind: str) -> None:
    with Supervisor("app", member(kind, "a", (), ("in_on_start",))).start() as running:
        running["a"].ask(("subscribe", "later", 10))
        assert publish("later", 1) == 1
        running.recall("a")
        assert (publish("later", 2), publish("in_on_start", 3)) == (0, 1)
        assert running["a"].ask("seen") == [("in_on_start", 3)]


@both
def test_the_messages_of_one_publisher_arrive_in_order(kind: str) -> None:
    with Supervisor("app", member(kind, "a", (), ("n",)), member(kind, "p")).start() as running:
        for number in range(100):
            assert running["p"].ask(("publish", "n", number)) == 1
        assert running["a"].ask("seen") == [("n", number) for number in range(100)]


def test_a_subscriber_that_does_not_keep_up_loses_messages_which_are_counted() -> None:
    started, release = threading.Event(), threading.Event()
    with Supervisor("app", member("thread", "slow")).start() as running, running.events() as events:
        slow = running["slow"]
        slow.ask(("subscribe", "n", 5))
        slow.tell((started, release))
        assert started.wait(15)
        reached = [publish("n", number) for number in range(20)]
        release.set()
        assert reached == [1] * 5 + [0] * 15
        lost = next_event(events, DeadLetter, "slow")
        assert (lost.count, "messages already wait" in lost.why) == (1, True)
        assert slow.ask("seen") == [("n", number) for number in range(5)]


def test_a_suspended_process_loses_messages_too_and_the_publisher_goes_on() -> None:
    with Supervisor("app", member("process", "slow")).start() as running:
        running["slow"].ask(("subscribe", "n", 5))
        running.suspend("slow")
        reached = sum(publish("n", number) for number in range(50))
        assert reached <= 6
        running.resume("slow")
        assert len(running["slow"].ask("seen")) == reached


def test_told_messages_for_a_worker_that_does_not_come_back_are_dead_letters() -> None:
    class Leaves(Thread):
        def on_receive(self, release: threading.Event) -> None:
            release.wait(60)
            self.rejoin()

    release = threading.Event()
    tree = Supervisor("app", Child(Leaves, restart="temporary"), Supervisor("others"))
    with tree.start() as running, running.events() as events:
        for _ in range(4):
            running["leaves"].tell(release)
        asked = running["leaves"].ask_future("an ask is no dead letter: its asker is told")
        release.set()
        lost = next_event(events, DeadLetter, "leaves")
        assert (lost.count, lost.path) == (3, "app/leaves")
        assert "no next incarnation" in lost.why
        with pytest.raises(WorkerDead):
            asked.get()


@both
@pytest.mark.parametrize("most", [0, True, 1.5])
def test_a_bound_that_is_none_is_refused(kind: str, most: Any) -> None:
    with (
        Supervisor("app", member(kind, "a", restart="temporary"), Supervisor("more")).start() as running,
        pytest.raises(ValueError, match="most must be a number of messages >= 1"),
    ):
        running["a"].ask(("subscribe", "n", most))


def test_a_topic_has_no_wildcards() -> None:
    with pytest.raises(ValueError, match="a topic must have no wildcards"):
        publish("a/*", 1)


# ------------------------------------------------------------ wildcards
@both
def test_whereis_with_wildcards_lists_workers_from_anywhere(kind: str) -> None:
    team = Supervisor("team", *(member("thread", id) for id in ("count-a", "count-b", "sum-a")))
    with Supervisor("app", team, member(kind, "asks"), DynamicSupervisor("more")).start() as running:
        expected = ["app/team/count-a", "app/team/count-b"]
        assert [ref.path for ref in whereis_all("app/*/count-*")] == expected
        assert running["asks"].ask(("where", "app/*/count-*")) == expected
        assert [ref.path for ref in whereis_all("**/more")] == ["app/more"]
        assert whereis_all("nothing/*") == []
        assert "sktree" not in {ref.path.partition("/")[0] for ref in whereis_all()}
        whereis_all("app/more")[0].start_child(member("thread", "new"))  # type: ignore[attr-defined]
        assert [ref.path for ref in whereis_all("app/more/*")] == ["app/more/new"]
        level = ["app", "app/team", "app/asks", "app/more"]
        below = [f"app/team/{id}" for id in ("count-a", "count-b", "sum-a")]
        found = [ref.path for ref in whereis_all() if ref.path.partition("/")[0] == "app"]
        assert found == [*level, *below, "app/more/new"]
