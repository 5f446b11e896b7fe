"""The runtime: what a program that owns trees has exactly one of.

A private directory with the hub's socket, the status board and the storage; the I/O thread; the registry; the
engines; the event bus. It begins with the first tree (or the first use of the storage) and is gone with the last.
"""

from __future__ import annotations

import atexit
import contextlib
import itertools
import logging
import os
import queue
import socket
import threading
import time
from typing import TYPE_CHECKING, Any

from suitkaise import events
from suitkaise.crashes import CrashLog
from suitkaise.engines.engine import Engine, EngineContext
from suitkaise.engines.processes import ProcessEngine
from suitkaise.engines.threads import ThreadEngine
from suitkaise.errors import SuitkaiseError
from suitkaise.messaging.event_bus import Bus
from suitkaise.messaging.logs import log_event
from suitkaise.messaging.messages import Answer
from suitkaise.messaging.registry import Registry
from suitkaise.messaging.router import set_router
from suitkaise.platform.board import Board
from suitkaise.platform.preload import preload
from suitkaise.platform.reactor import Reactor
from suitkaise.platform.runtime_directory import _make_directory, _remove_directory, sweep
from suitkaise.runtime.hub_server import HubServer
from suitkaise.specs import SupervisorSpec
from suitkaise.storage.connect import detach
from suitkaise.supervision.actor import start_actor
from suitkaise.supervision.environment import Environment, prepare
from suitkaise.supervision.executor import Executor, begin

if TYPE_CHECKING:
    from suitkaise.storage.tree import Tree

__all__ = ["Runtime", "current", "enter", "leave"]

logger: logging.Logger = logging.getLogger("suitkaise")


class Runtime:
    """Use `enter` and `leave`; there is one at a time."""

    def __init__(self) -> None:
        sweep()
        with contextlib.ExitStack() as made:  # what a step that fails leaves to be undone; and what `close` does
            self.directory: str
            self.directory, self._lock = _make_directory()
            made.callback(_remove_directory, self.directory, self._lock)
            self.crashes: CrashLog = CrashLog()
            made.callback(self.crashes.close)
            board = Board(os.path.join(self.directory, "board"), create=True)
            made.callback(board.close)
            self.reactor: Reactor = Reactor()
            made.callback(self.reactor.close)
            self.registry: Registry = Registry()
            self.bus: Bus = Bus()
            self.bus.subscribe(log_event)
            self.site: EngineContext = EngineContext(self.directory, board, self.reactor)
            self._desk = HubServer(self.site.file("hub.sock"), self.reactor, self.registry)
            made.callback(self._desk.close)
            made.callback(self.site.logs.close)
            made.callback(self.reactor.close)  # before the desk's sockets; the one above is for a desk that fails
            self.processes: ProcessEngine = ProcessEngine(self.site, self._on_keeper_lost)
            made.callback(self.processes.close)
            self.commands: ProcessEngine = ProcessEngine(self.site, self._on_keeper_lost, for_commands=True)
            made.callback(self.commands.close)
            threads = ThreadEngine(self.site)
            made.callback(threads.close)
            self.engines: dict[str, Engine] = {"process": self.processes, "thread": threads, "command": self.commands}
            self.env: Environment = Environment(
                self.registry,
                self.engines,
                time.monotonic,
                self.reactor.call_at,
                self.bus.publish,
                self.crashes.add,
                self._on_gone,
                itertools.count(time.time_ns() // 1_000_000),
                start_actor,
            )
            self._storage: Executor | None = None
            self._storage_lock = threading.Lock()
            self._listener: socket.socket | None = None
            self._gone: queue.SimpleQueue[str | threading.Event | None] = queue.SimpleQueue()
            self.registry.services["storage"] = self._serve_storage
            self.reactor.on_end = self._on_io_end
            set_router(self.registry)
            self._made = made.pop_all()

    # ------------------------------------------------------------ the storage
    def storage_directory(self, durable: str | None = None) -> str:
        """Where the storage is; it is started at the first call."""
        from suitkaise.runtime.storage_service import declare

        with self._storage_lock:
            if self._storage is None:
                preload(
                    "suitkaise.runtime.storage_service", "suitkaise.storage.tree"
                )  # the actor and its clients need them
                directory = self.directory if durable is None else durable
                with contextlib.ExitStack() as made:
                    tree, self._listener = declare(directory, durable=durable is not None)
                    made.callback(self._listener.close)
                    prepare(self.engines, tree.name, tree)
                    storage = Executor(tree, tree.name, self.env)
                    made.callback(_stop, storage)
                    begin(storage)
                    made.callback(detach, directory)
                    janitor = threading.Thread(
                        target=self._clean_up, args=(directory,), name="suitkaise-janitor", daemon=True
                    )
                    janitor.start()
                    made.callback(janitor.join)
                    made.callback(self._gone.put, None)
                    self._made.push(made.pop_all())
                self._storage_home = directory
                self._storage = storage
            elif durable is not None and os.path.abspath(durable) != os.path.abspath(self._storage_home):
                raise SuitkaiseError(f"the storage of this program is at {self._storage_home!r} already; it has one")
            return self._storage_home

    def _serve_storage(self, path: str, argument: Any) -> Answer[str]:
        """Say where the storage is; where it has to be started first, a thread waits for that."""
        answer: Answer[str] = Answer()

        def look() -> None:
            try:
                answer.set_result(self.storage_directory())
            except Exception as error:
                answer.set_exception(error)

        if self._storage is not None:
            look()
        else:
            threading.Thread(target=look, name="suitkaise-storage-start", daemon=True).start()
        return answer

    def _on_gone(self, owner: str) -> None:
        if self._storage is not None:
            self._gone.put(owner)

    def _clean_up(self, home: str) -> None:
        """Remove what dead owners have left in the storage, away from the supervisors' threads."""
        from suitkaise.storage.tree import Tree

        tree: Tree = Tree(home)
        while (owner := self._gone.get()) is not None:
            if isinstance(owner, threading.Event):
                owner.set()
                continue
            try:
                tree.forget_owner(owner)
            except Exception as error:  # the next one gets its chance
                logger.warning("what %s has left in the storage is not removed: %s", owner, error)
        try:
            tree.close()
        except Exception as error:
            logger.warning("at the end of the storage: %s", error)

    def await_clean_up(self) -> None:
        """Wait until what the workers that have ended so far left in the storage is gone."""
        if self._storage is not None:
            done = threading.Event()
            self._gone.put(done)
            done.wait()

    def _on_keeper_lost(self) -> None:
        self.bus.publish(events.KeeperLost("keeper", time.monotonic()))

    def _on_io_end(self, error: BaseException) -> None:
        """Without the I/O thread nobody would hear of anything any more: all that runs ends, and says why."""
        for executor in (*list(_trees.values()), *([self._storage] if self._storage is not None else [])):
            executor.kill(f"the I/O thread has ended: {error!r}")
        self.processes.kill_all()
        self.commands.kill_all()

    # ------------------------------------------------------------ its trees
    def add(self, tree: SupervisorSpec) -> Executor:
        """Make the executor of a tree; nothing is started yet.

        Raises:
            NotSerializable: a worker or argument cannot be sent.
            SuitkaiseError: a tree of that name runs.
        """
        _refuse_taken(tree.name)  # before anything is prepared in the place of what runs there
        prepare(self.engines, tree.name, tree)
        with _guard:
            _refuse_taken(tree.name)
            executor = _trees[tree.name] = Executor(tree, tree.name, self.env)
        return executor

    def abandoned(self) -> list[str]:
        """The paths of threads that were abandoned and still run (rule 59)."""
        return [path for engine in self.engines.values() for path in engine.abandoned()]

    # ------------------------------------------------------------ the end
    def close(self) -> None:
        """Everything goes: the storage, the keeper, the I/O thread, the directory. What fails holds up nothing else."""
        with self._made:
            self.registry.close()

    def close_after_fork(self) -> None:
        """In a forked child: everything here is the parent's; only the descriptors are closed."""
        self.processes.close_after_fork()
        self.commands.close_after_fork()
        self._desk.close_after_fork()
        self.reactor.close_after_fork()
        if self._listener is not None:
            self._listener.close()
        os.close(self._lock)


STORAGE_NAME = "sktree"

_guard = threading.RLock()
_runtime: Runtime | None = None
_users = 0
_trees: dict[str, Executor] = {}


def _refuse_taken(name: str) -> None:
    if name in _trees or name == STORAGE_NAME:
        raise SuitkaiseError(f"a tree named {name!r} runs already in this program; stop it first, or rename this one")


def current() -> Runtime | None:
    """The runtime of this program, if there is one."""
    return _runtime


def enter() -> Runtime:
    """Use the runtime; begin it if this is the first use. Each `enter` needs its `leave`."""
    global _runtime, _users
    from suitkaise.messaging.identity import current_owner
    from suitkaise.messaging.router import in_worker_process

    with _guard:
        if in_worker_process():
            raise SuitkaiseError(
                f"a supervision tree cannot be started inside a worker process ({current_owner()!r}); if this "
                "happened while "
                "a module was imported, move the start() or run() under `if __name__ == '__main__':`"
            )
        if _runtime is None:
            _runtime = Runtime()
        _users += 1
        return _runtime


def leave(name: str | None = None) -> None:
    """Use it no more; the last one to leave ends it."""
    global _runtime, _users
    if _runtime is not None:
        _runtime.site.logs.flush()  # the last lines of those that have ended
    with _guard:
        if name is not None:
            _trees.pop(name, None)
        _users -= 1
        if _users or _runtime is None:
            return
        runtime, _runtime = _runtime, None
        runtime.close()


def running_trees() -> dict[str, Executor]:
    """The trees that run in this program, by name."""
    with _guard:
        return dict(_trees)


def _stop(executor: Executor) -> None:
    executor.stop()
    executor.exited.result()


def _after_fork() -> None:
    global _runtime, _users, _guard
    runtime, _runtime, _users = _runtime, None, 0
    _guard = threading.RLock()
    _trees.clear()
    if runtime is not None:
        set_router(None)
        runtime.close_after_fork()


os.register_at_fork(after_in_child=_after_fork)


@atexit.register
def _at_exit() -> None:
    """The main program ends without having stopped its trees: stop them gracefully."""
    with _guard:  # a tree whose owner waits for it no more may be cleared away this moment
        if _runtime is None:
            return
    trees = list(running_trees().values())
    for executor in trees:
        executor.stop()
    for executor in trees:
        executor.exited.result()
    global _users
    with _guard:
        _users = min(_users, 1)
    leave()
