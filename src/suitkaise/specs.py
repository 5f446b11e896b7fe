"""Declarations: what a supervision tree is made of, as immutable data.

Everything is checked where it is written, so that a tree that exists can be started. A worker that is
built where the tree is declared is a *recipe*: its class and arguments are recorded, and every start
builds it anew from them.
"""

from __future__ import annotations

import difflib
import functools
import inspect
import math
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Never, Self, TypeAlias

from suitkaise.errors import NotBuiltYet, SpecError

if TYPE_CHECKING:
    from suitkaise.exits import ExitReason
    from suitkaise.supervision.running import RunningTree

__all__ = [
    "AutoShutdown",
    "Backoff",
    "Child",
    "Command",
    "DynamicSupervisor",
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

Restart: TypeAlias = Literal["permanent", "transient", "temporary"]
Strategy: TypeAlias = Literal["one_for_one", "one_for_all", "rest_for_one"]
AutoShutdown: TypeAlias = Literal["never", "any_significant", "all_significant"]
Shutdown: TypeAlias = float | Literal["brutal_kill", "infinity"]
Kind: TypeAlias = Literal["process", "thread", "supervisor"]

RESTARTS = ("permanent", "transient", "temporary")
STRATEGIES = ("one_for_one", "one_for_all", "rest_for_one")
AUTO_SHUTDOWNS = ("never", "any_significant", "all_significant")
LATER = ("start_timeout", "before_loop_timeout", "loop_timeout", "after_loop_timeout", "receive_timeout",
         "finish_timeout", "mailbox")  # fmt: skip


class SpecWarning(UserWarning):
    """A declaration is legal but will hardly do what was meant."""


class _NotGiven:
    def __repr__(self) -> str:
        return "<not given>"


NOT_GIVEN: Any = _NotGiven()


class Startable:
    """What a child can be started from. Workers derive from it; users derive from workers."""

    kind: ClassVar[Kind]
    hooks: ClassVar[tuple[str, ...]] = ()
    __recipe__: Recipe


@dataclass(frozen=True, slots=True)
class Recipe:
    """How to build a worker: a class and arguments, or a function to be called once a loop."""

    target: Callable[..., Any]
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    kind: Kind = "process"

    @property
    def name(self) -> str:
        """The name of the class or function."""
        target = self.target
        while isinstance(target, functools.partial):
            target = target.func
        return getattr(target, "__name__", None) or type(target).__name__


@dataclass(frozen=True, slots=True)
class Backoff:
    """The delay before retry n: `initial * factor ** (n - 1)`, at most `maximum`, give or take `jitter` (rule 56).

    All times are in seconds; `jitter` is a fraction of the delay. After `reset_after` seconds of a child's
    life the counting begins anew.

    >>> Backoff(initial=0.1, factor=2, jitter=0).delay(3, random=0.5)
    0.4
    """

    initial: float = 0.1
    factor: float = 2.0
    maximum: float = 30.0
    jitter: float = 0.1
    reset_after: float = 60.0

    def __post_init__(self) -> None:
        for name, low, high in (("initial", 0, math.inf), ("factor", 1, math.inf), ("maximum", 0, math.inf),
                                ("jitter", 0, 1), ("reset_after", 0, math.inf)):  # fmt: skip
            value = getattr(self, name)
            if not _is_number(value) or not low <= value <= high:
                raise SpecError(f"Backoff: {name} must be a number from {low} to {high}, not {value!r}")

    def delay(self, attempt: int, random: float) -> float:
        """Seconds to wait before retry `attempt` (1 is the first); `random` in [0, 1) places the jitter."""
        try:
            plain = min(self.initial * self.factor ** (attempt - 1), self.maximum)
        except OverflowError:
            plain = self.maximum
        return plain * (1 + self.jitter * (2 * random - 1))


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

    `what` is a worker class, a worker, a `Supervisor`, or a plain function (called once a loop in a process
    of its own; `Thread.of(function)` for a thread). Options that are not given here come from the worker
    (an attribute set in its constructor), then from its class, then from the defaults (rules 3 and 6).

    Args:
        what: what to start.
        id: the name in its supervisor; default: the worker's name, else its class's name in snake case.
        args, kwargs: for the constructor, when `what` is a class, or for each call, when it is a function.
        restart: `"permanent"` (default), `"transient"` or `"temporary"` (rules 23-26).
        shutdown: seconds between a stop request and a kill (default 5.0; supervisors `"infinity"`),
            `"brutal_kill"` or `"infinity"` (rule 42).
        significant: whether its end can end the supervisor (rules 47-52).
        join_in: seconds after which each incarnation finishes; None: never.
        join_after: loops after which each incarnation finishes; None: never.
        backoff: the delays between restarts (rule 56); None: none.
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
        "id",
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
    what: Recipe | Supervisor
    kind: Kind
    restart: Restart
    shutdown: Shutdown
    significant: bool
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
        start_timeout: float | None = None,
        before_loop_timeout: float | None = None,
        loop_timeout: float | None = None,
        after_loop_timeout: float | None = None,
        receive_timeout: float | None = None,
        finish_timeout: float | None = None,
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
        _check_arguments(what, args, kwargs)
        source = _recipe_of(what, args, kwargs or {})
        name = _checked_id(id if id is not None else _default_id(what, source), "Child")
        who = f"Child {name!r}"
        _refuse_unknown(who, unknown, (*given, "id", "args", "kwargs", *_CHILD_DEFAULTS, *LATER))
        option = _Options(who, given, what)
        kind: Kind = source.kind if isinstance(source, Recipe) else "supervisor"
        if kind == "supervisor":
            option.refuse("join_in", "join_after", "num_loops", "spares", *LATER, because="supervisors have no loop")
        option.refuse_later(*LATER)
        if option.get("spares", 0) != 0:
            raise NotBuiltYet(f"{who}: spares are not built yet; leave the option out")
        self._set(
            id=name,
            what=source,
            kind=kind,
            restart=option.choice("restart", RESTARTS, "permanent"),
            shutdown=option.shutdown("infinity" if kind == "supervisor" else 5.0),
            significant=option.flag("significant"),
            join_in=option.positive("join_in", None),
            join_after=option.loops(),
            backoff=option.backoff(),
            copies=option.count("copies", 1),
            copy=None,
            spares=0,
            given={"args": args, "kwargs": kwargs, "id": id, **given},
        )
        if self.significant and self.restart == "permanent":
            raise SpecError(f"{who}: significant needs restart='transient' or 'temporary', not 'permanent' (rule 50)")
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
            what = _with_arguments(what, changes.get("args", what.args), changes.get("kwargs", what.kwargs))
        return self._again(what, {"id": self.id, **changes})

    def _again(self, what: Any, changes: dict[str, Any]) -> Self:
        given = {**self.given, **changes}
        if isinstance(what, Recipe):
            given |= {"args": (), "kwargs": None}
            what = _Rebuilt(what, {name: getattr(self, name) for name in _CHILD_DEFAULTS})
        copy = type(self)(what, **given)
        copy._set(copy=self.copy)
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
        who = f"Supervisor {name!r}"
        options: dict[str, Any] = {
            "strategy": strategy, "max_restarts": max_restarts, "max_seconds": max_seconds,
            "auto_shutdown": auto_shutdown, "restart": restart, "shutdown": shutdown, "significant": significant,
        }  # fmt: skip
        _refuse_unknown(who, unknown, (*options, "engine"))
        if engine is not None:
            raise NotBuiltYet(f"{who}: engine={engine!r} is not built yet; leave the option out")
        option = _Options(who, options, None)
        if not (_is_number(max_restarts) and max_restarts >= 0 and max_restarts in (math.inf, max_restarts // 1)):
            raise SpecError(f"{who}: max_restarts must be a whole number >= 0 or math.inf, not {max_restarts!r}")
        if not (_is_number(max_seconds) and 0 < max_seconds < math.inf):
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
        from suitkaise.supervision.running import run

        return run(self)

    def start_async(self) -> Never:
        """Not built yet: `start` for event loops."""
        raise NotBuiltYet(
            "Supervisor.start_async is not built yet; use start() in a thread: asyncio.to_thread(tree.start)"
        )

    def __str__(self) -> str:
        return "\n".join(_picture(self))

    def __repr__(self) -> str:
        return f"Supervisor({self.name!r}, {len(self.children)} children, strategy={self.strategy!r})"


class DynamicSupervisor:
    """Not built yet: a supervisor whose children are added while it runs (rules 53 and 54)."""

    def __init__(self, name: str, max_children: int | None = None, **options: Any) -> None:
        raise NotBuiltYet(
            f"DynamicSupervisor {name!r}: dynamic supervisors are not built yet; use Supervisor and start_child"
        )


class Command:
    """Not built yet: an external program as a child."""

    def __init__(self, *argv: str, **options: Any) -> None:
        raise NotBuiltYet(f"Command {argv!r}: command children are not built yet; a Process can call subprocess.run")


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


def snapshot(value: Any) -> Any:
    """A copy of the plain containers in `value`; everything else stays what it is.

    >>> inner = [1]
    >>> copy = snapshot({"a": inner})
    >>> inner.append(2)
    >>> copy
    {'a': [1]}
    """
    return _snapshot(value, {})


def _snapshot(value: Any, seen: dict[int, Any]) -> Any:
    kind = type(value)
    if kind not in (list, dict, set, tuple, bytearray):
        return value
    if id(value) in seen:
        return seen[id(value)]
    if kind is tuple:
        return tuple(_snapshot(part, seen) for part in value)
    copy: Any = kind()
    seen[id(value)] = copy
    if kind is list:
        copy.extend(_snapshot(part, seen) for part in value)
    elif kind is dict:
        copy.update((key, _snapshot(part, seen)) for key, part in value.items())
    elif kind is set:
        copy.update(value)
    else:
        copy += value
    return copy


class _Rebuilt:
    """A recipe on its way into another `Child` (`replace`, `copies`), and the options that it had there."""

    def __init__(self, recipe: Recipe, options: Mapping[str, Any]) -> None:
        self.recipe = recipe
        self.options = options


class _Options:
    """Reads options from where rule 3 says, and complains in one voice."""

    def __init__(self, who: str, given: Mapping[str, Any], what: Any) -> None:
        self.who = who
        instance: Mapping[str, Any] = vars(what) if isinstance(what, Startable) else {}
        if isinstance(what, _Rebuilt):
            instance, what = what.options, what.recipe.target
        elif isinstance(what, Supervisor):
            instance = {name: getattr(what, name) for name in ("restart", "shutdown", "significant")}
        cls = what if isinstance(what, type) else type(what) if isinstance(what, Startable) else object
        self._sources: tuple[Callable[[str], Any], ...] = (
            lambda name: given.get(name, NOT_GIVEN),
            lambda name: instance.get(name, NOT_GIVEN),
            lambda name: NOT_GIVEN if isinstance(value := getattr(cls, name, NOT_GIVEN), property) else value,
        )

    def get(self, name: str, default: Any) -> Any:
        for source in self._sources:
            value = source(name)
            if value is not NOT_GIVEN:
                return value
        return default

    def wrong(self, name: str, takes: str, got: Any) -> SpecError:
        return SpecError(f"{self.who}: {name} must be {takes}, not {got!r}")

    def choice(self, name: str, allowed: tuple[str, ...], default: str) -> Any:
        value = self.get(name, default)
        if value not in allowed or not isinstance(value, str):
            quoted = [repr(one) for one in allowed]
            raise self.wrong(name, f"{', '.join(quoted[:-1])} or {quoted[-1]}", value)
        return value

    def shutdown(self, default: Any) -> Shutdown:
        value = self.get("shutdown", default)
        if isinstance(value, str) and value in ("brutal_kill", "infinity"):
            return value  # type: ignore[return-value]
        if _is_number(value) and value == math.inf:
            return "infinity"
        if _is_number(value) and value >= 0:
            return float(value)
        raise self.wrong("shutdown", "seconds >= 0, 'brutal_kill' or 'infinity'", value)

    def flag(self, name: str) -> bool:
        value = self.get(name, False)
        if not isinstance(value, bool):
            raise self.wrong(name, "True or False", value)
        return value

    def positive(self, name: str, default: Any) -> float | None:
        value = self.get(name, default)
        if value is None:
            return None
        if not _is_number(value) or not 0 < value < math.inf:
            raise self.wrong(name, "seconds > 0 or None", value)
        return float(value)

    def loops(self) -> float | None:
        name, value = self._loops_wanted()
        if value is None or (_is_number(value) and value == math.inf):
            return None
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise self.wrong(name, "a number of loops >= 1, math.inf or None", value)
        return value

    def _loops_wanted(self) -> tuple[str, Any]:
        """Each source may say `join_after`, or `num_loops`, which workers keep aside and leave at None."""
        for source in self._sources:
            if (value := source("join_after")) is not NOT_GIVEN:
                return "join_after", value
            for name in ("_num_loops", "num_loops"):
                if (value := source(name)) not in (NOT_GIVEN, None):
                    return "num_loops", value
        return "join_after", None

    def count(self, name: str, default: int) -> int:
        value = self.get(name, default)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise self.wrong(name, "a whole number >= 1", value)
        return value

    def backoff(self) -> Backoff | None:
        value = self.get("backoff", None)
        if value is not None and not isinstance(value, Backoff):
            raise self.wrong("backoff", "a Backoff(...) or None", value)
        return value

    def refuse(self, *names: str, because: str) -> None:
        for name in names:
            if self.get(name, None) not in (None, 0):
                raise SpecError(f"{self.who}: {name} makes no sense here: {because}")

    def refuse_later(self, *names: str) -> None:
        for name in names:
            if self.get(name, None) is not None:
                raise NotBuiltYet(f"{self.who}: {name} is not built yet; leave the option out")


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and not math.isnan(value)


def _refuse_unknown(who: str, unknown: Mapping[str, Any], known: tuple[str, ...]) -> None:
    for name, value in unknown.items():
        near = difflib.get_close_matches(name, known, 1)
        hint = f"; did you mean {near[0]!r}?" if near else f"; it takes {', '.join(sorted(set(known)))}"
        raise SpecError(f"{who}: unknown option {name}={value!r}{hint}")


def _check_arguments(what: Any, args: Any, kwargs: Any) -> None:
    if not isinstance(args, (tuple, list)):
        raise SpecError(f"Child: args must be a tuple of positional arguments, not {args!r}; for one: args=({args!r},)")
    if kwargs is not None and not (isinstance(kwargs, Mapping) and all(isinstance(key, str) for key in kwargs)):
        raise SpecError(f"Child: kwargs must be a dict with names as keys, or None, not {kwargs!r}")
    if (args or kwargs) and (isinstance(what, (Startable, Supervisor))):
        kind = "supervisor" if isinstance(what, Supervisor) else "worker that is already built"
        raise SpecError(f"Child: args and kwargs go with a class or a function, not with a {kind}: {what!r}")


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
        return _with_arguments(Recipe(what, kind=what.kind), args, kwargs)
    elif isinstance(what, type):
        raise SpecError(f"Child: {what.__name__} is a class but not a worker; derive it from Process or Thread")
    elif callable(what):
        return _with_arguments(Recipe(what), args, kwargs)
    else:
        raise SpecError(
            f"Child: expected a worker, a worker class, a Supervisor or a function, not {type(what).__name__}: {what!r}"
            + (" (was a function called instead of being passed?)" if what is None else "")
        )
    _check_recipe(recipe)
    return recipe


def _with_arguments(recipe: Recipe, args: Any, kwargs: Any) -> Recipe:
    _check_arguments(recipe.target, args, kwargs)
    copy = snapshot if recipe.kind == "process" else lambda value: value
    changed = Recipe(recipe.target, copy(tuple(args)), copy(dict(kwargs or {})), recipe.kind)
    _check_recipe(changed)
    return changed


def _check_recipe(recipe: Recipe) -> None:
    target = recipe.target
    hooks = target.hooks if isinstance(target, type) and issubclass(target, Startable) else ()
    for hook in hooks:
        if _is_async(getattr(target, hook, None)):
            raise NotBuiltYet(f"{recipe.name}.{hook}: async hooks are not built yet; write a plain def")
    if not hooks and _is_async(target):
        raise NotBuiltYet(f"{recipe.name}: async functions are not built yet; write a plain def")
    try:
        signature = _signature_of(target)
    except (ValueError, TypeError):
        return
    try:
        signature.bind(*recipe.args, **recipe.kwargs)
    except TypeError as error:
        raise SpecError(
            f"{recipe.name}{signature}: {error}; got args={recipe.args!r}, kwargs={dict(recipe.kwargs)!r}"
        ) from None


def _signature_of(target: Any) -> inspect.Signature:
    """What it can be called with; the metaclass of workers takes anything, so there the constructor is asked."""
    if isinstance(target, type) and type(target).__call__ is not type.__call__:
        constructor: Any = target
        signature = inspect.signature(constructor.__init__)
        return signature.replace(parameters=list(signature.parameters.values())[1:])
    return inspect.signature(target)


def _is_async(function: Any) -> bool:
    while isinstance(function, functools.partial):
        function = function.func
    return inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)


def _default_id(what: Any, source: Recipe | Supervisor) -> Any:
    if isinstance(source, Supervisor):
        return source.name
    given = vars(what).get("name") if isinstance(what, Startable) else None
    if given is not None:
        return given
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
    auto = "" if tree.auto_shutdown == "never" else f", ends with {tree.auto_shutdown.replace('_', ' ')}"
    yield (f"{tree.name}  supervisor, {tree.strategy}, {tree.max_restarts:g} restarts in {tree.max_seconds:g} s{auto}")
    for number, child in enumerate(tree.children, 1):
        last = number == len(tree.children)
        if isinstance(child.what, Supervisor):
            lines = _picture(child.what if child.id == child.what.name else child.what.replace(name=child.id))
        else:
            lines = iter([f"{child.id}  {child.kind}, {child.restart}{', significant' if child.significant else ''}"])
        for index, line in enumerate(lines):
            branch = ("└─ " if last else "├─ ") if index == 0 else ("   " if last else "│  ")
            yield branch + line
