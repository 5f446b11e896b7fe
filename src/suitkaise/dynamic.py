"""The declaration of a dynamic supervisor: its children are added while it runs."""

from __future__ import annotations

from typing import Any, Never, Self

from suitkaise.errors import SpecError
from suitkaise.options import Restart, Shutdown, refuse_unknown
from suitkaise.specs import Supervisor

__all__ = ["DynamicSupervisor"]

_OPTIONS = ("max_children", "max_restarts", "max_seconds", "engine", "restart", "shutdown", "significant")
_FIXED = {
    "children": "children are added by start_child when it runs",
    "strategy": "its children come back independently of each other (one_for_one)",
    "auto_shutdown": "it does not end with its children",
}


class DynamicSupervisor(Supervisor):
    """The declaration of a supervisor that starts without children; `start_child` adds them (rules 53 and 54).

    Its children have no order: they start side by side, come back independently of each other, and are all stopped
    at once. A child that ends and is not to be restarted, that `terminate_child` stops, or that raises `Ignore` is
    forgotten, so there are no stopped children: `restart_child` and `delete_child` find none, `recall` restarts a
    child that runs. When the dynamic supervisor itself is restarted it is empty again (rule 40). A child that nobody
    has given an id or a name gets a number that is not used again: `fetch-1`, `fetch-2`.

    Args:
        name: its name; no `/`.
        max_children: how many children it may have, those that are being restarted included (default None: any
            number); `start_child` raises `MaxChildren` beyond that.
        max_restarts, max_seconds: as in `Supervisor`, for all its children together (rules 28-30).
        restart, shutdown, significant: as in `Child`, for when this supervisor is itself a child.

    Raises:
        SpecError: anything is wrong with it, here and now (rule 5).

    >>> def work() -> None: ...
    >>> print(Supervisor("app", work, DynamicSupervisor("pool", max_children=100)))
    app  supervisor, one_for_one, 3 restarts in 5 s
    ├─ work  process, permanent
    └─ pool  dynamic supervisor, at most 100 children, 3 restarts in 5 s
    """

    __slots__ = ("max_children",)

    max_children: int | None

    def __init__(
        self,
        name: str,
        max_children: int | None = None,
        *,
        max_restarts: float = 3,
        max_seconds: float = 5.0,
        engine: None = None,
        restart: Restart = "permanent",
        shutdown: Shutdown = "infinity",
        significant: bool = False,
        **unknown: Never,
    ) -> None:
        who = f"DynamicSupervisor {name!r}"
        for option, why in _FIXED.items():
            if option in unknown:
                raise SpecError(f"{who}: it takes no {option}: {why}")
        refuse_unknown(who, unknown, _OPTIONS)
        if max_children is not None and (
            not isinstance(max_children, int) or isinstance(max_children, bool) or max_children < 0
        ):
            raise SpecError(
                f"{who}: max_children must be a whole number >= 0, or None for any number, not {max_children!r}"
            )
        super().__init__(
            name, max_restarts=max_restarts, max_seconds=max_seconds, engine=engine, restart=restart,
            shutdown=shutdown, significant=significant,
        )  # fmt: skip
        self._set(max_children=max_children)

    def replace(self, **changes: Any) -> Self:
        """A copy of this declaration with some options changed, checked again.

        >>> DynamicSupervisor("pool").replace(max_children=3).max_children
        3
        """
        fields = self.__getstate__()
        return type(self)(**{**{name: fields[name] for name in fields.keys() - _FIXED.keys()}, **changes})

    def _headline(self) -> str:
        most = "" if self.max_children is None else f", at most {self.max_children} children"
        return f"{self.name}  dynamic supervisor{most}, {self._intensity()}"

    def __repr__(self) -> str:
        return f"DynamicSupervisor({self.name!r}, max_children={self.max_children})"
