"""Requests to the supervisor of a worker that are not answered."""

from __future__ import annotations

import argparse
from types import SimpleNamespace

import pytest

from suitkaise.cli import change
from suitkaise.cli.command import CommandError
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
