"""Checks the visible behaviour of a dynamic supervisor against rules 44, 53 and 54."""

from __future__ import annotations

from collections.abc import Iterable

from suitkaise import DynamicSupervisor
from tests.testing.ledger import Ledger
from tests.testing.records import ChildRecord, Ticket

__all__ = ["DynamicLedger"]


class DynamicLedger(Ledger):
    """The ledger of a supervisor whose children have no order: a queue for each, and all are stopped at once."""

    def keeps(self, record: ChildRecord) -> bool:
        return False

    def head(self, id: str) -> Ticket | None:
        return next((ticket for ticket in self.tickets if ticket.id == id), None)

    def heads(self) -> Iterable[Ticket]:
        return {ticket.id: ticket for ticket in reversed(self.tickets)}.values()

    def _idle(self) -> bool:
        return True

    def _refusal(self, ticket: Ticket, record: ChildRecord | None) -> str | None:
        assert isinstance(self.spec, DynamicSupervisor)
        assert ticket.spec is not None
        if ticket.spec.significant:
            return "SpecError"
        most = self.spec.max_children
        present = sum(self._there(one) for one in self.records.values())
        full = most is not None and present >= most
        return super()._refusal(ticket, record) or ("MaxChildren" if full else None)

    def _there(self, record: ChildRecord) -> bool:
        return record.alive or record.waits

    def _recall_failed(self, record: ChildRecord) -> None:
        del self.records[record.spec.id]

    def _check_reverse(self, id: str, later: list[str]) -> None:
        """Check nothing: the children have no order."""

    def _check_stopping(self) -> None:
        if self.tickets:
            self.wrong(f"{len(self.tickets)} requests are not answered, although it stops")
        late = [id for id, record in self.records.items() if record.alive and record.asked_at is None]
        if late:
            self.wrong(f"it stops, but {late} are not stopped with the others (rule 44)")
