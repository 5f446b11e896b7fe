"""The engine for workers in processes; a keeper forks them.

The hub learns of a death from a pidfd, and of the exit status from the keeper. If the keeper is killed, no worker is
lost: a new keeper takes over, starts that were not answered are requested again, and an exit whose status is unknown
is reported as such.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from suitkaise.engines.engine import EngineContext, Launch
from suitkaise.engines.forked_process import ForkedProcess
from suitkaise.engines.keeper_client import KeeperClient
from suitkaise.engines.keeper_liveness import PATIENCE
from suitkaise.engines.process_handle import ProcessHandle
from suitkaise.engines.spares import EncodedRecipe, Spares
from suitkaise.messaging import wire
from suitkaise.messaging.descriptor_codec import dumps_with_descriptors
from suitkaise.platform.inheritance import User, user
from suitkaise.platform.locks import RLock
from suitkaise.platform.preload import preload
from suitkaise.specs import Child
from suitkaise.specs.recipe import Recipe
from suitkaise.workers.hooks import is_async

if TYPE_CHECKING:
    from suitkaise.platform.death_lock import DeathWatch

__all__ = ["ProcessEngine"]


class ProcessEngine:
    """Runs each worker in a process that our keeper forks; commands (`for_commands`) have a keeper of their own."""

    def __init__(
        self, context: EngineContext, on_keeper_lost: Callable[[], None] = lambda: None, *, for_commands: bool = False
    ) -> None:
        if not sys.platform.startswith("linux"):
            raise OSError(f"suitkaise needs Linux (pidfd, eventfd, /dev/shm); this is {sys.platform}")
        self._context = context
        self._recipes: dict[str, EncodedRecipe] = {}
        self._on_keeper_lost = on_keeper_lost
        self._for_commands = for_commands
        self._lock = RLock()
        self._alive: set[ProcessHandle] = set()
        self._keepers: dict[User, KeeperClient] = {}  # one for each user that this program has been
        self._spares = Spares(context, lambda: self.keeper)
        self._deaths: DeathWatch | None = None
        self._ending: set[ForkedProcess] = set()  # reported as ended, and not gone yet

    @property
    def keeper(self) -> KeeperClient:
        """The client of the keeper, which is started if there is none yet for the user that this program is now."""
        now = user()
        with self._lock:
            if now in self._keepers:
                return self._keepers[now]
            former = list(self._keepers.values())
            for keeper in former:
                keeper.give_directory_to(now)
            client = KeeperClient(self._context, self._keeper_lost, for_commands=self._for_commands)
            self._keepers[now] = client
        if former:
            self._spares.renew()
        return client

    def _keeper_lost(self) -> None:
        self._on_keeper_lost()
        self._spares.renew()

    def prepare(self, path: str, child: Child) -> None:
        """Encode the recipe of a child, so that an argument that cannot be sent is reported before anything starts.

        Raises:
            NotSerializable: names the path to the culprit.
        """
        self._recipe(path, child)
        if isinstance(child.what, Recipe) and is_async(child.what):
            preload("suitkaise.workers.async_lifecycle")
        if isinstance(child.what, Recipe) and getattr(child.what.target, "background", None):
            preload(getattr(self._context.supervise, "__module__", __name__))
        self.keeper  # noqa: B018  (it starts while other children are prepared)

    def _recipe(self, path: str, child: Child) -> EncodedRecipe:
        kept = self._recipes.get(path)
        if kept is None or kept.child is not child:
            self._spares.dismiss(path)
            data, owners = dumps_with_descriptors(child.what, root=f"{path}: worker")
            wire.check_length(f"{path}: worker", len(data))
            kept = self._recipes[path] = EncodedRecipe(child, data, owners)
        return kept

    def accept(self, path: str, child: Child, recipe: bytes) -> None:
        """Take the encoded recipe of a child, instead of `prepare`: the child was declared in another process."""
        self._spares.dismiss(path)
        self._recipes[path] = EncodedRecipe(child, recipe, [])

    def forget(self, path: str) -> None:
        """Discard the recipe and the spares of the child at `path`, which will not be started again."""
        self._spares.dismiss(path)
        self._recipes.pop(path, None)

    def spawn(self, launch: Launch) -> ProcessHandle:
        """Start the worker in a spare of its child, or in a process that is requested from the keeper."""
        self._context.before_start()
        recipe = self._recipe(launch.path, launch.child)
        handle = ProcessHandle(self._context, launch, recipe, self.keeper)
        with self._lock:
            self._alive.add(handle)
        handle.exited.add_done_callback(lambda exited: self._ended(handle))
        if launch.child.early_restart:
            handle.deaths = self._watch_deaths()
        if not self._spares.assign(launch.path, handle):
            handle.process.start()
        if launch.child.spares:
            path = launch.path
            handle.ready.add_done_callback(lambda ready: self._spares.fill(path, recipe))
        return handle

    def _watch_deaths(self) -> DeathWatch:
        with self._lock:
            if self._deaths is None:
                from suitkaise.platform.death_lock import DeathWatch  # with ctypes; few programs need it

                self._deaths = DeathWatch()
            return self._deaths

    def _ended(self, handle: ProcessHandle) -> None:
        with self._lock:
            self._alive.discard(handle)
            if handle.process.reaped is not None:
                self._ending = {one for one in self._ending if one.reaped is not None and not one.reaped.is_set()}
                self._ending.add(handle.process)

    def set_log_levels(self, levels: dict[str, int]) -> None:
        """Have the workers' loggers use these levels, those of the program's loggers."""
        with self._lock:
            alive = list(self._alive)
        for handle in alive:
            handle.set_log_levels(levels)

    def abandoned(self) -> list[str]:
        """Return nothing: processes can be killed."""
        return []

    def close(self) -> None:
        """End the keeper and the spares."""
        self._spares.close()
        until = time.monotonic() + PATIENCE
        for process in self._ending:
            if process.reaped is not None:
                process.reaped.wait(max(0.0, until - time.monotonic()))
        for keeper in self._keepers.values():
            keeper.close()
        if self._deaths is not None:
            self._deaths.close()
        self._recipes.clear()

    def kill_all(self) -> None:
        """End all processes without the I/O thread, which has ended; report all as ended."""
        for keeper in self._keepers.values():
            keeper.kill_all()

    def close_after_fork(self) -> None:
        """In a forked child of the hub: close the descriptors, which are the parent's."""
        for keeper in self._keepers.values():
            keeper.close_after_fork()
