"""The events that a program keeps for those who ask for them."""

from __future__ import annotations

from functools import partial

import pytest

from suitkaise.crashes import CrashLog
from suitkaise.events import DeadLetter
from suitkaise.runtime.event_history import EventHistory
from tests.support import interrupted_at_each_line


@pytest.mark.timeout(30)
def test_a_signal_handler_may_publish_an_event_while_its_thread_does() -> None:
    history = EventHistory(CrashLog())
    put = partial(history.put, DeadLetter("app/work", 1.0, 1, "it has ended"))
    calls = 1 + len(list(interrupted_at_each_line(lambda: put, put)))
    news = history.after(0)
    assert news["last"] == 2 * calls - 1
    assert [event["number"] for event in news["events"]] == list(range(1, 2 * calls))
