"""Start bare processes in each way of multiprocessing: the other side of `start.py` and `restart.py`."""

from __future__ import annotations

import contextlib
import multiprocessing
import multiprocessing.process
import os
import sys
from collections.abc import Iterator
from multiprocessing.context import BaseContext

from light import idle

WAYS = ("forkserver", "fork", "spawn")
"""Ratios are relative to the first one."""


def contexts() -> dict[str, BaseContext]:
    """Return each way at its fastest: the forkserver has preloaded `light`, and no process imports the benchmark."""
    sys.modules["__main__"].__dict__.pop("__file__", None)
    here = os.path.dirname(__file__)  # the forkserver of Python 3.11 finds preloaded modules in PYTHONPATH only
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (here, os.environ.get("PYTHONPATH"))))
    made: dict[str, BaseContext] = {way: multiprocessing.get_context(way) for way in WAYS}
    made["forkserver"].set_forkserver_preload(["light"])
    return made


def begin(context: BaseContext, path: str, size: int = 0) -> multiprocessing.process.BaseProcess:
    process = context.Process(target=idle, args=(path, size))  # type: ignore[attr-defined]
    process.start()
    return process


def end(process: multiprocessing.process.BaseProcess) -> None:
    process.kill()
    process.join()


@contextlib.contextmanager
def forkserver_ends() -> Iterator[None]:
    """Stop the forkserver at the end of the block; else it runs as long as the program."""
    try:
        yield
    finally:
        from multiprocessing import forkserver

        forkserver._forkserver._stop()  # type: ignore[attr-defined]
