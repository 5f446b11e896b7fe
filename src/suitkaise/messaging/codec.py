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
import functools
import io
import pickle
import sys
import types
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import cloudpickle  # type: ignore[import-untyped]

from suitkaise.errors import NotSerializable, WorkerFailed
from suitkaise.escapes import shortened
from suitkaise.exits import Crashed
from suitkaise.messaging import bundle_tables
from suitkaise.messaging.bundle_tables import NOTHING, Known
from suitkaise.messaging.bundles import bundle_of, defined_again, definition_known, reduce_to_bundle
from suitkaise.messaging.by_value import ByValue
from suitkaise.messaging.definitions import is_by_value, key_of, may_be_by_value, text_of
from suitkaise.messaging.pieces import Pieces, in_pieces, is_in_pieces, split
from suitkaise.messaging.reducers import REDUCERS, is_named_by_value, reduce_exception, reduce_method, reduce_named

__all__ = [
    "CONNECTIONS",
    "PROTOCOL",
    "ExactByValue",
    "dumps",
    "dumps_apart",
    "dumps_error",
    "dumps_in_pieces",
    "first_name",
    "loads",
    "loads_apart",
    "refuse",
]

PROTOCOL = 5
"""The protocol of pickle: the first with buffers that are not copied."""

_ATOMS = frozenset({type(None), bool, int, float, complex, str, bytes})


def dumps(value: object, *, root: str = "value") -> bytes:
    """Encode `value`.

    Args:
        value: a value that pickle or cloudpickle can send.
        root: the first word of the path in an error.

    Returns:
        Bytes that `loads` decodes in any process of the same Python version.

    Raises:
        NotSerializable: a part of `value` cannot be sent; the message names the path to it. Sockets and pipe ends
            cannot be sent this way, see `descriptor_codec`.

    >>> loads(dumps({"point": (1, 2.5), "tags": {"a"}}))
    {'point': (1, 2.5), 'tags': {'a'}}
    >>> import threading
    >>> dumps({"jobs": [1, threading.Lock()]})  # doctest: +ELLIPSIS
    Traceback (most recent call last):
        ...
    suitkaise.errors.NotSerializable: value['jobs'][1]: cannot pickle '_thread.lock' object; make it ...
    """
    if type(value) in _ATOMS:
        return pickle.dumps(value, PROTOCOL)
    try:
        pickler, buffer = _idle_picklers.pop()
    except IndexError:
        buffer = io.BytesIO()
        pickler = _ByName(buffer, PROTOCOL)
    try:
        pickler.dump(value)
        failed = False
    except Exception as error:  # either a part has to be sent by value, or it cannot be sent: cloudpickle finds out
        if _has_interrupted(error, value):
            raise
        failed = True
    if failed:  # the error is handled no longer: another one would be printed together with it
        return _dumps_by_value(value, root)
    data = buffer.getvalue()
    if len(data) <= _LARGEST_REUSE and len(_idle_picklers) < _MAX_IDLE:
        pickler.clear_memo()
        buffer.seek(0)
        buffer.truncate()
        _idle_picklers.append((pickler, buffer))
    return data


def dumps_apart(value: object, *, root: str = "value") -> tuple[bytes, list[memoryview]]:
    """Encode `value` as `dumps` does; the large buffers in it, such as those of NumPy arrays, are left out.

    Args:
        value: as for `dumps`.
        root: the first word of the path in an error.

    Returns:
        The bytes, and the buffers beside them for `loads_apart`, in their order: the caller's own memory, not copied.

    Raises:
        NotSerializable: as for `dumps`.

    >>> data, buffers = dumps_apart({"picture": pickle.PickleBuffer(bytearray(10_000))})
    >>> len(data), [len(buffer) for buffer in buffers]
    (26, [10000])
    >>> loads_apart(data, buffers)["picture"] == bytes(10_000)
    True
    """
    data, buffers, _ = _dump_apart(value, root, None)
    return data, buffers


def _dump_apart(value: object, root: str, known: Known | None) -> tuple[bytes, list[memoryview], dict[str, bytes]]:
    """Return the bytes, the buffers beside them, and the bundles beside them, unless `known` is None."""
    try:
        pickler, buffer, apart = _idle_picklers_apart.pop()
    except IndexError:
        buffer, apart = io.BytesIO(), []
        pickler = _ByName(buffer, PROTOCOL, buffer_callback=functools.partial(_set_apart, apart))
    pickler.known = known
    try:
        pickler.dump(value)
        failed = False
    except Exception as error:
        if _has_interrupted(error, value):
            raise
        failed = True
    if failed:
        return _dumps_by_value(value, root), [], {}
    data, buffers, table = buffer.getvalue(), [], {}
    if apart:
        buffers = apart.copy()
        apart.clear()
    if pickler.table:
        table, pickler.table = pickler.table, {}
    if len(data) <= _LARGEST_REUSE and len(_idle_picklers_apart) < _MAX_IDLE:
        pickler.clear_memo()
        buffer.seek(0)
        buffer.truncate()
        _idle_picklers_apart.append((pickler, buffer, apart))
    return data, buffers, table


def dumps_in_pieces(value: object, *, root: str = "value", known: Known = NOTHING) -> bytes | Pieces:
    """Encode `value` for `loads`; if it holds large buffers, in pieces that were not copied.

    The classes and functions of `__main__` in it go without their bundles where they are `known`: only to processes
    that have them, see `bundle_tables`.

    Raises:
        NotSerializable: as for `dumps`.
    """
    if type(value) in _ATOMS:
        return pickle.dumps(value, PROTOCOL)
    data, buffers, table = _dump_apart(value, root, known)
    if not (buffers or table):
        return data
    pieces: bytes | Pieces = data
    if buffers:
        pieces = in_pieces(data, buffers)
        pieces = pieces if len(pieces) >= _SMALLEST_IN_PIECES else bytes(pieces)
    return bundle_tables.with_table(table, pieces) if table else pieces


def loads_apart(data: bytes | bytearray | memoryview, buffers: Sequence[bytearray | memoryview]) -> Any:
    """Decode what `dumps_apart` encoded. The value keeps the buffers, and can be changed if they can."""
    return pickle.loads(data, buffers=buffers)


def _set_apart(apart: list[memoryview], buffer: pickle.PickleBuffer) -> bool:
    """Leave a large buffer out of the bytes; return whether it stays in them."""
    try:
        raw = buffer.raw()
    except BufferError:  # it is not contiguous
        return True
    if len(raw) < _SMALLEST_APART:
        return True
    apart.append(raw)
    return False


def loads(data: bytes | bytearray | memoryview) -> Any:
    """Decode what `dumps` or `dumps_in_pieces` encoded. The value may keep the memory of a bytearray, and change it.

    Use it only for bytes from processes of the same user: pickle runs code.
    """
    if not data or data[0] > 1:  # it has no table, and is not in pieces
        return pickle.loads(data)
    if data[0]:
        definitions, rest = bundle_tables.opened(data)
        value = loads(rest)
        del definitions  # which had to live until now
        return value
    encoded, *buffers = split(data)
    return pickle.loads(encoded, buffers=map(bytearray, buffers) if encoded.readonly else buffers)


class _NeedsValue(Exception):
    """Raised in the pickler at an object that has to be sent by value."""


class _ByName(pickle.Pickler):
    """The C pickler, stopped at the first object that only cloudpickle sends correctly."""

    known: Known | None = None
    """The definitions that go without a bundle; the bundles of others are put into `table`. None: all go inside."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.table: dict[str, bytes] = {}

    def reducer_override(self, value: Any) -> Any:
        kind = type(value)
        if kind is types.FunctionType or isinstance(value, type):
            # The C pickler itself checks that the name leads back to this object.
            return self._reduce_definition(value) if may_be_by_value(value) else NotImplemented
        if kind in _SENT_BY_CLOUDPICKLE:
            raise _NeedsValue
        reduced = _reduce_instance(kind, value)
        if reduced is not NotImplemented and type(reduced) is str and is_named_by_value(value):
            raise _NeedsValue
        return reduced

    def _reduce_definition(self, definition: Any) -> Any:
        if not is_by_value(definition):
            return NotImplemented
        if self.known is None:
            reduced = reduce_to_bundle(definition)
            if reduced is None:
                raise _NeedsValue
            return reduced
        key = key_of(definition)
        if key in self.known:
            self.table[key] = b""
        elif not self._put_bundle(definition):
            raise _NeedsValue
        for newer in defined_again(definition):
            if key_of(newer) not in self.known:
                self._put_bundle(newer)
        return definition_known, (key,)

    def _put_bundle(self, definition: Any) -> bool:
        found = bundle_of(definition)
        if found is not None:
            key, self.table[key] = found
        return found is not None


class ExactByValue(ByValue):
    """cloudpickle, with exact exceptions and without its silent copies of open files."""

    def reducer_override(self, value: Any) -> Any:
        reduced = super().reducer_override(value)
        if reduced is NotImplemented:
            reduced = _reduce_instance(type(value), value)
        if type(reduced) is str and is_named_by_value(value):
            return reduce_named(value, reduced)
        return reduced


CONNECTIONS = "multiprocessing.connection"
"""The module of `Connection`, which is imported only where there is one."""


def _reduce_instance(kind: type, value: Any) -> Any:
    """Return how to rebuild an object of a class that has no sufficient way of its own; else NotImplemented."""
    if isinstance(value, BaseException):
        return reduce_exception(value)
    if kind is types.BuiltinMethodType:
        return reduce_method(value)
    if kind.__module__ == CONNECTIONS and kind.__name__ == "Connection":
        raise TypeError("cannot pickle 'Connection' object: only a worker's arguments can hold the end of a pipe")
    managers = sys.modules.get("multiprocessing.managers")
    if managers is not None and isinstance(value, managers.BaseProxy):
        return _reduce_proxy(value)
    own: Any = kind.__reduce__
    if own is _COMMON or not isinstance(own, types.FunctionType):
        return NotImplemented
    if kind in _SENT_BY_CLOUDPICKLE or kind in copyreg.dispatch_table:
        return NotImplemented
    return value.__reduce_ex__(PROTOCOL)  # it may be a name, which the receiver may not have


_COMMON = object.__reduce__


def _reduce_proxy(proxy: Any) -> Any:
    """Send the proxy of a manager with the key that the manager asks for: a worker is no child of this process."""
    make, (cls, token, serializer, options) = proxy.__reduce__()
    return make, (cls, token, serializer, {**options, "authkey": bytes(proxy._authkey)})


# Making a C pickler takes as long as pickling a small dict, so picklers are kept after a small value. Popping and
# appending are atomic, and a pickler in use is not in the list: that is safe for threads, nested calls and forks.
_idle_picklers: list[tuple[_ByName, io.BytesIO]] = []
_idle_picklers_apart: list[tuple[_ByName, io.BytesIO, list[memoryview]]] = []
_MAX_IDLE = 16
_LARGEST_REUSE = 1 << 16
_SMALLEST_APART = 1 << 12  # bytes
_SMALLEST_IN_PIECES = 1 << 16  # bytes; below, one copy more costs nothing

_SENT_BY_CLOUDPICKLE = frozenset({*cloudpickle.Pickler.dispatch_table.maps[0], *REDUCERS}) - {types.BuiltinMethodType}


def _has_interrupted(error: Exception, value: object) -> bool:
    """Return whether a signal handler has raised this error, and not what encodes `value` by name."""
    if isinstance(error, _NeedsValue):
        return False
    attempt = _ByName(io.BytesIO(), PROTOCOL, buffer_callback=lambda buffer: False).dump
    return not _fails_alike(value, error, attempt)


def _fails_alike(value: object, error: Exception, attempt: Callable[[object], object]) -> bool:
    """Return whether encoding `value` fails a second time, too; else a signal handler has raised the first error."""
    try:
        attempt(value)
    except Exception as second:
        return type(second) is type(error)
    return False


def _dumps_by_value(value: object, root: str) -> bytes:
    buffer = io.BytesIO()
    try:
        ExactByValue(buffer, PROTOCOL).dump(value)
    except Exception as error:
        refuse(value, root, error, lambda part: ExactByValue(io.BytesIO(), PROTOCOL).dump(part))
    return buffer.getvalue()


def refuse(value: object, root: str, error: Exception, attempt: Callable[[object], object]) -> NoReturn:
    """Raise `NotSerializable` with the path to the part for which `attempt` fails, as `error` for the whole value.

    Raise `error` itself if a signal handler has raised it.
    """
    if not _fails_alike(value, error, attempt):
        raise error
    from suitkaise.messaging.unpicklable import find_culprit

    culprit = find_culprit(value, root, error, attempt)
    raise NotSerializable(culprit.message, path=culprit.path) from culprit.error


def dumps_error(error: BaseException, *, root: str = "error") -> bytes:
    """Encode an error for `loads`, which returns a `WorkerFailed` with its text where the error cannot be decoded.

    Raises:
        NotSerializable: as for `dumps`.
    """
    kind = type(error)
    try:
        text = shortened(str(error))
    except Exception as obstacle:  # the user's `__str__`
        text = f"its text could not be made: {type(obstacle).__name__}"
    name = (
        kind.__qualname__ if kind.__module__ in ("builtins", "__main__") else f"{kind.__module__}.{kind.__qualname__}"
    )
    noted = vars(error).get("__notes__")  # its `__getattr__` may raise anything
    notes = [shortened(note) for note in noted if isinstance(note, str)] if isinstance(noted, list) else []
    return pickle.dumps(_SentError(f"{name}: {text}", notes, dumps(error, root=root)), PROTOCOL)


class _SentError:
    """Stands in the bytes for an error that is decoded if that is possible."""

    def __init__(self, text: str, notes: list[str], data: bytes) -> None:
        self._parts = text, notes, data

    def __reduce__(self) -> Any:
        return _decoded_error, self._parts


def _decoded_error(text: str, notes: list[str], data: bytes) -> BaseException:
    try:
        error = pickle.loads(data)
        if isinstance(error, BaseException):
            return error
        obstacle: Exception = TypeError(f"it is {type(error).__name__!r}")
    except Exception as failure:  # most likely its class cannot be imported here
        obstacle = failure
    failed = WorkerFailed(f"{text} (the error cannot be decoded here: {type(obstacle).__name__}: {obstacle})")
    for note in notes:
        failed.add_note(note)
    return failed


def first_name(data: bytes) -> str:
    """Return the name of the first class or function that encoded data holds; empty if there is none."""
    import pickletools  # takes 8 ms: only this error pays for it

    strings: list[str] = []
    try:
        for key in bundle_tables.keys_in(data):
            return text_of(key)
        encoded = bytes(split(data)[0]) if is_in_pieces(data) else data
        for operation, argument, _ in pickletools.genops(encoded):
            if isinstance(argument, str):
                strings.append(argument)
            elif operation.name == "STACK_GLOBAL" and len(strings) > 1:
                return ".".join(strings[-2:])
    except ValueError:  # the data is damaged
        pass
    return ""


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
