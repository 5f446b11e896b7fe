"""The main program of a worker process: what runs between the keeper's fork and the process's end."""

from __future__ import annotations

import _thread
import atexit
import contextlib
import faulthandler
import gc
import logging
import os
import select
import signal
import socket
import sys
import threading
import time
from dataclasses import dataclass
from typing import Any, NoReturn

import suitkaise.messaging.logs
from suitkaise.exits import Crashed, Shutdown, Signaled
from suitkaise.messaging import codec, wire
from suitkaise.messaging.connection import FrameWriter
from suitkaise.messaging.identity import set_owner
from suitkaise.messaging.mailbox import SocketMailbox
from suitkaise.messaging.messages import Message, Payload, portable_error
from suitkaise.messaging.router import HubClient, set_router
from suitkaise.platform import preload as preloading
from suitkaise.platform.board import PHASE, SLOT_BYTES, Board, Phase, Slot
from suitkaise.platform.processes import after_fork_in_child, kill_children, set_process_name
from suitkaise.platform.runtime_directory import STRAGGLERS, remove_when_unused
from suitkaise.platform.tail import Tail
from suitkaise.specs.recipe import Recipe
from suitkaise.workers.actor import WorkerActor, lifecycle_of
from suitkaise.workers.incarnation import Incarnation, Outcome
from suitkaise.workers.lifecycle import Lifecycle
from suitkaise.workers.worker import Process

__all__ = ["ProcessContext", "StartMessage", "run_standby", "run_worker"]

_FIRST = 1 << 16

DUMP: int = signal.SIGRTMIN + 7
"""The signal that makes a worker's process write the stacks of its threads to a file, whatever it does; SIGUSR1 has it
write them to its standard error."""


@dataclass(frozen=True, slots=True)
class ProcessContext:
    """Whose a new process is, and what the program's world looks like."""

    owner: str
    directory: str
    path: list[str]
    argv: list[str]


@dataclass(frozen=True, slots=True)
class StartMessage:
    """What a new process is told before its recipe: whose life begins, and where."""

    birth: Incarnation
    place: ProcessContext
    slot: int
    grace: float
    log_level: int
    steadfast: bool
    limited: bool = False


def run_standby(keeper: socket.socket, directory: str, lock: int, orphan_timeout: float) -> NoReturn:
    """Wait for a control connection from the keeper, and be a worker then. Ends when the keeper is gone."""
    descriptors: list[int] = []
    try:
        gc.enable()
        set_process_name("reserve")
        _warm_up()
        with keeper:
            _, descriptors, _, _ = socket.recv_fds(keeper, 1, 1)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    if not descriptors:
        os._exit(0)
    run_worker(descriptors[0], directory, lock, orphan_timeout)


def run_worker(control: int, directory: str, lock: int, orphan_timeout: float) -> NoReturn:
    """Be a worker process until its end. Never returns: the process leaves from here."""
    code = 70
    try:
        gc.enable()
        _held.append((directory, lock, control))
        code = WorkerProcess(socket.socket(fileno=control), directory, orphan_timeout).run_worker()
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        _leave(code)


class _Nothing(Process):
    """A worker for the rehearsal."""

    def loop(self) -> None:
        self.rejoin()


def _warm_up() -> None:
    """Live a whole life of nothing.

    A forked process copies each page of memory when it first writes to it. Most of those that a worker's start
    will write to are copied here, while nobody waits.
    """
    ours, theirs = socket.socketpair()
    with ours, theirs:
        birth = Incarnation("", 0)
        arrival = StartMessage(birth, ProcessContext("", os.sep, [], []), 0, 0.0, logging.CRITICAL, steadfast=False)
        ours.sendall(wire.encode(("recipe", codec.dumps(arrival)), codec.dumps(Recipe(_Nothing))))
        tenant = WorkerProcess(theirs, "", 0.0)
        if tenant._announce() and (received := tenant._receive_first()) is not None:
            slot = Slot(memoryview(bytearray(SLOT_BYTES)))
            mailbox = SocketMailbox(slot, theirs, tenant._take)
            codec.loads(received[0][1])
            recipe = codec.loads_with_sockets(received[1], [])
            _ProcessActor(Lifecycle(recipe, birth, mailbox, slot), mailbox, tenant).run_here()
            mailbox.close()


class WorkerProcess:
    """One worker in its process: the control connection, the mailbox, the life."""

    def __init__(self, sock: socket.socket, directory: str, orphan_timeout: float) -> None:
        self._sock = sock
        self._directory = directory
        self._orphan_timeout = orphan_timeout
        self._outlet = FrameWriter(sock)
        self._mailbox: SocketMailbox | None = None
        self._dumps: dict[int, int] = {}

    def run_worker(self) -> int:
        """The whole life; returns the exit code."""
        if not self._announce():
            return 0
        first = self._receive_first()
        if first is None:
            return 0
        header, recipe_data, sockets = first
        recipe: Recipe | None = None
        if header[0] == "stand by":
            recipe = self._unpack_in_advance(codec.loads(header[1]), recipe_data, sockets)
            self.send(("standing by",))
            call = self._receive()
            if call is None:
                return 0
            header, _ = call
        arrival: StartMessage = codec.loads(header[1])
        self._set_up_process(arrival)
        slot = Board(os.path.join(self._directory, "board")).slot(arrival.slot)
        slot.words[PHASE] = Phase.BOOT.mark + time.monotonic_ns()
        self._mailbox = mailbox = SocketMailbox(slot, self._sock, self._take)
        self._install_signals(arrival)
        _thread.start_new_thread(self._lifeline, (arrival,))  # `threading` would wait until it runs
        try:
            if recipe is None:
                recipe = codec.loads_with_sockets(recipe_data, sockets)
        except BaseException as error:
            portable, text = portable_error(error, arrival.birth.path)
            self.report_exit(Outcome(Crashed("on_start", portable, text)))
            return 0
        life = lifecycle_of(recipe, arrival.birth, mailbox, slot)
        life.context.append_output = self._tail.write
        if life.has_tasks:
            self._dump_tasks_too(life)
        _ProcessActor(life, mailbox, self).run_here()
        return 0

    # ------------------------------------------------------------ arriving
    def _announce(self) -> bool:
        """Tell the hub that this process is there; False if it no longer wants it.

        With this one system call the incarnation is there or is not, whatever happens to the keeper.
        """
        pid = os.getpid()
        pidfd = os.pidfd_open(pid)
        try:
            socket.send_fds(self._sock, [wire.encode(("born", pid))], [pidfd], socket.MSG_NOSIGNAL)
        except OSError:
            return False
        finally:
            os.close(pidfd)
        return True

    def _receive_first(self) -> tuple[wire.Header, bytes, list[socket.socket]] | None:
        """The first frame, with the sockets that are among the arguments; None if the hub is gone already."""
        self._parser = wire.Parser(max_header=wire.MAX_PAYLOAD)
        data, descriptors, _, _ = socket.recv_fds(self._sock, _FIRST, 250)
        sockets = [socket.socket(fileno=descriptor) for descriptor in descriptors]
        self._early = self._parser.feed(data) if data else []
        frame = self._receive()
        return None if frame is None else (*frame, sockets)

    def _receive(self) -> wire.Frame | None:
        """The next frame; None if the hub is gone."""
        while not self._early:
            try:
                self._early = self._parser.receive(self._sock)
            except (wire.PeerClosed, OSError):
                return None
        return self._early.pop(0)

    def _unpack_in_advance(self, place: ProcessContext, data: bytes, sockets: list[socket.socket]) -> Recipe:
        """Stand by as a spare: do what any incarnation of the child would have to do first."""
        for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
            signal.signal(number, _ignore)
        self._go_to(place)
        _warm_up()
        set_process_name("spare")
        return codec.loads_with_sockets(data, sockets)  # type: ignore[no-any-return]

    def _go_to(self, place: ProcessContext) -> None:
        with contextlib.suppress(OSError):  # the hub's directory may be gone
            os.chdir(place.directory)
        sys.path[:] = place.path
        sys.argv[:] = place.argv
        set_owner(place.owner, whole_process=True)
        set_router(HubClient(os.path.join(self._directory, "hub.sock")))
        if self._tell_preloaded not in preloading.listeners:
            preloading.listeners.append(self._tell_preloaded)

    def _tell_preloaded(self) -> None:
        self.send(("preload", preloading.wanted()))

    def _set_up_process(self, arrival: StartMessage) -> None:
        self._go_to(arrival.place)
        set_process_name(arrival.birth.path.rpartition("/")[2])
        self._tail = Tail(os.path.join(self._directory, f"tail-{arrival.birth.serial}"))
        self._tail.listen()
        root = logging.getLogger()
        root.setLevel(arrival.log_level)
        root.addHandler(suitkaise.messaging.logs.ForwardingHandler(self._send_log))

    def _install_signals(self, arrival: StartMessage) -> None:
        def finish(number: int, frame: Any) -> None:
            assert self._mailbox is not None
            self._mailbox.order_stop(Signaled(number))

        # No-op handlers, and not SIG_IGN, which would be inherited by every program that the worker starts.
        for number in (signal.SIGINT, signal.SIGHUP):
            signal.signal(number, _ignore)
        signal.signal(signal.SIGTERM, _ignore if arrival.steadfast else finish)
        if arrival.limited:
            stack = os.path.join(self._directory, f"stack-{os.getpid()}")
            with contextlib.suppress(OSError):  # the hub's directory may be gone
                descriptor = os.open(stack, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
                self._dumps[DUMP] = descriptor
        self._dumps[signal.SIGUSR1] = 2
        for dump, output in self._dumps.items():
            signal.signal(dump, _ignore)  # what there is without faulthandler, so that it never ends the process
            with contextlib.suppress(OSError, ValueError):
                faulthandler.register(dump, output, all_threads=True)
        after_fork_in_child(self._let_go, signals=lambda: {signal.SIGINT, signal.SIGHUP, signal.SIGTERM})
        assert self._mailbox is not None
        self._mailbox.adopt(self._parser, self._early)

    def _dump_tasks_too(self, life: Lifecycle) -> None:
        """The stacks of threads do not tell what a coroutine awaits."""

        def tell(number: int, frame: Any) -> None:
            with contextlib.suppress(Exception):  # it would be raised in the worker's hook
                os.write(self._dumps[number], life.stacks().encode())

        for number, descriptor in self._dumps.items():
            with contextlib.suppress(OSError, ValueError):
                faulthandler.unregister(number)
                signal.signal(number, tell)
                faulthandler.register(number, descriptor, all_threads=True, chain=True)

    def _let_go(self) -> None:
        """In a process that the worker forks (`os.fork`, multiprocessing): it is not the worker, and obeys signals."""
        for number in (signal.SIGHUP, signal.SIGTERM):  # or `multiprocessing` could not terminate its processes
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        root = logging.getLogger()
        for handler in root.handlers[:]:
            if isinstance(handler, suitkaise.messaging.logs.ForwardingHandler):
                root.removeHandler(handler)
        self._outlet = FrameWriter(self._sock)  # in the middle of whatever that of the worker was
        self._tail.let_go()
        self._sock.close()
        for _, lock, _ in _held:
            os.close(lock)
        _held.clear()

    # ------------------------------------------------------------ talking to the hub
    def _take(self, frame: wire.Frame) -> None:
        header, payload = frame
        assert self._mailbox is not None
        match header:
            case ("stop",):
                self._mailbox.order_stop(Shutdown())
            case ("suspend", bool(on)):
                self._mailbox.suspend(on)
            case ("message", kind, number):
                reply = None if number is None else _Reply(self, number)
                self._mailbox.put(Message(kind, Payload(data=payload), reply))

    def send(self, header: tuple[Any, ...], payload: bytes = b"") -> None:
        """One frame to the hub; silence if it is gone."""
        with contextlib.suppress(OSError):
            self._outlet.write(header, payload, long_header=True)

    def _send_log(self, fields: dict[str, Any]) -> None:
        if "stream" not in fields:  # a command's output is there already
            self._tail.write(f"{fields['levelname'].lower()}: {fields['msg']}\n")
        self.send(("log", fields))

    def report_exit(self, outcome: Outcome) -> None:
        """The last frame: how it ended, and the result."""
        reason, result = outcome.reason, b""
        if outcome.result is not None:
            try:
                result = outcome.result.data
            except BaseException as error:
                portable, text = portable_error(error, "result")
                reason = Crashed("result", portable, text)
        self.send(("bye", codec.dumps(reason), outcome.ignored, outcome.result is not None), result)

    def _lifeline(self, arrival: StartMessage) -> None:
        """Wait for the hub's end only: then ask the worker to finish, and end the process after its grace."""
        poll = select.poll()
        poll.register(self._sock, select.POLLRDHUP)
        poll.poll()
        assert self._mailbox is not None
        if arrival.steadfast:  # it goes by itself when the others are gone; the keeper sees to that, too
            self._mailbox.ring()
            time.sleep(self._orphan_timeout + 1.0)
        else:
            self._mailbox.order_stop(Shutdown("the program that owned it is gone"))
            time.sleep(min(arrival.grace, self._orphan_timeout))
        _leave(70, wait=False)


def _ignore(number: int, frame: Any) -> None: ...


class _Reply:
    """Sends an answer back through the hub."""

    __slots__ = ("_number", "_tenant")

    def __init__(self, tenant: WorkerProcess, number: int) -> None:
        self._tenant = tenant
        self._number = number

    def __call__(self, ok: bool, parcel: Payload) -> None:
        self._tenant.send(("reply", self._number, ok), parcel.data)


class _ProcessActor(WorkerActor):
    def __init__(self, life: Lifecycle, mailbox: SocketMailbox, tenant: WorkerProcess) -> None:
        super().__init__(life, mailbox)
        self._tenant = tenant

    def on_ready(self) -> None:
        self._tenant.send(("ready", self.lifecycle.context.pid))

    def on_checkpoint(self, parcel: Payload) -> None:
        self._tenant.send(("checkpoint",), parcel.data)

    def on_over(self, outcome: Outcome) -> None:
        self._tenant.report_exit(outcome)


def _leave(code: int, *, wait: bool = True) -> NoReturn:
    """End the process: join what must be joined, run exit handlers, flush; no interpreter teardown."""
    try:
        kill_children()
        if wait:
            threading._shutdown()  # type: ignore[attr-defined]
            atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):
                stream.flush()
        _leave_directory()
    finally:
        os._exit(code)


_held: list[tuple[str, int, int]] = []


def _leave_directory() -> None:
    """Remove the program's directory if hub, keeper and all other workers are gone."""
    for directory, lock, control in _held:
        os.close(lock)
        poll = select.poll()
        poll.register(control, select.POLLRDHUP)
        if poll.poll(0):
            remove_when_unused(directory, STRAGGLERS)
