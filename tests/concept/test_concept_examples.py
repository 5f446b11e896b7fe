"""Every example of the concept's text runs as a program, and does what the text says.

The programs in `programs/` are the concept's own lines. A line that had to change says so: `# MEND:` and the reason.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.support import Finished, run_program

PROGRAMS = Path(__file__).parent / "programs"


@pytest.fixture
def run(tmp_path: Path) -> Any:
    """Run an example in a folder of its own, as a user would; return its end and the effects that it prints."""

    def run(example: str, file: str) -> tuple[Finished, dict[str, Any]]:
        folder = shutil.copytree(PROGRAMS / example, tmp_path / example)
        shutil.copy(PROGRAMS / "my_events.py", folder)
        finished = run_program(folder / file, timeout=60.0).check()
        return finished, json.loads(finished.stdout.splitlines()[-1])

    return run


def test_the_example_with_with_blocks_runs_and_its_report_lies_in_the_root_container(run: Any) -> None:
    finished, effects = run("with_blocks", "my_file1.py")
    report = effects["root"]["UI_handler-2 loop times report"]
    assert report["loops"] == 3
    assert effects["root"]["cleaned up"] == ["UI_handler-2"]
    assert "UI_handler-2" in finished.stderr, "a name that is taken is told"


def test_the_main_function_receives_the_bus_and_the_names_of_the_loops(run: Any) -> None:
    _, effects = run("with_blocks", "my_file1.py")
    received = [values for values, _ in effects["root"]["received"]]
    assert received[:3] == [["NoneType", None, None, None]] * 3, "the first process has no setup"
    assert received[3:] == [["EventBus", loop, f"UI_handler-2-{loop}", None] for loop in (1, 2, 3)]


def test_the_entries_of_the_loops_are_there_in_the_next_loop_and_gone_after_the_join(run: Any) -> None:
    _, effects = run("with_blocks", "my_file1.py")
    there = [names for _, names in effects["root"]["received"]][3:]
    assert there == [[], ["UI_handler-2-1"], ["UI_handler-2-1", "UI_handler-2-2"]]
    assert effects["left"] == {}
    assert effects["globals"] == [], "the names of the blocks are private to the setup"


def test_the_example_with_a_derived_class_runs_until_its_memory_is_over_the_limit(run: Any) -> None:
    finished, effects = run("derived_class", "my_file1.py")
    assert "Memory usage exceeded limit in process UI_handler-2." in finished.stdout
    assert effects["count"] == 4
    assert "custom_name_if_you_want" in effects["root"]
    there = effects["root"]["entries"][-4:]
    assert there == [[f"UI_handler-2-{loop}" for loop in range(1, reached)] for reached in (1, 2, 3, 4)]
    assert effects["left"] == {}
    assert effects["names"] == {"UI_handler": "finished", "UI_handler-2": "finished"}


def test_the_example_with_a_thread_puts_its_results_into_the_globals(run: Any) -> None:
    _, effects = run("thread_blocks", "threads.py")
    assert effects["results"] >= 1
    assert set(effects["first"].replace(" ", "-").split("-")) <= set(
        "zero one two three four five six seven eight nine".split()
    )
    assert effects["here"] is False


def test_the_example_with_a_thread_class_keeps_its_values_from_loop_to_loop(run: Any) -> None:
    _, effects = run("thread_class", "threads.py")
    assert effects == {"results": 5, "same": True}
