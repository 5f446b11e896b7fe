"""The runtime: everything that the trees of a program share. A program has one runtime at a time.

A private directory with the hub's socket, the status board and the storage; the I/O thread; the registry; the
engines; the event bus. It begins with the first tree (or the first use of the storage) and ends with the last.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from suitkaise.crashes import LATER, CrashLog
from suitkaise.engines.engine import Engine, EngineContext
from suitkaise.engines.inspection import Inspection
from suitkaise.engines.processes import ProcessEngine
from suitkaise.engines.shared_tracker import serve_tracker
from suitkaise.engines.threads import DebugEngine, ThreadEngine
from suitkaise.errors import SuitkaiseError
from suitkaise.events import Event, KeeperLost
from suitkaise.messaging.answer import Answer
from suitkaise.messaging.event_bus import Bus
from suitkaise.messaging.held_back import send_held
from suitkaise.messaging.identity import current_path
from suitkaise.messaging.log_rings import EVENT, LogRings, Run
from suitkaise.messaging.logs import log_event
from suitkaise.messaging.protocol import RequestKind
from suitkaise.messaging.registry import Registry
from suitkaise.messaging.router import in_worker_process, set_router
from suitkaise.platform.board import Board
from suitkaise.platform.descriptors import DescriptorReserve
from suitkaise.platform.exit_functions import at_exit, expect_exit
from suitkaise.platform.hidden_modules import refuse_hidden_modules, refuse_patched_modules
from suitkaise.platform.locks import RLock
from suitkaise.platform.log_levels import levels, watch_levels
from suitkaise.platform.log_queue import LogQueue, QueuedLogger
from suitkaise.platform.processes import after_fork_in_child
from suitkaise.platform.reactor import Reactor
from suitkaise.platform.runtime_directory import BOARD, HUB_SOCKET, RuntimeDirectory, sweep
from suitkaise.platform.threads import keep_reserve
from suitkaise.runtime import choices
from suitkaise.runtime.clusters import Clusters
from suitkaise.runtime.event_history import EventHistory
from suitkaise.runtime.hub_server import HubServer
from suitkaise.runtime.log_files import LogFiles
from suitkaise.runtime.log_requests import LogRequests
from suitkaise.runtime.overview import overview
from suitkaise.runtime.requests import Requests
from suitkaise.runtime.storage_service import STORAGE_NAME, StorageService
from suitkaise.runtime.threads import profile, stacks
from suitkaise.runtime.traces import Traces
from suitkaise.specs import SupervisorSpec
from suitkaise.specs.cluster import Ray
from suitkaise.supervision.actor import start_actor
from suitkaise.supervision.background import BackgroundSupervisor
from suitkaise.supervision.environment import Environment, prepare
from suitkaise.supervision.executor import Executor
from suitkaise.supervision.interface import SupervisorInterface

__all__ = ["Runtime", "current", "enter", "leave", "listen", "running_trees"]

logger: QueuedLogger = QueuedLogger("suitkaise")


class Runtime:
    """The runtime of this program; `enter` and `leave` make and end it, so that there is one at a time."""

    def __init__(self) -> None:
        with contextlib.ExitStack() as made:  # undone if a later step fails, else by `close`
            refuse_hidden_modules()
            refuse_patched_modules()
            made.callback(keep_reserve())
            self._home_lock = RLock()
            log_queue = LogQueue()
            made.callback(log_queue.close)
            log_queue.open()
            sweep()
            self._home: RuntimeDirectory = RuntimeDirectory()
            made.callback(self._home.remove)
            self.directory: str = self._home.path
            board = Board.create(os.path.join(self.directory, BOARD))
            made.callback(board.close)
            self.reactor: Reactor = Reactor()
            self.crashes: CrashLog = CrashLog(warn=logger.warning, call_later=self._after_a_restart)
            made.callback(self.crashes.close)
            made.callback(self.reactor.close)
            self.registry: Registry = Registry()
            self.bus: Bus = Bus()
            self.bus.subscribe(log_event)
            self.registry.dead_letters.publish = self.bus.publish
            self.registry.hidden = STORAGE_NAME
            history = EventHistory(self.crashes)
            self.bus.subscribe(history.put)
            for listener in _listeners:
                self.bus.subscribe(listener)
            self._log_rings = rings = LogRings()
            self._log_files: dict[str, LogFiles] = {}
            self.bus.subscribe(lambda event: rings.put(event.path, Run(0, EVENT, event.wall, (event,))))
            self._logs: LogRequests = LogRequests(rings, self.reactor)
            reserve = DescriptorReserve()
            made.callback(reserve.close)
            self.engine_context: EngineContext = EngineContext(
                self.directory, board, self.reactor, log_queue=log_queue, reserve=reserve,
                before_start=self._check_home, publish=self.bus.publish, report=self.crashes.add,
                supervise=BackgroundSupervisor, log_rings=rings,
            )  # fmt: skip
            self._hub_server = HubServer(
                self.engine_context.file(HUB_SOCKET), self.reactor, self.registry, self.engine_context.path_of
            )
            made.callback(self._hub_server.close)
            made.callback(self.reactor.close)  # before the server's sockets; the one above is for a server that fails
            self.processes: ProcessEngine = ProcessEngine(self.engine_context, self._on_keeper_lost)
            made.callback(self.processes.close)
            self.commands: ProcessEngine = ProcessEngine(self.engine_context, self._on_keeper_lost, for_commands=True)
            made.callback(self.commands.close)
            threads = ThreadEngine(self.engine_context)
            made.callback(threads.close)
            self.engines: dict[str, Engine] = {
                "process": DebugEngine(self.engine_context) if choices.debug else self.processes,
                "thread": threads,
                "command": self.commands,
            }
            administration = self._hub_server.administration
            here = choices.debug or choices.engine == "local"
            self._clusters = Clusters(
                self.engine_context,
                self.engines,
                lambda send: Requests(self.registry, administration, send),
                lambda: self.storage.place,
                _be_first_at_exit,
            )
            made.callback(self._clusters.close)
            self.env: Environment = Environment(
                registry=self.registry,
                engines=self.engines,
                clock=time.monotonic,
                call_at=self.reactor.call_at,
                publish=self.bus.publish,
                report=self.crashes.add,
                on_gone=self._on_gone,
                serials=itertools.count(time.time_ns() // 1_000_000),
                start_actor=start_actor,
                open_cluster=None if here else self._clusters.engines_of,
                places=here,
            )
            self.storage: StorageService = StorageService(self.directory, self.env)
            made.callback(self.storage.close)
            self.bus.subscribe(self.storage.on_event)
            self.registry.services[RequestKind.STORAGE] = self.storage.serve
            self.registry.services[RequestKind.STORAGE_ADDRESS] = self.storage.address
            self.registry.services[RequestKind.STORAGE_READ] = self.storage.read
            self.registry.services[RequestKind.RESOURCE_TRACKER] = serve_tracker
            self.registry.services[RequestKind.OVERVIEW] = self.overview
            self.registry.services[RequestKind.EVENTS] = history.after
            self.registry.services[RequestKind.LOGS] = self._logs.serve
            self.registry.services[RequestKind.PROFILE] = profile
            self.registry.services[RequestKind.STACKS] = partial(stacks, find=self.registry.find)
            self.registry.services[RequestKind.INSPECT] = self._inspect
            self.registry.services[RequestKind.TRACE] = Traces(self.registry.find, self.reactor.call_at).after
            self.reactor.on_end = self._on_io_thread_failed
            self.registry.connect_directly(board, self.reactor)
            set_router(self.registry)
            self._levels = levels()
            made.callback(watch_levels(lambda: self.reactor.call_soon_threadsafe(self._send_levels)))
            self._end_observer = None if choices.observe is None else choices.observe(self.directory)
            self._made = made.pop_all()

    def _check_home(self) -> None:
        """Make the program's directory anew if it was removed: a new process could not connect.

        Raises:
            SuitkaiseError: that is not possible.
        """
        with self._home_lock:
            if self._home.is_there():
                return
            try:
                self._home.make_again(self._hub_server.listen_again)
            except OSError as error:
                raise SuitkaiseError(
                    f"the private directory of this program, {self.directory!r}, was removed, and it cannot be made "
                    f"anew: {error}"
                ) from error
        logger.warning(
            "the private directory of this program, %s, was removed; it is made anew. A storage that lay there can be "
            "used only by those that have opened it already", self.directory,
        )  # fmt: skip

    def _after_a_restart(self, function: Callable[[], None]) -> None:
        self.reactor.call_at(time.monotonic() + LATER, function)

    def _send_levels(self) -> None:
        """Tell the workers if a level of a logger has changed. Called in the I/O thread."""
        now = levels()
        if now != self._levels:
            self._levels = now
            self.processes.set_log_levels(now)
            self._clusters.set_log_levels(now)

    def _on_gone(self, owner: str) -> None:
        self.storage.on_gone(owner)

    def _on_keeper_lost(self) -> None:
        self.bus.publish(KeeperLost("keeper", time.monotonic()))

    def _on_io_thread_failed(self, error: BaseException) -> None:
        """End all trees, with that reason: without the I/O thread no exit and no message arrives any more."""
        why = f"the I/O thread has ended: {error!r}"
        for root in list(_trees.values()):
            root.kill(why)
        self.storage.kill(why)
        self.processes.kill_all()
        self.commands.kill_all()

    # ------------------------------------------------------------ its trees
    def add(self, tree: SupervisorSpec, *, processes: bool) -> SupervisorInterface:
        """Make the root supervisor of a tree; none of its workers is started yet.

        Args:
            tree: its declaration.
            processes: whether the keeper is started, so that it need not start when a process worker is added.

        Raises:
            NotSerializable: a worker or an argument cannot be sent to a process.
            SuitkaiseError: a tree of that name runs.
        """
        if isinstance(choices.engine, Ray) and tree.engine is None:
            tree = tree.replace(engine=choices.engine)
        _refuse_taken(tree.name)  # before anything is prepared at the path of the tree that runs
        prepare(self.env, tree.name, tree)
        if processes:
            self.processes.keeper  # noqa: B018
        with _guard:
            _refuse_taken(tree.name)
            if tree.log_dir is not None:
                files = self._log_files[tree.name] = LogFiles(tree.log_dir, tree.log_max_bytes, tree.log_backups)
                self._log_rings.files[tree.name] = files.write
            self._logs.begin(tree.name)
            self.crashes.begin(tree.name)
            root = _trees[tree.name] = Executor(tree, tree.name, self.env).interface  # last: then the name is taken
        return root

    def end_logs(self, tree: str) -> None:
        """Tell and write the last lines of a tree that has ended; the readers and the disk get a moment for that."""
        self._log_rings.files.pop(tree, None)
        files = self._log_files.pop(tree, None)
        if files is not None:
            files.close()
        self._logs.end(tree)

    def overview(self) -> dict[str, Any]:
        """Return what the program and its trees are doing now, as plain values."""
        return overview(self.directory, self.storage.place, self.registry, running_trees(), self._clusters.nodes())

    def _inspect(self, path: str, what: Inspection, arguments: Sequence[float]) -> Answer[Any]:
        """Ask the process of a worker on a node for something, see `engines.inspection`."""
        receiver: Any = self.registry.find(path).receiver
        if not hasattr(receiver, "inspect"):
            raise SuitkaiseError(f"{path!r} has no process on a node now", path=path)
        answer: Answer[Any] = receiver.inspect(what, arguments)
        return answer

    def abandoned(self) -> list[str]:
        """Return the paths of threads that were abandoned and still run (rule 59)."""
        return [path for engine in self.engines.values() for path in engine.abandoned()]

    # ------------------------------------------------------------ the end
    def close(self) -> None:
        """End everything: the storage, the keepers, the I/O thread, the directory; a step that fails stops no other."""
        with self._made:
            if self._end_observer is not None:
                self._end_observer()  # while it can still ask for the last events
            self.registry.close()

    def close_after_fork(self) -> None:
        """In a forked child: close the descriptors, which are the parent's."""
        self.processes.close_after_fork()
        self.commands.close_after_fork()
        self._clusters.close_after_fork()
        self._hub_server.close_after_fork()
        self.reactor.close_after_fork()
        self.storage.close_after_fork()
        os.close(self._home.lock)


_listeners: tuple[Callable[[Event], None], ...] = ()
_guard = RLock()
_runtime: Runtime | None = None
_is_made = False  # at this moment, by the thread that has the guard
_users = 0
_trees: dict[str, SupervisorInterface] = {}


def _refuse_taken(name: str) -> None:
    if name in _trees or name == STORAGE_NAME:
        raise SuitkaiseError(
            f"a tree named {name!r} runs already in this program; stop it first, or rename this one", path=name
        )


def current() -> Runtime | None:
    """Return the runtime of this program; None if there is none."""
    return _runtime


def listen(listener: Callable[[Event], None]) -> Callable[[], None]:
    """Call `listener` with each event of each tree of this program, also of those that start later.

    It is called in the thread of the event and must not block. Returns the function that ends it.
    """
    global _listeners
    with _guard:
        _listeners = (*_listeners, listener)
        if _runtime is not None:
            _runtime.bus.subscribe(listener)

    def end() -> None:
        global _listeners
        with _guard:
            _listeners = tuple(one for one in _listeners if one != listener)
            if _runtime is not None:
                _runtime.bus.unsubscribe(listener)

    return end


def running_trees() -> dict[str, SupervisorInterface]:
    """Return the roots of the trees that run in this program, by name.

    Without the guard: the I/O thread calls this for an overview, and `leave` waits for that thread while it has it.
    """
    return dict(_trees)


def enter() -> Runtime:
    """Use the runtime; the first user makes it. Each `enter` needs its `leave`."""
    global _runtime, _users, _is_made
    with _guard:
        if in_worker_process():
            raise SuitkaiseError(
                f"a supervision tree, and so a pool, cannot be started inside a worker process ({current_path()!r}): "
                "the main program starts it; if this happened while a module was imported, move the start() or run() "
                "into a function that the main program calls, or under `if __name__ == '__main__':`"
            )
        if _is_made:
            raise SuitkaiseError(
                "the code that this signal handler interrupts is starting the first tree, so no other can be started "
                "here"
            )
        if _runtime is None:
            expect_exit()
            _is_made = True
            try:
                _runtime = Runtime()
            finally:
                _is_made = False
        _users += 1
        return _runtime


def leave(name: str | None = None) -> None:
    """Stop using the runtime, and forget the tree of that name; the last user ends the runtime."""
    global _runtime, _users
    runtime = _runtime  # at the end of the program another thread may end it meanwhile
    if runtime is not None:
        runtime.engine_context.log_queue.flush()  # the last log lines of workers that have ended
        if name is not None:
            runtime.end_logs(name)
    with _guard:
        if name is not None:
            _trees.pop(name, None)
        _users -= 1
        if _users or _runtime is None:
            return
        runtime, _runtime = _runtime, None
        runtime.close()


def _reset_after_fork() -> None:
    global _runtime, _users, _guard, _is_made
    runtime, _runtime, _users, _is_made = _runtime, None, 0, False
    _guard = RLock()
    _trees.clear()
    if runtime is not None:
        set_router(None)
        runtime.close_after_fork()


after_fork_in_child(_reset_after_fork)


def _be_first_at_exit() -> None:
    """Stop the trees before what others have registered for the end of the program, and which the trees need."""
    at_exit(_at_exit)


def _await_end(root: SupervisorInterface) -> None:
    """Wait until a tree that was asked to stop has ended; Ctrl-C kills it, but not one that repeats an earlier one."""
    from suitkaise.runtime.running_tree import REPEAT

    begun = time.monotonic()
    while not root.exited.done():
        try:
            root.exited.result()
        except KeyboardInterrupt:
            if time.monotonic() - begun >= REPEAT:
                root.kill("a second Ctrl-C")


@at_exit
def _at_exit() -> None:
    """Stop the trees that the main program leaves running, gracefully; Ctrl-C a second later kills them (rule 70)."""
    with _guard:  # a tree that another thread has stopped may be cleared away at this moment, and at any later one
        runtime = _runtime
    if runtime is None:
        return
    send_held()
    roots = list(running_trees().values())
    for root in roots:
        root.stop()
    for root in roots:
        _await_end(root)
    for root in roots:
        runtime.end_logs(root.path)
    global _users
    with _guard:
        _users = min(_users, 1)
    leave()
