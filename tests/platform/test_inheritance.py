"""What has changed since a keeper was started is what its processes set."""

from __future__ import annotations

import os
import resource

import pytest

from suitkaise.platform import inheritance
from suitkaise.platform.inheritance import apply, changes, user


@pytest.fixture(autouse=True)
def undo(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inheritance, "_applied", {})
    monkeypatch.setattr(inheritance, "_replaced", {})
    monkeypatch.setenv("SK_A", "before")


def test_without_changes_nothing_is_sent() -> None:
    assert changes(inheritance.inheritance(), {}) == {}


def test_s75_variables_that_are_new_changed_or_gone_and_umask_and_limits_are_changes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SK_GONE", "1")
    before = inheritance.inheritance()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    umask = os.umask(0o047)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft - 1, hard))
        monkeypatch.setenv("SK_A", "after")
        monkeypatch.delenv("SK_GONE")
        found = changes(before, {"SK_OWN": "ä"})
    finally:
        os.umask(umask)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert found == {
        b"SK_A": b"after",
        b"SK_GONE": None,
        b"SK_OWN": "ä".encode(),
        resource.RLIMIT_NOFILE: (soft - 1, hard),
        -1: 0o047,
    }


def test_changes_are_applied_and_undone_when_they_are_changes_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    umask = os.umask(0o022)
    os.umask(umask)
    apply({b"SK_A": b"after", b"SK_B": b"new", resource.RLIMIT_NOFILE: (soft - 1, hard), -1: 0o047})
    monkeypatch.setenv("SK_C", "of a module that was imported meanwhile")
    assert (os.environ["SK_A"], os.environ["SK_B"]) == ("after", "new")
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == soft - 1
    apply({b"SK_A": None})
    assert "SK_A" not in os.environ
    assert "SK_B" not in os.environ
    assert "SK_C" in os.environ
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == soft
    assert os.umask(umask) == umask
    apply({})
    assert os.environ["SK_A"] == "before"


def test_a_variable_that_a_module_has_changed_meanwhile_stays_if_it_is_the_same_change() -> None:
    apply({b"SK_A": b"given"})
    os.environ["SK_A"] = "of the module"
    apply({b"SK_A": b"given"})
    assert os.environ["SK_A"] == "of the module"
    apply({})


def test_the_user_is_that_of_this_process() -> None:
    assert user() == (os.getresuid(), os.getresgid(), tuple(os.getgroups()))
