"""A command with children that ignore stop signals: `process_family.py FILE WAYS [--stubborn]`.

Each child of the WAYS (`plain,session,daemon,bare`) writes `WAY PID` into FILE and ignores all signals that it can:
`session` has a session of its own, `daemon` has lost its parent as well, `bare` has also cleared its environment. The
command itself writes `self PID`, and before that `overlap PID` for each process of the file that still runs.
"""

import os
import signal
import sys

IGNORED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
SLEEP = "import signal\nwhile True: signal.pause()"


def note(file: str, text: str) -> None:
    descriptor = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(descriptor, f"{text}\n".encode())
    os.close(descriptor)


def alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def ignore() -> None:
    for number in IGNORED:
        signal.signal(number, signal.SIG_IGN)


def child(way: str, file: str, write_end: int) -> None:
    if os.fork():
        return
    if way != "plain":
        os.setsid()
    if way in ("daemon", "bare") and os.fork():
        os._exit(0)
    ignore()
    note(file, f"{way} {os.getpid()}")
    os.write(write_end, b".")
    if way == "bare":
        os.execve(sys.executable, [sys.executable, "-c", SLEEP], {})
    while True:
        signal.pause()


file, ways = sys.argv[1], sys.argv[2].split(",")
if os.path.exists(file):
    with open(file) as earlier:
        lines = earlier.read().splitlines()
    for line in lines:
        way, pid = line.split()
        if way != "overlap" and alive(int(pid)):
            note(file, f"overlap {pid}")
note(file, f"self {os.getpid()}")
if "--stubborn" in sys.argv:
    ignore()
read_end, write_end = os.pipe()
for way in ways:
    child(way, file, write_end)
reported = b""
while len(reported) < len(ways):
    reported += os.read(read_end, 10)
print("the family is there", flush=True)
while True:
    signal.pause()
