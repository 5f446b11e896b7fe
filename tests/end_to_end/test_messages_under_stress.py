"""Workers of all kinds send to each other at random while some of them die: what each ref promises holds.

Every sender notes what it begins and how that ends, every receiver what it handles, each line with one system call.
`faults` finds what is wrong in these notes; it is tested with notes that are wrong.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from suitkaise import (
    AskTimeout,
    Bounded,
    Child,
    MailboxFull,
    Process,
    Published,
    Supervisor,
    Thread,
    WorkerDead,
    WorkerRef,
    group,
    publish,
)
from tests.support import eventually

pytestmark = pytest.mark.usefixtures("one_runtime_for_all")

BOUNDED = 2
"""The seed with which the mailboxes are bounded."""

NAMES = ("waits", "loops", "async", "thread")


class Line(NamedTuple):
    """One note: `begun` and its outcome, one of `ENDS`, by a sender; `handled` by a receiver."""

    what: str
    sender: str  # the incarnation and thread that sends
    number: int
    target: str


def note(folder: str, *fields: object) -> None:
    descriptor = os.open(os.path.join(folder, "notes"), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(descriptor, (" ".join(map(str, fields)) + "\n").encode())
    os.close(descriptor)


def notes(folder: Path) -> list[Line]:
    lines = (line.split() for line in (folder / "notes").read_text().splitlines() if line.count(" ") == 3)
    return [Line(what, sender, int(number), target) for what, sender, number, target in lines]


# ------------------------------------------------------------ the checker
ENDS = ("reply", "error", "timeout", "told", "published", "missed")
"""The last one: the group or topic had no member just then. What is `published` ends with the incarnation."""


def faults(lines: list[Line], *, ended: set[str], lossless: bool = False) -> list[str]:
    """Return what is wrong.

    Args:
        lines: all notes.
        ended: the senders that have come to their end; of any other one, the last messages may have no outcome.
        lossless: no worker has died but by its own wish: each message was handled, and each ask was answered.
    """
    found = []
    handled = Counter((line.sender, line.number) for line in lines if line.what == "handled")
    ends = defaultdict(list)
    for line in lines:
        if line.what in ENDS:
            ends[line.sender, line.number].append(line.what)
    for one, times in handled.items():
        if times > 1:
            found.append(f"{one} was handled {times} times")
    for line in lines:
        one = line.sender, line.number
        if line.what != "begun":
            continue
        if len(ends[one]) > 1 or (not ends[one] and line.sender in ended):
            found.append(f"{one} had the outcomes {ends[one]}")
        if "reply" in ends[one] and not handled[one]:
            found.append(f"{one} was answered and not handled")
        if "missed" in ends[one] and handled[one]:
            found.append(f"{one} had no receiver and was handled")
        if ends[one] in (["published"], ["missed"]):
            continue
        if lossless and line.sender in ended and (not handled[one] or ends[one] not in (["reply"], ["told"])):
            found.append(f"{one} was lost: {ends[one]}, handled {handled[one]} times")
    last: dict[tuple[str, str], int] = {}
    for line in lines:
        if line.what == "handled":
            if line.number < last.get((line.sender, line.target), -1):
                found.append(f"{line} was overtaken")
            last[line.sender, line.target] = line.number
    return found


GOOD = [
    Line("begun", "a", 1, "x"), Line("handled", "a", 1, "x"), Line("reply", "a", 1, "x"),
    Line("begun", "a", 2, "x"), Line("told", "a", 2, "x"),
    Line("begun", "a", 3, "y"), Line("told", "a", 3, "y"), Line("handled", "a", 3, "y"),
    Line("handled", "a", 2, "x"),
    Line("begun", "a", 4, "x"), Line("published", "a", 4, "x"), Line("begun", "a", 5, "x"), Line("missed", "a", 5, "x"),
]  # fmt: skip


def test_the_checker_finds_nothing_in_good_notes() -> None:
    assert faults(GOOD, ended={"a"}, lossless=True) == []


@pytest.mark.parametrize(
    "lines, words",
    [
        ([*GOOD, Line("handled", "a", 3, "y")], "handled 2 times"),
        ([*GOOD, Line("handled", "a", 1, "x")], "overtaken"),
        ([*GOOD, Line("begun", "a", 6, "x")], "outcomes"),
        ([*GOOD, Line("handled", "a", 5, "x")], "no receiver"),
        ([*GOOD, Line("error", "a", 1, "x")], "outcomes"),
        ([one for one in GOOD if one != Line("handled", "a", 1, "x")], "answered and not handled"),
        ([one for one in GOOD if one != Line("handled", "a", 3, "y")], "was lost"),
        ([one._replace(what="timeout") if one.what == "reply" else one for one in GOOD], "was lost"),
    ],
)
def test_the_checker_finds_each_kind_of_fault(lines: list[Line], words: str) -> None:
    assert any(words in fault for fault in faults(lines, ended={"a"}, lossless=True))


# ------------------------------------------------------------ the workers
def tell_patiently(ref: WorkerRef, body: Any, patience: float) -> None:
    """Tell again what a full mailbox has refused: a tell waits 5 s for room, and a start may take longer than that."""
    until = time.monotonic() + patience
    while True:
        try:
            return ref.tell(body)
        except MailboxFull:
            if time.monotonic() > until:
                raise


class Talks:
    """Sends `count` messages to the others, from a thread of its own, and notes what it gets."""

    restart = "permanent"

    def __init__(self, folder: str, seed: int, count: int, patience: float) -> None:
        self.folder, self.seed, self.count, self.patience = folder, seed, count, patience

    def on_start(self) -> None:
        self.join_group(f"only {self.name}")  # type: ignore[attr-defined]
        self.subscribe(self.name)  # type: ignore[attr-defined]
        incarnation = f"{self.name}/{os.getpid()}/{id(self)}"  # type: ignore[attr-defined]
        talk = threading.Thread(target=self.talk, args=(incarnation, random.Random(f"{self.seed}{incarnation}")))
        talk.daemon = True
        talk.start()

    def talk(self, sender: str, chance: random.Random) -> None:
        others = [name for name in NAMES if name != self.name]  # type: ignore[attr-defined]
        futures = []
        eventually(Path(self.folder, "go").exists, timeout=60)
        for number in range(self.count):
            target = chance.choice(others)
            ref, body = WorkerRef(f"tree/{target}"), (sender, number, b"x" * chance.choice((10, 10, 10, 100_000)))
            note(self.folder, "begun", sender, number, target)
            outcome = "told"
            how = chance.random()
            try:
                if how < 0.3:
                    tell_patiently(ref, body, self.patience)
                elif how < 0.4:
                    outcome = "told" if group(f"only {target}").tell(body) else "missed"
                elif how < 0.5:
                    outcome = "published" if publish(target, body) else "missed"
                elif how < 0.8:
                    outcome = "reply" if ref.ask(body, self.patience) == number else "wrong"
                else:
                    futures.append((number, target, ref.ask_future(body)))
                    continue
            except AskTimeout:
                outcome = "timeout"
            except (WorkerDead, MailboxFull):
                outcome = "error"
            note(self.folder, outcome, sender, number, target)
        for number, target, future in futures:
            try:
                outcome = "reply" if future.get(self.patience) == number else "wrong"
            except AskTimeout:
                outcome = "timeout"
            except WorkerDead:
                outcome = "error"
            note(self.folder, outcome, sender, number, target)
        note(self.folder, "ended", sender)

    def on_receive(self, message: Any) -> Any:
        if isinstance(message, Published):
            message = message.message
        if message == "renew":
            self.rejoin()  # type: ignore[attr-defined]
            return None
        if message == "crash":
            os._exit(3)
        sender, number, _ = message
        note(self.folder, "handled", sender, number, self.name)  # type: ignore[attr-defined]
        return number


class Program(Talks):
    """Talks in threads of the program's own."""

    name = "program"

    def start(self) -> None:
        """Begin with two threads."""
        for number in range(2):
            sender = f"{self.name}/{number}"
            talk = threading.Thread(target=self.talk, args=(sender, random.Random(f"{self.seed}{sender}")))
            talk.start()


SENDERS = {*NAMES, Program.name}


class TalksAndWaits(Talks, Process): ...


class TalksAndLoops(Talks, Process):
    def loop(self) -> None:
        self.wait(0.002)


class TalksAsync(Talks, Process):
    async def on_receive(self, message: Any) -> Any:
        return super().on_receive(message)


class TalksInThread(Talks, Thread): ...


def tree(folder: Path, seed: int, count: int, patience: float) -> Supervisor:
    kinds = dict(zip(NAMES, (TalksAndWaits, TalksAndLoops, TalksAsync, TalksInThread), strict=True))
    mailbox = Bounded(3, "block") if seed == BOUNDED else None
    children = [
        Child(kind, args=(str(folder), seed, count, patience), id=name, mailbox=mailbox) for name, kind in kinds.items()
    ]
    return Supervisor("tree", *children, max_restarts=10_000)


def ended(folder: Path) -> set[str]:
    file = folder / "notes"
    lines = file.read_text().splitlines() if file.exists() else []
    return {line.split()[1] for line in lines if line.startswith("ended ")}


@pytest.mark.parametrize("seed", range(3))
def test_without_deaths_no_message_is_lost_although_workers_renew_themselves(seed: int, tmp_path: Path) -> None:
    chance = random.Random(seed)
    Program(str(tmp_path), seed, 150, 60.0).start()
    with tree(tmp_path, seed, 150, 60.0).start() as running:
        (tmp_path / "go").touch()  # before, an ask for a worker that starts later is refused (rule 81)
        first = {name: running[name].pid for name in NAMES}
        for _ in range(6):
            running[chance.choice(("waits", "async"))].ask("renew", timeout=60)
        stays = ("loops", "thread")
        eventually(lambda: {one.split("/")[0] for one in ended(tmp_path)} >= SENDERS, timeout=120)
        eventually(lambda: all(running[name].ask(("end", -1, b""), timeout=30) == -1 for name in NAMES), timeout=60)
        assert [running[name].pid for name in stays] == [first[name] for name in stays]
    lines = [line for line in notes(tmp_path) if line.number >= 0]
    assert faults(lines, ended=ended(tmp_path), lossless=True) == []
    assert not [line for line in lines if line.what == "wrong"]


@pytest.mark.parametrize("seed", range(3))
def test_whoever_dies_each_ask_has_one_outcome_and_nothing_is_handled_twice_or_overtaken(
    seed: int, tmp_path: Path
) -> None:
    chance = random.Random(seed)
    Program(str(tmp_path), seed, 150, 3.0).start()
    with tree(tmp_path, seed, 150, 3.0).start() as running:
        (tmp_path / "go").touch()
        for _ in range(8):
            name = chance.choice(("waits", "loops", "async"))
            before = running[name].incarnation
            match chance.choice(("kill", "crash", "renew")):
                case "kill":
                    running[name].kill()
                case how:
                    running[name].tell(how)
            eventually(lambda: running[name].incarnation > before and running[name].is_alive(), timeout=60)  # noqa: B023
        eventually(lambda: {one.split("/")[0] for one in ended(tmp_path)} >= SENDERS, timeout=120)
    lines = notes(tmp_path)
    assert faults(lines, ended=ended(tmp_path)) == []
    assert not [line for line in lines if line.what == "wrong"]
    assert any(line.what == "reply" for line in lines)
