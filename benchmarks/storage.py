"""The storage, with both engines, against LMDB and sqlite3 used by hand, diskcache, a Manager's dict and Redis.

Run `python benchmarks/storage.py [seconds per measurement]`. Compare ratios within one run, not
times of two runs. The value is a small dict of seven entries, about 100 bytes pickled. Redis needs the program
redis-server and the package redis, diskcache the package diskcache; what is missing is left out.

"LMDB by hand" writes in the caller's own process, without a server: no other process could write at that time.
"notification" is the time from the call of a write in one process until another process has the change.
"""

from __future__ import annotations

import contextlib
import importlib.util
import multiprocessing
import os
import pickle
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from suitkaise import sktree

VALUE = {"i": 1, "name": "worker-1", "state": "running", "loops": 12345, "t": 0.12, "ok": True, "tags": ["a"]}
PATH = "benchmark"
NAMES = [f"name-{number}" for number in range(1000)]
SECONDS = 1.0

Row = tuple[str, dict[str, float]]  # an operation, and the seconds of each product


def each(work: Callable[[str], object], *, at_end: Callable[[], object] = lambda: None) -> float:
    """Return the seconds of one call: the best of five runs."""
    best = float("inf")
    for name in NAMES[:200]:
        work(name)
    at_end()
    for _ in range(5):
        count, began = 0, time.perf_counter()
        while time.perf_counter() - began < SECONDS / 5:
            for name in NAMES:
                work(name)
            count += len(NAMES)
        at_end()
        best = min(best, (time.perf_counter() - began) / count)
    return best


WATCHER = """
import statistics, sys, time
from suitkaise.storage.tree import Tree
with Tree(sys.argv[1]).watch("watched") as watch:
    print("ready", flush=True)
    delays = [-float(watch.get().name) + time.monotonic() for _ in range(int(sys.argv[2]))]
print(statistics.median(delays))
"""
SUBSCRIBER = """
import statistics, sys, time, redis
channel = redis.Redis(unix_socket_path=sys.argv[1]).pubsub(ignore_subscribe_messages=True)
channel.subscribe("watched")
channel.get_message(timeout=1)
print("ready", flush=True)
delays = []
for message in channel.listen():
    delays.append(time.monotonic() - float(message["data"]))
    if len(delays) == int(sys.argv[2]):
        break
print(statistics.median(delays))
"""
NOTIFICATIONS = 1000


def notification(program: str, where: object, write: Callable[[str], object]) -> float:
    """Return the median seconds from a write until another process has been told."""
    command = [sys.executable, "-c", program, str(where), str(NOTIFICATIONS)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as watcher:
        assert watcher.stdout is not None
        watcher.stdout.readline()
        for _ in range(NOTIFICATIONS):
            write(repr(time.monotonic()))
            time.sleep(0.001)
        return float(watcher.stdout.readline())


def measure_suitkaise(engine: str) -> dict[str, float]:
    tree = sktree.connect(engine=engine)
    try:
        for name in NAMES:
            tree.add(name, VALUE, PATH, wait=False)
            tree.add(f"int-{name}", 5, PATH, wait=False)
        tree.flush()
        return {
            "get": each(lambda name: tree.get(name, PATH)),
            "get of an int, unchanged": each(lambda name: tree.get("int-" + name, PATH)),
            "acknowledged set": each(lambda name: tree.add(name, VALUE, PATH)),
            "pipelined set": each(lambda name: tree.add(name, VALUE, PATH, wait=False), at_end=tree.flush),
            "increment": each(lambda name: tree.increment("counter", 1, PATH)),
            "notification": notification(WATCHER, tree.directory, lambda now: tree.add(now, 1, "watched")),
        }
    finally:
        sktree.disconnect()


def measure_lmdb(directory: Path) -> dict[str, float]:
    import lmdb

    (directory / "lmdb").mkdir()
    with lmdb.open(str(directory / "lmdb"), map_size=1 << 30, sync=False) as data:

        def add(name: str) -> None:
            with data.begin(write=True) as transaction:
                transaction.put(f"{PATH}/{name}".encode(), pickle.dumps(VALUE, 5))

        def get(name: str) -> Any:
            with data.begin() as transaction:
                return pickle.loads(transaction.get(f"{PATH}/{name}".encode()))

        def increment(name: str) -> None:
            with data.begin(write=True) as transaction:
                transaction.put(b"counter", b"%d" % (int(transaction.get(b"counter", b"0")) + 1))

        for name in NAMES:
            add(name)
        return {"get": each(get), "acknowledged set": each(add), "increment": each(increment)}


def measure_diskcache(directory: Path) -> dict[str, float]:
    import diskcache

    with diskcache.Cache(str(directory / "diskcache"), sqlite_synchronous=0) as cache:
        for name in NAMES:
            cache[name] = VALUE
        return {
            "get": each(lambda name: cache[name]),
            "acknowledged set": each(lambda name: cache.set(name, VALUE)),
            "increment": each(lambda name: cache.incr("counter", default=0)),
        }


def measure_sqlite(directory: Path) -> dict[str, float]:
    with contextlib.closing(sqlite3.connect(directory / "data.sqlite", isolation_level=None)) as connection:
        run = connection.execute
        run("pragma journal_mode=wal")
        run("pragma synchronous=off")
        run("create table data (path text, name text, value blob, primary key (path, name)) without rowid")
        put = "insert or replace into data values (?, ?, ?)"

        def add(name: str) -> None:
            run(put, (PATH, name, pickle.dumps(VALUE, 5)))

        def get(name: str) -> Any:
            row = run("select value from data where path = ? and name = ?", (PATH, name)).fetchone()
            return pickle.loads(row[0])

        def increment(name: str) -> None:
            run("insert into data values (?, 'counter', 1) on conflict do update set value = value + 1", (PATH,))

        pending: list[str] = []

        def add_later(name: str) -> None:
            pending.append(name)
            if len(pending) >= 64:
                commit()

        def commit() -> None:
            run("begin immediate")
            connection.executemany(put, [(PATH, name, pickle.dumps(VALUE, 5)) for name in pending])
            run("commit")
            pending.clear()

        for name in NAMES:
            add(name)
        return {
            "get": each(get),
            "acknowledged set": each(add),
            "pipelined set": each(add_later, at_end=commit),
            "increment": each(increment),
        }


def measure_manager() -> dict[str, float]:
    with multiprocessing.Manager() as manager:
        shared = manager.dict()
        for name in NAMES:
            shared[name] = VALUE
        return {
            "get": each(lambda name: shared[name]),
            "acknowledged set": each(lambda name: shared.__setitem__(name, VALUE)),
        }


@contextlib.contextmanager
def redis_server(directory: Path) -> Iterator[Any]:
    import redis  # redis-py

    socket = directory / "redis.sock"
    command = ["redis-server", "--port", "0", "--unixsocket", str(socket), "--save", "", "--dir", str(directory)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        client = redis.Redis(unix_socket_path=str(socket))
        deadline = time.monotonic() + 10
        while True:
            with contextlib.suppress(redis.ConnectionError):
                client.ping()
                break
            if time.monotonic() > deadline:
                raise TimeoutError("redis-server does not answer")
        yield client
    finally:
        server.kill()
        server.wait()


def measure_redis(directory: Path) -> dict[str, float]:
    with redis_server(directory) as client:
        pipe = client.pipeline(transaction=False)

        def add_later(name: str) -> None:
            pipe.set(name, pickle.dumps(VALUE, 5))
            if len(pipe) >= 64:
                pipe.execute()

        for name in NAMES:
            client.set(name, pickle.dumps(VALUE, 5))
        return {
            "get": each(lambda name: pickle.loads(client.get(name))),
            "acknowledged set": each(lambda name: client.set(name, pickle.dumps(VALUE, 5))),
            "pipelined set": each(add_later, at_end=pipe.execute),
            "increment": each(lambda name: client.incr("counter")),
            "notification": notification(
                SUBSCRIBER, directory / "redis.sock", lambda now: client.publish("watched", now)
            ),
        }


def has(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def show(results: dict[str, dict[str, float]]) -> None:
    """Print a table: the microseconds of each product, and their ratio to those of suitkaise."""
    ours = results["suitkaise"]
    print(f"{'':<26}" + "".join(f"{product:>21}" for product in results))
    for what, mine in ours.items():
        cells = []
        for measured in results.values():
            seconds = measured.get(what)
            cells.append("-" if seconds is None else f"{seconds * 1e6:.2f} us  x{seconds / mine:<5.1f}")
        print(f"{what:<26}" + "".join(f"{cell:>21}" for cell in cells))
    print(f"\npipelined sets: {1 / ours['pipelined set']:,.0f} a second")


def main() -> None:
    global SECONDS
    if len(sys.argv) > 1:
        SECONDS = float(sys.argv[1])
    base = "/dev/shm" if Path("/dev/shm").is_dir() else None
    with tempfile.TemporaryDirectory(prefix="benchmark-", dir=base) as folder:
        results = {"suitkaise": measure_suitkaise("lmdb")}
        if shutil.which("redis-server") and has("redis"):
            results["Redis"] = measure_redis(Path(folder))
        if shutil.which("redis-server") and has("hiredis"):
            (Path(folder) / "ours").mkdir()
            with redis_server(Path(folder) / "ours"):
                url = f"unix://{folder}/ours/redis.sock?name=benchmark"
                results["suitkaise, Redis"] = measure_suitkaise(url)
        results["suitkaise, SQLite"] = measure_suitkaise("sqlite")
        results["LMDB by hand"] = measure_lmdb(Path(folder))
        results["sqlite3 by hand"] = measure_sqlite(Path(folder))
        if has("diskcache"):
            results["diskcache"] = measure_diskcache(Path(folder))
        results["Manager().dict()"] = measure_manager()
        show(results)
    print(f"Python {sys.version.split()[0]}, {os.cpu_count()} cores")


if __name__ == "__main__":
    main()
