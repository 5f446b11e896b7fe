"""What one process adds to the tree is there in all others at their next read; nothing has to be sent or locked."""

from suitkaise import Child, Process, Supervisor, sktree


class Sensor(Process):
    def on_receive(self, celsius):
        self.tree.add(f"sensor-{self.copy}", celsius, path="room", metadata=self.metadata)


class Panel(Process):
    def on_receive(self, message):
        return self.tree.get_all_from("room")  # reads shared memory: no message goes anywhere


tree = sktree.connect()
workers = [Child(Sensor, copies=3), Child(Panel)]
with Supervisor("house", *workers).start() as running:
    for number, celsius in enumerate((19.5, 21.0, 22.5)):
        running[f"sensor-{number}"].ask(celsius)
    print(running["panel"].ask("all?"))
    print(tree.get("sensor-1", path="room"))

# `self.metadata` marks an entry with remove_on_process_join, so it has gone with its process.
print(tree.get_all_from("room"))
sktree.disconnect()

# prints: {'sensor-0': 19.5, 'sensor-1': 21.0, 'sensor-2': 22.5}
# prints: 21.0
# prints: {}
