"""A command with limits, input, a log file and a terminal; a stop that its main process alone hears of."""

import tempfile
from pathlib import Path

from suitkaise import Child, Command, Supervisor

folder = Path(tempfile.mkdtemp())

limited = Command(
    "sh", "-c", "ulimit -n; umask; nice; cat", name="limited",
    limits={"nofile": 64}, umask=0o077, nice=5, stdin="the input\n", stdout=folder / "limited.log",
)  # fmt: skip

terminal = Command("sh", "-c", f"test -t 1 && echo yes > {folder}/terminal", name="terminal", tty=True)

# Like a server with workers: at SIGTERM it lets its worker finish, which would otherwise get the signal as well.
server = Command(
    "sh", "-c", "trap 'wait; exit 0' TERM; (sleep 0.5; echo saved > $FOLDER/work) & echo ready; while :; do wait; done",
    name="server", kill_mode="mixed", ready="ready", env={"FOLDER": str(folder)},
)  # fmt: skip

with Supervisor(
    "app", Child(limited, restart="transient"), Child(terminal, restart="transient"), Child(server, shutdown=20.0)
).start() as running:
    running["limited"].join()
    running["terminal"].join()

print((folder / "limited.log").read_text().splitlines())
print("a terminal:", (folder / "terminal").read_text().strip())
print("the worker's job:", (folder / "work").read_text().strip())

for file in folder.iterdir():
    file.unlink()
folder.rmdir()

# prints: ['64', '0077', '5', 'the input']
# prints: a terminal: yes
# prints: the worker's job: saved
