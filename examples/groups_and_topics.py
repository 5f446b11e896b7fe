"""Workers that join a group are asked in turn, and all subscribers hear of what is published."""

from typing import Any

from suitkaise import Child, Process, Published, Supervisor, group, publish


class Cook(Process):
    def on_start(self) -> None:
        self.join_group("cooks")
        self.subscribe("kitchen/*")
        self.news: list[str] = []

    def on_receive(self, message: Any) -> str:
        if isinstance(message, Published):
            self.news.append(f"{message.topic} {message.message}")
        elif message == "news?":
            return ", ".join(self.news)
        else:
            publish("kitchen/ready", message)
        return f"{self.name} cooks {message}"


with Supervisor("inn", Child(Cook, id="anna"), Child(Cook, id="ben")).start() as running:
    cooks = group("cooks")
    for dish in ("soup", "fish", "cake"):
        print(cooks.ask(dish))
    running["anna"].kill()  # it is restarted, and joins anew
    print(running["ben"].ask("news?"))
    print("kitchen/open reaches", publish("kitchen/open", "at noon"))

# prints: anna cooks soup
# prints: ben cooks fish
# prints: anna cooks cake
# prints: kitchen/ready soup, kitchen/ready fish, kitchen/ready cake
# prints: kitchen/open reaches
