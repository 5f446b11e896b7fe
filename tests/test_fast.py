"""Which tests are marked `fast`: those that start no process, whatever helpers they use."""

from __future__ import annotations

import pytest

from tests.support import ROOT

TESTS = """
import subprocess
import sys

import pytest
from tests.support import run_program


def run() -> None:
    subprocess.run([sys.executable, "-c", ""], check=True)


class Runner:
    def start(self) -> None:
        run()


@pytest.fixture
def process():
    run()


@pytest.fixture
def process_of_a_process(process): ...


def test_pure(): assert 1 + 1 == 2


@pytest.mark.parametrize("number", [1, 2])
def test_pure_with_parameters(number): assert number


def test_helper(): run()


def test_class(): Runner().start()


def test_lambda(): (lambda: run_program("pass"))()


def test_fixture(process): ...


def test_fixture_of_a_fixture(process_of_a_process): ...


@pytest.mark.slow
def test_slow(): ...


def test_secret(): getattr(sys.modules["sub" + "process"], "r" + "un")([sys.executable, "-c", ""])
"""


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    pytester.makeconftest((ROOT / "tests/conftest.py").read_text())
    pytester.makepyprojecttoml(
        """
        [tool.pytest]
        addopts = ["--import-mode=importlib"]
        markers = ["fast", "may_leave", "slow"]
        """
    )
    for folder in ("policy", "end_to_end"):
        path = pytester.path / "tests" / folder
        path.mkdir(parents=True)
        (path / "test_it.py").write_text(TESTS)
    return pytester


def test_a_test_that_starts_no_process_is_fast(project: pytest.Pytester) -> None:
    result = project.runpytest_subprocess("-p", "no:cacheprovider", "-m", "fast", "--collect-only", "-q")
    assert [line for line in result.outlines if "::" in line] == [
        f"tests/policy/test_it.py::{name}"
        for name in ("test_pure", "test_pure_with_parameters[1]", "test_pure_with_parameters[2]", "test_secret")
    ]


def test_a_fast_test_that_starts_a_process_fails(project: pytest.Pytester) -> None:
    result = project.runpytest_subprocess("-p", "no:cacheprovider", "-m", "fast")
    result.assert_outcomes(passed=4, errors=1)
    result.stdout.fnmatch_lines(["*test_secret*", "the test is marked `fast`*but has started a process"])
