"""A file for each worker of a tree: what it prints and logs, and what happens to it."""

import contextlib
import tempfile
from pathlib import Path
from typing import Any

from suitkaise import Process, Supervisor


class Till(Process):
    def on_receive(self, order: Any) -> None:
        if order == "a unicorn":
            raise ValueError("out of stock")
        print("sold", order)
        self.log.warning("the till is almost empty", left=3)


with tempfile.TemporaryDirectory() as folder:
    with Supervisor("shop", Till, log_dir=folder, log_max_bytes="10 MiB", log_backups=3).start() as running:
        till = running["till"]
        till.ask("an apple")
        with contextlib.suppress(ValueError):
            till.ask("a unicorn")
        till.ask("a plum")
    for line in Path(folder, "shop/till.log").read_text("utf-8").splitlines():
        print(line[24:])  # without its time

# prints: stdout: sold an apple
# prints: warning: the till is almost empty left=3
# prints: event: ended (pid
# prints: stdout: sold a plum
# prints: event: stopped: shutdown
