"""Every module has its place in the layers of pyproject.toml, which `lint-imports` keeps."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

import pytest

from tests.support import ROOT

CONTRACTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
PLACES = re.findall(r"[\w.]+", " ".join(next(c for c in CONTRACTS if c["id"] == "layers")["layers"]))
SOURCE = ROOT / "src"


def _name(path: Path) -> str:
    return ".".join(path.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__")


MODULES = {_name(path): path for path in sorted((SOURCE / "suitkaise").rglob("*.py"))}


@pytest.mark.parametrize("module", sorted(MODULES.keys() - {"suitkaise"}))
def test_every_module_has_exactly_one_place(module: str) -> None:
    places = [place for place in PLACES if f"{module}.".startswith(f"{place}.")]
    if any(place.startswith(f"{module}.") for place in PLACES):
        body = ast.parse(MODULES[module].read_text(encoding="utf-8")).body
        assert len(body) <= 1, f"{module} stands in several layers, so its __init__ holds a docstring alone"
    else:
        assert len(places) == 1, f"{module} has not one place in the layers of pyproject.toml: {places}"
