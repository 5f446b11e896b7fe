"""Processes that are made by calls: one loops until it is asked to rejoin, one is killed and recalled."""

import os
import signal

from suitkaise import xprocess

xp = xprocess.CrossProcessing()


def ui_loop(title, process_name):
    return f"{title} in {process_name}, loop {xp.get_current_loop()}"


with xp.ProcessSetup() as setup:
    with xp.OnStart() as start:
        process_name = xp.get_process_name()  # goes to the parameter of that name

    with xp.OnFinish() as finish:
        print(process_name, "finished after loop", xp.get_current_loop(), flush=True)

ui = xp.create_process("UI_handler", ui_loop, setup.build(), args=("Hello",))


class Fragile(xprocess.Process):
    def __loop__(self):
        if not self.recalled:  # what a later start knows of the one before
            os.kill(os.getpid(), signal.SIGKILL)
        self.rejoin()
        return "survived"


xp.create_process(Fragile)
print("fragile:", xp.get_process_result("fragile"), "after", xp.get_process_stats("fragile")["restarts"], "restart")
xp.rejoin(ui)
print(xp.get_process_result(ui)[:25])
print({name: str(status) for name, status in xp.list_processes().items()})

# prints: fragile: survived after 1 restart
# prints: UI_handler finished after loop
# prints: Hello in UI_handler, loop
# prints: {'UI_handler': 'finished', 'fragile': 'finished'}
