"""A callback for the import of a module: at once, or when it comes, or never."""

from __future__ import annotations

import sys

from tests.support import run_program

PROGRAM = """
import sys
from suitkaise.platform.imports import when_imported

before = list(sys.meta_path)
when_imported("colorsys", lambda module: print("then", module.__name__, hasattr(module, "rgb_to_hls")))
when_imported("sys", lambda module: print("at once", module is sys))
when_imported("wave", lambda module: print("never"))
assert "colorsys" not in sys.modules
import colorsys
import colorsys
print(len(sys.meta_path) - len(before))
"""


def test_what_is_to_be_done_to_a_module_is_done_once_when_it_is_imported() -> None:
    done = run_program([sys.executable, "-c", PROGRAM]).check()
    assert done.stdout.splitlines() == ["at once True", "then colorsys True", "1"]
