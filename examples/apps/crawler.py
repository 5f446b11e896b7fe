"""Crawls a web site with async workers: each page is recorded once, whichever process is killed.

    python examples/apps/crawler.py [--pages 200]

A fetcher claims some pages, fetches them side by side, and records each one in a transaction: the page is done, and the
pages that it links to are waiting. A claim belongs to its worker. It is removed when the worker's process ends, however
that happens, so the other fetchers take over the pages that a killed one was fetching.
"""

import argparse
import asyncio
import random
import re
import socket

from suitkaise import Child, Process, Supervisor, sktree

TODO, CLAIMS, DONE, TOTALS = "crawl/todo", "crawl/claims", "crawl/done", "crawl/totals"
AT_ONCE = 8  # pages that one fetcher fetches side by side


class Site(Process):
    """A web site whose page n links to the pages 2n, 2n + 1 and n // 2, so that page 1 leads to all."""

    def __init__(self, listener: socket.socket, pages: int) -> None:
        self.listener = listener  # the program's: clients that connect during a restart wait in it
        self.pages = pages

    async def on_start(self) -> None:
        self.server = await asyncio.start_server(self.serve, sock=self.listener)
        print(f"site serves in process {self.pid}", flush=True)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await reader.readline()
        number = int(request.split()[1][1:])
        await asyncio.sleep(0.03)  # a site far away
        links = [link for link in (2 * number, 2 * number + 1, number // 2) if 1 <= link <= self.pages]
        body = "<html>" + "".join(f'<a href="/{link}">' for link in links) + "</html>"
        writer.write(f"HTTP/1.0 200 OK\r\nContent-Type: text/html\r\n\r\n{body}".encode())
        await writer.drain()
        writer.close()

    async def on_finish(self) -> None:
        self.server.close()


class Fetch(Process):
    """Fetches pages until none is waiting."""

    restart = "transient"
    significant = True

    def __init__(self, host: str, port: int) -> None:
        self.host = host
        self.port = port

    async def loop(self) -> None:
        pages = self.claim()
        if pages:
            print(f"{self.name} fetches {len(pages)} pages in process {self.pid}", flush=True)
        await asyncio.gather(*map(self.visit, pages))
        if not self.tree.get_all_from(TODO):
            self.rejoin()
        elif not pages:  # the other fetchers have them all
            await self.wait_async(0.02)

    def claim(self) -> list[str]:
        waiting = sorted(self.tree.get_all_from(TODO).keys() - self.tree.get_all_from(CLAIMS).keys())
        chosen = random.sample(waiting, min(AT_ONCE, len(waiting)))
        return [page for page in chosen if self.is_mine(page)]

    def is_mine(self, page: str) -> bool:
        """Claim the page, unless another worker has."""
        return self.tree.setdefault(page, self.pid, path=CLAIMS, metadata=self.metadata) == self.pid

    async def visit(self, page: str) -> None:
        try:
            reader, writer = await asyncio.open_connection(self.host, self.port)
            writer.write(f"GET {page} HTTP/1.0\r\n\r\n".encode())
            answer = (await reader.read()).decode()
            writer.close()
        except OSError:
            answer = ""
        if answer.endswith("</html>"):
            links = re.findall('href="(.*?)"', answer)
            self.tree.atomically(lambda tree: record(tree, page, links))
        else:  # the site was killed; once it is back, this or another fetcher claims the page again
            await self.wait_async(0.05)
            self.tree.remove(page, path=CLAIMS)


def record(tree: sktree.Tree, page: str, links: list[str]) -> None:
    tree.remove(page, path=CLAIMS)
    if not tree.exists(page, path=TODO):  # it was claimed just after another fetcher had recorded it
        return
    tree.move(page, to=DONE, path=TODO)
    tree.increment("links", len(links), path=TOTALS)
    for link in links:
        if not tree.exists(link, path=TODO) and not tree.exists(link, path=DONE):
            tree.add(link, None, path=TODO)


parser = argparse.ArgumentParser(description="Crawl a web site of this program's own.")
parser.add_argument("--pages", type=int, default=200, help="how many pages it has (default 200)")
options = parser.parse_args()

listener = socket.create_server(("127.0.0.1", 0), backlog=128)
host, port = listener.getsockname()
tree = sktree.connect()
tree.add("/1", None, path=TODO)
Supervisor(
    "crawler",
    Child(Site(listener, options.pages), shutdown=1.0),
    Child(Fetch(host, port), copies=3),
    max_restarts=20,
    auto_shutdown="all_significant",  # the end, once all fetchers have finished
).run()
print(f"{len(tree.get_all_from(DONE))} pages, {tree.get('links', path=TOTALS, default=0)} links")
