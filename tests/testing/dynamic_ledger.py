"""Checks the visible behaviour of a dynamic supervisor against rules 44, 53 and 54."""

from __future__ import annotations

from collections.abc import Iterable

from suitkaise import DynamicSupervisor
from suitkaise.specs import Child
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
        assert ticket.spec is not None
        if ticket.spec.significant:
            return "SpecError"
        return super()._refusal(ticket, record) or ("MaxChildren" if self._is_full() else None)

    def _is_full(self) -> bool:
        """Return whether there is no place for another child; one that was given up takes none (rules 53 and 78)."""
        assert isinstance(self.spec, DynamicSupervisor)
        most = self.spec.max_children
        return most is not None and sum(one.alive or one.waits for one in self.records.values()) >= most

    def _right_answer(self, ticket: Ticket, record: ChildRecord | None) -> tuple[str, ...]:
        right = super()._right_answer(ticket, record)
        revives = record is not None and record.given_up and not record.alive
        return ("MaxChildren",) if right == ("nothing yet",) and revives and self._is_full() else right

    def _launch_for(self, ticket: Ticket, spec: Child) -> None:
        record = self.records.get(ticket.id)
        if (record is None or record.given_up) and self._is_full():
            self.wrong(f"{ticket.id} is started, but there are max_children already (rules 53 and 78)")
        super()._launch_for(ticket, spec)

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
