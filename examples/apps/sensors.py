"""A daemon that writes the readings of sensors into SQLite: exactly the accepted ones, whichever process is killed.

    python examples/apps/sensors.py readings.db [--readings N]

A sensor sends one line at a time and waits for the answer. The sink answers after its commit, and a line that comes
twice changes nothing; so a sensor that does not know what became of a line sends it again. Some lines are bad: the sink
refuses a value out of range and goes on. A line that is no number at all crashes it: the sensor gets the error and
drops the line, and the restarted sink goes on with the next one. A sensor's checkpoint tells its next incarnation where
to continue.
"""

import argparse
import math
import sqlite3
from pathlib import Path
from typing import NamedTuple

from suitkaise import AskTimeout, Child, Process, Reject, Supervisor, WorkerDead


class Line(NamedTuple):
    sensor: int
    number: int
    text: bytes


class Progress(NamedTuple):
    """A sensor's checkpoint."""

    next: int = 1
    refused: int = 0


class Sink(Process):
    """Owns the database. Its answer `None` means that the reading is stored."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def on_start(self) -> None:
        self.database = sqlite3.connect(self.file)
        self.database.execute(
            "create table if not exists readings"
            " (sensor integer, number integer, celsius real check (celsius > -100), primary key (sensor, number))"
        )
        print(f"sink writes in process {self.pid}", flush=True)

    def on_receive(self, line: Line) -> None:
        celsius = float(line.text)  # a ValueError is a crash, of which the sender is told
        try:
            with self.database:
                self.database.execute(
                    "insert into readings values (?, ?, ?) on conflict do nothing", (line.sensor, line.number, celsius)
                )
        except sqlite3.IntegrityError as error:
            raise Reject(error) from error  # refuses this message, and is no crash

    def on_finish(self) -> None:
        self.database.close()


class Sensor(Process):
    """Sends its readings, one in each loop."""

    restart = "transient"
    significant = True

    def __init__(self, readings: float) -> None:
        self.readings = readings

    def on_start(self) -> None:
        self.progress = self.last_checkpoint(Progress())
        self.sink = self.whereis("sensors/sink")

    def loop(self) -> None:
        number, refused = self.progress
        if self.current_loop == 1:
            print(f"{self.name} reads in process {self.pid}, from line {number} on", flush=True)
        if number > self.readings:
            self.rejoin()
            return
        try:
            self.sink.ask(Line(self.copy, number, measure(self.copy, number)))
        except (WorkerDead, AskTimeout):  # the sink was killed before it answered: send the line again
            return
        except (sqlite3.IntegrityError, ValueError):
            refused += 1
        self.progress = Progress(number + 1, refused)
        self.checkpoint(self.progress)
        self.wait(0.005)

    def on_finish(self) -> None:
        number, refused = self.progress
        print(f"{self.name}: {number - 1} lines sent, {refused} of them refused", flush=True)


def measure(sensor: int, number: int) -> bytes:
    """Return what the device sends: a temperature, or now and then nonsense."""
    if number % 500 == 37 + sensor:
        return b"\xff\xfe ERR"  # the poison
    if number % 50 == 13:
        return b"-273.16"
    return f"{20 + sensor + number % 10 / 10}".encode()


parser = argparse.ArgumentParser(description="Write the readings of three sensors into a database.")
parser.add_argument("database", type=Path)
parser.add_argument("--readings", type=int, default=math.inf, help="of each sensor (default: endless)")
options = parser.parse_args()
Supervisor(
    "sensors",
    Sink(options.database.resolve()),
    Child(Sensor(options.readings), copies=3),
    max_restarts=20,
    auto_shutdown="all_significant",
).run()
with sqlite3.connect(options.database) as database:
    (count,) = database.execute("select count(*) from readings").fetchone()
print(f"{count} readings in {options.database}")
