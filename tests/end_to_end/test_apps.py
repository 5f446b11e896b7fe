"""`examples/apps`: whole programs, whose result is exact although their processes are killed at random moments."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import sqlite3
import urllib.error
import urllib.request
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.support import ROOT, Program, eventually, start_program, wait_gone

APPS = ROOT / "examples" / "apps"


def kill_workers(program: Program, times: int, seed: int) -> None:
    """Kill random workers, one after another. A worker that is up has written `... in process PID`."""
    chance = random.Random(seed)
    killed: set[int] = set()

    def living() -> list[int]:
        told = {int(pid) for pid in re.findall(r"in process (\d+)", program.stdout)}
        return sorted(told.intersection(process.pid for process in program.relatives()) - killed)

    for _ in range(times):
        alive = eventually(lambda: living() or program.returncode is not None, timeout=20)
        if alive is True:  # the program has done its work
            return
        pid = chance.choice(alive)
        killed.add(pid)
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        wait_gone(pid)


def test_every_app_is_short() -> None:
    for app in APPS.glob("*.py"):
        assert len(app.read_text(encoding="utf-8").splitlines()) < 120, app.name


@pytest.mark.parametrize("seed", [1, 2])
def test_a_crawler_records_each_page_once_while_its_workers_are_killed(seed: int) -> None:
    with start_program(APPS / "crawler.py", "--pages", "300") as program:
        program.expect("fetches")
        kill_workers(program, 8, seed)
        assert program.wait(30) == 0, program.stderr
    assert program.stdout.splitlines()[-1] == "300 pages, 598 links"
    assert program.left_behind == []


@pytest.mark.parametrize("seed", [1, 2])
def test_a_sensor_daemon_stores_exactly_the_accepted_readings(seed: int, tmp_path: Path) -> None:
    file = tmp_path / "readings.db"
    with start_program(APPS / "sensors.py", str(file), "--readings", "100") as program:
        program.expect("reads")
        kill_workers(program, 6, seed)
        assert program.wait(30) == 0, program.stderr
    assert program.left_behind == []
    good = [(s, n) for s in range(3) for n in range(1, 101) if n not in (37 + s, 13, 63)]
    with closing(sqlite3.connect(file)) as database:
        stored = database.execute("select sensor, number, celsius from readings order by 1, 2").fetchall()
    assert stored == [(s, n, 20 + s + n % 10 / 10) for s, n in good]
    assert all(f"sensor-{s}: 100 lines sent, 3 of them refused" in program.stdout for s in range(3))
    assert program.stdout.splitlines()[-1] == f"{len(good)} readings in {file}"


@pytest.mark.parametrize("app", ["arrays.py", "crawler.py", "redis_queue.py", "sensors.py", "web.py"])
def test_an_app_ends_cleanly_by_ctrl_c(app: str, tmp_path: Path) -> None:
    if app == "arrays.py":
        pytest.importorskip("numpy")
    if app == "redis_queue.py" and shutil.which("redis-server") is None:
        pytest.skip("redis-server is not installed")
    arguments = {"crawler.py": ["--pages", "100000"], "sensors.py": [str(tmp_path / "readings.db")]}
    with start_program(APPS / app, *arguments.get(app, [])) as program:
        program.expect("in process")
        program.send_signal(signal.SIGINT)
        assert program.wait(20) == 0, program.stderr
    assert program.left_behind == []


PRIMES_BELOW = {100_000: 9_592, 300_000: 25_997, 1_000_000: 78_498}


def request(url: str, body: bytes | None = None) -> Any:
    """Return the answer; None where the worker that serves was killed meanwhile."""
    try:
        with urllib.request.urlopen(url, body, timeout=10) as answer:
            return json.load(answer)
    except (OSError, ValueError):
        return None


@pytest.mark.parametrize("seed", [1, 2])
def test_a_web_application_finishes_each_job_that_it_has_accepted(seed: int) -> None:
    with start_program(APPS / "web.py") as program:
        url = program.expect("http:").strip().removesuffix("/status")
        program.expect("web serves")
        accepted = {}
        for turn, below in enumerate([1_000_000, 300_000, 100_000] * 3):
            accepted[eventually(lambda: request(f"{url}/jobs", str(below).encode()))["job"]] = below  # noqa: B023
            kill_workers(program, 1, seed * 100 + turn)
        for job, below in accepted.items():
            done = eventually(lambda: (one := request(f"{url}/jobs/{job}")) and one["state"] != "running" and one)  # noqa: B023
            assert done == {"state": PRIMES_BELOW[below]}
        eventually(lambda: (tree := request(f"{url}/status")) and not tree[0]["children"])  # the last job has ended
        program.send_signal(signal.SIGINT)
        assert program.wait(15) == 0, program.stderr
    assert program.left_behind == []


def test_a_web_application_says_what_is_wrong_with_a_request() -> None:
    with start_program(APPS / "web.py") as program:
        url = program.expect("http:").strip().removesuffix("/status")
        program.expect("web serves")
        with pytest.raises(urllib.error.HTTPError, match="400") as refusal:
            urllib.request.urlopen(f"{url}/jobs", b"many", timeout=10)
        refusal.value.close()
        assert request(f"{url}/jobs/77") == {"state": "failed, or never accepted"}
        program.send_signal(signal.SIGINT)
        assert program.wait(20) == 0, program.stderr
    assert program.left_behind == []


def test_a_web_application_with_a_time_ends_by_itself() -> None:
    with start_program(APPS / "web.py", "--seconds", "0.2") as program:
        program.expect("web serves")
        assert program.wait(20) == 0, program.stderr
    assert program.left_behind == []


def test_arrays_of_40_mb_go_through_all_stages_once() -> None:
    numpy = pytest.importorskip("numpy")
    with start_program(APPS / "arrays.py", "--arrays", "3") as program:
        program.expect("makes array")
        kill_workers(program, 5, seed=1)
        assert program.wait(50) == 0, program.stderr
    assert program.left_behind == []
    arrays = [numpy.random.default_rng(number).random(5_000_000) for number in range(3)]
    deviations = [float(((array + numpy.roll(array, -1)) / 2).std()) for array in arrays]
    assert program.stdout.splitlines()[-3:] == [
        f"array {number}: standard deviation {deviation}" for number, deviation in enumerate(deviations)
    ]


@pytest.mark.skipif(shutil.which("redis-server") is None, reason="redis-server is not installed")
@pytest.mark.parametrize("seed", [1, 2])
def test_each_job_in_redis_is_done_once_while_the_server_and_its_clients_are_killed(seed: int) -> None:
    with start_program(APPS / "redis_queue.py", "--jobs", "100") as program:
        program.expect("works")
        for turn in range(2):
            kill_workers(program, 3, seed * 10 + turn)
            for process in program.relatives("redis-server"):
                with suppress(psutil.NoSuchProcess):
                    process.kill()
        assert program.wait(40) == 0, program.stderr
    assert program.left_behind == []
    wanted = sum(job**2 for job in range(1, 101))
    assert program.stdout.splitlines()[-1] == f"100 jobs done; the sum of the squares is {wanted}"
