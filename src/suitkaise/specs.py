"""Declarations: what a supervision tree is made of, as immutable data.

Everything is checked where it is written, so that a tree that exists can be started. A worker that is
built where the tree is declared is a *recipe*: its class and arguments are recorded, and every start
builds it anew from them.
"""

from __future__ import annotations

import math
import re
import shlex
import warnings
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Never, Self

from suitkaise.errors import NotBuiltYet, SpecError
from suitkaise.options import (
    AUTO_SHUTDOWNS,
    NOT_GIVEN,
    RESTARTS,
    STRATEGIES,
    AutoShutdown,
    Backoff,
    Options,
    Restart,
    Shutdown,
    Strategy,
    is_number,
    refuse_unknown,
)
from suitkaise.recipes import Kind, Recipe, Startable, check_arguments, check_recipe, snapshot, with_arguments

if TYPE_CHECKING:
    from suitkaise.exits import ExitReason
    from suitkaise.supervision.running import RunningTree
    from suitkaise.supervision.starting import AsyncStart

__all__ = [
    "AutoShutdown",
    "Backoff",
    "Child",
    "Kind",
    "Recipe",
    "Restart",
    "Shutdown",
    "SpecWarning",
    "Startable",
    "Strategy",
    "Supervisor",
    "snapshot",
]


LIMITS = ("start_timeout", "before_loop_timeout", "loop_timeout", "after_loop_timeout", "receive_timeout",
          "finish_timeout")  # fmt: skip
LATER = ("mailbox",)


class SpecWarning(UserWarning):
    """A declaration is legal but will hardly do what was meant."""


class _Declaration:
    """What `Child` and `Supervisor` share: immutable, compared and copied by their fields."""

    __slots__ = ()

    def __setattr__(self, name: str, value: Any) -> Never:
        raise AttributeError(
            f"{type(self).__name__} is immutable: {name!r} cannot be set; use replace({name}=...) for a changed copy"
        )

    def __delattr__(self, name: str) -> Never:
        raise AttributeError(f"{type(self).__name__} is immutable: {name!r} cannot be deleted")

    def _set(self, **values: Any) -> None:
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def __getstate__(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self._slots()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._set(**state)

    def _slots(self) -> Iterator[str]:
        for cls in type(self).__mro__:
            yield from getattr(cls, "__slots__", ())

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return self.__getstate__() == other.__getstate__()

    __hash__: ClassVar[None]  # type: ignore[assignment]


class Child(_Declaration):
    """The declaration of one child of a supervisor.

    `what` is a worker class, a worker, a `Supervisor`, a `Command`, or a plain function (called once a loop in a
    process of its own; `Thread.of(function)` for a thread). Options that are not given here come from the worker
    (an attribute set in its constructor), then from its class, then from the defaults (rules 3 and 6).

    Args:
        what: what to start.
        id: the name in its supervisor; default: the worker's name, else its class's name in snake case.
        args, kwargs: for the constructor, when `what` is a class, or for each call, when it is a function.
        restart: `"permanent"` (default), `"transient"` or `"temporary"` (rules 23-26).
        shutdown: seconds between a stop request and a kill (default 5.0; supervisors `"infinity"`),
            `"brutal_kill"` or `"infinity"` (rule 42).
        significant: whether its end can end the supervisor (rules 47-52).
        start_timeout, before_loop_timeout, loop_timeout, after_loop_timeout, receive_timeout, finish_timeout: the
            seconds that `on_start` (and the way to it from the birth of the process), a hook, or the handling of a
            message may take; None: any time. A worker that takes longer is hung: it is killed and restarted as after
            a crash (rule 55). A hung thread cannot be killed, so it is abandoned and replaced (rule 59).
        join_in: seconds after which each incarnation finishes; None: never.
        join_after: loops after which each incarnation finishes; None: never.
        backoff: the delays between restarts (rule 56); None: none.
        spares: how many processes stand by for it (and for each of its copies), with its module imported and its
            arguments unpacked, so that a restart need not wait for that; default 0. For process workers.
        copies: how many of it: `copies=4` makes `id-0` ... `id-3`, each with its `self.copy`.

    Raises:
        SpecError: anything is wrong with it, here and now (rule 5).

    >>> def work() -> None: ...
    >>> Child(work, restart="transient").id
    'work'
    >>> Child(work, restart="sometimes")
    Traceback (most recent call last):
    suitkaise.errors.SpecError: Child 'work': restart must be 'permanent', 'transient' or 'temporary', not 'sometimes'
    """

    __slots__ = (
        "backoff",
        "copies",
        "copy",
        "given",
        *LIMITS,
        "id",
        "id_given",
        "join_after",
        "join_in",
        "kind",
        "restart",
        "shutdown",
        "significant",
        "spares",
        "what",
    )  # fmt: skip

    id: str
    id_given: bool
    what: Recipe | Supervisor
    kind: Kind
    restart: Restart
    shutdown: Shutdown
    significant: bool
    start_timeout: float | None
    before_loop_timeout: float | None
    loop_timeout: float | None
    after_loop_timeout: float | None
    receive_timeout: float | None
    finish_timeout: float | None
    join_in: float | None
    join_after: float | None
    backoff: Backoff | None
    copies: int
    copy: int | None
    spares: int
    given: dict[str, Any]

    def __init__(
        self,
        what: Any,
        *,
        id: str | None = None,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
        restart: Restart = NOT_GIVEN,
        shutdown: Shutdown = NOT_GIVEN,
        significant: bool = NOT_GIVEN,
        start_timeout: float | None = NOT_GIVEN,
        before_loop_timeout: float | None = NOT_GIVEN,
        loop_timeout: float | None = NOT_GIVEN,
        after_loop_timeout: float | None = NOT_GIVEN,
        receive_timeout: float | None = NOT_GIVEN,
        finish_timeout: float | None = NOT_GIVEN,
        join_in: float | None = NOT_GIVEN,
        join_after: float | None = NOT_GIVEN,
        backoff: Backoff | None = NOT_GIVEN,
        copies: int = NOT_GIVEN,
        spares: int = NOT_GIVEN,
        mailbox: int | None = None,
        **unknown: Never,
    ) -> None:
        given: dict[str, Any] = {
            "restart": restart, "shutdown": shutdown, "significant": significant, "join_in": join_in,
            "join_after": join_after, "backoff": backoff, "copies": copies, "spares": spares,
            "start_timeout": start_timeout, "before_loop_timeout": before_loop_timeout,
            "loop_timeout": loop_timeout, "after_loop_timeout": after_loop_timeout,
            "receive_timeout": receive_timeout, "finish_timeout": finish_timeout, "mailbox": mailbox,
        }  # fmt: skip
        given = {name: value for name, value in given.items() if value is not NOT_GIVEN and
                 not (name in LATER and value is None)}  # fmt: skip
        check_arguments(what, args, kwargs)
        source = _recipe_of(what, args, kwargs or {})
        given_id = id if id is not None else _given_name(what, source)
        name = _checked_id(given_id if given_id is not None else _default_id(source), "Child")
        who = f"Child {name!r}"
        refuse_unknown(who, unknown, (*given, "id", "args", "kwargs", *_CHILD_DEFAULTS, *LATER))
        option = Options(who, given, *_sources_of(what))
        kind: Kind = source.kind if isinstance(source, Recipe) else "supervisor"
        if kind == "supervisor":
            option.refuse(
                "join_in", "join_after", "num_loops", "spares", *LIMITS, *LATER, because="supervisors have no loop"
            )
        if kind == "command":
            loops = ("before_loop_timeout", "loop_timeout", "after_loop_timeout")
            option.refuse("join_after", "num_loops", *loops, because="commands have no loop")
            option.refuse("receive_timeout", *LATER, because="commands take no messages")
            option.refuse("spares", because="a command is no process of ours before it runs")
        if kind == "thread":
            option.refuse("spares", because="a thread starts at once")
        option.refuse_later(*LATER)
        self._set(
            id=name,
            id_given=given_id is not None,
            what=source,
            kind=kind,
            restart=option.choice("restart", RESTARTS, "permanent"),
            shutdown=option.shutdown("infinity" if kind == "supervisor" else 5.0),
            significant=option.flag("significant"),
            **{name: option.positive(name, None) for name in LIMITS},
            join_in=option.positive("join_in", None),
            join_after=option.loops(),
            backoff=option.backoff(),
            copies=option.count("copies", 1),
            copy=None,
            spares=option.count("spares", 0, least=0),
            given={"args": args, "kwargs": kwargs, "id": id, **given},
        )
        if self.significant and self.restart == "permanent":
            raise SpecError(f"{who}: significant needs restart='transient' or 'temporary', not 'permanent' (rule 50)")
        if self.spares and self.restart == "temporary":
            raise SpecError(f"{who}: spares makes no sense here: a temporary child is never restarted")
        if self.restart == "permanent" and (self.join_after is not None or self.join_in is not None):
            limit = "join_after" if self.join_after is not None else "join_in"
            warnings.warn(
                f"{who}: it is permanent, so it is restarted each time {limit} ends it; "
                "say restart='transient' if it should end for good",
                SpecWarning,
                stacklevel=2 if type(self) is Child else 3,
            )

    def replace(self, **changes: Any) -> Self:
        """A copy of this declaration with some options changed, checked again.

        >>> def work() -> None: ...
        >>> Child(work).replace(restart="temporary").restart
        'temporary'
        """
        if "what" in changes:
            return type(self)(**{**self.given, **changes})
        what = self.what
        if isinstance(what, Recipe) and changes.keys() & {"args", "kwargs"}:
            what = with_arguments(what, changes.get("args", what.args), changes.get("kwargs", what.kwargs))
        return self._again(what, changes)

    def renamed(self, id: str) -> Self:
        """The same declaration under another id."""
        copy = object.__new__(type(self))
        copy._set(**{**self.__getstate__(), "id": id, "id_given": True})
        return copy

    def _again(self, what: Any, changes: dict[str, Any]) -> Self:
        given = {**self.given, "id": self.id, **changes}
        if isinstance(what, Recipe):
            given |= {"args": (), "kwargs": None}
            what = _Rebuilt(what, {name: getattr(self, name) for name in _CHILD_DEFAULTS})
        copy = type(self)(what, **given)
        copy._set(copy=self.copy, id_given=self.id_given or "id" in changes)
        return copy

    def expanded(self) -> tuple[Child, ...]:
        """This child, or its `copies`, each under its own id."""
        if self.copies == 1:
            return (self,)
        clones = []
        for number in range(self.copies):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", SpecWarning)
                clone = self._again(self.what, {"copies": 1, "id": f"{self.id}-{number}"})
            clone._set(copy=number)
            clones.append(clone)
        return tuple(clones)

    def __repr__(self) -> str:
        given = {name: value for name, value in self.given.items()
                 if name not in ("id", "args", "kwargs") and value is not None}  # fmt: skip
        name = self.what.name
        return f"Child({name}, id={self.id!r}{''.join(f', {key}={value!r}' for key, value in given.items())})"


_CHILD_DEFAULTS = (
    "restart",
    "shutdown",
    "significant",
    *LIMITS,
    "join_in",
    "join_after",
    "backoff",
    "copies",
    "spares",
)


class Supervisor(_Declaration):
    """The declaration of a supervisor and its children.

    Args:
        name: its name: the first part of its workers' paths; no `/`.
        children: `Child`ren; or workers, worker classes, functions and supervisors with their defaults.
        strategy: `"one_for_one"` (default), `"one_for_all"` or `"rest_for_one"` (rules 31-33).
        max_restarts: restarts that are borne within `max_seconds` (default 3; `math.inf`: any number; rule 28).
        max_seconds: the length of that window, in seconds (default 5.0).
        auto_shutdown: `"never"` (default), `"any_significant"` or `"all_significant"` (rules 47-49).
        restart, shutdown, significant: as in `Child`, for when this supervisor is itself a child.

    Raises:
        SpecError: anything is wrong with it, here and now (rules 4, 5 and 50).

    >>> def work() -> None: ...
    >>> print(Supervisor("app", Child(work, restart="transient"), Supervisor("rest")))
    app  supervisor, one_for_one, 3 restarts in 5 s
    ├─ work  process, transient
    └─ rest  supervisor, one_for_one, 3 restarts in 5 s
    """

    __slots__ = (
        "auto_shutdown",
        "children",
        "max_restarts",
        "max_seconds",
        "name",
        "restart",
        "shutdown",
        "significant",
        "strategy",
    )  # fmt: skip

    name: str
    children: tuple[Child, ...]
    strategy: Strategy
    max_restarts: float
    max_seconds: float
    auto_shutdown: AutoShutdown
    restart: Restart
    shutdown: Shutdown
    significant: bool

    def __init__(
        self,
        name: str,
        *children: Any,
        strategy: Strategy = "one_for_one",
        max_restarts: float = 3,
        max_seconds: float = 5.0,
        auto_shutdown: AutoShutdown = "never",
        engine: None = None,
        restart: Restart = "permanent",
        shutdown: Shutdown = "infinity",
        significant: bool = False,
        **unknown: Never,
    ) -> None:
        _checked_id(name, "Supervisor")
        who = f"{type(self).__name__} {name!r}"
        options: dict[str, Any] = {
            "strategy": strategy, "max_restarts": max_restarts, "max_seconds": max_seconds,
            "auto_shutdown": auto_shutdown, "restart": restart, "shutdown": shutdown, "significant": significant,
        }  # fmt: skip
        refuse_unknown(who, unknown, (*options, "engine"))
        if engine is not None:
            raise NotBuiltYet(f"{who}: engine={engine!r} is not built yet; leave the option out")
        option = Options(who, options, {}, object)
        if not (is_number(max_restarts) and max_restarts >= 0 and max_restarts in (math.inf, max_restarts // 1)):
            raise SpecError(f"{who}: max_restarts must be a whole number >= 0 or math.inf, not {max_restarts!r}")
        if not (is_number(max_seconds) and 0 < max_seconds < math.inf):
            raise SpecError(f"{who}: max_seconds must be seconds > 0, not {max_seconds!r}")
        self._set(
            name=name,
            children=tuple(
                clone
                for child in children
                for clone in (child if isinstance(child, Child) else Child(child)).expanded()
            ),
            strategy=option.choice("strategy", STRATEGIES, "one_for_one"),
            max_restarts=max_restarts,
            max_seconds=float(max_seconds),
            auto_shutdown=option.choice("auto_shutdown", AUTO_SHUTDOWNS, "never"),
            restart=option.choice("restart", RESTARTS, "permanent"),
            shutdown=option.shutdown("infinity"),
            significant=option.flag("significant"),
        )
        check_children(who, self.children, self.auto_shutdown)

    def replace(self, **changes: Any) -> Self:
        """A copy of this declaration with some options changed (`children=` included), checked again.

        >>> Supervisor("app").replace(strategy="one_for_all").strategy
        'one_for_all'
        """
        fields = {**self.__getstate__(), **changes}
        return type(self)(fields.pop("name"), *fields.pop("children"), **fields)

    def start(self) -> RunningTree:
        """Start the tree and return once every `on_start` has returned (rule 1).

        The result is a context manager that stops the tree at the end of its block.

        Raises:
            ChildStartFailed: a child's start failed; those before it were stopped again (rule 2).
            NotSerializable: a worker or an argument cannot be sent to a process.
        """
        from suitkaise.supervision.running import start

        return start(self)

    def run(self) -> ExitReason:
        """Start the tree and wait until it ends, or until SIGINT or SIGTERM stop it (a second one kills it).

        Returns:
            The exit reason of the root.

        Raises:
            TreeFailed: the root gave up (rule 30).
            ChildStartFailed, NotSerializable: as in `start`.
        """
        from suitkaise.supervision.foreground import run

        return run(self)

    def start_async(self) -> AsyncStart:
        """Like `start`, for event loops: `async with tree.start_async() as running`, or `running = await ...`.

        The loop goes on while the tree starts, and while it stops at the end of the block. Cancelled, it stops what
        it has started, and only then goes on. Raises what `start` raises.

        >>> import asyncio
        >>> async def main() -> None:
        ...     async with Supervisor("app").start_async() as running:
        ...         print(running.name)
        >>> asyncio.run(main())
        app
        """
        from suitkaise.supervision.starting import AsyncStart

        return AsyncStart(self)

    def __str__(self) -> str:
        return "\n".join(_picture(self))

    def _headline(self) -> str:
        auto = "" if self.auto_shutdown == "never" else f", ends with {self.auto_shutdown.replace('_', ' ')}"
        return f"{self.name}  supervisor, {self.strategy}, {self._intensity()}{auto}"

    def _intensity(self) -> str:
        return f"{self.max_restarts:g} restarts in {self.max_seconds:g} s"

    def __repr__(self) -> str:
        return f"Supervisor({self.name!r}, {len(self.children)} children, strategy={self.strategy!r})"


def check_children(who: str, children: tuple[Child, ...], auto_shutdown: AutoShutdown) -> None:
    """The rules that concern children as a group: unique ids (rule 4), significant needs auto-shutdown (rule 50)."""
    seen: set[str] = set()
    for child in children:
        if child.id in seen:
            raise SpecError(f"{who}: two children have the id {child.id!r}; give one another with Child(..., id=...)")
        seen.add(child.id)
        if child.significant and auto_shutdown == "never":
            raise SpecError(
                f"{who}: child {child.id!r} is significant, but auto_shutdown is 'never'; "
                "say 'any_significant' or 'all_significant' (rule 50)"
            )


def _sources_of(what: Any) -> tuple[Mapping[str, Any], type]:
    """Where else options may stand: the attributes of an instance, and a class."""
    if isinstance(what, _Rebuilt):
        target = what.recipe.target
        return what.options, target if isinstance(target, type) else object
    if isinstance(what, Supervisor):
        return {name: getattr(what, name) for name in ("restart", "shutdown", "significant")}, object
    if isinstance(what, Startable):
        return vars(what), type(what)
    return {}, what if isinstance(what, type) else object


class _Rebuilt:
    """A recipe on its way into another `Child` (`replace`, `copies`), and the options that it had there."""

    def __init__(self, recipe: Recipe, options: Mapping[str, Any]) -> None:
        self.recipe = recipe
        self.options = options


def _recipe_of(what: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Recipe | Supervisor:
    if isinstance(what, Supervisor):
        return what
    if isinstance(what, _Rebuilt):
        return what.recipe
    if isinstance(what, Recipe):
        recipe = what if not (args or kwargs) else Recipe(what.target, tuple(args), dict(kwargs), what.kind)
    elif isinstance(what, Startable):
        recipe = what.__recipe__
    elif isinstance(what, type) and issubclass(what, Startable):
        if not hasattr(what, "kind"):
            raise SpecError(
                f"Child: {what.__name__} is neither a process nor a thread; derive it from Process or Thread"
            )
        return with_arguments(Recipe(what, kind=what.kind), args, kwargs)
    elif isinstance(what, type):
        raise SpecError(f"Child: {what.__name__} is a class but not a worker; derive it from Process or Thread")
    elif callable(what):
        return with_arguments(Recipe(what), args, kwargs)
    else:
        raise SpecError(
            f"Child: expected a worker, a worker class, a Supervisor or a function, not {type(what).__name__}: {what!r}"
            + (" (was a function called instead of being passed?)" if what is None else "")
        )
    check_recipe(recipe)
    return recipe


def _given_name(what: Any, source: Recipe | Supervisor) -> Any:
    """The name that what is declared brings with it; None: nobody has named it."""
    if isinstance(source, Supervisor):
        return source.name
    return vars(what).get("name") if isinstance(what, Startable) else None


def _default_id(source: Any) -> Any:
    declared = getattr(source.target, "id", None)
    if isinstance(source.target, type) and isinstance(declared, str):
        return declared
    if source.kind == "command":
        return source.kwargs.get("name") or source.args[0].rpartition("/")[2]
    if isinstance(source.target, type):
        return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", source.name).lower()
    return source.name.strip("<>")


def _checked_id(value: Any, who: str) -> str:
    if not isinstance(value, str) or not value:
        raise SpecError(f"{who}: the {'name' if who == 'Supervisor' else 'id'} must be a text, not {value!r}")
    if "/" in value or "#" in value or any(ord(character) < 32 for character in value):
        raise SpecError(f"{who} {value!r}: an id may not hold '/', '#' or control characters; paths are made of ids")
    return value


def _picture(tree: Supervisor) -> Iterator[str]:
    yield tree._headline()
    for number, child in enumerate(tree.children, 1):
        last = number == len(tree.children)
        if isinstance(child.what, Supervisor):
            lines = _picture(child.what if child.id == child.what.name else child.what.replace(name=child.id))
        else:
            what = f": {shlex.join(child.what.args)}" if child.kind == "command" else ""
            lines = iter(
                [f"{child.id}  {child.kind}, {child.restart}{', significant' if child.significant else ''}{what}"]
            )
        for index, line in enumerate(lines):
            branch = ("└─ " if last else "├─ ") if index == 0 else ("   " if last else "│  ")
            yield branch + line
