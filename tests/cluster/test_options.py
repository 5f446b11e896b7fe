"""`suitkaise run --engine`, and what is told where Ray is not installed."""

from __future__ import annotations

import argparse
import sys

import pytest

from suitkaise import Process, Ray, SuitkaiseError, Supervisor
from suitkaise.cli.command import UsageError
from suitkaise.cli.dispatch import _without_own
from suitkaise.cli.engine import engine_of
from suitkaise.cli.parser import make_parser


class Member(Process): ...


def options(engine: str | None = None, address: str | None = None, nodes: str | None = None) -> argparse.Namespace:
    return argparse.Namespace(engine=engine, address=address, nodes=nodes)


def test_the_engine_is_that_of_the_options() -> None:
    assert engine_of(options()) is None
    assert engine_of(options("local")) == "local"
    assert engine_of(options("ray")) == Ray()
    assert engine_of(options("ray", "auto")) == Ray(address="auto")
    assert engine_of(options("ray", nodes="3")) == Ray(nodes=3)


@pytest.mark.parametrize(
    "given, text",
    [
        (options("spark"), "--engine must be local or ray, not 'spark'"),
        (options("ray", nodes="many"), "--nodes must be a number, not 'many'"),
        (options("ray", "auto", "3"), "give one of them"),
        (options(nodes="3"), "--nodes needs --engine ray"),
        (options("local", "auto"), "--address needs --engine ray"),
    ],
)
def test_options_that_make_no_sense_are_an_error(given: argparse.Namespace, text: str) -> None:
    with pytest.raises(UsageError, match=text):
        engine_of(given)


def test_without_ray_the_start_is_one_error_with_the_line_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(SuitkaiseError, match=r'pip install "suitkaise-xprocess\[ray\]"'):
        Supervisor("app", Member, engine=Ray()).start()


@pytest.mark.parametrize("joined", [False, True])
def test_the_options_of_the_engine_may_stand_behind_the_target_in_both_forms(joined: bool) -> None:
    words = ["--engine", "ray", "--nodes", "3", "--address", "auto"]
    if joined:
        words = [f"{name}={value}" for name, value in zip(words[::2], words[1::2], strict=True)]
    found = make_parser().parse_args(["run", "app.py"])
    assert _without_own(found, [*words, "--root", "x"]) == ["--root", "x"]
    assert (found.engine, found.nodes, found.address) == ("ray", "3", "auto")


@pytest.mark.parametrize("engine", [[], ["--engine=local"]])
def test_without_ray_they_are_the_programs_own_behind_the_target(engine: list[str]) -> None:
    found = make_parser().parse_args(["run", "app.py"])
    for words in (["--nodes", "3"], ["--nodes=3"], ["--address=here"]):
        assert _without_own(found, [*engine, *words]) == words
    assert (found.nodes, found.address) == (None, None)
