"""A flag: an event that signal handlers may set, too, while their own thread waits for it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import partial

import pytest

from suitkaise.platform.flag import Flag
from tests.support import in_background, interrupted_at_each_line


def test_all_threads_that_wait_for_a_flag_are_woken() -> None:
    flag = Flag()
    waiting = [in_background(partial(flag.wait, 10.0)) for _ in range(3)]
    flag.set()
    assert [one.result(10.0) for one in waiting] == [True, True, True]
    assert flag.is_set()
    assert flag.wait(0.0)


def test_a_wait_for_a_flag_has_a_timeout_and_a_flag_can_be_reset() -> None:
    flag = Flag()
    flag.set()
    flag.clear()
    assert not flag.is_set()
    assert not flag.wait(0.001)
    assert not flag.wait(-1.0)
    assert not flag._waiting


def test_a_flag_may_be_set_by_many_threads_at_once() -> None:
    for _ in range(100):
        flag = Flag()
        setting = [threading.Thread(target=flag.set) for _ in range(3)]
        for thread in setting:
            thread.start()
        assert flag.wait(10.0)
        for thread in setting:
            thread.join()


def test_a_flag_calls_what_it_is_to_wake_once_it_is_set_and_only_in_the_block() -> None:
    flag = Flag()
    woken: list[bool] = []

    def wake() -> None:
        woken.append(flag.is_set())

    with flag.waking(wake):
        assert not woken
        flag.set()
        assert woken == [True]
    flag.set()
    assert woken == [True]
    with flag.waking(wake):
        assert woken == [True, True]
    assert not flag._waiting


@pytest.mark.timeout(30)
def test_a_signal_handler_may_await_and_set_a_flag_at_any_moment_of_a_wait() -> None:
    flag = Flag()
    began = handled = 0.0

    def prepare() -> Callable[[], bool]:
        nonlocal flag, began
        flag, began = Flag(), time.monotonic()
        return partial(flag.wait, 2.0)

    def handle() -> None:
        nonlocal handled
        handled = time.monotonic()
        assert not flag.wait(0.0)
        flag.set()

    moments = 0
    for woken in interrupted_at_each_line(prepare, handle):
        if handled - began >= 2.0:
            break  # from here on the wait is over before the signal comes
        moments += 1
        assert woken
        assert time.monotonic() - handled < 2.0
    assert moments > 5
