"""The options of log files: for the root of a tree, checked where it is declared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from suitkaise import Child, DynamicSupervisor, SpecError, Supervisor


def test_a_tree_has_log_files_of_50_mib_with_10_backups_where_it_has_a_directory() -> None:
    tree = Supervisor("app", log_dir=Path("logs"))
    assert (tree.log_dir, tree.log_max_bytes, tree.log_backups) == ("logs", 50 * 2**20, 10)
    assert Supervisor("app").log_dir is None
    assert tree.replace(log_max_bytes="10 MiB", log_backups=0).log_max_bytes == 10 * 2**20
    assert DynamicSupervisor("pool", log_dir="logs", log_max_bytes=None).log_max_bytes is None


@pytest.mark.parametrize(
    "options, error",
    [
        ({"log_dir": ""}, "log_dir must be the path of a directory, or None, not ''"),
        ({"log_dir": b"logs"}, "log_dir must be the path of a directory"),
        ({"log_dir": "\ud800"}, "log_dir must be the path of a directory"),
        ({"log_dir": Path}, "log_dir must be the path of a directory, or None, not <class 'pathlib"),
        ({"log_dir": "logs", "log_max_bytes": 100}, "log_max_bytes must be a size of at least 1 MiB"),
        ({"log_dir": "logs", "log_backups": -1}, "log_backups must be a whole number >= 0"),
        ({"log_max_bytes": "2 MiB"}, "log_max_bytes and log_backups are for the files in log_dir"),
        ({"log_backups": 3}, "log_max_bytes and log_backups are for the files in log_dir"),
    ],
)
def test_a_wrong_value_is_refused(options: dict[str, Any], error: str) -> None:
    for kind in (Supervisor, DynamicSupervisor):
        with pytest.raises(SpecError, match=error):
            kind("app", **options)


def test_a_part_of_a_tree_has_no_log_files_of_its_own() -> None:
    for declare in (lambda part: Supervisor("app", part), Child):
        with pytest.raises(SpecError, match="'jobs': log_dir is an option of a whole tree"):
            declare(Supervisor("jobs", log_dir="logs"))
