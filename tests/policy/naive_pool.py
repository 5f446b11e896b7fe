"""A deliberately naive dynamic supervisor: rules 12, 13, 44, 53 and what they share with others, as plain code.

Each child has a list of requests that wait for it, and does one thing at a time. Nothing happens by itself: the test
says when a child is up, has failed, is gone. As in the real mailbox, retries go behind what waits there already.
"""

from __future__ import annotations

import math
from collections import defaultdict, deque
from dataclasses import dataclass, field
from typing import Any

__all__ = ["NaivePool", "PoolKid"]

ALIVE = ("starting", "again", "running")


@dataclass
class PoolKid:
    """One child. Its `state`: starting, running, stopping, waiting (for its next try) or again (being tried)."""

    id: str | None  # None: it gets a number
    restart: str
    significant: bool
    shutdown: Any
    state: str = "starting"
    dead: bool = False  # it has ended, and that news is still in the mailbox
    deadline: float = math.inf


@dataclass
class NaivePool:
    most: float
    max_restarts: float
    max_seconds: float

    now: float = 0.0
    numbers: int = 0
    kids: dict[str, PoolKid] = field(default_factory=dict)
    mailbox: list[tuple[Any, ...]] = field(default_factory=list)
    waiting: defaultdict[str, deque[tuple[Any, str]]] = field(default_factory=lambda: defaultdict(deque))
    busy: dict[str, tuple[Any, str]] = field(default_factory=dict)  # the request that a child works on
    restarts: list[float] = field(default_factory=list)
    finishing: bool = False
    culprit: str | None = None
    started: list[str] = field(default_factory=list)
    stopped: list[str] = field(default_factory=list)
    killed: list[str] = field(default_factory=list)
    answers: dict[Any, str] = field(default_factory=dict)

    # ------------------------------------------------------------ the outside
    def settle(self) -> None:
        while self.mailbox:
            kind, *rest = self.mailbox.pop(0)
            getattr(self, f"on_{kind}")(*rest)

    def pass_time(self, seconds: float) -> None:
        until = self.now + seconds
        while True:
            late = [kid for kid in self.kids.values() if kid.state == "stopping" and kid.deadline <= until]
            if late == []:
                break
            kid = min(late, key=lambda kid: kid.deadline)
            self.now = max(self.now, kid.deadline)
            self.killed.append(kid.id or "")
            self.gone(kid)
            self.settle()
        self.now = until

    @property
    def ended(self) -> bool:
        return self.finishing and self.kids == {}

    # ------------------------------------------------------------ requests
    def on_request(self, number: Any, what: str, subject: Any) -> None:
        if what == "start_child" and subject.id is None:
            while subject.id is None or subject.id in self.kids:
                self.numbers += 1
                subject.id = f"work-{self.numbers}"
        if self.finishing:
            self.answers[number] = "WorkerDead"
            return
        id = subject.id if what == "start_child" else subject
        self.waiting[id].append((number, what, subject))
        self.work(id)

    def work(self, id: str) -> None:
        while id not in self.busy and self.waiting[id]:
            number, what, subject = self.waiting[id].popleft()
            kid = self.kids.get(id)
            if what == "start_child":
                self.add(number, subject, kid)
            elif kid is None:
                self.answers[number] = "ChildNotFound"
            elif what in ("restart_child", "delete_child"):
                self.answers[number] = "ChildRunning" if kid.state == "running" else "ChildRestarting"
            else:
                self.busy[id] = (number, what)
                if kid.state == "waiting":
                    self.gone(kid)
                else:
                    self.ask_to_stop(kid)

    def add(self, number: Any, new: PoolKid, there: PoolKid | None) -> None:
        assert new.id is not None
        if new.significant:
            self.answers[number] = "SpecError"
        elif there is not None:
            self.answers[number] = "ChildAlreadyStarted" if there.state == "running" else "ChildAlreadyPresent"
        elif len(self.kids) >= self.most:
            self.answers[number] = "MaxChildren"
        else:
            self.kids[new.id] = new
            self.busy[new.id] = (number, "start_child")
            self.start(new, "starting")

    def done(self, id: str, answer: str) -> None:
        self.answers[self.busy.pop(id)[0]] = answer
        self.work(id)

    # ------------------------------------------------------------ one child
    def start(self, kid: PoolKid, state: str) -> None:
        kid.state = state
        self.started.append(kid.id or "")

    def ask_to_stop(self, kid: PoolKid) -> None:
        assert kid.id is not None
        kid.state = "stopping"
        kid.deadline = self.now + kid.shutdown if isinstance(kid.shutdown, float) else math.inf
        if not kid.dead:
            self.stopped.append(kid.id)
            if kid.shutdown == "brutal_kill":
                self.killed.append(kid.id)
                self.gone(kid)

    def gone(self, kid: PoolKid) -> None:
        """It was to be stopped, and is."""
        assert kid.id is not None
        kid.dead = False
        _, what = self.busy.get(kid.id, (None, None))
        if what == "recall" and not self.finishing:
            self.start(kid, "starting")
            return
        del self.kids[kid.id]
        if what is not None:
            self.done(kid.id, "ok")

    def on_news(self, what: str, id: str, nth: int) -> None:
        if id in self.kids and self.started.count(id) == nth:
            getattr(self, f"on_{what}")(self.kids[id])

    def on_up(self, kid: PoolKid) -> None:
        assert kid.id is not None
        if kid.state == "starting":
            kid.state = "running"
            self.done(kid.id, "ok")
        elif kid.state == "again":
            kid.state = "running"

    def on_ignore(self, kid: PoolKid) -> None:
        assert kid.id is not None
        kid.dead = False
        if kid.state == "stopping":
            self.gone(kid)
            return
        del self.kids[kid.id]  # rules 12 and 13
        if kid.state == "starting":
            self.done(kid.id, "ok")

    def on_clean(self, kid: PoolKid) -> None:
        self.on_exit(kid, clean=True)

    def on_boom(self, kid: PoolKid) -> None:
        self.on_exit(kid, clean=False)

    def on_exit(self, kid: PoolKid, clean: bool) -> None:
        assert kid.id is not None
        kid.dead = False
        if kid.state == "stopping":
            self.gone(kid)
        elif kid.state == "starting":  # rule 10
            del self.kids[kid.id]
            self.done(kid.id, "ChildStartFailed")
        elif kid.state == "again":  # rule 35
            kid.state = "waiting"
            self.mailbox.append(("try_again", kid))
        elif kid.restart == "permanent" or (kid.restart == "transient" and not clean):
            self.restart(kid)
        else:
            del self.kids[kid.id]

    def on_try_again(self, kid: PoolKid) -> None:
        if self.kids.get(kid.id or "") is kid and kid.state == "waiting":
            self.restart(kid)

    def restart(self, kid: PoolKid) -> None:
        self.restarts.append(self.now)
        if self.restarts_used() > self.max_restarts:
            self.culprit = kid.id
            kid.state = "waiting"
            self.on_stop()
        else:
            self.start(kid, "again")

    def restarts_used(self) -> int:
        return len([at for at in self.restarts if at >= self.now - self.max_seconds])

    # ------------------------------------------------------------ the end
    def on_stop(self) -> None:
        if self.finishing:
            return
        self.finishing = True
        unanswered = [*self.busy.values(), *(one for line in self.waiting.values() for one in line)]
        for number, *_ in unanswered:
            self.answers[number] = "WorkerDead"
        self.busy.clear()
        self.waiting.clear()
        for kid in list(self.kids.values()):
            if kid.state in ALIVE:  # rule 44
                self.ask_to_stop(kid)
            elif kid.state == "waiting":
                del self.kids[kid.id or ""]
