"""Requests to the supervisor of a worker that are not answered, and the signals that can be sent."""

from __future__ import annotations

import argparse
import signal
from types import SimpleNamespace

import pytest

from suitkaise.cli import change
from suitkaise.cli.command import CommandError, UsageError
from suitkaise.messaging.answer import Answer


def test_a_program_that_does_not_answer_is_told_where_there_is_no_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    def get(self: Answer[object], timeout: float | None = None) -> object:
        return real(self, 0.01)

    real = Answer.get
    monkeypatch.setattr(Answer, "get", get)
    client = SimpleNamespace(administer=lambda *arguments: Answer())
    program = SimpleNamespace(client=client)
    target = SimpleNamespace(path="app", is_root=True, program=program, facts={"children": [{"id": "one"}]})
    monkeypatch.setattr(change, "target_of", lambda options: target)
    options = argparse.Namespace(command="suspend", timeout=None, no_wait=False, json=False)
    with pytest.raises(CommandError, match=r"'app': no answer within .* s; it goes on"):
        change.change(options)


def test_a_signal_without_a_name_can_be_sent_by_its_number(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    number = int(signal.SIGRTMIN) + 2
    sent: list[object] = []
    target = SimpleNamespace(
        path="app/one", pid=7, node="", facts={"kind": "process"}, inspect=lambda *what: sent.append(what)
    )
    monkeypatch.setattr(change, "target_of", lambda options: target)
    assert change.send_signal(argparse.Namespace(signal=str(number), json=False)) == 0
    assert sent == [("signal", number)]
    assert capsys.readouterr().out == f"app/one: signal {number} sent to pid 7\n"


@pytest.mark.parametrize("name", ["0", "32", "99", "9" * 5000, "-9", "\u00b2", "", "RTMIN+1"])
def test_what_is_no_signal_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="there is no signal"):
        change.signal_number(name)
