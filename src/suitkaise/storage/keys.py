"""The key of an entry: container path, NUL, name, in UTF-8.

A part that is too long for LMDB is cut and ends in a digest of the whole part; then the record holds path and name.
"""

from __future__ import annotations

import functools
import hashlib

__all__ = [
    "MAX_KEY",
    "checked_path",
    "container_prefix",
    "entry_key",
    "is_below",
    "next_container",
    "normal_path",
    "path_in",
    "ranges_below",
    "unpack_key",
    "utf8",
]

MAX_KEY = 480
"""The longest key in bytes: LMDB's 511, less the prefix that the owner index puts before keys."""

_MAX_PATH_PART = 200
_LONG = b"\xff"  # occurs in no UTF-8
_DIGEST = 16
_END = _LONG * (_DIGEST + 2)  # behind all keys


@functools.lru_cache(maxsize=8192)
def entry_key(path: str, name: str) -> tuple[bytes, tuple[str, str] | None]:
    """Return the key of an entry, and path and name if the key does not hold them in full.

    Raises:
        TypeError, ValueError: the path or the name is invalid.
    """
    if not isinstance(name, str):
        raise TypeError(f"a name must be a str, not {type(name).__name__}: {name!r}")
    if not name or "\0" in name:
        raise ValueError(f"a name must not be empty and must not contain NUL, but it is {name!r}")
    path = normal_path(path)
    prefix = container_prefix(path)
    tail = utf8(name, "name")
    whole = prefix + tail
    if prefix[:1] != _LONG and len(whole) <= MAX_KEY:
        return whole, None
    room = MAX_KEY - len(prefix)
    if len(tail) > room:
        tail = tail[: room - _DIGEST - 1] + _LONG + _digest(tail)
    return prefix + tail, (path, name)


def normal_path(path: str) -> str:
    """Normalize a container's path: parts divided by `/`, none of them empty; the root is the empty path.

    >>> normal_path("/ui/settings/"), normal_path("/")
    ('ui/settings', '')
    """
    if not isinstance(path, str):
        raise TypeError(f"a path must be a str such as 'ui/settings', not {type(path).__name__}: {path!r}")
    return _normal_path(path)


@functools.lru_cache(maxsize=4096)
def _normal_path(path: str) -> str:
    utf8(path, "path")
    normal = path.strip("/")
    parts = normal.split("/") if normal else []
    if "\0" in path or any(part in ("", ".", "..") for part in parts):
        raise ValueError(
            f"a path is parts divided by '/', without NUL, and none of them empty, '.' or '..'; not {path!r}"
        )
    return normal


def checked_path(path: str, name: str) -> str:
    """Return the path in its normal form.

    Raises:
        TypeError, ValueError: the path or the name is invalid.
    """
    try:
        return _checked_path(path, name)
    except TypeError:
        return _checked_path.__wrapped__(path, name)  # an argument that cannot be hashed gets a clear error here


@functools.lru_cache(maxsize=8192)
def _checked_path(path: str, name: str) -> str:
    entry_key.__wrapped__(path, name)
    return normal_path(path)


def container_prefix(path: str) -> bytes:
    """Return the prefix of the keys of a container's entries; `path` is normalized."""
    data = utf8(path, "path")
    if len(data) <= _MAX_PATH_PART:
        return data + b"\0"
    return _LONG + _digest(data) + b"\0"


def next_container(key: bytes) -> bytes:
    """Return a key behind all entries of the container of `key`."""
    end = 1 + _DIGEST if key[:1] == _LONG else key.index(b"\0")
    return key[:end] + b"\1"


def ranges_below(path: str) -> list[tuple[bytes, bytes]]:
    """Return the ranges of keys (from, and up to but without) that hold the entries at and below a container.

    The last of them also holds entries of other containers, those with long paths; `is_below` tells them apart.
    """
    if not path:
        return [(b"", _END)]
    data, long = utf8(path, "path"), (_LONG, _END)
    if len(data) > _MAX_PATH_PART:
        return [long]
    return [(data + b"\0", data + b"\1"), (data + b"/", data + b"0"), long]


def is_below(path: str, top: str) -> bool:
    """Return whether `path` is the container `top` or lies below it."""
    return not top or path == top or path.startswith(top + "/")


def unpack_key(key: bytes) -> tuple[str, str]:
    """Return path and name of a key that holds them in full."""
    path, _, name = key.partition(b"\0")
    return path.decode(), name.decode()


def path_in(key: bytes) -> str | None:
    """Return the path of a key's container; None if the key does not hold it in full."""
    return None if key[:1] == _LONG else key.partition(b"\0")[0].decode()


def utf8(text: str, what: str) -> bytes:
    """Encode a text.

    Raises:
        ValueError: it has a lone surrogate, as the name of a file has for a byte that is no UTF-8.
    """
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise ValueError(f"a {what} must be valid text; {text!r} has a lone surrogate") from None


def _digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=_DIGEST).digest()
