"""The one codec of messages and storage: `dumps(value) -> bytes`, `loads(data) -> value`.

Importable classes and functions are sent by name, as pickle does it. Those of `__main__`, of a function or of a
notebook are sent by value, as cloudpickle does it, since the receiver never imports the sender's `__main__`. Round
trips are exact, also for exceptions with a constructor of their own (with their notes, but without tracebacks and
causes). A value that cannot be sent raises `NotSerializable` with the path to the part that is to blame.

The C pickler calls `reducer_override` only for objects that are not plain values, so a plain value costs what the bare
C pickler costs. At the first object that must be sent by value, cloudpickle takes over.
"""

from __future__ import annotations

import copyreg
import io
import pickle
import socket
import sys
import types
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import cloudpickle  # type: ignore[import-untyped]

from suitkaise.errors import NotSerializable, WorkerFailed
from suitkaise.exits import Crashed
from suitkaise.messaging.unpicklable import find_culprit

__all__ = ["dumps", "dumps_with_sockets", "loads", "loads_with_sockets"]

_PROTOCOL = 5
_ATOMS = frozenset({type(None), bool, int, float, complex, str, bytes})
_MADE_BY_CLASS_STATEMENT = 1 << 9  # Py_TPFLAGS_HEAPTYPE


def dumps(value: object, *, root: str = "value") -> bytes:
    """Encode `value`.

    Args:
        value: a value that pickle or cloudpickle can send.
        root: the first word of the path in an error.

    Returns:
        Bytes that `loads` decodes in any process of the same Python version.

    Raises:
        NotSerializable: a part of `value` cannot be sent; the message names the path to it. Sockets
            cannot be sent this way, see `dumps_with_sockets`.

    >>> loads(dumps({"point": (1, 2.5), "tags": {"a"}}))
    {'point': (1, 2.5), 'tags': {'a'}}
    >>> import threading
    >>> dumps({"jobs": [1, threading.Lock()]})  # doctest: +ELLIPSIS
    Traceback (most recent call last):
        ...
    suitkaise.errors.NotSerializable: value['jobs'][1]: cannot pickle '_thread.lock' object; make it ...
    """
    if type(value) in _ATOMS:
        return pickle.dumps(value, _PROTOCOL)
    try:
        pickler, buffer = _idle_picklers.pop()
    except IndexError:
        buffer = io.BytesIO()
        pickler = _ByName(buffer, _PROTOCOL)
    try:
        pickler.dump(value)
    except Exception:  # either a part has to be sent by value, or it cannot be sent: cloudpickle finds out
        return _dumps_by_value(value, root)
    data = buffer.getvalue()
    if len(data) <= _LARGEST_REUSE and len(_idle_picklers) < _MAX_IDLE:
        pickler.clear_memo()
        buffer.seek(0)
        buffer.truncate()
        _idle_picklers.append((pickler, buffer))
    return data


def loads(data: bytes | bytearray | memoryview) -> Any:
    """Decode what `dumps` encoded. Use it only for bytes from processes of the same user: pickle runs code."""
    return pickle.loads(data)


def dumps_with_sockets(value: object, *, root: str = "value") -> tuple[bytes, list[socket.socket]]:
    """Encode `value`; the sockets anywhere in it are left out of the bytes and returned beside them.

    Args:
        value: as for `dumps`; any `socket.socket` in it is replaced by its index in the returned list.
        root: the first word of the path in an error.

    Returns:
        The bytes, and the caller's own socket objects, each once, in the order of their index. They must
        stay open until they have been sent.

    Raises:
        NotSerializable: as for `dumps`.

    >>> ours, theirs = socket.socketpair()
    >>> data, beside = dumps_with_sockets({"control": theirs, "again": theirs})
    >>> beside == [theirs]
    True
    >>> arrived = loads_with_sockets(data, beside)
    >>> arrived["control"] is arrived["again"] is theirs
    True
    >>> ours.close()
    >>> theirs.close()
    """
    buffer = io.BytesIO()
    pickler = _WithSockets(buffer, _PROTOCOL)
    try:
        pickler.dump(value)
    except Exception as error:
        _refuse(value, root, error, lambda part: _WithSockets(io.BytesIO(), _PROTOCOL).dump(part))
    return buffer.getvalue(), pickler.sockets


def loads_with_sockets(data: bytes | bytearray | memoryview, sockets: Sequence[socket.socket]) -> Any:
    """Decode what `dumps_with_sockets` encoded; `sockets` are those returned beside it, in the same order.

    Raises:
        pickle.UnpicklingError: the data names a socket that is not among `sockets`.
    """
    return _FromSockets(io.BytesIO(data), sockets).load()


class _NeedsValue(Exception):
    """Raised in the pickler at an object that has to be sent by value."""


class _ByName(pickle.Pickler):
    """The C pickler, stopped at the first object that only cloudpickle sends correctly."""

    def reducer_override(self, value: Any) -> Any:
        kind = type(value)
        if kind is types.FunctionType or isinstance(value, type):
            # The C pickler itself checks that the name leads back to this object.
            if getattr(value, "__module__", None) in ("__main__", None) or cloudpickle.list_registry_pickle_by_value():
                raise _NeedsValue
            return NotImplemented
        if kind in _CLOUDPICKLE_REDUCERS:
            raise _NeedsValue
        if isinstance(value, BaseException):
            return _reduce_exception(value)
        return NotImplemented


class _ByValue(cloudpickle.Pickler):  # type: ignore[misc]
    """cloudpickle, with exact exceptions and file names of code, and without its silent copies of open files."""

    def reducer_override(self, value: Any) -> Any:
        if isinstance(value, BaseException):
            return _reduce_exception(value)
        if type(value) is types.CodeType:
            return _reduce_code(value)
        if isinstance(value, io.TextIOWrapper) and not _is_standard_stream(value):
            raise TypeError(f"cannot pickle {type(value).__name__!r} object")
        return super().reducer_override(value)


class _WithSockets(_ByValue):
    """Leaves the sockets out and collects them."""

    def __init__(self, file: io.BytesIO, protocol: int) -> None:
        super().__init__(file, protocol)
        self.sockets: list[socket.socket] = []
        self._index: dict[int, int] = {}

    def persistent_id(self, value: object) -> int | None:
        if type(value) is not socket.socket:
            return None
        index = self._index.setdefault(id(value), len(self.sockets))
        if index == len(self.sockets):
            self.sockets.append(value)
        return index


class _FromSockets(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, sockets: Sequence[socket.socket]) -> None:
        super().__init__(file)
        self._sockets = sockets

    def persistent_load(self, index: Any) -> socket.socket:
        if not isinstance(index, int) or not 0 <= index < len(self._sockets):
            raise pickle.UnpicklingError(
                f"the data names socket {index!r}, but {len(self._sockets)} sockets came with it"
            )
        return self._sockets[index]


# Making a C pickler takes as long as pickling a small dict, so picklers are kept after a small value. Popping and
# appending are atomic, and a pickler in use is not in the list: that is safe for threads, nested calls and forks.
_idle_picklers: list[tuple[_ByName, io.BytesIO]] = []
_MAX_IDLE = 16
_LARGEST_REUSE = 1 << 16

_CLOUDPICKLE_REDUCERS: dict[type, Callable[[Any], Any]] = dict(cloudpickle.Pickler.dispatch_table.maps[0])


def _dumps_by_value(value: object, root: str) -> bytes:
    buffer = io.BytesIO()
    try:
        _ByValue(buffer, _PROTOCOL).dump(value)
    except Exception as error:
        _refuse(value, root, error, lambda part: _ByValue(io.BytesIO(), _PROTOCOL).dump(part))
    return buffer.getvalue()


def _refuse(value: object, root: str, error: Exception, attempt: Callable[[object], object]) -> NoReturn:
    culprit = find_culprit(value, root, error, attempt)
    raise NotSerializable(culprit.message, path=culprit.path) from culprit.error


def _is_standard_stream(value: object) -> bool:
    return any(value is stream for stream in (sys.stdin, sys.stdout, sys.stderr))


def _reduce_code(code: types.CodeType) -> Any:
    """Keep the file name, which cloudpickle drops from 3.1.3 on: tracebacks show the source, and storage needs it."""
    make, args = _CLOUDPICKLE_REDUCERS[types.CodeType](code)
    return _rebuild_code, (make, args, code.co_filename)


def _rebuild_code(make: Callable[..., types.CodeType], args: tuple[Any, ...], file: str) -> types.CodeType:
    return make(*args).replace(co_filename=file)


def _reduce_exception(error: BaseException) -> Any:
    """Rebuild an exception without its own `__init__`, which pickle would call with the wrong arguments."""
    kind = type(error)
    if (
        not isinstance(kind.__init__, types.FunctionType)
        or isinstance(kind.__new__, types.FunctionType)
        or isinstance(kind.__reduce__, types.FunctionType)
        or isinstance(kind.__reduce_ex__, types.FunctionType)
    ):
        return NotImplemented
    reduced = error.__reduce__()
    if not isinstance(reduced, tuple) or reduced[0] is not kind:
        return NotImplemented
    return (_rebuild_exception, (kind, reduced[1]), *reduced[2:])


def _rebuild_exception(kind: type[BaseException], args: tuple[Any, ...]) -> BaseException:
    native = next(base for base in kind.__mro__ if not base.__flags__ & _MADE_BY_CLASS_STATEMENT)
    error: BaseException = kind.__new__(kind, *args)
    native.__init__(error, *args)  # type: ignore[misc]
    return error


class _EncodedError:
    """The encoded error of a crash: passed on as it is, and decoded when `Crashed.error` is read."""

    def __init__(self, text: str, traceback: str, data: bytes) -> None:
        self._text = text
        self._traceback = traceback
        self.data = data

    def __call__(self) -> BaseException:
        try:
            error = pickle.loads(self.data)
        except Exception as obstacle:  # most likely its class cannot be imported here
            text = f"{self._text} (the error cannot be decoded here: {obstacle!r})"
            return WorkerFailed(text, traceback=self._traceback)
        return error if isinstance(error, BaseException) else WorkerFailed(self._text, traceback=self._traceback)


def _rebuild_crashed(phase: str, traceback: str, text: str, data: bytes) -> Crashed:
    return Crashed.undecoded(phase, traceback, text, _EncodedError(text, traceback, data))


def _reduce_crashed(reason: Crashed) -> Any:
    """Send the error encoded: the hub restarts the worker without importing the class of the error."""
    decode = reason.decode
    data = decode.data if isinstance(decode, _EncodedError) else dumps(reason.error)
    return _rebuild_crashed, (reason.phase, reason.traceback, str(reason), data)


copyreg.pickle(Crashed, _reduce_crashed)
