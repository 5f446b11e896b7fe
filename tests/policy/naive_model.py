"""A deliberately naive supervisor: rules 1-52 and 78 as straight-line code over plain lists.

Starting and stopping a child are calls that return at once, with an outcome read from a script, as if the
supervisor could block on them. What OTP's supervisor keeps in its mailbox is a list here: `deliver` puts
something in, `settle` works it off. Retries after a failed start go to its end, so that what waits there
already comes first (rule 35).
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

__all__ = ["NaiveChild", "NaiveSupervisor", "Outcomes", "StopOutcomes"]

StartOutcome: TypeAlias = Literal["ok", "fails", "ignore"]
StopOutcome: TypeAlias = Literal["clean", "odd", "waits"]
Outcomes: TypeAlias = dict[tuple[str, int], StartOutcome]  # (id, how many-th start of it); not there: "ok"

StopOutcomes: TypeAlias = dict[tuple[str, int], StopOutcome]  # the same for stops; not there: "clean"


@dataclass
class NaiveChild:
    """One child; `state` is its status in `which_children`."""

    id: str
    restart: str = "permanent"
    significant: bool = False
    brutal: bool = False
    copy_of: str | None = None
    max_restarts: float | None = None  # of its own (rule 78)
    max_seconds: float = 60.0
    restarts: list[float] = field(default_factory=list)
    state: str = "stopped"
    held: bool = False  # its group is being restarted: it was stopped, and is to be started again


@dataclass
class NaiveSupervisor:
    children: list[NaiveChild]
    outcomes: Outcomes
    stop_outcomes: StopOutcomes
    patience: float  # seconds that a child gets to stop
    strategy: str = "one_for_one"
    max_restarts: float = 3
    max_seconds: float = 5.0
    auto_shutdown: str = "never"

    brisk: bool = False  # every child stops at once

    now: float = 0.0
    mailbox: list[tuple[Any, ...]] = field(default_factory=list)
    restarts: list[float] = field(default_factory=list)
    end: str | None = None  # "start failure", "gave up", "auto-shutdown" or "stop"
    culprit: str | None = None  # the child that made it fail to start, or give up
    started: list[str] = field(default_factory=list)  # every start that was tried, in order
    stopped: list[str] = field(default_factory=list)  # every living child that was stopped, in order
    stop_errors: list[str] = field(default_factory=list)  # those that ended oddly when they were stopped
    answers: dict[Any, str] = field(default_factory=dict)  # "this/that" where either will do
    starts: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))

    # ------------------------------------------------------------ the outside
    def begin(self) -> None:
        failed = self.start_in_order([child.id for child in self.children])
        if failed is not None:  # rule 2
            self.culprit = failed
            self.finish("start failure")

    def deliver(self, *message: Any) -> None:
        self.mailbox.append(message)

    def settle(self) -> None:
        while self.mailbox:
            kind, *rest = self.mailbox.pop(0)
            getattr(self, f"on_{kind}")(*rest)

    def which_children(self) -> list[tuple[str, str]]:
        return [(child.id, child.state) for child in self.children]

    def restarts_used(self) -> int:
        return len([at for at in self.restarts if at >= self.now - self.max_seconds])

    # ------------------------------------------------------------ small steps
    def find(self, id: str) -> NaiveChild | None:
        for child in self.children:
            if child.id == id:
                return child
        return None

    def dead(self, id: str) -> bool:
        """Whether it has ended, and that news is still in the mailbox."""
        return [message for message in self.mailbox if message[:3] == ("exit", id, self.starts[id])] != []

    def ids_after(self, id: str) -> list[str]:
        ids = [child.id for child in self.children]
        return ids[ids.index(id) + 1 :]

    def call_start(self, child: NaiveChild) -> str:
        """Start one child; its state shows the outcome; a failure leaves it stopped."""
        return self.await_start(child, self.order_start(child))

    def order_start(self, child: NaiveChild) -> str:
        child.held = False
        self.starts[child.id] += 1
        self.started.append(child.id)
        return self.outcomes.get((child.id, self.starts[child.id]), "ok")

    def await_start(self, child: NaiveChild, outcome: str) -> str:
        child.state = {"ok": "running", "fails": "stopped", "ignore": "ignored"}[outcome]
        if outcome == "ignore" and child.restart == "temporary":  # rule 12
            self.children = [other for other in self.children if other is not child]
        return outcome

    def call_stop(self, child: NaiveChild) -> None:
        self.now += self.order_stop(child)

    def order_stop(self, child: NaiveChild) -> float:
        """Stop one child; return how long that takes."""
        seconds = 0.0
        if child.state == "about to fail":  # its start is under way, and will fail while it is being stopped
            self.stop_errors.append(child.id)
        if child.state == "running" and not self.dead(child.id):
            self.stopped.append(child.id)
            outcome = self.stop_outcomes.get((child.id, self.starts[child.id]), "clean")
            if outcome == "odd" or (outcome == "waits" and not child.brutal and not self.brisk):  # rule 43
                self.stop_errors.append(child.id)
            if outcome == "waits" and not child.brutal and not self.brisk:  # rule 42
                seconds = self.patience
        if child.state != "ignored":
            child.state = "stopped"
        if child.restart == "temporary":  # rules 14 and 27
            self.children = [other for other in self.children if other is not child]
        return seconds

    def positions(self, ids: list[str]) -> list[list[NaiveChild]]:
        """Return those that exist, in order; copies of one child together (rule 82)."""
        found: list[list[NaiveChild]] = []
        for child in [child for id in ids if (child := self.find(id)) is not None]:
            if found and child.copy_of is not None and found[-1][-1].copy_of == child.copy_of:
                found[-1].append(child)
            else:
                found.append([child])
        return found

    def start_in_order(self, ids: list[str]) -> str | None:
        """Start these; the id of the one that failed, if one did, and then those after it are not tried."""
        for position in self.positions(ids):
            outcomes = [(child, self.order_start(child)) for child in position]
            failed = None
            for child, outcome in outcomes:
                if failed is not None:  # it is still being started, and is about to be stopped
                    child.state = {"ok": "running", "fails": "about to fail", "ignore": "starting"}[outcome]
                elif self.await_start(child, outcome) == "fails":
                    failed = child.id
            if failed is not None:
                return failed
        return None

    def stop_in_reverse(self, ids: list[str]) -> None:
        for position in reversed(self.positions(ids)):
            self.now += max([self.order_stop(child) for child in reversed(position)], default=0.0)

    def finish(self, why: str) -> None:
        self.stop_in_reverse([child.id for child in self.children])
        self.end = why

    # ------------------------------------------------------------ exits and restarts
    def on_exit(self, id: str, nth: int, clean: bool) -> None:
        child = self.find(id)
        if self.end is not None or child is None or child.state != "running" or self.starts[id] != nth:
            return  # it was stopped, or started again, before its exit was looked at
        child.state = "stopped"
        if child.restart == "permanent" or (child.restart == "transient" and not clean):  # rules 23 and 25
            self.restart(child)
            return
        if child.restart == "temporary":  # rule 26
            self.children = [other for other in self.children if other is not child]
        if child.significant:
            self.significant_ended()

    def significant_ended(self) -> None:
        if self.auto_shutdown == "any_significant":  # rule 47
            self.finish("auto-shutdown")
        if self.auto_shutdown == "all_significant":  # rule 49
            active = [
                child for child in self.children if child.significant and child.state in ("running", "restarting")
            ]
            if active == []:
                self.finish("auto-shutdown")

    def on_try_again(self, id: str, nth: int) -> None:
        child = self.find(id)
        if self.end is not None or child is None or self.starts[id] != nth or child.state != "restarting":
            return  # rule 16
        self.restart(child)

    def restart(self, child: NaiveChild) -> None:
        if child.max_restarts is not None:  # rule 78
            child.restarts.append(self.now)
            if len([at for at in child.restarts if at >= self.now - child.max_seconds]) > child.max_restarts:
                child.state = "stopped"
                if child.significant:
                    self.significant_ended()
            else:
                self.restart_group(child)
            return
        self.restarts.append(self.now)
        if self.restarts_used() > self.max_restarts:  # rules 28-30
            child.state = "stopped"
            self.culprit = child.id
            self.finish("gave up")
            return
        self.restart_group(child)

    def restart_group(self, child: NaiveChild) -> None:
        if self.strategy == "one_for_one":  # rule 31
            group = [child.id]
        elif self.strategy == "rest_for_one":  # rules 33 and 37
            group = [
                other.id
                for other in self.children
                if other is child
                or (other.held if self.are_copies(child, other) else other.id in self.ids_after(child.id))
            ]
        else:  # rules 32 and 36
            group = [other.id for other in self.children]
        child.state = "stopped"
        self.stop_in_reverse(group)
        for id in group:
            member = self.find(id)
            if member is not None:
                member.held = True
        failed = self.start_in_order(group)
        if failed is not None:  # rule 35
            failure = self.find(failed)
            assert failure is not None
            failure.state = "restarting"
            self.deliver("try_again", failed, self.starts[failed])
            others = [id for id in group if (other := self.find(id)) is not None and self.are_copies(failure, other)]
            self.stop_in_reverse(others)
            for id in others:
                copy = self.find(id)
                assert copy is not None
                copy.held = True

    @staticmethod
    def are_copies(one: NaiveChild, other: NaiveChild) -> bool:
        return one is not other and one.copy_of is not None and one.copy_of == other.copy_of

    # ------------------------------------------------------------ requests
    def on_start_child(self, request: Any, child: NaiveChild) -> None:
        there = self.find(child.id)
        if self.end is not None:
            self.answers[request] = "WorkerDead"
        elif child.significant and self.auto_shutdown == "never":
            self.answers[request] = "SpecError"  # rules 7 and 50
        elif child.max_restarts is not None and self.strategy != "one_for_one":
            self.answers[request] = "SpecError"  # rules 7 and 78
        elif there is not None and there.state == "running":  # rule 8
            dead = self.dead(child.id)
            self.answers[request] = "ChildAlreadyStarted/ChildAlreadyPresent" if dead else "ChildAlreadyStarted"
        elif there is not None:
            self.answers[request] = "ChildAlreadyPresent"  # rule 9
        else:
            self.children.append(child)
            if self.call_start(child) == "fails":  # rule 10
                self.children.remove(child)
                self.answers[request] = "ChildStartFailed"
            else:
                self.answers[request] = "ok"

    def on_terminate_child(self, request: Any, id: str) -> None:
        child = self.find(id)
        if self.end is not None:
            self.answers[request] = "WorkerDead"
        elif child is None:
            self.answers[request] = "ChildNotFound"
        else:
            self.cancel_restart(child)
            child.held = False
            self.call_stop(child)
            self.answers[request] = "ok"

    def cancel_restart(self, child: NaiveChild) -> None:
        if child.state == "restarting":  # rules 16 and 38: the others of its group stay down
            for other in self.children:
                other.held = False

    def on_restart_child(self, request: Any, id: str) -> None:
        child = self.find(id)
        error = self.not_at_rest(child)
        if error is None:
            assert child is not None
            error = "ChildStartFailed" if self.call_start(child) == "fails" else "ok"  # rule 18
        self.answers[request] = error

    def on_delete_child(self, request: Any, id: str) -> None:
        child = self.find(id)
        error = self.not_at_rest(child)
        if error is None:
            self.children = [other for other in self.children if other is not child]
        self.answers[request] = error or "ok"

    def not_at_rest(self, child: NaiveChild | None) -> str | None:
        if self.end is not None:
            return "WorkerDead"
        if child is None:
            return "ChildNotFound"
        if child.state == "running" and self.dead(
            child.id
        ):  # it depends on whether the supervisor has handled the exit
            return "ChildRunning/ChildRestarting"
        return {"running": "ChildRunning", "restarting": "ChildRestarting"}.get(child.state)  # rules 17 and 19

    def on_recall(self, request: Any, id: str) -> None:
        child = self.find(id)
        if self.end is not None:
            self.answers[request] = "WorkerDead"
        elif child is None:
            self.answers[request] = "ChildNotFound"
        else:
            position = self.children.index(child)
            was_up = child.state in ("running", "restarting")
            self.cancel_restart(child)
            self.call_stop(child)
            if child.restart == "temporary":  # it is recalled: it keeps its position
                self.children.insert(position, child)
            outcome = self.call_start(child)
            self.answers[request] = "ChildStartFailed" if outcome == "fails" else "ok"
            if outcome == "fails" and was_up and child.restart != "temporary":  # rule 80
                child.state = "restarting"
                self.deliver("try_again", child.id, self.starts[child.id])

    def on_stop(self) -> None:
        if self.end is None:
            self.finish("stop")
