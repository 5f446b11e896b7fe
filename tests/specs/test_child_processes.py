"""The options that concern a child's process: `env` and `keep_children`."""

from __future__ import annotations

from typing import Any

import pytest

from suitkaise import Child, Command, Process, SpecError, Supervisor, Thread


class Worker(Process):
    env = {"not": 1}  # a name that workers use for their own
    keep_children = True


class Other(Thread): ...


def test_s75_the_environment_comes_from_the_child_alone() -> None:
    assert Child(Worker).env == {}
    assert Child(Worker, env={"A": "1"}).env == {"A": "1"}
    assert Child(Worker, env=None).env == {}


def test_s73_keep_children_may_be_an_attribute_of_the_class() -> None:
    assert Child(Worker).keep_children
    assert not Child(Worker, keep_children=False).keep_children
    assert not Child(Process).keep_children


def test_copies_and_changed_declarations_keep_both() -> None:
    child = Child(Process, id="a", env={"A": "1"}, keep_children=True, copies=2)
    for one in (child.replace(restart="transient"), *child.expanded(), child.renamed("b")):
        assert (one.env, one.keep_children) == ({"A": "1"}, True)


def test_a_command_takes_variables() -> None:
    assert Child(Command("true"), env={"A": "1"}).env == {"A": "1"}


@pytest.mark.parametrize(
    "env", [{"": "1"}, {"A=B": "1"}, {"A\0": "1"}, {"A": "\0"}, {"A": 1}, {1: "A"}, ["A=1"], "A=1"]
)
def test_what_is_no_environment_is_an_error(env: Any) -> None:
    with pytest.raises(SpecError, match="Child 'worker': env must"):
        Child(Worker, env=env)


def test_both_are_refused_where_they_make_no_sense() -> None:
    with pytest.raises(SpecError, match="a thread has the environment of the program"):
        Child(Other, env={})
    with pytest.raises(SpecError, match="each child has its own"):
        Child(Supervisor("below"), env={})
    with pytest.raises(SpecError, match="keep_children makes no sense here: processes that a thread starts"):
        Child(Other, keep_children=True)
    with pytest.raises(SpecError, match="keep_children makes no sense here: a command ends with all"):
        Child(Command("true"), keep_children=True)
    with pytest.raises(SpecError, match="keep_children must be True or False, not 1"):
        Child(Process, keep_children=1)  # type: ignore[arg-type]
