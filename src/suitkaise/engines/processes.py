"""The engine for workers in processes, as the hub sees it: handles, and the link to the keeper that forks them.

Death is learnt from a pidfd, the exit status from the keeper. If the keeper is killed no worker is lost: a new one
takes over, starts that were in flight are asked for again, and an exit whose status nobody could read says so.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from typing import Any

from suitkaise.engines.engine import EngineContext, Exit, Launch, settle
from suitkaise.engines.forked_process import ForkedProcess
from suitkaise.engines.keeper_client import KeeperClient
from suitkaise.engines.spares import Spares, SpareSpec, place
from suitkaise.engines.worker_main import DUMP, StartMessage
from suitkaise.errors import WorkerDead
from suitkaise.exits import Crashed, ExitCode, ExitReason, Hung, Killed, Lost, Signaled
from suitkaise.messaging import codec, wire
from suitkaise.messaging.mailbox import URGENT
from suitkaise.messaging.messages import Message, Payload
from suitkaise.platform.board import BELL, PHASE, Phase, SlotView
from suitkaise.platform.preload import preload
from suitkaise.platform.processes import kill_marked
from suitkaise.platform.reactor import TimerHandle
from suitkaise.platform.tail import last_lines
from suitkaise.specs import Child
from suitkaise.specs.recipe import Recipe
from suitkaise.workers.hooks import is_async

__all__ = ["LINGER", "ProcessEngine", "ProcessHandle"]

LINGER = 5.0
"""Seconds that a process may stay after its worker's goodbye (threads that it did not end, exit handlers)."""

DUMP_TIME = 0.05
"""Seconds that a hung process gets to write down its stack."""


class ProcessEngine:
    """A worker is a process forked by our keeper; commands (`for_commands`) have a keeper of their own."""

    def __init__(
        self, site: EngineContext, on_keeper_lost: Callable[[], None] = lambda: None, *, for_commands: bool = False
    ) -> None:
        if not sys.platform.startswith("linux"):
            raise OSError(f"suitkaise needs Linux (pidfd, eventfd, /dev/shm); this is {sys.platform}")
        self._site = site
        self._recipes: dict[str, tuple[Child, bytes, list[socket.socket]]] = {}
        self._on_keeper_lost = on_keeper_lost
        self._for_commands = for_commands
        self._lock = threading.Lock()
        self._link: KeeperClient | None = None
        self._spares = Spares(site, lambda: self.link)
        if not for_commands:  # else few programs need it
            self.link  # noqa: B018

    @property
    def link(self) -> KeeperClient:
        """The way to the keeper, which is started where it is not there yet."""
        with self._lock:
            if self._link is None:
                self._link = KeeperClient(self._site, self._keeper_lost, for_commands=self._for_commands)
            return self._link

    def _keeper_lost(self) -> None:
        self._on_keeper_lost()
        self._spares.renew()

    def prepare(self, path: str, child: Child) -> None:
        """Encode the recipe of a child, so that what cannot be sent is told before anything starts.

        Raises:
            NotSerializable: names the path to the culprit.
        """
        self._recipe(path, child)
        if isinstance(child.what, Recipe) and is_async(child.what):
            preload("suitkaise.workers.async_lifecycle")
        self.link  # noqa: B018  (it starts while others are prepared)

    def _recipe(self, path: str, child: Child) -> tuple[bytes, list[socket.socket]]:
        kept = self._recipes.get(path)
        if kept is None or kept[0] is not child:
            self._spares.drop(path)
            data, sockets = codec.dumps_with_sockets(child.what, root=f"{path}: worker")
            wire.check_length(f"{path}: worker", len(data))
            kept = self._recipes[path] = (child, data, sockets)
        return kept[1], kept[2]

    def forget(self, path: str) -> None:
        """No child at `path` will be started again."""
        self._spares.drop(path)
        self._recipes.pop(path, None)

    def spawn(self, launch: Launch) -> ProcessHandle:
        """Move into a process that stands by for this child, or ask the keeper for one; the recipe goes with it."""
        data, sockets = self._recipe(launch.path, launch.child)
        handle = ProcessHandle(self._site, launch, data, sockets, self.link)
        if not self._spares.assign(launch.path, handle):
            handle.process.start()
        if launch.child.spares:
            wanted = SpareSpec(launch.path, launch.child.spares, launch.grace, data, sockets)
            handle.ready.add_done_callback(lambda ready: self._spares.fill(wanted))
        return handle

    def abandoned(self) -> list[str]:
        """Processes can be killed, so none is left."""
        return []

    def close(self) -> None:
        """End the keeper, and what stands by."""
        self._spares.close()
        if self._link is not None:
            self._link.close()
        self._recipes.clear()

    def abandon(self) -> None:
        """The I/O thread is gone: all processes end, and count as ended."""
        if self._link is not None:
            self._link.abandon()

    def drop(self) -> None:
        """In a forked child of the hub: close the descriptors, which are the parent's."""
        if self._link is not None:
            self._link.drop()


class ProcessHandle:
    """One incarnation in a process. The reactor's thread takes in what it says; any thread may send."""

    def __init__(
        self, site: EngineContext, launch: Launch, recipe: bytes, sockets: list[socket.socket], link: KeeperClient
    ) -> None:
        self.exited: Future[Exit] = Future()
        self.ready: Future[int] = Future()
        self.launch = launch
        self.checkpoint: Payload | None = None
        self._site = site
        self._recipe = recipe
        self._sockets = sockets
        self._steadfast = bool(getattr(launch.recipe.target, "_steadfast", False))
        self._slot = site.board.take(launch.path)
        self._tail = site.file(f"tail-{launch.serial}")
        self._bell = self._slot.bytes[BELL : BELL + 1]
        self._ringing = 1
        self._lock = threading.RLock()  # a signal handler may send a message, too
        self._numbers = itertools.count(1)
        self._asked: dict[int, Message] = {}
        self._goodbye: tuple[ExitReason, Payload | None, bool] | None = None
        self._lingering: TimerHandle | None = None
        self._why: ExitReason | None = None
        self._code: int | None = None
        self._over = False
        self.process: ForkedProcess = ForkedProcess(site, link, launch.path, launch.grace, self._steadfast, self)

    # ------------------------------------------------------------ from any thread
    def deliver(self, message: Message, *, accepted: bool = False) -> None:
        """Encode the message and send it on its way; see `Receiver.deliver`."""
        payload = message.body.data
        with self._lock:
            if self._over or self.process.dead or self._why is not None or self._goodbye is not None:
                raise WorkerDead.just_ended(self.launch.path)
            number = None
            if message.reply is not None:
                number = next(self._numbers)
                self._asked[number] = message
            try:
                self._send(("message", message.kind, number), payload, force=accepted)
            except BaseException:
                if number is not None:
                    del self._asked[number]
                raise

    def stop(self) -> None:
        """Ask the worker to finish."""
        with self._lock:
            if not self._over:
                self._ringing = URGENT
                self._send(("stop",), force=True)

    def suspend(self, on: bool) -> None:
        """Let it rest after its current loop, or go on."""
        with self._lock:
            if not self._over:
                self._ringing = URGENT if on else 1
                self._send(("suspend", on), force=True)

    def kill(self, why: str) -> None:
        """SIGKILL, now or as soon as there is a process."""
        with self._lock:
            if self._over or self.process.dead:
                return
            self._why = self._why or Killed(why)
            self.process.signal(signal.SIGKILL)

    def snapshot(self) -> SlotView | None:
        """What it does at this moment; None once it is gone."""
        with self._lock:
            return None if self._over or self.process.dead else self._slot.read()

    def kill_hung(self, hung: Hung) -> None:
        """Have it write down its stack, where it still can, and kill it. Who has said goodbye is in no phase."""
        with self._lock:
            if self._over or self.process.dead or self._why is not None or self._goodbye is not None:
                return
            self._why = hung
            self.process.signal(DUMP)
        self._site.reactor.call_at(time.monotonic() + DUMP_TIME, lambda: self._kill_hung(hung))

    def _kill_hung(self, hung: Hung) -> None:
        with self._lock:
            with (
                contextlib.suppress(OSError),
                open(self._site.file(f"stack-{self.process.pid}"), errors="replace") as file,
            ):
                self._why = replace(hung, stack=file.read())
            self.process.signal(signal.SIGKILL)

    def _send(self, header: tuple[Any, ...], payload: bytes = b"", *, force: bool = False) -> None:
        self.process.send(wire.encode(header, payload, long_header=True), force=force)
        self._bell[0] = self._ringing

    def adopt(self, process: ForkedProcess) -> bool:
        """Live in a process that stands by, where the recipe is already; False if it is no longer there."""
        if not process.hand_over(self):
            return False
        with self._lock:
            if not self._over:  # it may end as we speak
                self.process = process
                self._slot.words[PHASE] = Phase.BOOT.mark + time.monotonic_ns()
                self._send(("recipe", codec.dumps(self._arrival())), force=True)
        return True

    # ------------------------------------------------------------ its process (reactor's thread)
    def first_frame(self) -> tuple[bytes, list[socket.socket]]:
        """The recipe."""
        return wire.encode(("recipe", codec.dumps(self._arrival())), self._recipe, long_header=True), self._sockets

    def on_flushed(self) -> None:
        """What waited was sent."""
        self._bell[0] = self._ringing

    def on_started(self) -> None:
        """It is there."""
        with self._lock:
            if self._why is not None:
                self.process.signal(signal.SIGKILL)

    def _arrival(self) -> StartMessage:
        launch = self.launch
        return StartMessage(
            launch.birth, place(launch.birth.owner), self._slot.index, launch.grace,
            logging.getLogger().getEffectiveLevel(), self._steadfast, launch.limited,
        )  # fmt: skip

    def on_spawn_failed(self, error: str) -> None:
        """There is no process."""
        self._finish(Exit(Crashed("start", OSError(f"no process could be started: {error}"))))

    def on_frame(self, frame: wire.Frame) -> None:
        """What the worker says."""
        header, payload = frame
        match header:
            case ("ready", int(pid)):
                if not self.ready.done():
                    self.ready.set_result(pid)
            case ("reply", int(number), bool(ok)):
                message = self._asked.pop(number, None)
                if message is not None and message.reply is not None:
                    message.reply(ok, Payload(data=payload))
            case ("bye", bytes(reason), bool(ignored), bool(has_result)):
                said = (codec.loads(reason), Payload(data=payload) if has_result else None, ignored)
                with self._lock:  # what is sent from now on is for the next incarnation
                    self._goodbye = said
                linger = self.launch.grace if self.launch.grace < float("inf") else LINGER
                self._lingering = self._site.reactor.call_at(
                    time.monotonic() + max(linger, 1.0), lambda: self.kill("it did not leave")
                )
            case ("checkpoint",):
                self.checkpoint = Payload(data=payload)
            case ("preload", list(names)):
                preload(*names)
            case ("log", dict(fields)):
                self._site.logs.put(fields, self.process)

    def on_exit(self, code: int | None) -> None:
        """The process is gone. Without a keeper, nobody has buried what a command's guard has left behind."""
        self._code = code
        if code is not None or self.launch.child.kind != "command":
            self._end()
            return
        mark = f"{self._site.directory}:{self.launch.birth.owner}"

        def bury() -> None:
            kill_marked(mark)
            self._site.reactor.call_soon_threadsafe(self._end)

        threading.Thread(target=bury, name="suitkaise-burial", daemon=True).start()

    def _end(self) -> None:
        result, ignored = None, False
        if self._goodbye is not None:
            _, result, ignored = self._goodbye
        reason = self._reason()
        self._finish(Exit(reason, result if reason.clean else None, ignored and reason.clean))

    def _reason(self) -> ExitReason:
        code = self._code
        if self._goodbye is not None:
            said = self._goodbye[0]
            if not said.clean or code in (0, None) or self._why is not None:
                return said
        elif self._why is not None and code in (-signal.SIGKILL, -DUMP, None):
            return self._why
        if code is None:
            return Lost("its exit status: the keeper was killed")
        return Signaled(-code) if code < 0 else ExitCode(code)

    def _finish(self, exit: Exit) -> None:
        with self._lock:
            if self._over:
                return
            self._over = True
            asked, self._asked = list(self._asked.values()), {}
        if self._lingering is not None:
            self._lingering.cancel()
        if not exit.reason.clean:
            exit = replace(exit, view=self._slot.read(), lines=last_lines(self._tail))
        with contextlib.suppress(OSError):
            os.unlink(self._tail)
        if self.launch.limited:
            with contextlib.suppress(OSError):
                os.unlink(self._site.file(f"stack-{self.process.pid}"))
        self._bell.release()
        self._slot.release()
        self._site.board.give_back(self._slot)
        for message in asked:
            message.fail(WorkerDead.unanswered(self.launch.path, exit.reason))
        settle(self.exited, exit)
