"""What a command says that was not called as it must be."""

from __future__ import annotations

import pytest

from suitkaise import cli


def test_without_a_command_all_commands_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == 2
    shown = capsys.readouterr().err
    assert "run the tree that a file or module declares" in shown
    assert "list the crash reports" in shown


def test_run_needs_a_file_and_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["run"])
    assert capsys.readouterr().err.endswith("the following arguments are required: MODULE_OR_FILE[:NAME]\n")
