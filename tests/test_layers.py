"""Imports inside `suitkaise`: each package has its place in the layers of pyproject.toml; no module is in a cycle."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import ROOT

CONTRACTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
PLACES = re.findall(r"[\w.]+", " ".join(next(c for c in CONTRACTS if c["id"] == "layers")["layers"]))
SOURCE = ROOT / "src" / "suitkaise"
ROOMS = sorted(path.stem for path in SOURCE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists())


@pytest.mark.parametrize("name", [room for room in ROOMS if room != "__init__"])
def test_every_package_and_every_module_beside_them_is_on_exactly_one_layer(name: str) -> None:
    assert PLACES.count(f"suitkaise.{name}") == 1, f"suitkaise.{name} has not one place in the layers of pyproject.toml"


def test_each_entry_of_the_layers_is_a_package_or_a_module_beside_them() -> None:
    assert not [place for place in PLACES if place.count(".") != 1]


# --- cycles ---


def test_no_modules_import_each_other_in_a_cycle() -> None:
    assert [sorted(cycle) for cycle in cycles(imports_of_modules(SOURCE))] == []


def test_an_import_for_type_checking_counts_and_one_inside_a_function_does_not(tmp_path: Path) -> None:
    package = tmp_path / "suitkaise"
    (package / "inner").mkdir(parents=True)
    files = {
        "__init__": "from suitkaise.inner import first",
        "inner/__init__": "",
        "inner/first": "import os\nif True:\n    from typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    from suitkaise.inner.second import Second",
        "inner/second": "from suitkaise.inner import third",
        "inner/third": "import suitkaise.inner.first",
        "inner/fourth": "import suitkaise.inner.first\ndef late():\n    import suitkaise.inner.fifth",
        "inner/fifth": "import suitkaise.inner.fourth",
    }
    for name, code in files.items():
        (package / f"{name}.py").write_text(code)
    found = cycles(imports_of_modules(package))
    assert found == {frozenset(f"suitkaise.inner.{name}" for name in ("first", "second", "third"))}


def imports_of_modules(package: Path) -> dict[str, set[str]]:
    """For each module the modules of the package that it imports, also for types only, but not inside a function."""
    files = {module_name(path, package): path for path in package.rglob("*.py")}
    return {
        module: {name for name in imported(ast.parse(path.read_text(encoding="utf-8")), files) if name != module}
        for module, path in files.items()
    }


def module_name(path: Path, package: Path) -> str:
    parts = path.relative_to(package.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(node: ast.AST, modules: dict[str, Path]) -> Iterator[str]:
    for child in ast.iter_child_nodes(node):
        match child:
            case ast.Import(names=names):
                yield from (alias.name for alias in names if alias.name in modules)
            case ast.ImportFrom(module=str(origin), names=names):
                for alias in names:
                    name = f"{origin}.{alias.name}"
                    if name in modules:
                        yield name
                    elif origin in modules:
                        yield origin
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.Lambda():
                pass
            case _:
                yield from imported(child, modules)


def cycles(graph: dict[str, set[str]]) -> set[frozenset[str]]:
    """The groups of modules in which each module imports each other one, at least indirectly."""

    def reachable(module: str) -> set[str]:
        found: set[str] = set()
        ahead = [module]
        while ahead:
            for name in graph[ahead.pop()] - found:
                found.add(name)
                ahead.append(name)
        return found

    reach = {module: reachable(module) for module in graph}
    return {
        frozenset(other for other in reach[module] if module in reach[other])
        for module in graph
        if module in reach[module]
    }


# --- the lists of names ---


def test_each_name_that_a_module_takes_from_another_one_is_in_the_list_of_that_one() -> None:
    files = {module_name(path, SOURCE): path for path in SOURCE.rglob("*.py")}
    trees = {module: ast.parse(path.read_text(encoding="utf-8")) for module, path in files.items()}
    lists = {module: names for module, tree in trees.items() if (names := listed(tree)) is not None}
    missing = {
        f"{node.module}.{alias.name}"
        for tree in trees.values()
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module in lists
        for alias in node.names
        if alias.name not in lists[node.module] and f"{node.module}.{alias.name}" not in files
    }
    assert sorted(missing) == []


def listed(tree: ast.Module) -> set[str] | None:
    """The names in the `__all__` of a module; None if it has none, or makes it."""
    for node in tree.body:
        match node:
            case ast.Assign(targets=[ast.Name("__all__")], value=ast.List() as names):
                return set(ast.literal_eval(names))
    return None
