"""Carries out what the process of a worker requests of the program that owns the trees, wherever the process is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias, assert_never

from suitkaise.errors import NotSerializable, SuitkaiseError
from suitkaise.messaging import codec
from suitkaise.messaging.answer import Answer
from suitkaise.messaging.bundle_tables import NOTHING, Known
from suitkaise.messaging.inbox import full_mailbox
from suitkaise.messaging.messages import Message, Payload
from suitkaise.messaging.pieces import Pieces
from suitkaise.messaging.portable_errors import portable_error
from suitkaise.messaging.protocol import (
    AdminRequest,
    Ask,
    Connect,
    HubAnswer,
    HubRequest,
    RequestKind,
    Tell,
    Withdraw,
    WorkerFrame,
)
from suitkaise.messaging.registry import Registry
from suitkaise.messaging.tracing import enter
from suitkaise.platform.reactor import SerialExecutor

__all__ = ["Requests"]

_MAY_WAIT_FOR_EVER = (
    RequestKind.JOIN, RequestKind.RESULT, RequestKind.DOWN, RequestKind.ENDED, RequestKind.WAIT, RequestKind.LOGS,
    RequestKind.PROFILE, RequestKind.INSPECT, RequestKind.TRACE,
)  # fmt: skip

SendAnswer: TypeAlias = Callable[[HubAnswer, bytes | Pieces], None]
"""Sends an answer and its payload, from any thread, without blocking."""


class Requests:
    """The requests of one process that are under way.

    Args:
        registry: knows the workers.
        administration: runs what decodes a declaration of the user's.
        send: sends an answer to the process.
        known: the definitions that its connection has.
    """

    def __init__(
        self, registry: Registry, administration: SerialExecutor, send: SendAnswer, known: Known = NOTHING
    ) -> None:
        self._registry = registry
        self._administration = administration
        self._send = send
        self._known = known
        self._waits: dict[int, Answer[Any]] = {}  # those that may wait for ever; the others end by themselves

    def serve(self, frame: WorkerFrame, payload: bytes, sender: str) -> None:
        """Carry out one request of the worker at the path `sender` (reactor's thread); an answer follows."""
        try:
            match frame:
                case Ask(number, kind, path, carrier, deadline):
                    message = Message(
                        kind,
                        Payload(data=payload),
                        lambda ok, answer: self._answer(number, ok, answer),
                        sender,
                        carrier,
                        deadline=deadline,
                    )
                    self._registry.post(path, message, waits=False)
                case Tell(number, kind, path, carrier, waits):
                    told = Message(kind, Payload(data=payload), None, sender, carrier)
                    room = self._post(path, told, waits=waits, awaited=frame.awaited)
                    if room is None:
                        self._answer(number, True, Payload(True))
                    else:
                        self._waits[number] = room
                        room.when_done(lambda done: self._answer_told(number, path, room))
                case HubRequest():
                    self._request(frame, payload, sender)
                case AdminRequest():  # the payload may hold a declaration of the user's: decoding it may block
                    self._administration.submit(lambda: self._administer(frame, payload))
                case Connect(number):
                    self._answer(number, True, Payload(None))
                case Withdraw(number):
                    waiting = self._waits.pop(number, None)
                    if waiting is not None:
                        waiting.cancel()
                case _:
                    assert_never(frame)
        except Exception as error:
            self._answer(frame.number, False, Payload(error))

    def _post(self, path: str, told: Message, *, waits: bool, awaited: bool) -> Answer[bool] | None:
        try:
            return self._registry.post(path, told, waits=waits)
        except SuitkaiseError as error:
            if not awaited:
                self._registry.dead_letters.add(path, str(error))
            raise

    def _request(self, request: HubRequest, payload: bytes, asker: str) -> None:
        number = request.number
        answer = self._registry.request(request.kind, request.path, codec.loads(payload), asker=asker)
        if request.kind in _MAY_WAIT_FOR_EVER:
            self._waits[number] = answer
        answer.when_done(lambda done: self._pass_on(number, answer))

    def _answer_told(self, number: int, path: str, room: Answer[bool]) -> None:
        self._waits.pop(number, None)
        if room.cancelled():
            self._answer(number, False, Payload(full_mailbox(path)))
        else:
            self._answer(number, *room.outcome())

    def _administer(self, request: AdminRequest, payload: bytes) -> None:
        number = request.number
        leave = enter(request.carrier)
        try:
            answer = self._registry.administer(request.action, request.path, codec.loads(payload))
        except Exception as error:
            self._answer(number, False, Payload(error))
            return
        finally:
            leave()
        answer.when_done(lambda done: self._pass_on(number, answer))

    def _pass_on(self, number: int, answer: Answer[Any]) -> None:
        self._waits.pop(number, None)
        if not answer.cancelled():
            self._answer(number, *answer.outcome())

    def _answer(self, number: int, ok: bool, payload: Payload) -> None:
        """Send an answer, from any thread."""
        try:
            data: bytes | Pieces = payload.parts_for(self._known)
        except NotSerializable as error:
            ok, data = False, codec.dumps(error if ok else portable_error(payload.value, "hub")[0])
        self._send(HubAnswer(number, ok), data)
        self._known.note_sent(data)

    def close(self) -> None:
        """End the waits: the process is gone."""
        for waiting in list(self._waits.values()):
            waiting.cancel()
