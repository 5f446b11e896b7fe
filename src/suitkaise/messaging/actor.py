"""Our Pykka actors: the only module that touches Pykka's seams.

Our actors differ from Pykka's: they stay out of its global registry (so `ActorRegistry.stop_all()` stops no
supervisor), run in daemon threads, and no exception, `SystemExit` included, spreads from one to another.
"""

from __future__ import annotations

import contextvars
import queue
from collections.abc import Callable, Iterator
from typing import Any, Self

import pykka
from pykka import ActorRef
from pykka._envelope import Envelope

from suitkaise.platform.log_queue import QueuedLogger
from suitkaise.platform.threads import DaemonThread

__all__ = ["Actor", "Envelope", "drain", "envelope"]

logger: QueuedLogger = QueuedLogger("suitkaise.actors")


envelope: Callable[[Any], Envelope[Any]] = Envelope
"""Return a message in the form that Pykka's inboxes hold."""


def drain(inbox: Any) -> Iterator[Any]:
    """Take the messages out of the inbox of an actor that has ended; each is yielded to one caller only."""
    while True:
        try:
            yield inbox.get_nowait().message
        except queue.Empty:
            return


class Actor(pykka.ThreadingActor):
    """A Pykka actor that is private to suitkaise."""

    @staticmethod
    def _create_actor_inbox() -> Any:
        return queue.SimpleQueue()  # its `put` may be called from a signal handler, unlike Queue's

    def on_end(self) -> None:
        """Drop the messages that wait, with an error for their senders, as Pykka does; called after the loop."""
        super()._actor_loop_teardown()

    @classmethod
    def launch(
        cls, *args: Any, thread_name: str, context: contextvars.Context | None = None, **kwargs: Any
    ) -> ActorRef[Self]:
        """Start the actor in a daemon thread named `thread_name`, outside of Pykka's registry.

        The thread runs in a copy of `context`; without it, in an empty one.
        """
        actor = cls(*args, **kwargs)
        run = contextvars.Context().run if context is None else context.copy().run
        DaemonThread(target=run, args=(actor._actor_loop,), name=thread_name).start()
        return actor.actor_ref

    def run_here(self) -> None:
        """Run the actor in the current thread until it stops."""
        self._actor_loop()

    def end(self) -> None:
        """Stop handling messages: the actor's loop returns."""
        self.actor_stopped.set()

    def _handle_receive(self, message: Any) -> Any:
        try:
            return super()._handle_receive(message)
        except Exception:
            raise
        except BaseException as error:
            raise RuntimeError(f"{type(error).__name__} in {type(self).__name__}") from error

    def _actor_loop_teardown(self) -> None:
        self.on_end()

    def _stop(self) -> None:
        self.actor_stopped.set()
        self.on_stop()

    def _handle_failure(self, exception_type: Any, exception_value: Any, traceback: Any) -> None:
        logger.error("internal error in %s", self, exc_info=(exception_type, exception_value, traceback))
        self.actor_stopped.set()
