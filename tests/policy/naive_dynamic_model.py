"""A deliberately naive dynamic supervisor: rules 12, 13, 44, 53 and the rules of all supervisors, as plain code.

Each child has a list of requests that wait for it, and does one thing at a time. Nothing happens by itself: the test
says when a child is up, has failed, is gone. As in the real mailbox, retries go behind what waits there already.
"""

from __future__ import annotations

import math
from collections import defaultdict, deque
from dataclasses import dataclass, field
from typing import Any

__all__ = ["NaiveDynamicChild", "NaiveDynamicSupervisor"]

ALIVE = ("starting", "again", "running")


@dataclass
class NaiveDynamicChild:
    """One child. Its `state`: starting, running, stopping, waiting (for its next try) or again (being tried)."""

    id: str | None  # None: it gets a number
    restart: str
    significant: bool
    shutdown: Any
    state: str = "starting"
    dead: bool = False  # it has ended, and that news is still in the mailbox
    deadline: float = math.inf
    asked: int = 0  # which of all requests to stop was its last one: they are killed in this order


@dataclass
class NaiveDynamicSupervisor:
    most: float
    max_restarts: float
    max_seconds: float

    now: float = 0.0
    numbers: int = 0
    asks: int = 0
    children: dict[str, NaiveDynamicChild] = field(default_factory=dict)
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
            late = [child for child in self.children.values() if child.state == "stopping" and child.deadline <= until]
            if late == []:
                break
            child = min(late, key=lambda child: (child.deadline, child.asked))
            self.now = max(self.now, child.deadline)
            self.killed.append(child.id or "")
            self.gone(child)
            self.settle()
        self.now = until

    @property
    def ended(self) -> bool:
        return self.finishing and self.children == {}

    # ------------------------------------------------------------ requests
    def on_request(self, number: Any, what: str, subject: Any) -> None:
        if what == "start_child" and subject.id is None:
            while subject.id is None or subject.id in self.children:
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
            child = self.children.get(id)
            if what == "start_child":
                self.add(number, subject, child)
            elif child is None:
                self.answers[number] = "ChildNotFound"
            elif what in ("restart_child", "delete_child"):
                self.answers[number] = "ChildRunning" if child.state == "running" else "ChildRestarting"
            else:
                self.busy[id] = (number, what)
                if child.state == "waiting":
                    self.gone(child)
                else:
                    self.ask_to_stop(child)

    def add(self, number: Any, new: NaiveDynamicChild, there: NaiveDynamicChild | None) -> None:
        assert new.id is not None
        if new.significant:
            self.answers[number] = "SpecError"
        elif there is not None:
            self.answers[number] = "ChildAlreadyStarted" if there.state == "running" else "ChildAlreadyPresent"
        elif len(self.children) >= self.most:
            self.answers[number] = "MaxChildren"
        else:
            self.children[new.id] = new
            self.busy[new.id] = (number, "start_child")
            self.start(new, "starting")

    def done(self, id: str, answer: str) -> None:
        self.answers[self.busy.pop(id)[0]] = answer
        self.work(id)

    # ------------------------------------------------------------ one child
    def start(self, child: NaiveDynamicChild, state: str) -> None:
        child.state = state
        self.started.append(child.id or "")

    def ask_to_stop(self, child: NaiveDynamicChild) -> None:
        assert child.id is not None
        child.state = "stopping"
        self.asks += 1
        child.asked = self.asks
        child.deadline = self.now + child.shutdown if isinstance(child.shutdown, float) else math.inf
        if not child.dead:
            self.stopped.append(child.id)
            if child.shutdown == "brutal_kill":
                self.killed.append(child.id)
                self.gone(child)

    def gone(self, child: NaiveDynamicChild) -> None:
        """It was to be stopped, and is."""
        assert child.id is not None
        child.dead = False
        _, what = self.busy.get(child.id, (None, None))
        if what == "recall" and not self.finishing:
            self.start(child, "starting")
            return
        del self.children[child.id]
        if what is not None:
            self.done(child.id, "ok")

    def on_news(self, what: str, id: str, nth: int) -> None:
        if id in self.children and self.started.count(id) == nth:
            getattr(self, f"on_{what}")(self.children[id])

    def on_up(self, child: NaiveDynamicChild) -> None:
        assert child.id is not None
        if child.state == "starting":
            child.state = "running"
            self.done(child.id, "ok")
        elif child.state == "again":
            child.state = "running"

    def on_ignore(self, child: NaiveDynamicChild) -> None:
        assert child.id is not None
        child.dead = False
        if child.state == "stopping":
            self.gone(child)
            return
        del self.children[child.id]  # rules 12 and 13
        if child.state == "starting":
            self.done(child.id, "ok")

    def on_clean(self, child: NaiveDynamicChild) -> None:
        self.on_exit(child, clean=True)

    def on_boom(self, child: NaiveDynamicChild) -> None:
        self.on_exit(child, clean=False)

    def on_exit(self, child: NaiveDynamicChild, clean: bool) -> None:
        assert child.id is not None
        child.dead = False
        returns = child.restart == "permanent" or (child.restart == "transient" and not clean)
        if child.state == "stopping":
            self.gone(child)
        elif child.state == "starting" and self.busy[child.id][1] == "recall" and returns:  # rule 80
            child.state = "waiting"
            self.mailbox.append(("try_again", child))
            self.done(child.id, "ChildStartFailed")
        elif child.state == "starting":  # rule 10
            del self.children[child.id]
            self.done(child.id, "ChildStartFailed")
        elif child.state == "again":  # rule 35
            child.state = "waiting"
            self.mailbox.append(("try_again", child))
        elif returns:
            self.restart(child)
        else:
            del self.children[child.id]

    def on_try_again(self, child: NaiveDynamicChild) -> None:
        if self.children.get(child.id or "") is child and child.state == "waiting":
            self.restart(child)

    def restart(self, child: NaiveDynamicChild) -> None:
        self.restarts.append(self.now)
        if self.restarts_used() > self.max_restarts:
            self.culprit = child.id
            child.state = "waiting"
            self.on_stop()
        else:
            self.start(child, "again")

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
        for child in list(self.children.values()):
            if child.state in ALIVE:  # rule 44
                self.ask_to_stop(child)
            elif child.state == "waiting":
                del self.children[child.id or ""]
