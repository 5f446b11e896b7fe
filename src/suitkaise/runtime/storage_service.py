"""The storage of a program: started when it is first needed; entries of dead workers are removed."""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import socket
import time
from typing import TYPE_CHECKING, Any

from suitkaise.errors import ChildStartFailed, StorageDamaged, StorageError, SuitkaiseError
from suitkaise.events import ChildStarted, ChildStartFailure, Event
from suitkaise.exits import Crashed, Signaled
from suitkaise.messaging.answer import Answer
from suitkaise.platform.flag import Flag
from suitkaise.platform.locks import RLock
from suitkaise.platform.log_queue import QueuedLogger
from suitkaise.platform.preload import preload
from suitkaise.platform.reactor import SerialExecutor
from suitkaise.platform.threads import DaemonThread
from suitkaise.storage.connect import detach
from suitkaise.supervision.environment import Environment, prepare
from suitkaise.supervision.executor import Executor
from suitkaise.supervision.interface import SupervisorInterface

if TYPE_CHECKING:
    from suitkaise.storage.tree import Tree

__all__ = ["STORAGE_NAME", "StorageService"]

logger: QueuedLogger = QueuedLogger("suitkaise")


FAILED_STARTS = 16
"""How often in a row the storage actor may fail to start, with pauses of up to a second, until it is given up."""

SILENT = 1.0
"""Seconds after which a storage that has not removed the entries of an owner is not asked about the next one."""

STORAGE_NAME = "sktree"
"""The name of the tree that supervises the storage actor."""


class StorageService:
    """Starts the storage when it is first needed, and removes the entries that dead workers leave behind.

    Args:
        directory: the private directory of the program, where a storage that is not durable lies.
        env: what the storage's supervisor depends on.
    """

    def __init__(self, directory: str, env: Environment) -> None:
        self._private_directory = directory
        self._env = env
        self._lock = RLock()  # a signal handler may need the storage, too
        self._is_starting = False
        self._root: SupervisorInterface | None = None
        self._storage_directory = directory
        self._engine: str | None = None
        self._listener: socket.socket | None = None
        self._gone: queue.SimpleQueue[str | Flag | None] = queue.SimpleQueue()
        self._started = contextlib.ExitStack()
        self._failed_starts = 0  # in a row
        self._closing = False
        self._reads = SerialExecutor("suitkaise-storage-reads")

    @property
    def place(self) -> str | None:
        """The directory of the storage; None while the program uses none. Waits for nothing."""
        return None if self._root is None else self._storage_directory

    def directory(self, durable: str | None = None, engine: str | None = None) -> str:
        """Return the directory of the storage; the first call starts it.

        Raises:
            StorageError: the directory cannot be used, or another program uses it; or the engine cannot be used for it;
                or the program ends.
            SuitkaiseError: the storage of this program lies elsewhere.
        """
        with self._lock:
            if self._root is None and self._closing:
                raise StorageError("the program ends, so its storage is not started any more")
            if self._root is None:
                if self._is_starting:
                    raise StorageError("the storage is being started by the code that this signal handler interrupts")
                self._is_starting = True
                try:
                    place = self._private_directory if durable is None else durable
                    self._start(place, durable=durable is not None, engine=engine)
                finally:
                    self._is_starting = False
            elif durable is not None and os.path.realpath(durable) != os.path.realpath(self._storage_directory):
                raise SuitkaiseError(
                    f"the storage of this program lies at {self._storage_directory!r}; a program has one storage"
                )
            elif engine not in (None, self._engine):
                from suitkaise.storage.backends.redis_address import shown

                raise StorageError(
                    f"the storage of this program runs with engine={shown(self._engine)!r}, not {shown(engine)!r}; "
                    "name the engine where you connect first"
                )
            return self._storage_directory

    def _start(self, directory: str, *, durable: bool, engine: str | None) -> None:
        from pathlib import Path  # only programs that use the storage load its parts

        from suitkaise.runtime.storage_actor import declare
        from suitkaise.storage.backends.engines import chosen_engine
        from suitkaise.storage.backends.redis_address import is_url, shown

        if durable and engine is not None and is_url(engine):
            raise StorageError(
                "a storage in Redis lies in its server, and takes no directory and no durable=True: "
                f"connect(engine={shown(engine)!r}); whether it survives a power cut is set in the server"
            )
        try:
            asked, engine = engine, chosen_engine(Path(directory), engine)
        except OSError as error:
            raise StorageError(f"the storage cannot be at {directory!r}: {error}", path=directory) from error
        modules = ["runtime.storage_actor", "storage.tree", f"storage.backends.{engine}_engine"]
        if engine == "redis":
            modules.append("storage.backends.redis_reader")
        preload(*(f"suitkaise.{module}" for module in modules))  # the actor and its clients need them
        with contextlib.ExitStack() as made:
            tree, self._listener = declare(STORAGE_NAME, directory, durable=durable, engine=engine)
            made.callback(self._listener.close)
            prepare(self._env, tree.name, tree)
            root = Executor(tree, tree.name, self._env).interface
            made.callback(root.exited.result)
            made.callback(root.stop)
            try:
                root.begin()
            except ChildStartFailed as failed:
                raise _explained(directory, failed) from failed
            made.callback(detach, directory)
            if durable or engine == "redis":
                _forget_former_owners(directory)
            cleaner = DaemonThread(target=self._clean_up, args=(directory,), name="suitkaise-cleaner")
            cleaner.start()
            made.callback(cleaner.join)
            made.callback(self._gone.put, None)
            self._started = made.pop_all()
        self._storage_directory, self._root = directory, root
        self._engine = asked if engine == "redis" else engine

    def on_event(self, event: Event) -> None:
        """Give the storage up when its actor cannot be started again and again: its clients would wait for ever.

        Crashes do not count, however many: after each of them the store is opened again, and the clients go on.
        """
        root = self._root
        if root is None or event.path != f"{STORAGE_NAME}/storage":
            return
        if isinstance(event, ChildStarted):
            self._failed_starts = 0
        elif isinstance(event, ChildStartFailure):
            self._failed_starts += 1
            if self._failed_starts == FAILED_STARTS:
                logger.error(
                    "the storage in %s is given up: it could not be opened %d times in a row; the last reason: %s",
                    self._storage_directory, FAILED_STARTS, event.reason,
                )  # fmt: skip
                root.kill(f"it could not be opened: {event.reason}")
                if self._listener is not None:
                    self._listener.close()  # clients that wait get an error

    def serve(self) -> Answer[str]:
        """Answer a worker's request for the directory; if the storage must be started first, in another thread."""
        answer: Answer[str] = Answer()

        def find() -> None:
            try:
                answer.set_result(self.directory())
            except Exception as error:
                answer.set_exception(error)

        if self._root is not None:
            find()
        else:
            DaemonThread(target=find, name="suitkaise-storage-start").start()
        return answer

    def address(self) -> bytes | None:
        """Return what leads readers on other machines to the storage's server; None if they read from this program."""
        if self._root is None:
            return None
        from pathlib import Path

        from suitkaise.storage.backends.redis_address import address_for_others

        return address_for_others(Path(self._storage_directory))

    def read(self, question: tuple[Any, ...]) -> Answer[Any]:
        """Answer a read of a worker on another machine, in a thread of its own. For the I/O thread only."""
        answer: Answer[Any] = Answer()

        def find() -> None:
            try:
                from pathlib import Path

                from suitkaise.storage.backends.reader import reader_of  # only clusters need these here
                from suitkaise.storage.backends.remote_reader import answer_read

                answer.set_result(answer_read(reader_of(Path(self._storage_directory)), *question))
            except Exception as error:
                answer.set_exception(error)

        self._reads.submit(find)
        return answer

    # ------------------------------------------------------------ entries of dead workers
    def on_gone(self, owner: str) -> None:
        """Have the entries of an incarnation that has ended removed, if they are marked so; never blocks."""
        if self._root is not None:
            self._gone.put(owner)

    def _clean_up(self, directory: str) -> None:
        """Remove the entries of dead owners, in a thread that no supervisor waits for."""
        from suitkaise.storage.tree import Tree

        tree: Tree = Tree(directory)
        # owners whose entries could not be removed: they are tried again when the next worker ends
        left: list[str] = []
        come: list[str | Flag | None] = []
        while None not in come:
            come = [self._gone.get()]
            with contextlib.suppress(queue.Empty):
                while True:
                    come.append(self._gone.get_nowait())
            owners = [one for one in come if isinstance(one, str)]
            if owners and not (left and self._closing):
                failed = _forget(tree, owners)
                if failed:
                    left += failed
                elif left and not _forget(tree, left[:1]):
                    left = _forget(tree, left[1:])
            for one in come:
                if isinstance(one, Flag):
                    one.set()
        try:
            tree.close()
        except Exception as error:
            logger.warning("the storage was not closed cleanly: %s", error)

    def await_clean_up(self) -> None:
        """Wait until the entries of all incarnations that have ended so far are removed."""
        if self._root is not None:
            done = Flag()
            self._gone.put(done)
            done.wait()

    # ------------------------------------------------------------ the end
    def kill(self, why: str) -> None:
        """Kill the storage actor and end its supervisor."""
        if self._root is not None:
            self._root.kill(why)

    def close(self) -> None:
        """Stop the storage; one that a worker has just begun to start, after its start."""
        with self._lock:
            self._closing = True
        self._reads.close()
        self._started.close()

    def close_after_fork(self) -> None:
        """In a forked child: close the listening socket, which is the parent's."""
        if self._listener is not None:
            self._listener.close()


def _forget(tree: Tree, owners: list[str]) -> list[str]:
    """Remove the entries of these owners; return those whose entries are left.

    A storage that does not answer is waited for once, and not for each owner.
    """
    left: list[str] = []
    for place, owner in enumerate(owners):
        began = time.monotonic()
        try:
            tree.forget_owner(owner)
        except Exception as error:
            logger.warning("the storage entries of %s were not removed: %s", owner, error)
            if time.monotonic() - began >= SILENT:
                return [*left, *owners[place:]]
            left.append(owner)
    return left


def _forget_former_owners(directory: str) -> None:
    """Remove the marked entries of an earlier program's workers: if it was killed, nobody has removed them."""
    from suitkaise.storage.tree import Tree

    tree: Tree = Tree(directory)
    try:
        for owner in tree.owners():
            tree.forget_owner(owner)
    except SuitkaiseError as error:  # a full disk, for example; what is stored can be read nevertheless
        logger.warning("storage entries of workers of an earlier program were not removed: %s", error)


_OF_DAMAGE = (signal.SIGBUS, signal.SIGSEGV, signal.SIGABRT)  # by which an engine that reads damaged files may die


def _explained(directory: str, failed: ChildStartFailed) -> StorageError:
    """Return the error that the actor had, or tell how it ended."""
    reason = failed.reason
    if isinstance(reason, Crashed) and isinstance(reason.error, StorageError):
        return reason.error
    told = f"the storage in {directory} cannot be opened: {reason}"
    if not (isinstance(reason, Signaled) and reason.signal in _OF_DAMAGE):
        return StorageError(told, path=directory)
    return StorageDamaged(
        f"{told}. If it is damaged, move the directory away, connect to a new one, and tree.restore(file) what "
        "tree.snapshot(file) has saved",
        path=directory,
    )
