"""Errors in a form that another process can read: the exit reason of a worker that has crashed, and the asker's."""

from __future__ import annotations

import concurrent.futures
import os
import re
import traceback
from types import TracebackType

from suitkaise.errors import SuitkaiseError, WorkerFailed, with_note
from suitkaise.escapes import shortened
from suitkaise.exits import Crashed
from suitkaise.messaging import codec

__all__ = ["crash", "crash_and_answer", "portable_error", "text_of"]

LARGEST_ERROR = 256 << 10
"""Bytes of an encoded error. An exit reason, which is kept, has only the text of a larger one; the asker gets it."""


def crash(phase: str, error: BaseException, path: str) -> Crashed:
    """Return the exit reason of a worker, at `path`, that this error has ended in that phase."""
    return _crashed(phase, error, path, *_encode(error))


def crash_and_answer(phase: str, error: BaseException, path: str) -> tuple[Crashed, BaseException]:
    """Return what `crash` returns, and the error for the asker whose message has led to it; format and encode once.

    A `CancelledError` would cancel the task of an asker that awaits the answer, so that one gets a `WorkerFailed`.
    """
    data, text = _encode(error)
    for_asker = None if isinstance(error, concurrent.futures.CancelledError) else data
    return _crashed(phase, error, path, data, text), with_note(_copy(error, path, for_asker, text), text)


def _crashed(phase: str, error: BaseException, path: str, data: bytes | None, text: str) -> Crashed:
    if data is not None and len(data) > LARGEST_ERROR:
        data = None
    copy = _copy(error, path, data, text)
    if data is not None:
        return Crashed(phase, copy, text)
    return Crashed.undecoded(
        phase, text, f"{type(error).__name__} in {phase}: {shortened(text_of(error))}", lambda: copy
    )


def portable_error(error: BaseException, path: str) -> tuple[BaseException, str]:
    """Return the error in a form that can be sent to another process, and its traceback as text, shortened.

    It is a copy, as another process would get it, if the error can be pickled and unpickled; else a `WorkerFailed`
    with the same text, shortened. The error itself would keep alive, by its traceback, all that a worker in a thread
    held (rule 64).
    """
    data, text = _encode(error)
    return _copy(error, path, data, text), text


def _encode(error: BaseException) -> tuple[bytes | None, str]:
    """Return the error encoded, if that is possible and a copy has the same text, and its traceback as text."""
    try:
        text = shortened("".join(_for_the_program(error).format()))
    except Exception as obstacle:  # the user's exception class may raise anything when it is asked for its notes
        lines = "".join(traceback.format_tb(error.__traceback__))
        return None, _sent_as_text(shortened(f"{lines}{type(error).__name__}: {text_of(error)}\n"), obstacle)
    try:
        data = codec.dumps(error)
        again = codec.loads(data)
        return data if type(again) is type(error) and _say_the_same(str(again), str(error)) else None, text
    except (Exception, SystemExit) as obstacle:  # or when it is copied
        return None, _sent_as_text(text, obstacle)


def _for_the_program(error: BaseException) -> traceback.TracebackException:
    """Return what Python shows of an error, without the frames of suitkaise in which an error of its own was raised.

    Such an error tells what was wrong in the program's line; any other error in these frames is a fault of theirs.
    """
    shown = traceback.TracebackException(type(error), error, _below_ours(error.__traceback__))
    links: list[tuple[traceback.TracebackException | None, BaseException | None]] = [(shown, error)]
    while links:
        part, origin = links.pop()
        if part is None or origin is None:
            continue
        links += [(part.__cause__, origin.__cause__), (part.__context__, origin.__context__)]
        if isinstance(origin, SuitkaiseError):
            others = [at for at, frame in enumerate(part.stack, 1) if not frame.filename.startswith(_OURS)]
            if others:
                del part.stack[others[-1] :]
    return shown


def _below_ours(trace: TracebackType | None) -> TracebackType | None:
    """Leave out the frames of suitkaise that have called the program's code; none where no other code has run."""
    inner = trace
    while inner is not None and inner.tb_frame.f_code.co_filename.startswith(_OURS):
        inner = inner.tb_next
    return inner or trace


_OURS = (os.path.join(os.path.dirname(os.path.dirname(__file__)), ""), "<record>")
"""How the files of suitkaise begin; the second one is that of the constructors which `records` compiles."""


def _sent_as_text(text: str, obstacle: BaseException) -> str:
    return f"{text}(sent as text: {shortened(text_of(obstacle))})\n"


def _say_the_same(one: str, other: str) -> bool:
    """Return whether two texts differ only in the addresses of objects, or in the order of a set."""
    if one == other:
        return True
    one, other = _ADDRESS.sub("", one), _ADDRESS.sub("", other)
    return one == other or (len(one) == len(other) < _LONG and sorted(one) == sorted(other))


_ADDRESS = re.compile(r"\b0x[0-9a-f]+")

_LONG = 10_000  # characters


def _copy(error: BaseException, path: str, data: bytes | None, text: str) -> BaseException:
    if data is None:
        return WorkerFailed(f"{type(error).__name__}: {shortened(text_of(error))}", path=path, traceback=text)
    copy: BaseException = codec.loads(data)
    return copy


def text_of(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as second:
        return f"its text could not be made: {type(second).__name__}"
