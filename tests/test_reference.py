"""The reference shows each public name once, under the name by which it is imported."""

from __future__ import annotations

import importlib
import inspect
import re
from collections import Counter
from typing import Any

import pytest

import suitkaise
from suitkaise.workers.worker import Process
from tests.support import ROOT

MODULES = (
    "errors", "events", "exits", "metrics", "pools", "skglobals", "skthreading", "sktree", "telemetry", "testing",
    "xprocess",
)  # fmt: skip
NOT_FOR_USERS = {
    "suitkaise.errors.add_note",
    "suitkaise.errors.no_attribute",
    "suitkaise.errors.with_note",
    "suitkaise.exits.KILL_CHILD",
    "suitkaise.exits.KILL_REF",
    "suitkaise.exits.SHUTDOWN_TIMEOUT",
    "suitkaise.exits.by_sigterm",
    "suitkaise.exits.origin",
}
_DIRECTIVE = re.compile(r"^ *\.\. auto\w+:: (suitkaise[\w.]*)(?:\(.*\))?$", re.MULTILINE)
PAGES = sorted((ROOT / "docs" / "reference").glob("*.md"))
SHOWN = [name for page in PAGES for name in _DIRECTIVE.findall(page.read_text(encoding="utf-8"))]


def named(name: str) -> Any:
    """Return what a name such as `suitkaise.sktree.Tree` stands for."""
    module, _, last = name.rpartition(".")
    if module.rpartition(".")[2][:1].isupper():  # the member of a class
        return inspect.getattr_static(named(module), last)
    return getattr(importlib.import_module(module), last)


def public_names() -> list[str]:
    names = [f"suitkaise.{name}" for name in suitkaise.__all__ if not name.startswith("__")]
    for module in MODULES:
        names += [f"suitkaise.{module}.{name}" for name in importlib.import_module(f"suitkaise.{module}").__all__]
    return [name for name in names if name not in NOT_FOR_USERS]


def test_each_public_name_is_shown_once() -> None:
    shown = Counter(id(named(name)) for name in SHOWN if not name.startswith("suitkaise.Process."))
    wrong = {name: shown[id(named(name))] for name in public_names() if shown[id(named(name))] != 1}
    assert not wrong, f"shown so many times: {wrong}"


def test_what_is_importable_from_the_package_is_shown_under_that_name() -> None:
    assert {f"suitkaise.{name}" for name in suitkaise.__all__ if not name.startswith("__")} <= set(SHOWN)


def test_each_hook_attribute_and_method_of_a_worker_is_shown_once() -> None:
    shown = Counter(name.rpartition(".")[2] for name in SHOWN if name.startswith("suitkaise.Process."))
    names = {name for name in dir(Process) if not name.startswith("_")} - {"of"}
    assert shown == Counter(names)


@pytest.mark.parametrize("name", public_names())
def test_a_public_name_has_a_docstring_and_so_have_its_methods(name: str) -> None:
    value = named(name)
    assert inspect.getdoc(value)
    if not inspect.isclass(value):
        return
    methods = {
        member: method
        for base in value.__mro__
        if base.__module__.startswith("suitkaise")
        for member, method in vars(base).items()
        if not member.startswith("_") and (inspect.isfunction(method) or isinstance(method, property))
    }
    assert not [member for member, method in methods.items() if not inspect.getdoc(method)]
