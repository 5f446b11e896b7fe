"""The drawing of the packages in the documentation is the one that the code gives."""

from __future__ import annotations

import importlib.util
import tomllib
from types import ModuleType

import pytest

from tests.support import ROOT


@pytest.fixture(scope="module")
def floors() -> ModuleType:
    spec = importlib.util.spec_from_file_location("floors", ROOT / "docs" / "pictures" / "floors.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    import sys

    sys.modules["floors"] = module  # dataclasses look their module up
    try:
        spec.loader.exec_module(module)
    finally:
        del sys.modules["floors"]
    return module


def test_the_picture_is_up_to_date(floors: ModuleType) -> None:
    assert floors.PICTURE.read_text(encoding="utf-8") == floors.drawing(), "run `python docs/pictures/floors.py`"


def test_there_are_ten_floors_and_each_package_stands_on_one(floors: ModuleType) -> None:
    assert len(floors.FLOORS) == 10
    source = ROOT / "src" / "suitkaise"
    there = {path.stem for path in source.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert sorted(floors.boxes_by_name()) == sorted(there - {"__init__", "__main__"})


def test_no_arrow_points_upwards(floors: ModuleType) -> None:
    floor = floors.boxes_by_name()
    assert not [(a, b) for a, b in floors.imports() if floor[a] < floor[b]]


def test_arrows_along_a_floor_do_not_go_both_ways(floors: ModuleType) -> None:
    found = floors.imports()
    assert not [(a, b) for a, b in found if (b, a) in found]


def test_the_floors_are_those_of_the_import_contract(floors: ModuleType) -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    lines = next(contract for contract in contracts if contract["id"] == "layers")["layers"]
    floor, order = floors.boxes_by_name(), []
    for line in lines:
        order += [number for name, number in floor.items() if f"suitkaise.{name} " in f"{line} ".replace(")", " ")]
    assert order == sorted(order, reverse=True)
    assert len(order) == len(floor)
