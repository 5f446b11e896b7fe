"""Which engine keeps a store: the one that made it, else the one that is asked for, else the best that is installed."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from suitkaise.errors import StorageError
from suitkaise.storage.backends.redis_address import is_url, note_address, shown
from suitkaise.storage.backends.tables import FILES, Engine

__all__ = ["chosen_engine", "engine_named", "engine_of"]


@cache
def engine_named(name: str) -> Engine:
    """Return an engine.

    Raises:
        StorageError: there is no such engine, or it is not installed.
    """
    if name == "sqlite":
        from suitkaise.storage.backends.sqlite_engine import SqliteEngine

        return SqliteEngine()
    if name == "redis":
        try:
            from suitkaise.storage.backends.redis_engine import RedisEngine
        except ImportError as error:
            raise StorageError(
                f"a storage in Redis needs the extra `redis` ({error}): pip install 'suitkaise-xprocess[redis]'"
            ) from error
        return RedisEngine()
    if name != "lmdb":
        raise StorageError(
            f"the engine of a storage is 'lmdb', 'sqlite' or the URL of a Redis server, not {shown(name)!r}"
        )
    try:
        from suitkaise.storage.backends.lmdb_engine import LmdbEngine
    except ImportError as error:
        raise StorageError(
            f"the engine 'lmdb' needs the package lmdb, which cannot be imported ({error}); "
            "install it, or use engine='sqlite'"
        ) from error
    return LmdbEngine()


def engine_of(directory: Path) -> str | None:
    """Return the name of the engine that made the store in `directory`; None if there is no store yet."""
    return next((name for name in FILES if (directory / FILES[name]).exists()), None)


def chosen_engine(directory: Path, wanted: str | None) -> str:
    """Return the name of the engine for the store in `directory`: that of the store, if there is one.

    With the URL of a Redis server, the directory leads there from now on.

    Raises:
        StorageError: the store was made by another engine than `wanted`; or the engine is not installed.
    """
    made_by = engine_of(directory)
    if wanted is not None and is_url(wanted):
        engine_named("redis")
        note_address(directory, wanted)
        return "redis"
    if wanted == "redis" != made_by:
        raise StorageError("a storage in Redis needs the URL of the server: engine='redis://HOST:PORT/DB?name=NAME'")
    if wanted is not None and made_by is not None and wanted != made_by:
        raise StorageError(
            f"the storage in {str(directory)!r} was made with engine={made_by!r}, so {wanted!r} cannot open it; "
            "leave out `engine`, or use another directory",
            path=str(directory),
        )
    if wanted is None and made_by is None:
        try:
            engine_named("lmdb")
        except StorageError:
            return "sqlite"
        return "lmdb"
    name = wanted or made_by or ""
    engine_named(name)
    return name
