"""Random schedules break no rule; a schedule with a fault is made small, and each replays exactly.

`SUITKAISE_SCHEDULES=2000000 make test-slow ARGS="-k schedules"` plays that many, from another seed on each day.
"""

from __future__ import annotations

import datetime
import os
import sys
import textwrap
from typing import Any

import pytest

from suitkaise import Supervisor
from suitkaise.exits import Signaled
from suitkaise.policy.static import StaticPolicy
from suitkaise.specs import Child
from suitkaise.testing import Behaviour
from tests.support import ROOT, run_program
from tests.testing import schedules
from tests.testing.dynamic_ledger import DynamicLedger
from tests.testing.ledger import Ledger
from tests.testing.observed import Order
from tests.testing.schedules import Schedule, Work, play, random_schedule
from tests.testing.shrinking import as_code, fault_of, shrunk

BLOCKS = 6
EACH = int(os.environ.get("SUITKAISE_SHORT_SCHEDULES", "3000")) // BLOCKS
MANY = int(os.environ.get("SUITKAISE_SCHEDULES", "100000"))


def play_seeds(seeds: range) -> None:
    for seed in seeds:
        try:
            play(random_schedule(seed))
        except Exception:
            schedule = random_schedule(seed)
            small = shrunk(schedule)
            pytest.fail(
                f"seed={seed}: {fault_of(schedule)}\n"
                f"`python -m tests.testing.schedules {seed}` replays it. Small: {fault_of(small)}\n{as_code(small)}",
                pytrace=False,
            )


@pytest.mark.parametrize("block", range(BLOCKS))
def test_random_schedules_break_no_rule(block: int) -> None:
    play_seeds(range(block * EACH, (block + 1) * EACH))


@pytest.mark.slow
@pytest.mark.timeout(0)
def test_many_random_schedules_break_no_rule() -> None:
    first = datetime.date.today().toordinal() * 10**8
    play_seeds(range(first, first + MANY))


# ---------------------------------------------------------------- seeds
TRACES = textwrap.dedent("""
    import hashlib
    from tests.testing.schedules import play, random_schedule

    lines = []
    for seed in range(100):
        play(random_schedule(seed), lines.append)
    text = "\\n".join(line.partition("pid")[0] for line in lines)
    print(len(lines), hashlib.sha256(text.encode()).hexdigest())
""")


def test_a_seed_is_the_same_schedule_in_every_process() -> None:
    source = os.pathsep.join(path for path in (str(ROOT), *sys.path) if path)
    traces = [
        run_program(TRACES, env={"PYTHONHASHSEED": number, "PYTHONPATH": source}).check().stdout
        for number in ("0", "1", "12345")
    ]
    assert len(set(traces)) == 1
    assert int(traces[0].split()[0]) > 1_000


def test_a_seed_replays_exactly() -> None:
    for seed in range(100):
        first: list[str] = []
        second: list[str] = []
        play(random_schedule(seed), first.append)
        play(random_schedule(seed), second.append)
        assert first == second


def test_the_schedules_contain_every_kind_of_event() -> None:
    missing = {
        "gives up", "hung in loop", "hung in on_start", "hung in on_finish", "auto-shutdown", "shutdown timeout",
        "brutal_kill", "second signal", "declines to run", "failed to start", "did not stop cleanly", "s (1 of",
        "ChildAlreadyStarted", "ChildAlreadyPresent", "ChildNotFound", "ChildRunning", "ChildStartFailed",
        "ChildRestarting", "MaxChildren", "SpecError", "WorkerDead", "answer top ok", "Recall(", "ref.kill()",
        "is given up", "kill (kill_child())", "stopped: killed (kill_child())",
    }  # fmt: skip
    for seed in range(1000):
        lines: list[str] = []
        play(random_schedule(seed), lines.append)
        trace = "\n".join(lines)
        missing = {what for what in missing if what not in trace}
        if not missing:
            return
    assert not missing, "no schedule of the first 1000 has these in it"


def test_the_schedules_give_up_children_alone_and_revive_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """In both kinds of supervisors, by both requests (rule 78); a dynamic one revives about one in 500 schedules."""
    missing = {(Ledger, "given up"), (Ledger, "restart"), (Ledger, "recall"), (DynamicLedger, "given up")}

    def given_up(self: Ledger, event: Any, id: str) -> None:
        missing.discard((type(self), "given up"))
        note_given_up(self, event, id)

    def launch_for(self: Ledger, ticket: Any, spec: Child) -> None:
        record = self.records.get(ticket.id)
        if record is not None and record.given_up:
            missing.discard((type(self), ticket.what))
        note_launch(self, ticket, spec)

    note_given_up, note_launch = Ledger._child_given_up, Ledger._launch_for
    monkeypatch.setattr(Ledger, "_child_given_up", given_up)
    monkeypatch.setattr(Ledger, "_launch_for", launch_for)
    for seed in range(1000):
        play(random_schedule(seed))
        if not missing:
            return
    assert not missing, "in no schedule of the first 1000"


# ---------------------------------------------------------------- faults
def test_a_broken_rule_is_noticed_and_made_small(monkeypatch: pytest.MonkeyPatch) -> None:
    def forward(self: Any) -> Any:
        for child in list(self.children):
            yield from self.stop(child)

    monkeypatch.setattr(StaticPolicy, "_stop_children", forward)
    seed = next(seed for seed in range(100) if fault_of(random_schedule(seed)) is not None)

    small = shrunk(random_schedule(seed))

    fault = fault_of(small)
    assert fault is not None
    assert "rule 44" in fault
    assert len(small.tree.children) == 2
    assert not small.behaviours
    assert not small.orders
    assert fault_of(eval(as_code(small).removeprefix("play(").removesuffix(", print)"), vars(schedules))) == fault


def test_a_small_schedule_is_written_as_code() -> None:
    tree = Supervisor("top", Child(Work, id="a", restart="transient", shutdown=0.5), max_restarts=1)
    behaviours = {("top/a", 1): Behaviour(lives=1.0, reason=Signaled(9))}
    schedule = Schedule(tree, behaviours, (Order(2.0, "top", "recall", "a"),))
    assert as_code(schedule) == (
        "play(Schedule(\n"
        "    Supervisor('top', Child(Work, id='a', restart='transient', shutdown=0.5), max_restarts=1),\n"
        "    behaviours={\n"
        "        ('top/a', 1): Behaviour(lives=1.0, reason=Signaled(9)),\n"
        "    },\n"
        "    orders=(\n"
        "        Order(2.0, 'top', 'recall', 'a'),\n"
        "    ),\n"
        "    lag=None,\n"
        "), print)"
    )
    assert fault_of(schedule) is None
