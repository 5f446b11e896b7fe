"""`kill` and `wait_until` of `suitkaise.testing`: of which incarnation `kill` waits for the next, and wrong use."""

from __future__ import annotations

from typing import Any

import pytest

from suitkaise.messaging.refs import WorkerRef
from suitkaise.testing import actions


class Restarted(WorkerRef):
    """A worker that is restarted just after it was asked for its number, and again after it was killed."""

    incarnation = 1

    def __init__(self) -> None:
        super().__init__("app/one")
        self.asked = 0

    def _info(self) -> Any:
        self.asked += 1
        return ("running", 300, 3, "process") if self.asked > 3 else ("running", 200, 2, "process")


def test_kill_waits_for_the_incarnation_after_the_one_it_has_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    killed: list[Any] = []
    monkeypatch.setattr(actions.os, "kill", lambda pid, number: killed.append(pid))
    ref = Restarted()
    actions.kill(ref)
    assert killed == [200]
    assert ref.asked == 4


def gone(pid: int, number: int) -> None:
    raise ProcessLookupError(3, "No such process")


def test_kill_of_a_worker_that_has_ended_just_before_waits_for_its_next_incarnation(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(actions.os, "kill", gone)
    ref = Restarted()
    actions.kill(ref)
    assert ref.asked == 4


def test_hang_of_a_worker_that_has_ended_just_before_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(actions.os, "kill", gone)
    with (
        pytest.raises(ValueError, match=r"the process of 'app/one' \(pid 200\) has ended just now"),
        actions.hang(Restarted()),
    ):
        pass


@pytest.mark.parametrize("wrong", [True, None, "running"])
def test_wait_until_refuses_a_condition_that_was_called_instead_of_being_passed(wrong: Any) -> None:
    with pytest.raises(TypeError, match=f"wait_until: condition must be a function, as lambda: ..., not {wrong!r}"):
        actions.wait_until(wrong)


def test_wait_until_refuses_a_condition_that_is_never_awaited() -> None:
    async def condition() -> bool:
        return False

    with pytest.raises(TypeError, match="wait_until: condition is called and not awaited"):
        actions.wait_until(condition)


def test_wait_until_refuses_a_condition_that_returns_a_coroutine() -> None:
    async def is_ready() -> bool:
        return False

    with pytest.raises(TypeError, match=r"condition is called and not awaited, so .* must not return <coroutine"):
        actions.wait_until(lambda: is_ready())


@pytest.mark.parametrize("wrong", [float("nan"), None, "1"])
def test_wait_until_refuses_a_timeout_that_is_no_number(wrong: Any) -> None:
    with pytest.raises(TypeError, match="wait_until: timeout must be seconds, not "):
        actions.wait_until(lambda: False, wrong)


@pytest.mark.parametrize("wrong", [float("nan"), None, "1"])
def test_kill_refuses_a_timeout_that_is_no_number_before_it_kills(wrong: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    killed: list[Any] = []
    monkeypatch.setattr(actions.os, "kill", lambda pid, number: killed.append(pid))
    with pytest.raises(TypeError, match="kill: timeout must be seconds, not "):
        actions.kill(Restarted(), wrong)
    assert killed == []
