"""Starting a bare process by hand in each of multiprocessing's ways: what `start.py` and `restart.py` compare with."""

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
"""The first one is what ratios are to."""


def contexts() -> dict[str, BaseContext]:
    """Each way at its best: the forkserver has loaded what its children need, and none imports the benchmark."""
    sys.modules["__main__"].__dict__.pop("__file__", None)
    here = os.path.dirname(__file__)  # Python 3.11's forkserver looks for what it preloads there only
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (here, os.environ.get("PYTHONPATH"))))
    made: dict[str, BaseContext] = {way: multiprocessing.get_context(way) for way in WAYS}
    made["forkserver"].set_forkserver_preload(["light"])
    return made


def begin(context: BaseContext, path: str) -> multiprocessing.process.BaseProcess:
    process = context.Process(target=idle, args=(path,))  # type: ignore[attr-defined]
    process.start()
    return process


def end(process: multiprocessing.process.BaseProcess) -> None:
    process.kill()
    process.join()


@contextlib.contextmanager
def forkserver_ends() -> Iterator[None]:
    """Ends the forkserver, which would live as long as the program."""
    try:
        yield
    finally:
        from multiprocessing import forkserver

        forkserver._forkserver._stop()  # type: ignore[attr-defined]
