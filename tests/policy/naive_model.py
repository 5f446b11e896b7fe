"""A deliberately naive supervisor: rules 1-52 as straight-line code over plain lists.

Starting and stopping a child are calls that return at once, with an outcome read from a script, as if the
supervisor could block on them. What OTP's supervisor keeps in its mailbox is a list here: `deliver` puts
something in, `settle` works it off. Retries after a failed start go to its end, so that what waits there
already comes first (rule 35).
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

__all__ = ["ForkedChild", "NaiveSupervisor", "Outcomes", "StopOutcomes"]

StartOutcome: TypeAlias = Literal["ok", "fails", "ignore"]
StopOutcome: TypeAlias = Literal["clean", "odd", "waits"]
Outcomes: TypeAlias = dict[tuple[str, int], StartOutcome]  # (id, how many-th start of it); not there: "ok"

StopOutcomes: TypeAlias = dict[tuple[str, int], StopOutcome]  # the same for stops; not there: "clean"


@dataclass
class ForkedChild:
    """One child; `state` is what `which_children` would say of it."""

    id: str
    restart: str = "permanent"
    significant: bool = False
    brutal: bool = False
    state: str = "stopped"


@dataclass
class NaiveSupervisor:
    kids: list[ForkedChild]
    outcomes: Outcomes
    stop_outcomes: StopOutcomes
    patience: float  # seconds that a child gets to stop
    strategy: str = "one_for_one"
    max_restarts: float = 3
    max_seconds: float = 5.0
    auto_shutdown: str = "never"

    brisk: bool = False  # nobody takes time to stop

    now: float = 0.0
    mailbox: list[tuple[Any, ...]] = field(default_factory=list)
    restarts: list[float] = field(default_factory=list)
    end: str | None = None  # "start failure", "gave up", "auto-shutdown" or "stop"
    culprit: str | None = None  # who made it fail to start, or give up
    started: list[str] = field(default_factory=list)  # every start that was tried, in order
    stopped: list[str] = field(default_factory=list)  # every living child that was stopped, in order
    stop_errors: list[str] = field(default_factory=list)  # those that ended oddly when they were stopped
    answers: dict[Any, str] = field(default_factory=dict)  # "this/that" where either will do
    starts: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))

    # ------------------------------------------------------------ the outside
    def begin(self) -> None:
        failed = self.start_in_order([kid.id for kid in self.kids])
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
        return [(kid.id, kid.state) for kid in self.kids]

    def restarts_used(self) -> int:
        return len([at for at in self.restarts if at >= self.now - self.max_seconds])

    # ------------------------------------------------------------ small steps
    def find(self, id: str) -> ForkedChild | None:
        for kid in self.kids:
            if kid.id == id:
                return kid
        return None

    def dead(self, id: str) -> bool:
        """Whether it has ended, and that news is still in the mailbox."""
        return [message for message in self.mailbox if message[:3] == ("exit", id, self.starts[id])] != []

    def ids_after(self, id: str) -> list[str]:
        ids = [kid.id for kid in self.kids]
        return ids[ids.index(id) + 1 :]

    def call_start(self, kid: ForkedChild) -> str:
        """Start one child; its state says how that went, except that a failure leaves it stopped."""
        self.starts[kid.id] += 1
        self.started.append(kid.id)
        outcome = self.outcomes.get((kid.id, self.starts[kid.id]), "ok")
        kid.state = {"ok": "running", "fails": "stopped", "ignore": "ignored"}[outcome]
        if outcome == "ignore" and kid.restart == "temporary":  # rule 12
            self.kids = [other for other in self.kids if other is not kid]
        return outcome

    def call_stop(self, kid: ForkedChild) -> None:
        if kid.state == "running" and not self.dead(kid.id):
            self.stopped.append(kid.id)
            outcome = self.stop_outcomes.get((kid.id, self.starts[kid.id]), "clean")
            if outcome == "odd" or (outcome == "waits" and not kid.brutal and not self.brisk):  # rule 43
                self.stop_errors.append(kid.id)
            if outcome == "waits" and not kid.brutal and not self.brisk:  # rule 42
                self.now += self.patience
        if kid.state != "ignored":
            kid.state = "stopped"
        if kid.restart == "temporary":  # rules 14 and 27
            self.kids = [other for other in self.kids if other is not kid]

    def start_in_order(self, ids: list[str]) -> str | None:
        """Start these; the id of the one that failed, if one did, and then those after it are not tried."""
        for id in ids:
            kid = self.find(id)
            if kid is not None and self.call_start(kid) == "fails":
                return id
        return None

    def stop_in_reverse(self, ids: list[str]) -> None:
        for id in reversed(ids):
            kid = self.find(id)
            if kid is not None:
                self.call_stop(kid)

    def finish(self, why: str) -> None:
        self.stop_in_reverse([kid.id for kid in self.kids])
        self.end = why

    # ------------------------------------------------------------ exits and restarts
    def on_exit(self, id: str, nth: int, clean: bool) -> None:
        kid = self.find(id)
        if self.end is not None or kid is None or kid.state != "running" or self.starts[id] != nth:
            return  # it was stopped, or started again, before its exit was looked at
        kid.state = "stopped"
        if kid.restart == "permanent" or (kid.restart == "transient" and not clean):  # rules 23 and 25
            self.restart(kid)
            return
        if kid.restart == "temporary":  # rule 26
            self.kids = [other for other in self.kids if other is not kid]
        if kid.significant:
            self.significant_ended()

    def significant_ended(self) -> None:
        if self.auto_shutdown == "any_significant":  # rule 47
            self.finish("auto-shutdown")
        if self.auto_shutdown == "all_significant":  # rule 49
            active = [kid for kid in self.kids if kid.significant and kid.state in ("running", "restarting")]
            if active == []:
                self.finish("auto-shutdown")

    def on_try_again(self, id: str, nth: int) -> None:
        kid = self.find(id)
        if self.end is not None or kid is None or self.starts[id] != nth or kid.state != "restarting":
            return  # rule 16
        self.restart(kid)

    def restart(self, kid: ForkedChild) -> None:
        self.restarts.append(self.now)
        if self.restarts_used() > self.max_restarts:  # rules 28-30
            kid.state = "stopped"
            self.culprit = kid.id
            self.finish("gave up")
            return
        if self.strategy == "one_for_one":  # rule 31
            group = [kid.id]
        elif self.strategy == "rest_for_one":  # rules 33 and 37
            group = [kid.id, *self.ids_after(kid.id)]
        else:  # rules 32 and 36
            group = [other.id for other in self.kids]
        kid.state = "stopped"
        self.stop_in_reverse(group)
        failed = self.start_in_order(group)
        if failed is not None:  # rule 35
            failure = self.find(failed)
            assert failure is not None
            failure.state = "restarting"
            self.deliver("try_again", failed, self.starts[failed])

    # ------------------------------------------------------------ requests
    def on_start_child(self, request: Any, kid: ForkedChild) -> None:
        there = self.find(kid.id)
        if self.end is not None:
            self.answers[request] = "WorkerDead"
        elif kid.significant and self.auto_shutdown == "never":
            self.answers[request] = "SpecError"  # rules 7 and 50
        elif there is not None and there.state == "running":  # rule 8
            dead = self.dead(kid.id)
            self.answers[request] = "ChildAlreadyStarted/ChildAlreadyPresent" if dead else "ChildAlreadyStarted"
        elif there is not None:
            self.answers[request] = "ChildAlreadyPresent"  # rule 9
        else:
            self.kids.append(kid)
            if self.call_start(kid) == "fails":  # rule 10
                self.kids.remove(kid)
                self.answers[request] = "ChildStartFailed"
            else:
                self.answers[request] = "ok"

    def on_terminate_child(self, request: Any, id: str) -> None:
        kid = self.find(id)
        if self.end is not None:
            self.answers[request] = "WorkerDead"
        elif kid is None:
            self.answers[request] = "ChildNotFound"
        else:
            self.call_stop(kid)
            self.answers[request] = "ok"

    def on_restart_child(self, request: Any, id: str) -> None:
        kid = self.find(id)
        error = self.not_at_rest(kid)
        if error is None:
            assert kid is not None
            error = "ChildStartFailed" if self.call_start(kid) == "fails" else "ok"  # rule 18
        self.answers[request] = error

    def on_delete_child(self, request: Any, id: str) -> None:
        kid = self.find(id)
        error = self.not_at_rest(kid)
        if error is None:
            self.kids = [other for other in self.kids if other is not kid]
        self.answers[request] = error or "ok"

    def not_at_rest(self, kid: ForkedChild | None) -> str | None:
        if self.end is not None:
            return "WorkerDead"
        if kid is None:
            return "ChildNotFound"
        if kid.state == "running" and self.dead(kid.id):  # it depends on whether the supervisor has heard of it
            return "ChildRunning/ChildRestarting"
        return {"running": "ChildRunning", "restarting": "ChildRestarting"}.get(kid.state)  # rules 17 and 19

    def on_recall(self, request: Any, id: str) -> None:
        kid = self.find(id)
        if self.end is not None:
            self.answers[request] = "WorkerDead"
        elif kid is None:
            self.answers[request] = "ChildNotFound"
        else:
            place = self.kids.index(kid)
            self.call_stop(kid)
            if kid.restart == "temporary":  # it is not over: it keeps its place
                self.kids.insert(place, kid)
            outcome = self.call_start(kid)
            self.answers[request] = "ChildStartFailed" if outcome == "fails" else "ok"

    def on_stop(self) -> None:
        if self.end is None:
            self.finish("stop")
