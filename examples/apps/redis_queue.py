"""A queue in Redis with consumers: each job is done once, whichever process is killed, the Redis server included.

    python examples/apps/redis_queue.py [--jobs 200]        (needs redis-server)

The server is a child like the others. With `rest_for_one` all children that use it are restarted after it, once it has
read its file and answers. Nobody here handles a lost connection: it is a crash, and the supervisor's affair.

A consumer moves a job into a list of its own, and removes it from there in the same transaction that stores the result.
So a job is always in a list or done, and the next incarnation begins with what the last one has left in its list. A
transaction that the server gets twice, from both of them, changes nothing.
"""

import argparse
import socket
import tempfile
from pathlib import Path
from typing import Any

from suitkaise import Child, Command, Process, Supervisor


class Redis:
    """A connection to the server: `redis("SET", "name", "value")` sends one command and returns the answer."""

    def __init__(self, path: Path) -> None:
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(str(path))
        self.stream = connection.makefile("rwb")

    def __call__(self, *words: object) -> Any:
        parts = [str(word).encode() for word in words]
        self.stream.write(b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts))
        self.stream.flush()
        return self.answer()

    def answer(self) -> Any:
        line = self.stream.readline().decode().strip()
        match line[:1], line[1:]:
            case (("+" | ":"), text):
                return text
            case (("$" | "*"), "-1"):
                return None
            case "$", length:
                return self.stream.read(int(length) + 2)[:-2].decode()
            case "*", length:
                return [self.answer() for _ in range(int(length))]
            case _:
                raise ConnectionError(line or "the server has closed the connection")

    def together(self, *commands: tuple[object, ...]) -> None:
        """Carry out all of the commands, or none."""
        self("MULTI")
        for command in commands:
            self(*command)
        self("EXEC")


class Client(Process):
    restart = "transient"

    def __init__(self, server: Path, jobs: int) -> None:
        self.server = server
        self.jobs = jobs

    def on_start(self) -> None:
        self.redis = Redis(self.server)

    def before_loop(self) -> None:
        if self.current_loop == 1:
            print(f"{self.name} works in process {self.pid}", flush=True)


class Produce(Client):
    def loop(self) -> None:
        job = int(self.redis("GET", "produced") or 0) + 1
        if job > self.jobs:
            self.rejoin()
        else:
            self.redis.together(("RPUSH", "jobs", job), ("SET", "produced", job))


class Consume(Client):
    def loop(self) -> None:
        mine = f"taken by {self.name}"
        job = self.redis("LINDEX", mine, 0) or self.redis("BLMOVE", "jobs", mine, "LEFT", "RIGHT", 0.2)
        if job is not None:
            self.redis.together(("HSETNX", "squares", job, int(job) ** 2), ("LREM", mine, 0, job))


class Report(Client):
    """Ends the tree when all results are there."""

    significant = True

    def loop(self) -> None:
        squares = self.redis("HVALS", "squares")
        if len(squares) == self.jobs:
            print(f"{len(squares)} jobs done; the sum of the squares is {sum(map(int, squares))}", flush=True)
            self.rejoin()
        self.wait(0.05)


parser = argparse.ArgumentParser(description="Have jobs done through a queue in Redis.")
parser.add_argument("--jobs", type=int, default=200, help="how many (default 200)")
jobs = parser.parse_args().jobs

with tempfile.TemporaryDirectory(prefix="queue-") as folder:
    server = Path(folder, "socket")
    settings = f"--port 0 --unixsocket {server} --dir {folder} --appendonly yes --appendfsync always".split()
    Supervisor(
        "queue",
        Command("redis-server", *settings, ready="ready to accept connections", name="redis"),
        Produce(server, jobs),
        Child(Consume(server, jobs), copies=3),
        Report(server, jobs),
        strategy="rest_for_one",
        max_restarts=50,
        auto_shutdown="any_significant",
    ).run()
