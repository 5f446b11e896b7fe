"""Values that hold sockets or ends of pipes, as the arguments of a worker do: these go beside the bytes."""

from __future__ import annotations

import io
import os
import pickle
import socket
from collections.abc import Sequence
from typing import Any, Protocol

from suitkaise.messaging.codec import CONNECTIONS, PROTOCOL, ExactByValue, refuse

__all__ = ["DescriptorOwner", "descriptor_of", "dumps_with_descriptors", "loads_with_descriptors"]


class DescriptorOwner(Protocol):
    """A socket, or an end of a pipe of multiprocessing."""

    def fileno(self) -> int:
        """Return the descriptor."""
        ...


def descriptor_of(owner: DescriptorOwner) -> int:
    """Return the descriptor of a socket or an end of a pipe.

    Raises:
        OSError: it was closed.
    """
    try:
        descriptor = owner.fileno()
    except OSError:  # an end of a pipe raises it
        descriptor = -1
    if descriptor < 0:
        raise OSError(f"{owner!r} was closed; an argument must stay open as long as its worker may be started again")
    return descriptor


def dumps_with_descriptors(value: object, *, root: str = "value") -> tuple[bytes, list[DescriptorOwner]]:
    """Encode `value`; the sockets and pipe ends anywhere in it are left out of the bytes and returned beside them.

    Args:
        value: as for `dumps`; any `socket.socket` and any `multiprocessing.connection.Connection` in it is replaced by
            its index in the returned list.
        root: the first word of the path in an error.

    Returns:
        The bytes, and the caller's own objects, each once, in the order of their index. They must stay open until their
        descriptors have been sent.

    Raises:
        NotSerializable: as for `dumps`, and for one that was closed.

    >>> ours, theirs = socket.socketpair()
    >>> data, beside = dumps_with_descriptors({"control": theirs, "again": theirs})
    >>> beside == [theirs]
    True
    >>> arrived = loads_with_descriptors(data, [os.dup(owner.fileno()) for owner in beside])
    >>> arrived["control"] is arrived["again"]
    True
    >>> for sock in (ours, theirs, arrived["control"]):
    ...     sock.close()
    """
    buffer = io.BytesIO()
    pickler = _WithDescriptors(buffer, PROTOCOL)
    try:
        pickler.dump(value)
    except Exception as error:
        refuse(value, root, error, lambda part: _WithDescriptors(io.BytesIO(), PROTOCOL).dump(part))
    return buffer.getvalue(), pickler.owners


def loads_with_descriptors(data: bytes | bytearray | memoryview, descriptors: Sequence[int]) -> Any:
    """Decode what `dumps_with_descriptors` encoded; the descriptors, in the same order, belong to the value then.

    Raises:
        pickle.UnpicklingError: the data names a descriptor that is not among `descriptors`.
    """
    unpickler = _FromDescriptors(io.BytesIO(data), descriptors)
    try:
        value = unpickler.load()
    except BaseException:
        unpickler.close_made()
        raise
    finally:
        unpickler.close_unused()
    return value


class _WithDescriptors(ExactByValue):
    """Leaves out the objects that are descriptors of this process, and collects them."""

    def __init__(self, file: io.BytesIO, protocol: int) -> None:
        super().__init__(file, protocol)
        self.owners: list[DescriptorOwner] = []
        self._index: dict[int, int] = {}

    def persistent_id(self, value: Any) -> tuple[Any, ...] | None:
        if type(value) is socket.socket:
            return (self._index_of(value), None)
        if type(value).__module__ == CONNECTIONS and type(value).__name__ == "Connection":
            return (self._index_of(value), (value.readable, value.writable))
        return None

    def _index_of(self, value: Any) -> int:
        index = self._index.setdefault(id(value), len(self.owners))
        if index == len(self.owners):
            descriptor_of(value)
            self.owners.append(value)
        return index


class _FromDescriptors(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, descriptors: Sequence[int]) -> None:
        super().__init__(file)
        self._descriptors = descriptors
        self._made: dict[int, Any] = {}

    def persistent_load(self, what: Any) -> Any:
        index, ends = what
        if not 0 <= index < len(self._descriptors):
            raise pickle.UnpicklingError(
                f"the data names descriptor {index!r}, but {len(self._descriptors)} descriptors came with it"
            )
        if index not in self._made:
            self._made[index] = _opened(self._descriptors[index], ends)
        return self._made[index]

    def close_made(self) -> None:
        """Close the objects that were made from descriptors."""
        for made in self._made.values():
            made.close()

    def close_unused(self) -> None:
        """Close the descriptors that no object has."""
        for index, descriptor in enumerate(self._descriptors):
            if index not in self._made:
                os.close(descriptor)


def _opened(descriptor: int, ends: tuple[bool, bool] | None) -> Any:
    if ends is None:
        return socket.socket(fileno=descriptor)
    from multiprocessing.connection import Connection

    return Connection(descriptor, *ends)
