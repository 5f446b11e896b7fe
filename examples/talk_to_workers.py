"""Tell, ask, and call methods of a worker in another process; an asker gets the original exception."""

from typing import Any

from suitkaise import Process, Reject, Supervisor


class Account(Process):
    def on_start(self) -> None:
        self.balance = 0

    def on_receive(self, message: Any) -> int:
        what, amount = message
        if what == "withdraw" and amount > self.balance:
            raise Reject(ValueError(f"there are only {self.balance}"))  # the asker gets this error; the worker goes on
        self.balance += amount if what == "deposit" else -amount
        return self.balance

    def statement(self, currency: str) -> str:
        return f"{self.balance} {currency}"


with Supervisor("bank", Account).start() as running:
    account = running["account"]
    account.tell(("deposit", 100))
    print("balance:", account.ask(("withdraw", 30)))
    try:
        account.ask(("withdraw", 1000))
    except ValueError as error:
        print("refused:", error)
    print("statement:", account.proxy().statement("EUR").get())

# prints: balance: 70
# prints: refused: there are only 70
# prints: statement: 70 EUR
