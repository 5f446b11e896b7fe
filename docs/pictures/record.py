"""Records `docs/pictures/kill.svg`: `suitkaise run` in a real terminal, while its worker is killed twice.

Run it as `python docs/pictures/record.py`. The lines, their colours and their times are those of that run.
"""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import sys
import tempfile
import time
from html import escape
from pathlib import Path

APP = """\
from suitkaise import Process, Supervisor, Thread
class Ticker(Process):
    def loop(self): self.wait(1.0)
class Watcher(Thread):
    def loop(self): self.wait(1.0)
Supervisor("app", Ticker, Watcher).run()
"""
KILLS = (2.0, 4.0)
LENGTH = 7.0
WIDTH, LEFT, RIGHT, LINE, TOP = 940, 24, 200, 22, 64
COLOURS = {"31": "#ff7b72", "32": "#7ee787", "33": "#e3b341", "2": "#8b949e"}
STYLE = """
  text { font: 13px ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; fill: #e6edf3; white-space: pre }
  @media (prefers-reduced-motion: reduce) { text { animation: none !important } }"""

Line = tuple[float, int, int, str]  # seconds since the start, column, row, text with escapes


def record() -> list[Line]:
    """Run the program in a terminal of its own, kill its worker as planned; what appeared where and when."""
    lines: list[Line] = [(0.0, RIGHT, 0, "$ suitkaise run app.py")]
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "app.py").write_text(APP)
        ours, theirs = pty.openpty()
        command = [sys.executable, "-m", "suitkaise", "run", "app.py"]
        environment = {**os.environ, "TERM": "xterm-256color"}
        environment.pop("NO_COLOR", None)
        program = subprocess.Popen(command, cwd=folder, stderr=theirs, env=environment, start_new_session=True)
        os.close(theirs)
        began, kills, text = time.monotonic(), list(KILLS), ""
        os.set_blocking(ours, False)
        while (now := time.monotonic() - began) < LENGTH - 1.5:
            try:
                text += os.read(ours, 1 << 16).decode()
            except BlockingIOError:
                time.sleep(0.005)
            *whole, text = text.split("\n")
            for line in whole:
                row = sum(column == RIGHT for _, column, _, _ in lines)
                lines.append((now, RIGHT, row, line.replace("\r", "").replace("\x1b[K", "")))
            if kills and now >= kills[0]:
                del kills[0]
                pid = re.findall(r"ticker (?:started|is back) \(pid (\d+)\)", "".join(line[3] for line in lines))[-1]
                lines.append((now, LEFT, len(KILLS) - len(kills) - 1, f"$ kill -9 {pid}"))
                os.kill(int(pid), signal.SIGKILL)
        program.send_signal(signal.SIGTERM)
        program.wait()
        os.close(ours)
    return lines


def spans(text: str) -> str:
    """A line with escapes as coloured spans."""
    parts = re.split(r"\x1b\[(\d+)m", text)
    drawn = escape(parts[0])
    for code, part in zip(parts[1::2], parts[2::2], strict=True):
        colour = COLOURS.get(code)
        drawn += f'<tspan fill="{colour}">{escape(part)}</tspan>' if colour and part else escape(part)
    return drawn


def draw(lines: list[Line]) -> str:
    """The picture: every line appears at its time, and the whole begins anew."""
    height = TOP + LINE * (1 + max(row for _, _, row, _ in lines))
    body, moves = [], []
    for number, (when, column, row, text) in enumerate(lines):
        percent = when / LENGTH * 100
        moves.append(
            f"@keyframes a{number} {{ 0%, {percent:.2f}% {{ opacity: 0 }} {percent + 0.01:.2f}% {{ opacity: 1 }} }}"
        )
        body.append(
            f'<text x="{column}" y="{TOP + LINE * row}" style="animation: a{number} {LENGTH}s infinite">'
            f"{spans(text)}</text>"
        )
    dots = "".join(f'<circle cx="{22 + 18 * n}" cy="20" r="5" fill="#30363d"/>' for n in range(3))
    return f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img">
<title>A terminal: a worker is killed with kill -9, and is back milliseconds later</title>
<style>{STYLE}
  {chr(10).join(moves)}
</style>
<rect width="{WIDTH}" height="{height}" rx="8" fill="#0d1117"/>{dots}
<line x1="{RIGHT - 16}" y1="40" x2="{RIGHT - 16}" y2="{height - 12}" stroke="#30363d"/>
{chr(10).join(body)}
</svg>
"""


if __name__ == "__main__":
    Path(__file__).with_name("kill.svg").write_text(draw(record()))
