"""Where workers go, without a cluster: the choice of a machine, and that no choice looks at all paths."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

import pytest

from suitkaise import Place
from suitkaise.cluster.machines import Machine
from suitkaise.cluster.placement import Look, Places
from tests.support import lines_run


class NodeOn:
    def __init__(self, machine: str) -> None:
        self.machine_id = machine


def machines(names: Iterable[str]) -> list[Machine]:
    return [Machine(f"id-{name}", name, f"10.0.0.{number}") for number, name in enumerate(names)]


def look(names: Iterable[str], silent: tuple[str, ...] = (), **counts: int) -> Look:
    return Look(machines(names), Counter({f"id-{name}": count for name, count in counts.items()}), silent)


def chosen(look: Look, place: Place, count: int) -> str:
    return "".join(look.choose(place).name for _ in range(count))


def test_workers_are_spread_over_the_machines_with_the_fewest() -> None:
    assert chosen(look("abc", b=2, c=1), Place(), 7) == "aacabca"


def test_workers_are_packed_on_the_machine_with_the_most() -> None:
    assert chosen(look("abc", b=2, c=1), Place(strategy="pack"), 3) == "bbb"


def test_a_choice_by_one_strategy_counts_for_the_others() -> None:
    seen = look("ab")
    assert chosen(seen, Place(strategy="pack"), 2) + chosen(seen, Place(node="a"), 1) == "aaa"
    assert chosen(seen, Place(), 4) == "bbba"


@pytest.mark.parametrize("name", ["b", "id-b", "10.0.0.1"])
def test_a_place_names_a_machine_by_its_name_its_id_or_its_address(name: str) -> None:
    assert chosen(look("abc", b=9), Place(node=name), 2) == "bb"
    assert look("ac").machines(Place(node="b")) == []


def test_a_silent_machine_is_chosen_only_if_there_is_no_other() -> None:
    assert chosen(look("ab", ("id-a",), b=3), Place(), 3) == "bbb"
    assert chosen(look("ab", ("id-a",), b=3), Place(strategy="pack"), 1) == "b"
    assert chosen(look("ab", ("id-a", "id-b"), b=3), Place(), 4) == "aaaa"


def test_the_work_of_a_choice_does_not_grow_with_the_machines() -> None:
    few, many = (look(map(str, range(count))) for count in (10, 1_000))
    assert lines_run(lambda: chosen(many, Place(), 20)) < 2 * lines_run(lambda: chosen(few, Place(), 20))


def test_the_node_of_a_path_is_known_until_the_path_or_the_node_goes() -> None:
    left: Any = NodeOn("left")
    right: Any = NodeOn("right")
    places = Places()
    for path, node in (("app/a", left), ("app/b", left), ("app/c", right), ("app/c", left), ("app/d", right)):
        places.put(path, node)
    assert sorted(places.paths_on(left)) == ["app/a", "app/b", "app/c"]
    assert places.counts() == {"left": 3, "right": 1}
    assert places.take("app/a") is left
    assert places.take("app/a") is None
    places.leave(left)
    assert [places.node_of(f"app/{id}") for id in "abcd"] == [None, None, None, right]
    assert places.counts() == {"right": 1}


def test_no_question_about_one_path_or_one_node_looks_at_all_paths() -> None:
    def work(others: int) -> int:
        node: Any = NodeOn("here")
        other: Any = NodeOn("there")
        places = Places()
        for number in range(others):
            places.put(f"app/{number}", other)

        def ask() -> None:
            places.put("app/mine", node)
            places.paths_on(node)
            places.counts()
            places.take("app/mine")
            places.leave(node)

        return lines_run(ask)

    assert work(1_000) == work(10)
