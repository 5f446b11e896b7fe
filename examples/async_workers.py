"""A worker with async hooks serves a port and answers messages, and is supervised like any other."""

import asyncio
import socket
from typing import Any

from suitkaise import Process, Supervisor


class Shouter(Process):
    async def on_start(self) -> None:
        self.connections = 0
        port = self.last_checkpoint(0)  # the same port after a restart
        self.server = await asyncio.start_server(self.serve, "127.0.0.1", port)
        self.port = self.server.sockets[0].getsockname()[1]
        self.checkpoint(self.port)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection, in a task of its own, which runs also while the worker handles no message."""
        self.connections += 1
        async for line in reader:
            writer.write(line.upper())
            await writer.drain()
        writer.close()

    async def on_receive(self, message: Any) -> int:
        await asyncio.sleep(0.01)  # delays the next message, but no connection
        return self.port if message == "port" else self.connections

    async def on_finish(self) -> None:
        self.server.close()


def shout(port: int, text: str) -> str:
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(f"{text}\n".encode())
        return connection.makefile().readline().strip()


with Supervisor("town", Shouter).start() as running:
    shouter = running["shouter"]
    port = shouter.ask("port")
    print(shout(port, "hello"), shout(port, "world"))
    print("connections:", shouter.ask("connections"))
    shouter.kill()  # a fault: it is restarted
    print("the same port:", shouter.ask("port") == port)
    print(shout(port, "hello again"))

# prints: HELLO WORLD
# prints: connections: 2
# prints: the same port: True
# prints: HELLO AGAIN
