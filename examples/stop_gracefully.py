"""A worker saves its work however the program is asked to end: by Ctrl-C, `kill`, `timeout`, or a service manager.

Try `timeout 2 suitkaise run examples/stop_gracefully.py`. Without a signal the work is done after four seconds.
"""

import time

from suitkaise import Child, Process, Supervisor


class Collector(Process):
    def on_start(self) -> None:
        self.collected: list[float] = []

    def loop(self) -> None:
        self.collected.append(time.time())
        self.wait(0.1)  # ends at once when the worker is asked to stop

    def on_finish(self) -> None:
        time.sleep(0.2)  # it may take up to `shutdown` seconds
        print(f"saved {len(self.collected)} values", flush=True)


done = Child(Collector, join_in=4.0, restart="transient", significant=True)
reason = Supervisor("collecting", done, auto_shutdown="any_significant").run()
print("the program goes on after", reason)

# prints: saved
# prints: the program goes on after shutdown
