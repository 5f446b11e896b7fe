"""The files of `examples/deploy` are those that the documentation shows, and the programs they are for accept them."""

from __future__ import annotations

import shutil
import subprocess
from configparser import RawConfigParser
from pathlib import Path

import pytest

from tests.support import ROOT

DEPLOY = ROOT / "examples" / "deploy"
PAGE = ROOT / "docs" / "howto" / "systemd_and_containers.md"


@pytest.mark.parametrize("name", ["app.service", "Dockerfile", "app.yaml"])
def test_the_page_shows_the_file_as_it_is(name: str) -> None:
    assert f"\n{(DEPLOY / name).read_text(encoding='utf-8')}```\n" in PAGE.read_text(encoding="utf-8")


def test_the_unit_waits_for_readiness_and_leaves_the_stop_to_the_program() -> None:
    unit = RawConfigParser()
    unit.optionxform = str  # type: ignore[assignment, method-assign]
    unit.read(DEPLOY / "app.service")
    service = unit["Service"]
    assert (service["Type"], service["KillMode"], service["Restart"]) == ("notify", "mixed", "on-failure")
    assert float(service["WatchdogSec"]) > 0


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_systemd_accepts_the_unit(tmp_path: Path) -> None:
    unit = (DEPLOY / "app.service").read_text(encoding="utf-8")
    (tmp_path / "app.service").write_text(unit.replace("/srv/app/.venv/bin/suitkaise", "/bin/true"))
    verified = subprocess.run(
        ["systemd-analyze", "verify", str(tmp_path / "app.service")], capture_output=True, text=True, check=False
    )
    assert verified.returncode == 0, verified.stderr
