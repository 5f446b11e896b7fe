"""The examples in docstrings are run, each as a test of its own (so that the leak check sees them too)."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import suitkaise
from tests.storage.conftest import shared_storage, tree

OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
__all__ = ["shared_storage", "tree"]  # fixtures that examples get by `getfixture("tree")`
MISSING: dict[str, str] = {}  # module -> the package of another project that it lacks here
BROKEN: dict[str, Exception] = {}


def _collect() -> list[doctest.DocTest]:
    finder = doctest.DocTestFinder(exclude_empty=True)
    names = ["suitkaise", *(info.name for info in pkgutil.walk_packages(suitkaise.__path__, "suitkaise."))]
    found: list[doctest.DocTest] = []
    for name in names:
        if name.endswith(".__main__"):
            continue
        try:
            module = importlib.import_module(name)
        except Exception as error:
            lacks = error.name if isinstance(error, ModuleNotFoundError) else None
            if lacks and not lacks.startswith("suitkaise"):
                MISSING[name] = lacks
            else:
                BROKEN[name] = error
        else:
            found += [test for test in finder.find(module, name) if test.examples]
    return found


TESTS = _collect()


def _gets_a_fixture(test: doctest.DocTest) -> bool:
    return "getfixture(" in (test.docstring or "")


@pytest.mark.parametrize("test", [t for t in TESTS if not _gets_a_fixture(t)], ids=lambda test: test.name)
def test_the_example_of(test: doctest.DocTest) -> None:
    _run(test)


@pytest.mark.usefixtures("shared_storage")  # before the leak check looks: it outlives the test
@pytest.mark.parametrize("test", [t for t in TESTS if _gets_a_fixture(t)], ids=lambda test: test.name)
def test_the_example_with_a_fixture_of(test: doctest.DocTest, request: pytest.FixtureRequest) -> None:
    test.globs["getfixture"] = request.getfixturevalue
    _run(test)


def _run(test: doctest.DocTest) -> None:
    report: list[str] = []
    doctest.DocTestRunner(optionflags=OPTIONS).run(test, out=report.append)
    if report:
        pytest.fail("".join(report), pytrace=False)


def test_every_module_can_be_imported_and_some_have_examples() -> None:
    assert BROKEN == {}
    assert TESTS


@pytest.mark.parametrize("module", sorted(MISSING))
def test_the_examples_of_a_module_whose_extra_is_not_installed(module: str) -> None:
    pytest.skip(f"{module} needs {MISSING[module]}")
