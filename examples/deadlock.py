"""Two workers that wait for each other: instead of waiting for a time-out, one of them is told who waits for whom."""

from suitkaise import DeadlockError, Process, Supervisor


class Office(Process):
    def on_receive(self, question: str) -> str:
        if question == "which form?":
            return "form 12"
        answer: str = self.whereis("town/archive").ask(question)
        return answer


class Archive(Process):
    def on_receive(self, question: str) -> str:
        try:
            return f"see {self.whereis('town/office').ask('which form?')}"  # the office waits for this archive
        except DeadlockError as error:
            return str(error)


with Supervisor("town", Office, Archive).start() as running:
    print(running["office"].ask("where is the file?"))

# prints: deadlock: town/office asks town/archive asks town/office; none of them can answer
