"""One connection to a Redis or Valkey server: a command goes out, its answer comes in.

The protocol is lengths and bytes, which hiredis packs and parses. The whole of redis-py would take 0.4 s of processor
time to import in each process that reads, and three times as long for a command.
"""

from __future__ import annotations

import socket
from typing import Any

import hiredis

from suitkaise.storage.backends.redis_address import Address

__all__ = ["ConnectionLost", "RedisConnection", "RedisError", "ServerError"]

_ANSWER = 5.0
"""Seconds within which bytes of an answer must come."""

_CONNECT = 2.0
_BUFFER = 1 << 16
_MORE: Any = object()


class RedisError(Exception):
    """A command has failed."""


class ServerError(RedisError):
    """The server has answered with an error; the first word is its kind."""


class ConnectionLost(RedisError):
    """There is no connection, or it has broken; whether the command was carried out is unknown."""


class RedisConnection:
    """A connection, for one thread at a time."""

    def __init__(self, address: Address) -> None:
        """Connect and log in.

        Raises:
            ConnectionLost: the server cannot be reached.
            ServerError: it refuses the user, the password or the database.
        """
        self._reader = hiredis.Reader(replyError=ServerError, protocolError=ConnectionLost, notEnoughData=_MORE)
        self._buffer = bytearray(_BUFFER)
        try:
            self._sock = _connected(address)
        except OSError as error:
            raise ConnectionLost(error.strerror or str(error)) from error
        try:
            if address.password:
                self.ask("AUTH", *filter(None, (address.user, address.password)))
            if address.database:
                self.ask("SELECT", address.database)
        except BaseException:
            self.close()
            raise

    def ask(self, *command: str | bytes | int) -> Any:
        """Return the answer to a command.

        Raises:
            ServerError: it is an error.
            ConnectionLost: none came; the connection is of no use any more.
        """
        reader, sock, buffer = self._reader, self._sock, self._buffer
        try:
            sock.sendall(hiredis.pack_command(command))
            while (answer := reader.gets()) is _MORE:
                length = sock.recv_into(buffer)
                if not length:
                    raise ConnectionLost("the server has closed the connection")
                reader.feed(buffer, 0, length)
        except TimeoutError as error:
            raise ConnectionLost(f"no answer within {_ANSWER:g} seconds") from error
        except OSError as error:
            raise ConnectionLost(error.strerror or str(error)) from error
        if isinstance(answer, ServerError):
            raise answer
        return answer

    def close(self) -> None:
        """Close the connection."""
        self._sock.close()

    def __del__(self) -> None:
        if hasattr(self, "_sock"):
            self._sock.close()


def _connected(address: Address) -> socket.socket:
    if address.path:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.settimeout(_CONNECT)
            sock.connect(address.path)
        except BaseException:
            sock.close()
            raise
    else:
        sock = socket.create_connection((address.host, address.port), _CONNECT)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if address.is_encrypted:
        import ssl

        context = ssl.create_default_context(cafile=address.options.get("ssl_ca_certs"))
        if "ssl_certfile" in address.options:
            context.load_cert_chain(address.options["ssl_certfile"], address.options.get("ssl_keyfile"))
        sock = context.wrap_socket(sock, server_hostname=address.host)
    sock.settimeout(_ANSWER)
    return sock
