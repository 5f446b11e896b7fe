"""A storage server in a process of its own: `python -m tests.storage.serve DIRECTORY LISTENER [key=value ...]`.

`sabotage=` breaks it on purpose, to see whether the checkers notice: `acknowledge-early` replies before the
commit, `carry-out-twice` forgets what it has carried out, `tear` stores half of every tenth value.
"""

from __future__ import annotations

import itertools
import os
import select
import socket
import sys
from typing import Any

from suitkaise.storage import server
from suitkaise.storage.backends.access import DEFAULT_MAP_SIZE
from suitkaise.storage.backends.store import WriteTransaction
from suitkaise.storage.connections import Requests
from suitkaise.storage.protocol import Put


class AcknowledgesEarly(server.StorageServer):
    def _carry_out(self, requests: Requests) -> None:
        transaction = WriteTransaction(self._store, self._store.opened.begin(write=True))
        try:
            replies = self._apply(transaction, requests)
        finally:
            transaction.raw.abort()
        self._reply(replies)
        select.select([], [], [], 0.002)  # a wide gap is hit by a kill sooner
        self._store.write(lambda transaction: self._apply(transaction, requests))


class CarriesOutTwice(server.StorageServer):
    def _reply(self, replies: Any) -> None:
        select.select([], [], [], 0.002)  # a wide gap is hit by a kill sooner
        super()._reply(replies)

    def _apply_one(self, transaction: Any, connection: Any, header: Any, payload: bytes) -> Any:
        reply = super()._apply_one(transaction, connection, header, payload)
        if connection.client is not None:
            transaction.client(connection.client).last = 0
        return reply


class Tears(server.StorageServer):
    _count = itertools.count(1)

    def _apply_one(self, transaction: Any, connection: Any, header: Any, payload: bytes) -> Any:
        if isinstance(header, Put) and next(self._count) % 10 == 0:
            payload = payload[: len(payload) // 2]
        return super()._apply_one(transaction, connection, header, payload)


SABOTAGED = {
    "": server.StorageServer,
    "acknowledge-early": AcknowledgesEarly,
    "carry-out-twice": CarriesOutTwice,
    "tear": Tears,
}


def main(directory: str, descriptor: str, *options: str) -> None:
    given = dict(option.split("=", 1) for option in options)
    listener = socket.socket(fileno=int(descriptor))
    served = SABOTAGED[given.get("sabotage", "")](
        directory,
        listener,
        engine=given.get("engine"),
        durable=given.get("durable") == "yes",
        map_size=int(given.get("map_size", DEFAULT_MAP_SIZE)),
    )
    parent = os.getppid()
    while os.getppid() == parent:  # an orphan has no clients
        served.serve(1.0)


if __name__ == "__main__":
    main(*sys.argv[1:])
