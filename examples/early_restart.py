"""A worker with much memory is killed, and back in a spare before the kernel has freed the memory of the dead one."""

from typing import Any

from suitkaise import Child, Process, Supervisor


class Model(Process):
    def on_start(self) -> None:
        self.weights = bytearray(32 << 20)

    def on_receive(self, message: Any) -> str:
        if message == "crash":
            raise MemoryError("this model is too large")
        return f"{len(self.weights) >> 20} MiB"


if __name__ == "__main__":
    with Supervisor("desk", Child(Model, spares=1, early_restart=True)).start() as running:
        running["model"].tell("crash")
        print(running["model"].ask("size"))
        print(running["model"].status)
