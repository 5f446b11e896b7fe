"""A proxy with the type of the worker's class: its calls are checked by mypy and pyright, and return the values."""

from suitkaise import Process, Supervisor


class Account(Process):
    def on_start(self) -> None:
        self.balance = 0

    def deposit(self, amount: int) -> int:
        self.balance += amount
        return self.balance


with Supervisor("bank", Account).start() as running:
    account = running["account"].proxy(Account)
    print("after two deposits:", account.deposit(70) + account.deposit(30) - 70)
    print("balance:", account.balance)

# prints: after two deposits: 100
# prints: balance: 100
