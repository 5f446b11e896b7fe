"""Spares: processes that stand by for one child with its recipe unpickled, so that a restart waits for no fork."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from typing import Protocol

from suitkaise.engines.engine import EngineContext, Surroundings, grace_of
from suitkaise.engines.forked_process import ForkedProcess
from suitkaise.engines.keeper_client import KeeperClient
from suitkaise.engines.keeper_liveness import PATIENCE
from suitkaise.engines.protocol import (
    LogReport,
    PreloadReport,
    PrepareSpare,
    ProcessContext,
    SpareReady,
    WorkerReport,
)
from suitkaise.engines.worker_output import keep_record
from suitkaise.messaging import codec, definitions, wire
from suitkaise.messaging.descriptor_codec import DescriptorOwner
from suitkaise.platform.flag import Flag
from suitkaise.platform.inheritance import Inheritance, changes
from suitkaise.platform.locks import RLock
from suitkaise.platform.log_levels import levels
from suitkaise.platform.log_queue import QueuedLogger
from suitkaise.platform.preload import preload
from suitkaise.platform.runtime_directory import stack_file
from suitkaise.records import dataclass
from suitkaise.specs import Child

__all__ = ["EncodedRecipe", "Spares", "context_for", "surroundings_here"]

logger: QueuedLogger = QueuedLogger("suitkaise.keeper")

STABLE_AFTER = 1.0
"""Seconds: a spare that ends by itself is replaced at once if it stood by for as long, else after the next start."""


@dataclass(frozen=True, slots=True)
class EncodedRecipe:
    """The recipe of a child as it goes to a process, with the sockets and pipe ends among its arguments."""

    child: Child
    data: bytes
    owners: list[DescriptorOwner]


class Adopter(Protocol):
    """A worker's handle that needs a process."""

    def adopt(self, process: ForkedProcess, prepared: ProcessContext) -> bool:
        """Start the worker in the spare process, which has got that context; return False if it has ended."""
        ...


class Spares:
    """All spare processes of a program.

    Args:
        context: the program.
        keeper: returns the keeper's client.
    """

    def __init__(self, context: EngineContext, keeper: Callable[[], KeeperClient]) -> None:
        self._context = context
        self._keeper = keeper
        self._lock = RLock()
        self._recipes: dict[str, EncodedRecipe] = {}  # of the paths that have spares
        self._spares: dict[str, list[_Spare]] = {}
        self._leaving: set[_Spare] = set()  # assigned or dismissed, and not gone yet

    def fill(self, path: str, recipe: EncodedRecipe) -> None:
        """Keep as many spares at `path` as its child asks for, until `dismiss`."""
        with self._lock:
            self._recipes[path] = recipe
        self._top_up(path)

    def _top_up(self, path: str) -> None:
        keeper = self._keeper()
        with self._lock:
            recipe = self._recipes.get(path)
            if recipe is None:
                return
            spares = self._spares.setdefault(path, [])
            new = [_Spare(self, self._context, keeper, path, recipe) for _ in range(recipe.child.spares - len(spares))]
            spares += new
        for spare in new:
            spare.process.start()

    def assign(self, path: str, worker: Adopter) -> bool:
        """Give the worker a spare process of `path`; return False if none is ready."""
        while (spare := self._take(path)) is not None:
            if worker.adopt(spare.process, spare.prepared):
                with self._lock:
                    self._leaving.discard(spare)
                return True
        return False

    def _take(self, path: str) -> _Spare | None:
        """Take out a spare that is ready, so that no other thread assigns or dismisses it."""
        with self._lock:
            spares = self._spares.get(path, [])
            for spare in spares:
                if spare.ready:
                    spares.remove(spare)
                    self._leaving.add(spare)
                    return spare
        return None

    def dismiss(self, path: str) -> None:
        """Kill the spares at `path`, and keep none there any more."""
        with self._lock:
            self._recipes.pop(path, None)
            leaving = self._spares.pop(path, [])
            self._leaving.update(leaving)
        for spare in leaving:
            spare.dismiss()

    def renew(self) -> None:
        """Replace all spares: their keeper is gone, so their exit statuses would stay unknown."""
        with self._lock:
            leaving = [spare for spares in self._spares.values() for spare in spares]
            self._leaving.update(leaving)
            self._spares.clear()
            paths = list(self._recipes)
        for spare in leaving:
            spare.dismiss()
        for path in paths:
            self._top_up(path)

    def close(self) -> None:
        """Kill all spares, and wait until they are gone."""
        for path in list(self._recipes):
            self.dismiss(path)
        for spare in list(self._leaving):
            spare.gone.wait(PATIENCE)

    def lost(self, spare: _Spare, reason: str) -> None:
        """Forget a spare that is gone; replace it unless it was dismissed."""
        with self._lock:
            self._leaving.discard(spare)
            spares = self._spares.get(spare.path, [])
            if spare not in spares:
                return
            spares.remove(spare)
        logger.warning("a spare process of %s is gone: %s", spare.path, reason)
        if spare.is_stable:
            self._top_up(spare.path)


class _Spare:
    """One process that stands by."""

    def __init__(
        self, spares: Spares, context: EngineContext, keeper: KeeperClient, path: str, recipe: EncodedRecipe
    ) -> None:
        self.path: str = path
        self.ready: bool = False
        self.gone: Flag = Flag()
        self.prepared: ProcessContext
        self._spares = spares
        self._recipe = recipe
        self._dismissed = False
        self._context = context
        self._began = time.monotonic()
        child = recipe.child
        self.process: ForkedProcess = ForkedProcess(
            context, keeper, path, grace_of(child), False, child.keep_children, self
        )

    @property
    def is_stable(self) -> bool:
        """Whether the process stood by for long enough to be worth a replacement at once."""
        return self.ready and time.monotonic() - self._began >= STABLE_AFTER

    def dismiss(self) -> None:
        """Kill the process: no worker needs it."""
        self._dismissed = True
        self.process.signal(signal.SIGKILL)

    # ------------------------------------------------------------ callbacks of its process
    def first_frame(self) -> tuple[bytes, list[DescriptorOwner]]:
        """Return the frame with the recipe, to be unpickled in advance."""
        self.prepared = context_for(
            self.path, self.process.inherited, self._recipe.child.env, self._context.surroundings
        )
        order = PrepareSpare(codec.dumps(self.prepared), levels(), self._recipe.child.early_restart)
        return wire.encode(order, self._recipe.data, long_header=True), self._recipe.owners

    def on_flushed(self) -> None:
        """Do nothing: a spare has no bell, it waits for its connection alone."""

    def on_started(self) -> None:
        """Kill the process if it was dismissed before it existed."""
        if self._dismissed:
            self.process.signal(signal.SIGKILL)

    def on_frame(self, report: WorkerReport, payload: bytes) -> None:
        """Handle a frame of the process."""
        match report:
            case SpareReady():
                self.ready = True
            case PreloadReport(modules):
                preload(*modules)
            case LogReport(fields):  # of an import
                keep_record(self._context, self.path, 0, fields, self.process)

    def on_exit(self, code: int | None) -> None:
        """Report that the process is gone."""
        with contextlib.suppress(OSError):
            os.unlink(stack_file(self._context.directory, self.process.pid or 0))
        self.gone.set()
        self._spares.lost(self, f"exit code {code}")

    def on_spawn_failed(self, error: str) -> None:
        """Report that the process could not be forked."""
        self.gone.set()
        self._spares.lost(self, error)

    def kill(self, why: str) -> None:
        """Kill the process."""
        self.process.signal(signal.SIGKILL)


def surroundings_here() -> Surroundings:
    """Return what a process takes over of this program as it is now."""
    try:
        directory = os.getcwd()
    except FileNotFoundError:
        directory = os.sep
    return Surroundings(directory, list(sys.path), list(sys.argv), definitions.program(), definitions.main_names())


def context_for(
    owner: str, inherited: Inheritance, variables: Mapping[str, str], surroundings: Surroundings | None = None
) -> ProcessContext:
    """Return the context for a new process: what this program is, and what the process takes over from it now.

    Args:
        owner: the identity of the process towards the storage.
        inherited: what the process has got from its keeper.
        variables: environment variables for this process alone.
        surroundings: what it takes over else; None: those of this program.
    """
    where = surroundings if surroundings is not None else surroundings_here()
    return ProcessContext(owner, *where, changes(inherited, variables))
