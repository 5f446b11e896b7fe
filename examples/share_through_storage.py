"""Processes share a counter and their results; entries can be removed together with their worker."""

from suitkaise import Child, Process, Supervisor, sktree


class Vote(Process):
    restart = "transient"

    def loop(self) -> None:
        self.tree.increment("votes", path="election")
        self.tree.add(f"booth-{self.copy}", self.pid, path="election/open", metadata=self.metadata)
        self.rejoin()


tree = sktree.connect()  # the same storage that the workers see as self.tree
with Supervisor("election", Child(Vote, copies=4)).start() as running:
    for vote in running:
        vote.join(timeout=10.0)
print("votes:", tree.get("votes", path="election"))
tree.add("closed", True, path="election")
print(sorted(tree.get_all_from("election")))
sktree.disconnect()

# prints: votes: 4
# prints: ['closed', 'votes']
