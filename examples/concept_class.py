"""A worker in the words of the concept: hooks with underscores, an entry for each loop, and a report that stays."""

from suitkaise import Process, Supervisor, sktree


class UiProcess(Process):
    restart = "transient"

    def __init__(self, name: str, num_loops: int | None = None) -> None:
        super().__init__(name, num_loops)
        self.tree = sktree.connect()
        self.loop_time_result_name = f"{self.name}-{self.get_current_loop}"

    def __beforeloop__(self) -> None:
        self.loop_time_result_name = f"{self.name}-{self.get_current_loop}"
        if self.last_loop:
            print("This is the last loop before process join.", flush=True)

    def __loop__(self) -> None:
        self.wait(0.001)

    def __afterloop__(self) -> None:
        self.tree.add(self.loop_time_result_name, self.last_loop_time, path="my_file1", metadata=self.metadata)

    def __onfinish__(self) -> None:
        print("entries:", len(self.tree.get_all_from("my_file1")), flush=True)
        report = self.generate_loop_time_report()
        self.tree.add_to_root(report["name"], report)
        self.cleanup()


with Supervisor("app", UiProcess("UI_handler", num_loops=20)).start() as running:
    running["UI_handler"].join(timeout=20.0)

tree = sktree.connect()
print("entries left:", len(tree.get_all_from("my_file1")))
print(tree.get("UI_handler loop times report", path=""))
sktree.disconnect()

# prints: This is the last loop before process join.
# prints: entries: 20
# prints: entries left: 0
# prints: UI_handler loop times report
# prints: loops 20,
