"""The declaration of a dynamic supervisor: what it takes, what it refuses, how it prints."""

from __future__ import annotations

import copy
import math
import pickle
from typing import Any

import pytest

from suitkaise import Child, DynamicSupervisor, SpecError, Supervisor


def work() -> None: ...


def test_s06_its_defaults() -> None:
    pool = DynamicSupervisor("pool")

    assert (pool.max_children, pool.max_restarts, pool.max_seconds) == (None, 3, 5.0)
    assert (pool.restart, pool.shutdown, pool.significant) == ("permanent", "infinity", False)
    assert (pool.children, pool.strategy, pool.auto_shutdown) == ((), "one_for_one", "never")


def test_max_children_may_be_given_without_its_name() -> None:
    assert DynamicSupervisor("pool", 100).max_children == 100
    assert DynamicSupervisor("pool", 0).max_children == 0


@pytest.mark.parametrize("wrong", [-1, 1.5, True, "7", math.inf, work, Child(work)])
def test_s05_max_children_is_a_whole_number(wrong: Any) -> None:
    with pytest.raises(SpecError, match=r"DynamicSupervisor 'pool': max_children must be a whole number >= 0, or None"):
        DynamicSupervisor("pool", wrong)


def test_a_child_in_the_declaration_of_a_dynamic_supervisor_is_refused_with_the_way_to_add_it() -> None:
    with pytest.raises(SpecError, match="a child is added while it runs, with start_child"):
        DynamicSupervisor("pool", work)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "options, says",
    [
        ({"strategy": "one_for_all"}, "takes no strategy: its children come back independently"),
        ({"auto_shutdown": "any_significant"}, "takes no auto_shutdown: it does not end with its children"),
        ({"children": [work]}, "takes no children: children are added by start_child"),
        ({"max_child": 3}, "did you mean 'max_children'?"),
        ({"max_restarts": -1}, "max_restarts must be a whole number >= 0"),
        ({"max_seconds": 0}, "max_seconds must be seconds > 0"),
        ({"restart": "always"}, "restart must be"),
        ({"shutdown": -1}, "shutdown must be"),
        ({"significant": 1}, "significant must be True or False"),
    ],
)
def test_s05_what_is_wrong_is_refused_where_it_is_written(options: dict[str, Any], says: str) -> None:
    with pytest.raises(SpecError) as refused:
        DynamicSupervisor("pool", **options)
    assert str(refused.value).startswith("DynamicSupervisor 'pool': ")
    assert says in str(refused.value)


@pytest.mark.parametrize("name", ["", "a/b", "a#1", None])
def test_s05_its_name_is_checked(name: Any) -> None:
    with pytest.raises(SpecError):
        DynamicSupervisor(name)


def test_s03_as_a_child_it_brings_its_own_options() -> None:
    pool = DynamicSupervisor("pool", restart="transient", shutdown=9)

    bare, wrapped, changed = Supervisor("a", pool).children[0], Child(pool), Child(pool, id="other", shutdown=1)

    assert bare == wrapped
    assert (bare.id, bare.kind, bare.restart, bare.shutdown, bare.what) == (
        "pool",
        "supervisor",
        "transient",
        9.0,
        pool,
    )
    assert (changed.id, changed.shutdown) == ("other", 1.0)


def test_it_is_immutable() -> None:
    pool = DynamicSupervisor("pool")
    with pytest.raises(AttributeError, match="immutable"):
        pool.max_children = 3
    with pytest.raises(AttributeError, match="immutable"):
        pool.name = "other"


def test_replace_changes_some_options_of_a_copy() -> None:
    pool = DynamicSupervisor("pool", 3, max_restarts=7)

    changed = pool.replace(max_children=None, name="other")

    assert (changed.name, changed.max_children, changed.max_restarts) == ("other", None, 7)
    assert (type(changed), pool.max_children) == (DynamicSupervisor, 3)
    with pytest.raises(SpecError, match="takes no strategy"):
        pool.replace(strategy="rest_for_one")


@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, lambda spec: pickle.loads(pickle.dumps(spec))])
def test_a_copied_or_pickled_one_is_equal(again: Any) -> None:
    pool = DynamicSupervisor("pool", 3)

    assert again(pool) == pool
    assert pool != DynamicSupervisor("pool", 4)
    assert DynamicSupervisor("pool") != Supervisor("pool")


def test_it_prints_in_the_picture_of_its_tree() -> None:
    tree = Supervisor(
        "app", DynamicSupervisor("pool", max_children=1000), Child(DynamicSupervisor("x"), id="any", copies=2)
    )

    assert str(tree).splitlines() == [
        "app  supervisor, one_for_one, 3 restarts in 5 s",
        "├─ pool  dynamic supervisor, at most 1000 children, 3 restarts in 5 s",
        "├─ any-0  dynamic supervisor, 3 restarts in 5 s",
        "└─ any-1  dynamic supervisor, 3 restarts in 5 s",
    ]
    assert repr(DynamicSupervisor("pool")) == "DynamicSupervisor('pool', max_children=None)"


# ---------------------------------------------------------------- whether an id was given


def test_a_child_knows_whether_somebody_gave_it_its_id() -> None:
    assert not Child(work).id_given
    assert not Child(work).replace(restart="temporary").id_given
    assert Child(work, id="work").id_given
    assert Child(work, id="work").replace(restart="temporary").id_given
    assert Child(work).replace(id="other").id_given
    assert Child(Supervisor("name")).id_given
    assert all(clone.id_given for clone in Child(work, copies=2).expanded())


def test_a_renamed_child_is_the_same_but_for_its_id() -> None:
    spec = Child(work, restart="transient", shutdown=3)

    renamed = spec.renamed("other")

    assert (renamed.id, renamed.id_given, renamed.restart, renamed.shutdown) == ("other", True, "transient", 3.0)
    assert (renamed.what, spec.id) == (spec.what, "work")
