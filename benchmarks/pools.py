"""Pools of processes: tiny tasks, 1 MB arguments, and workers that are killed; beside the standard library and loky."""

from __future__ import annotations

import contextlib
import multiprocessing
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from multiprocessing.pool import Pool
from pathlib import Path
from typing import Any

from light import die_once, increment, length
from support import heading, measure, options, show

from suitkaise.pools import ProcessPool

try:
    from loky import ProcessPoolExecutor as Loky  # not in the project's environment: put it on PYTHONPATH
except ImportError:
    Loky = None

WORKERS = 2


class Adapter:
    """One pool, with the calls that the measurements need."""

    def __init__(self, pool: Any) -> None:
        self.submit = pool.submit if isinstance(pool, Executor) else lambda f, *args: _Result(pool.apply_async(f, args))
        self.map = pool.map if isinstance(pool, Executor) else pool.imap

    def one_at_a_time(self, count: int) -> float:
        """Seconds for a task, each submitted when the one before is done."""
        began = time.perf_counter()
        for number in range(count):
            self.submit(increment, number).result()
        return (time.perf_counter() - began) / count

    def all_at_once(self, count: int) -> float:
        """Seconds for a task, all submitted at once."""
        began = time.perf_counter()
        for future in [self.submit(increment, number) for number in range(count)]:
            future.result()
        return (time.perf_counter() - began) / count

    def chunks(self, count: int, size: int) -> float:
        """Seconds for an item of a map."""
        began = time.perf_counter()
        for _ in self.map(increment, range(count), chunksize=size):
            pass
        return (time.perf_counter() - began) / count

    def large(self, count: int) -> float:
        """Seconds for a task with an argument of 1 MB."""
        argument = bytes(1_000_000)
        began = time.perf_counter()
        for future in [self.submit(length, argument) for _ in range(count)]:
            future.result()
        return (time.perf_counter() - began) / count


class _Result:
    def __init__(self, result: Any) -> None:
        self.result: Callable[..., Any] = result.get


@contextlib.contextmanager
def pools() -> Iterator[dict[str, Adapter]]:
    """All candidates, each with its workers started."""
    with contextlib.ExitStack() as open_pools:
        made: dict[str, Any] = {
            "ProcessPoolExecutor": open_pools.enter_context(ProcessPoolExecutor(WORKERS)),
            "multiprocessing.Pool": open_pools.enter_context(multiprocessing.Pool(WORKERS)),
        }
        if Loky is not None:
            made["loky"] = open_pools.enter_context(Loky(WORKERS))
        made["suitkaise"] = open_pools.enter_context(ProcessPool(WORKERS))
        yield {name: Adapter(pool) for name, pool in made.items()}


def kills(quick: bool) -> None:
    """Run tasks of which each hundredth kills its worker, once; print what becomes of them."""
    count = 300 if quick else 1000
    print(f"\n{count} tasks, one in a hundred kills the worker that runs it first")
    makers: dict[str, Callable[[], Any]] = {
        "ProcessPoolExecutor": lambda: ProcessPoolExecutor(WORKERS),
        "multiprocessing.Pool": lambda: multiprocessing.Pool(WORKERS),
        "suitkaise": lambda: ProcessPool(WORKERS),
    }
    if Loky is not None:
        makers["loky"] = lambda: Loky(WORKERS)
    for name, make in makers.items():
        with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
            pool = make()
            began = time.perf_counter()
            done, outcome = 0, "all results are there"
            try:
                submit = Adapter(pool).submit
                marks = [str(Path(folder, str(n))) if n % 100 == 50 else "" for n in range(count)]
                for future in [submit(die_once, mark) for mark in marks]:
                    future.result(timeout=5)
                    done += 1
            except BaseException as error:
                outcome = f"{type(error).__name__}: {str(error).splitlines()[0][:70] if str(error) else ''}"
            took = time.perf_counter() - began
            if isinstance(pool, Pool):
                pool.terminate()
            else:
                pool.shutdown()
        print(f"  {name:20}  {done:>5} results in {took:6.2f} s; {outcome}", flush=True)


def main() -> None:
    arguments = options(__doc__ or "")
    rounds, scale = (2, 1) if arguments.quick else (9, 10)
    heading("pools")
    with pools() as candidates:
        for title, goal, take in (
            ("a tiny task, one at a time", 1.0, lambda pool: pool.one_at_a_time(100 * scale)),
            ("a tiny task, all submitted at once", 1.0, lambda pool: pool.all_at_once(200 * scale)),
            ("an item of map, chunksize=10", 1.0, lambda pool: pool.chunks(1000 * scale, 10)),
            ("an item of map, chunksize=100", 1.0, lambda pool: pool.chunks(5000 * scale, 100)),
            ("a task with an argument of 1 MB", 1.0, lambda pool: pool.large(10 * scale)),
        ):
            group = {name: (lambda pool=pool, take=take: take(pool)) for name, pool in candidates.items()}
            show(title, "us", measure(rounds, group, {"suitkaise": goal}), scale=1e6)
    kills(arguments.quick)


if __name__ == "__main__":
    main()
