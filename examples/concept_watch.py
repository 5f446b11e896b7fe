"""A worker writes its progress, and the main program is told of every change as it happens."""

from suitkaise import Process, Supervisor, sktree


class Bake(Process):
    restart = "transient"

    def loop(self):
        self.tree.add("bread", f"step {self.current_loop}", path="kitchen")
        if self.current_loop == 3:
            self.tree.remove("bread", path="kitchen")
            self.rejoin()


tree = sktree.connect()
with tree.watch("kitchen") as changes, Supervisor("bakery", Bake).start():
    for change in changes:
        print(change.kind, change.name)
        if change.kind == "removed":
            break
sktree.disconnect()
# prints: added bread
# prints: updated bread
# prints: updated bread
# prints: removed bread
