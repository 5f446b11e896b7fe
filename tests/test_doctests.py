"""The examples in docstrings are run, each as a test of its own (so that the leak check sees them too)."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import suitkaise

OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
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


@pytest.mark.parametrize("test", TESTS, ids=lambda test: test.name)
def test_the_example_of(test: doctest.DocTest) -> None:
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
