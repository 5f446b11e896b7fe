"""A thread sees the context variables of the caller that started it; an ask that takes too long tells why."""

import contextvars
from typing import Any

from suitkaise import AskTimeout, Child, DynamicSupervisor, Supervisor, Thread

TENANT: contextvars.ContextVar[str] = contextvars.ContextVar("TENANT", default="nobody")


class Export(Thread):
    def on_receive(self, message: Any) -> str:
        if message == "all of it":
            self.wait(1.0)
        return f"{message} for {TENANT.get()}"


with Supervisor("app", DynamicSupervisor("exports")).start() as running:
    for tenant in ("acme", "ajax"):
        TENANT.set(tenant)
        running.start_child(Child(Export, id=tenant), under="exports")
    print(running["exports/acme"].ask("invoices"))
    print(running["exports/ajax"].ask("orders"))
    try:
        running["exports/ajax"].ask("all of it", timeout=0.1)
    except AskTimeout as late:
        print("late:", late.path, "is", late.status, "in", late.phase)

# prints: invoices for acme
# prints: orders for ajax
# prints: late: app/exports/ajax is running in on_receive
