"""Every package, and every module beside them, has its place in the layers of pyproject.toml."""

from __future__ import annotations

import re
import tomllib

import pytest

from tests.support import ROOT

CONTRACTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
PLACES = re.findall(r"[\w.]+", " ".join(next(c for c in CONTRACTS if c["id"] == "layers")["layers"]))
SOURCE = ROOT / "src" / "suitkaise"
ROOMS = sorted(path.stem for path in SOURCE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists())


@pytest.mark.parametrize("name", [room for room in ROOMS if room != "__init__"])
def test_every_package_and_every_module_beside_them_has_exactly_one_place(name: str) -> None:
    assert PLACES.count(f"suitkaise.{name}") == 1, f"suitkaise.{name} has not one place in the layers of pyproject.toml"


def test_a_place_is_a_package_or_a_module_beside_them() -> None:
    assert not [place for place in PLACES if place.count(".") != 1]
