"""The inbox of a worker in a process of its own: it reads the sockets of the hub and of other workers."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import threading
from collections.abc import Callable, Iterator

from suitkaise.messaging.held_back import send_held
from suitkaise.messaging.incoming import Incoming
from suitkaise.messaging.mailbox import Mailbox
from suitkaise.messaging.messages import Message
from suitkaise.messaging.wire import Frame, NoMemory, Parser, WireError, of_a_signal_handler
from suitkaise.platform.board import Slot
from suitkaise.platform.connection_counts import CONNECTIONS, ConnectionCounts
from suitkaise.platform.log_queue import QueuedLogger

__all__ = ["SocketMailbox"]

logger: QueuedLogger = QueuedLogger("suitkaise.mailbox")

_READS = 16
"""How many reads in a row the inbox does: a sender may be as quick, and would keep the worker from its loops."""

_LAST_READS = 64
"""How many reads take all that a socket holds, also where one that has not ended sends more meanwhile."""

_READY = 64
"""How many sockets are asked for at once whether they have input."""


class SocketMailbox(Mailbox):
    """The inbox of a worker in a process of its own: messages come through sockets, from the hub and other workers.

    Args:
        slot: the worker's slot of the status board.
        counts: those of its direct connections.
        sock: the control connection; it stays in blocking mode, but reads here never wait.
        on_frame: called with each frame; calls `put`, `order_stop` or `accept` as the frame requires.
    """

    def __init__(
        self, slot: Slot, counts: ConnectionCounts, sock: socket.socket, on_frame: Callable[[Frame], None]
    ) -> None:
        super().__init__(slot)
        self._counts = counts
        self._sock = sock
        self._control = sock.fileno()
        self._on_frame = on_frame
        self._parser = Parser()
        self._descriptors: list[int] = []  # of connections whose frames were not handled yet
        self._incoming: dict[int, Incoming] = {}
        self._bell_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._poll = select.epoll()
        self._poll.register(sock, select.EPOLLIN)
        self._poll.register(self._bell_fd, select.EPOLLIN)
        self._ready: list[tuple[int, int]] = []
        self._open = True
        self._accepts = True

    def put(self, message: Message) -> bool:
        """Add a message, for `on_frame` only, without ringing: the thread that reads frames looks at them, too."""
        self._waiting.append(message)
        return True

    @property
    def descriptor(self) -> int | None:
        """A descriptor that is readable when there is input, while the control connection is open."""
        return self._poll.fileno() if self._open else None

    def adopt(self, parser: Parser, frames: list[Frame]) -> None:
        """Continue with the parser that has read the connection before, and the frames that it has found."""
        self._parser = parser
        for frame in frames:
            self._on_frame(frame)
        self.bell[0] = 1

    # ------------------------------------------------------------ direct connections
    def accept(self, sender: str, number: int) -> None:
        """Take messages from the connection that has come with the present frame; for `on_frame` only.

        Args:
            sender: the path of the worker at its other end.
            number: the number of the connection, see `ConnectionCounts`.
        """
        descriptor = self._descriptors.pop(0)
        if descriptor < 0:
            logger.error("no file descriptor is left for a connection from another worker")
            self._counts.close(number)
            return
        incoming = Incoming(descriptor, sender, number, self._counts.taken(number))
        if self._accepts:
            self._incoming[descriptor] = incoming
            self._poll.register(descriptor, select.EPOLLIN)
            self.bell[0] = self.bell[0] or 1  # something may have come already, and its bell was heard
        else:  # the sender finds it cut, and sends through the hub
            self._take_from(incoming, incoming.cut())

    def take_direct(self) -> None:
        """Take the messages that other workers have sent directly; for `on_frame` only, before the report of an end.

        What a worker has sent is in the sockets when the hub tells its end.
        """
        for descriptor, _ in self._poll.poll(0, CONNECTIONS + 2):
            for _ in range(_LAST_READS):
                if not self._collect_from(descriptor):
                    break

    def cut(self) -> None:
        """Take the messages that other workers have sent directly, and let them send no more."""
        self._accepts = False
        for descriptor, incoming in self._incoming.items():
            with contextlib.suppress(OSError):
                self._poll.unregister(descriptor)
            self._take_from(incoming, incoming.cut())

    def disconnect(self) -> None:
        """Close the connections of other workers."""
        self._accepts = False
        for incoming in self._incoming.values():
            incoming.close()
        self._incoming.clear()

    def _take_from(self, incoming: Incoming, messages: list[Message]) -> None:
        self._waiting.extend(messages)
        incoming.taken[0] += len(messages)

    # ------------------------------------------------------------ reading
    def wait_in(self, wait: Callable[..., None], *, for_messages: bool = True) -> bool:
        """Sleep in the caller's `wait(*descriptors)`; return False when the hub is gone."""
        send_held()
        self._asleep = True
        try:
            self._collect()
            if self.stop_reason is None and not (for_messages and self._waiting):
                wait(self._poll.fileno())
        finally:
            self._asleep = False
        self._collect()
        self.bell[0] = 1  # look between the loops
        return self._open

    @contextlib.contextmanager
    def woken(self) -> Iterator[list[int]]:
        """Yield descriptors as the base class does; in the worker's own thread, which reads orders, also its input."""
        with super().woken() as descriptors:
            if threading.get_ident() != self.owner or not self._open:
                yield descriptors
                return
            orders = os.dup(self._poll.fileno())  # an event loop takes a descriptor once, and two tasks may wait there
            try:
                yield [*descriptors, orders]
            finally:
                os.close(orders)
            self.take_in()

    def _collect(self) -> None:
        ready, self._ready = self._ready or self._poll.poll(0, _READY), []
        for descriptor, _ in ready:
            if descriptor == self._control:
                self._collect_orders()
            elif descriptor == self._bell_fd:
                with contextlib.suppress(BlockingIOError):
                    os.eventfd_read(self._bell_fd)
            else:
                self._collect_from(descriptor)
                self.bell[0] = self.bell[0] or 1  # there may be more

    def _collect_orders(self) -> None:
        for _ in range(_READS):
            if not self._open:
                return
            try:
                frames = self._parser.receive(self._sock, socket.MSG_DONTWAIT, self._descriptors)
            except BlockingIOError:
                return
            except NoMemory:  # the worker crashes, and its supervisor decides
                self._hub_gone()
                raise
            except OSError as error:
                if of_a_signal_handler(error):
                    raise
                self._hub_gone()
                return
            except WireError as error:
                logger.error("invalid data from the hub: %s", error)
                with contextlib.suppress(OSError):
                    self._sock.shutdown(socket.SHUT_RD)  # the worker's lifeline treats that as the end of the hub
                self._hub_gone()
                return
            for frame in frames:
                self._on_frame(frame)
        self.bell[0] = self.bell[0] or 1  # there may be more

    def _collect_from(self, descriptor: int) -> bool:
        """Read once what another worker has sent directly; return whether there may be more."""
        incoming = self._incoming.get(descriptor)
        if incoming is None:
            return False
        try:
            self._take_from(incoming, incoming.receive())
        except BlockingIOError:
            return False
        except NoMemory:  # likewise
            raise
        except (OSError, WireError) as error:
            if of_a_signal_handler(error):
                raise
            if isinstance(error, WireError):
                logger.error("invalid data from another worker: %s", error)
            del self._incoming[descriptor]
            self._poll.unregister(descriptor)
            self._counts.close(incoming.number)
            incoming.close()
            return False
        return True

    def _hub_gone(self) -> None:
        # The worker's lifeline ends the worker; here `poll` must just not return at once for ever.
        self._open = False
        self._poll.unregister(self._sock)

    def _block(self, seconds: float | None) -> None:
        self._ready = self._poll.poll(None if seconds is None else max(0.0, seconds), _READY)

    def _wake(self) -> None:
        os.eventfd_write(self._bell_fd, 1)

    def close(self) -> None:
        """Close the descriptors; the caller closes the socket."""
        super().close()
        self.disconnect()
        self._counts.release()
        self._poll.close()
        os.close(self._bell_fd)
