"""200,000 lines of a command, from its start until all of them are in a file: through logging, and past it."""

from __future__ import annotations

import importlib.util
import logging
import os
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

from support import heading, measure, options, show

from suitkaise import Child, Command, Supervisor

PROGRAM = "for number in range({lines}): print('line', number, 'of a program that has a lot to tell')"
LAST = "line {last} of"


def wait_for(file: Path, text: str) -> None:
    """Wait until the file ends with a line that holds the text."""
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        if file.exists():
            with file.open("rb") as opened:
                opened.seek(max(0, file.stat().st_size - 400))
                if text.encode() in opened.read():
                    return
        time.sleep(0.01)
    raise TimeoutError(f"{file}: no {text!r}")


class Output:
    """The candidates. Each writes the lines into a new file of a folder and returns the seconds that this takes."""

    def __init__(self, folder: Path, lines: int) -> None:
        self.folder = folder
        self.program = (sys.executable, "-c", PROGRAM.format(lines=lines))
        self.last = LAST.format(last=lines - 1)
        self.count = 0

    def file(self, suffix: str = "log") -> Path:
        self.count += 1
        return self.folder / f"{self.count}.{suffix}"

    def directly(self) -> float:
        file, began = self.file(), time.monotonic()
        with file.open("wb") as out:
            subprocess.run(self.program, stdout=out, check=True)
        return time.monotonic() - began

    def run(self, command: Command) -> None:
        child = Child(command, restart="temporary", significant=True)
        with Supervisor("app", child, auto_shutdown="any_significant").start() as running:
            running.wait()

    def through_logging(self) -> float:
        file = self.file()
        logger, handler = logging.getLogger(), logging.FileHandler(file)
        handler.setFormatter(logging.Formatter("%(asctime)s %(name)s %(message)s"))
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        began = time.monotonic()
        try:
            self.run(Command(*self.program, name="talker"))
            wait_for(file, self.last)
        finally:
            logger.removeHandler(handler)
            handler.close()
        return time.monotonic() - began

    def into_a_file(self) -> float:
        file, began = self.file(), time.monotonic()
        self.run(Command(*self.program, name="talker", stdout=file))
        wait_for(file, self.last)
        return time.monotonic() - began

    def supervisord(self) -> float:
        file, config, script = self.file(), self.file("conf"), self.file("py")
        script.write_text(self.program[2])
        config.write_text(
            textwrap.dedent(f"""
            [supervisord]
            nodaemon=true
            logfile=/dev/null
            logfile_maxbytes=0
            pidfile={self.folder / "supervisord.pid"}
            [program:talker]
            command={sys.executable} {script}
            autorestart=false
            startsecs=0
            stdout_logfile={file}
            stdout_logfile_maxbytes=0
            """)
        )
        began = time.monotonic()
        with subprocess.Popen(
            [sys.executable, "-m", "supervisor.supervisord", "-c", str(config)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as process:
            wait_for(file, self.last)
            taken = time.monotonic() - began
            process.terminate()
        return taken

    def honcho(self) -> float:
        file, procfile, script = self.file(), self.file("proc"), self.file("py")
        script.write_text(self.program[2])
        procfile.write_text(f"talker: {sys.executable} {script}\n")
        began = time.monotonic()
        with file.open("wb") as out:
            subprocess.run(
                [sys.executable, "-m", "honcho", "start", "-f", str(procfile)], stdout=out, check=True, cwd=self.folder
            )
        wait_for(file, self.last)
        return time.monotonic() - began


def main() -> None:
    quick = options(__doc__ or "").quick
    lines, rounds = (5_000, 1) if quick else (200_000, 5)
    heading("output")
    with tempfile.TemporaryDirectory() as folder:
        output = Output(Path(folder), lines)
        group: dict[str, Callable[[], float]] = {
            "the program into a file": output.directly,
            "Command, logging to a file": output.through_logging,
            "Command(stdout=file)": output.into_a_file,
        }
        for name, module, take in (
            ("supervisord", "supervisor", output.supervisord),
            ("honcho", "honcho", output.honcho),
        ):
            if importlib.util.find_spec(module) is not None:
                group[name] = take
        rows = measure(rounds, group)
        show(f"{lines} lines of a command, until they are in a file", "s", rows)
        for row in rows:
            print(f"  {row.name}: {lines / row.median:,.0f} lines/s")


if __name__ == "__main__":
    os.environ.pop("PYTHONUNBUFFERED", None)
    main()
