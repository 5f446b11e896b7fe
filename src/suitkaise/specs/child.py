"""The declaration of one child: what to start, and its options from all sources (rule 3), checked and complete.

Each kind of `what` (a class, an instance, a function, a supervisor) has a recipe or declaration that each start uses,
and perhaps a name and options of its own.
"""

from __future__ import annotations

import re
import sys
import warnings
from collections.abc import Iterator, Mapping
from typing import Any, Never, Self

from suitkaise.errors import SpecError
from suitkaise.specs.bounded import Bounded
from suitkaise.specs.cluster import Place
from suitkaise.specs.options import (
    NOT_GIVEN,
    RESTARTS,
    Backoff,
    Declaration,
    Options,
    Restart,
    ShutdownOption,
    checked_env,
    checked_id,
    checked_intensity,
    refuse_unknown,
)
from suitkaise.specs.recipe import (
    DERIVE,
    Kind,
    Recipe,
    Startable,
    check_arguments,
    check_recipe,
    if_called,
    overrides,
    recipe_of,
    with_arguments,
    without_parameters,
)
from suitkaise.specs.spellings import likely_mistakes
from suitkaise.specs.users import User, checked_group, checked_user

__all__ = ["LIMITS", "OPTIONS_OF_CHILD", "AnySupervisor", "Child", "SpecWarning"]


class AnySupervisor(Declaration):
    """The declaration of a supervisor, as far as `Child` has to know it: see `SupervisorSpec`."""

    __slots__ = ()

    name: str
    restart: Restart
    shutdown: ShutdownOption
    significant: bool
    log_dir: str | None


class _Rebuilt:
    """A recipe that another `Child` takes over (by `replace` or `copies`), and the options of the first `Child`."""

    def __init__(self, recipe: Recipe, options: Mapping[str, Any]) -> None:
        self.recipe = recipe
        self.options = options


def _origin_of(what: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Recipe | AnySupervisor:
    """Return the recipe or supervisor that each start uses; raise SpecError if `what` cannot be started."""
    if isinstance(what, AnySupervisor):
        if what.log_dir is not None:
            raise SpecError(
                f"Supervisor {what.name!r}: log_dir is an option of a whole tree, and this one is a child; give it to "
                "the root of the tree"
            )
        return what
    if isinstance(what, _Rebuilt):
        return what.recipe
    if isinstance(what, Recipe):
        recipe = what if not (args or kwargs) else Recipe(what.target, tuple(args), dict(kwargs), what.kind)
    elif isinstance(what, Startable):
        recipe = recipe_of(what)
    elif isinstance(what, type) and issubclass(what, Startable):
        if not hasattr(what, "_worker_kind"):
            raise SpecError(f"Child: {what.__name__} is neither a process nor a thread; {DERIVE}")
        return with_arguments(Recipe(what, kind=what._worker_kind), args, kwargs)
    elif isinstance(what, type) and issubclass(what, AnySupervisor):
        name = what.__name__
        raise SpecError(f"Child: {name} is a class; declare a supervisor with a name: {name}('app')")
    elif isinstance(what, type):
        raise SpecError(f"Child: {what.__name__} is a class but not a worker; {DERIVE}")
    elif callable(what):
        return with_arguments(Recipe(what), args, kwargs)
    else:
        raise SpecError(
            f"Child: expected a worker, a worker class, a Supervisor or a function, not {type(what).__name__}: {what!r}"
            + _advice(what)
        )
    check_recipe(recipe)
    return recipe


def _advice(what: Any) -> str:
    if isinstance(what, list | tuple):
        return "; give the children one by one: Supervisor('app', first, second)"
    if isinstance(what, str):
        return f"; a program is a Command({', '.join(map(repr, what.split()))})"
    if hasattr(what, "run"):  # a thread or a process of the standard library
        return f"; {DERIVE}, or pass its function: Child(f, args=(...))"
    return if_called(what)


def _options_of(what: Any) -> tuple[Mapping[str, Any], type]:
    """Return the other sources of options: the attributes of an instance, and a class."""
    if isinstance(what, _Rebuilt):
        target = what.recipe.target
        return what.options, target if isinstance(target, type) else object
    if isinstance(what, AnySupervisor):
        return {name: getattr(what, name) for name in ("restart", "shutdown", "significant")}, object
    if isinstance(what, Startable):
        return vars(what), type(what)
    return {}, what if isinstance(what, type) else object


def _given_name(what: Any) -> Any:
    """Return the name that the user has given; None if there is none."""
    if isinstance(what, AnySupervisor):
        return what.name
    return vars(what).get("name") if isinstance(what, Startable) else None


def _takes_a_name(recipe: Recipe) -> bool:
    """Return whether the arguments are those of `Worker.__init__`: a name, which is the id, and a number of loops."""
    cls = recipe.target
    return isinstance(cls, type) and issubclass(cls, Startable) and not overrides(cls, "__init__")


def _default_id(recipe: Any) -> Any:
    """Return the id of a child without a given name."""
    for declared in (getattr(recipe.target, "id", None), getattr(recipe.target, "name", None)):
        if isinstance(recipe.target, type) and isinstance(declared, str):
            return declared
    if recipe.kind == "command":
        return recipe.kwargs.get("name") or recipe.args[0].rpartition("/")[2]
    if isinstance(recipe.target, type):
        return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", recipe.name).lower()
    return recipe.name.strip("<>")


LIMITS = ("start_timeout", "before_loop_timeout", "loop_timeout", "after_loop_timeout", "receive_timeout",
          "finish_timeout")  # fmt: skip
"""The options that limit the time of a phase (rule 55)."""

_OPTIONS = ("restart", "shutdown", "significant", *LIMITS, "join_in", "join_after", "backoff", "copies", "spares",
            "early_restart", "drain", "idle_timeout", "concurrency", "mailbox", "keep_children", "max_memory",
            "max_restarts", "max_seconds", "place")  # fmt: skip
_HERE = ("env", "user", "group")  # not from the worker or its class, which use these names for their own
OPTIONS_OF_CHILD = ("id", *_OPTIONS, "num_loops")
"""The options of a `Child` that users also try to give to the command or supervisor in it."""
_SETTABLE = (*_OPTIONS, "num_loops", "trap_exits", "background", "loop_factory")


_OF_LOOPS = {"before_loop_timeout": "before_loop", "loop_timeout": "loop", "after_loop_timeout": "after_loop"}
_NOT_OF_FUNCTIONS = (
    "before_loop_timeout", "after_loop_timeout", "receive_timeout", "finish_timeout", "mailbox", "drain",
)  # fmt: skip


def _unused(recipe: Recipe, given: Mapping[str, Any]) -> Iterator[str]:
    """Tell the options that were given to the `Child` and that nothing of this worker uses."""
    target = recipe.target
    if not isinstance(target, type):
        for name in _NOT_OF_FUNCTIONS:
            if given.get(name) is not None:
                yield f"{name} is given, and nothing uses it: a function is one loop, and takes no messages"
    elif issubclass(target, Startable) and recipe.kind != "command":
        for name, hook in _OF_LOOPS.items():
            if given.get(name) is not None and hook in target._worker_hooks and not overrides(target, hook):
                yield f"{name} is given, and nothing uses it: {target.__name__} has no {hook}"


class SpecWarning(UserWarning):
    """A declaration is legal, but probably does something else than intended."""


class Child(Declaration):
    """The declaration of one child of a supervisor.

    Options that are not given here come from the worker (an attribute set in its constructor), then from its class,
    then from the defaults (rules 3 and 6).

    Args:
        what: a worker class, a worker, a `Supervisor`, a `Command`, or a plain function (called once a loop in a
            process of its own; `Thread.of(function)` for a thread).
        id: the name in its supervisor, without `/`, `#`, `*`, `?` and control characters; default: the worker's name
            (`name` in its class included), else its class's name in snake case.
        args, kwargs: the arguments of the constructor if `what` is a class, of each call if `what` is a function. A
            constructor of your own then runs in the worker alone, so a name or options that it sets are not known here,
            as they are of an instance: `Child(Work(1))`.
        restart: `"permanent"` (default), `"transient"` or `"temporary"` (rules 23-26).
        shutdown: seconds between a stop request and a kill (default 5.0; supervisors `"infinity"`),
            `"brutal_kill"` or `"infinity"` (rule 42).
        significant: whether its end can end the supervisor (rules 47-52).
        start_timeout, before_loop_timeout, loop_timeout, after_loop_timeout, receive_timeout, finish_timeout: the
            seconds that `on_start` (including the start of the process), a hook, or the handling of one message may
            take (default None: no limit). A worker that takes longer is hung: it is killed and restarted as after a
            crash (rule 55). A hung thread cannot be killed, so it is abandoned and replaced (rule 59).
        join_in: seconds after which each incarnation finishes (default None: no limit).
        join_after: loops after which each incarnation finishes (default None: no limit).
        num_loops: another name of `join_after`.
        backoff: the delays between restarts (rule 56; default None: no delay).
        max_restarts: restarts of this child that are allowed within `max_seconds`. If it would need more, it is given
            up alone: it stays down, and its supervisor and siblings go on (rule 78; default None: its restarts count
            for its supervisor). Only under a supervisor with `strategy="one_for_one"`.
        max_seconds: the length of that window, in seconds (default 60.0).
        spares: the number of processes that stand by for the child (and for each of its copies) with its module
            imported and its arguments unpacked, so that a restart need not wait for that (default 0). Only for
            process workers.
        early_restart: whether the next incarnation starts in a spare as soon as the dead one can run no code any more,
            and not only when the kernel has freed its memory and closed its files, which takes 80 ms for 1 GiB (default
            False). Its ports and file locks may be taken still, then. Needs `spares`, and Linux 5.16.
        drain: seconds for which the worker goes on to handle the messages that wait, and those that still come, when it
            is asked to stop or finishes by itself (rule 72; default None: not at all). It is a part of the `shutdown`
            time, so it must be less.
        idle_timeout: seconds without a message after which `handle_timeout` is called (default None: never). Only for
            workers that have this hook and no `loop`.
        concurrency: how many messages an async worker without `loop` handles at once (default 1). They start in their
            order; a stop waits for those that run, within the `shutdown` time.
        mailbox: `Bounded(n, on_full=...)`: how many messages may wait for the worker, and what happens to one more
            (rule 84; default None: no bound but that of the bytes which wait; for a thread none at all).
        keep_children: whether the processes that the worker has started are left running when it ends (default False:
            they end with it, rule 73). Only for process workers.
        max_memory: the memory that the worker and all processes below it may use together: `"200 MiB"`, `"1.5 GiB"`, or
            bytes (default None: no limit). It is looked at once a second. Above it, the worker is restarted as by
            `recall`: it finishes its loop and runs `on_finish`, and the restart is not counted. At more than twice the
            limit it is killed, which counts as a crash (rule 83). Not for threads, whose memory is the program's.
        env: environment variables for this worker, in addition to those that the program has when the worker is
            started, and instead of those of the same names (default None; not for threads, which share the program's).
            They are there before the worker's modules are imported. Only here, and not from the class: `env` is a
            name that workers use for their own. A `Command(env=...)` overrides them.
        user, group: the user, by name or number, that the worker runs as, and instead of the user's main group another
            one (default None: as the program; only for processes, and only root may change the user). The worker
            connects to the program and its storage before it changes the user, since their sockets and files are for
            the program's user. This keeps files of the program from a worker; it is no prison, because the program
            decodes, and so trusts, what the worker sends. A `Command` has options of its own.
        place: `Place(...)`: where the worker runs on a cluster (default None: as the `engine` says). Only below a
            supervisor with `engine=Ray(...)`, and not for threads, which run in the program.
        copies: `copies=4` makes four children, `id-0` ... `id-3`, each with its `self.copy` (default 1). They start and
            stop at the same time (rule 82).

    Raises:
        SpecError: an option or argument is wrong (rule 5).

    >>> def work() -> None: ...
    >>> Child(work, restart="transient").id
    'work'
    >>> Child(work, restart="sometimes")
    Traceback (most recent call last):
    suitkaise.errors.SpecError: Child 'work': restart must be 'permanent', 'transient' or 'temporary', not 'sometimes'
    """

    __slots__ = ("copy", "given", "id", "id_given", "kind", "what", "env", "user", *_OPTIONS)

    id: str
    id_given: bool
    what: Recipe | AnySupervisor
    kind: Kind
    restart: Restart
    shutdown: ShutdownOption
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
    early_restart: bool
    drain: float | None
    idle_timeout: float | None
    concurrency: int
    mailbox: Bounded | None
    keep_children: bool
    max_memory: int | None
    max_restarts: float | None
    max_seconds: float
    place: Place | None
    env: dict[str, str]
    user: User | None
    given: dict[str, Any]

    def __init__(
        self,
        what: Any,
        *misplaced: Never,
        id: str | None = None,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
        restart: Restart = NOT_GIVEN,
        shutdown: ShutdownOption = NOT_GIVEN,
        significant: bool = NOT_GIVEN,
        start_timeout: float | None = NOT_GIVEN,
        before_loop_timeout: float | None = NOT_GIVEN,
        loop_timeout: float | None = NOT_GIVEN,
        after_loop_timeout: float | None = NOT_GIVEN,
        receive_timeout: float | None = NOT_GIVEN,
        finish_timeout: float | None = NOT_GIVEN,
        join_in: float | None = NOT_GIVEN,
        join_after: float | None = NOT_GIVEN,
        num_loops: float | None = NOT_GIVEN,
        backoff: Backoff | None = NOT_GIVEN,
        copies: int = NOT_GIVEN,
        spares: int = NOT_GIVEN,
        early_restart: bool = NOT_GIVEN,
        drain: float | None = NOT_GIVEN,
        idle_timeout: float | None = NOT_GIVEN,
        concurrency: int = NOT_GIVEN,
        mailbox: Bounded | None = NOT_GIVEN,
        keep_children: bool = NOT_GIVEN,
        max_memory: str | int | None = NOT_GIVEN,
        env: Mapping[str, str] | None = None,
        user: str | int | None = None,
        group: str | int | None = None,
        max_restarts: float | None = NOT_GIVEN,
        max_seconds: float = NOT_GIVEN,
        place: Place | None = NOT_GIVEN,
        **unknown: Never,
    ) -> None:
        given: dict[str, Any] = {
            "restart": restart, "shutdown": shutdown, "significant": significant, "join_in": join_in,
            "join_after": join_after, "backoff": backoff, "copies": copies, "spares": spares,
            "early_restart": early_restart,
            "start_timeout": start_timeout, "before_loop_timeout": before_loop_timeout,
            "loop_timeout": loop_timeout, "after_loop_timeout": after_loop_timeout,
            "receive_timeout": receive_timeout, "finish_timeout": finish_timeout, "mailbox": mailbox, "drain": drain,
            "idle_timeout": idle_timeout, "concurrency": concurrency, "keep_children": keep_children,
            "max_memory": max_memory, "env": env, "user": user, "group": group,
            "max_restarts": max_restarts, "max_seconds": max_seconds, "place": place,
        }  # fmt: skip
        given = {name: value for name, value in given.items() if value is not NOT_GIVEN and
                 not (name in _HERE and value is None)}  # fmt: skip
        what = without_parameters(what)
        if misplaced:
            name = getattr(what, "__name__", what)
            raise SpecError(f"Child: arguments go into args: Child({name}, args={misplaced!r})")
        check_arguments(what, args, kwargs)
        origin = _origin_of(what, args, kwargs or {})
        if (args or kwargs) and isinstance(origin, Recipe) and _takes_a_name(origin):
            what = origin.target(*origin.args, **origin.kwargs)
        given_id = id if id is not None else _given_name(what)
        name = checked_id(given_id if given_id is not None else _default_id(origin), "Child")
        title = f"Child {name!r}"
        refuse_unknown(title, unknown, ("id", "args", "kwargs", *_HERE, *_OPTIONS))
        if num_loops is not NOT_GIVEN:
            if "join_after" in given:
                raise SpecError(f"{title}: num_loops is another name of join_after; give one of them")
            given["join_after"] = num_loops
        option = Options(title, given, *_options_of(what))
        kind: Kind = origin.kind if isinstance(origin, Recipe) else "supervisor"
        if kind == "supervisor":
            option.refuse("join_in", "join_after", "num_loops", "spares", *LIMITS, because="supervisors have no loop")
            option.refuse("drain", "idle_timeout", "mailbox", because="supervisors take no messages")
            option.refuse("keep_children", because="each child of the supervisor has its own")
            option.refuse("max_memory", "place", because="each child of the supervisor has its own")
        if kind == "command":
            loops = ("before_loop_timeout", "loop_timeout", "after_loop_timeout")
            option.refuse("join_after", "num_loops", *loops, because="commands have no loop")
            option.refuse("receive_timeout", "drain", "idle_timeout", "mailbox", because="commands take no messages")
            option.refuse("spares", because="a command is a program, which cannot stand by")
            option.refuse("keep_children", because="a command ends with all that it has started")
        if kind == "thread":
            option.refuse("spares", because="a thread starts at once")
            option.refuse("keep_children", because="processes that a thread starts are the program's")
            option.refuse("max_memory", because="the memory of a thread is the program's")
            option.refuse("place", because="threads run in the program")
        if env is not None and kind in ("thread", "supervisor"):
            owner = "a thread has the environment of the program" if kind == "thread" else "each child has its own"
            raise SpecError(f"{title}: env makes no sense here: {owner}")
        if kind != "process" and (user is not None or group is not None):
            because = {"thread": "a thread runs as the program", "command": "use Command(user=...)"}
            raise SpecError(
                f"{title}: user and group make no sense here: {because.get(kind, 'each child has its own')}"
            )
        if group is not None and user is None:
            raise SpecError(f"{title}: group={group!r} needs a user=")
        max_restarts, max_seconds = option.get("max_restarts", None), option.get("max_seconds", 60.0)
        if max_restarts is None and max_seconds != 60.0 and not isinstance(what, _Rebuilt):
            raise SpecError(f"{title}: max_seconds is the window of max_restarts, which is not given; give both")
        allowed, max_seconds = checked_intensity(title, 0 if max_restarts is None else max_restarts, max_seconds)
        max_restarts = None if max_restarts is None else allowed
        self._set(
            id=name,
            id_given=given_id is not None,
            what=origin,
            kind=kind,
            restart=option.choice("restart", RESTARTS, "permanent"),
            shutdown=option.shutdown("infinity" if kind == "supervisor" else 5.0),
            significant=option.flag("significant"),
            **{name: option.positive(name) for name in LIMITS},
            join_in=option.positive("join_in"),
            join_after=option.loops(),
            backoff=option.made("backoff", Backoff),
            copies=option.count("copies", 1),
            copy=None,
            spares=option.count("spares", 0, least=0),
            early_restart=option.flag("early_restart"),
            drain=option.positive("drain"),
            idle_timeout=option.positive("idle_timeout"),
            concurrency=option.count("concurrency", 1),
            mailbox=option.made("mailbox", Bounded),
            keep_children=option.flag("keep_children"),
            max_memory=option.size("max_memory"),
            max_restarts=max_restarts,
            max_seconds=max_seconds,
            place=option.made("place", Place),
            env=checked_env(title, env),
            user=None if user is None else checked_user(title, user, checked_group(title, group)),
            given={"args": args, "kwargs": kwargs, "id": id, **given},
        )
        if isinstance(what, Startable) or (isinstance(what, type) and issubclass(what, Startable)):
            for mistake in likely_mistakes(what, (*_SETTABLE, *what._worker_settings)):
                warnings.warn(f"{title}: {mistake}", SpecWarning, stacklevel=_level_of_declaration())
        if self.concurrency != 1 and kind in ("supervisor", "command"):
            raise SpecError(f"{title}: concurrency makes no sense here: {kind}s take no messages")
        if isinstance(origin, Recipe):
            self._check_worker(title, origin)
            for mistake in _unused(origin, given):
                warnings.warn(f"{title}: {mistake}", SpecWarning, stacklevel=_level_of_declaration())
        if self.significant and self.restart == "permanent":
            raise SpecError(f"{title}: significant needs restart='transient' or 'temporary', not 'permanent' (rule 50)")
        time = 0.0 if self.shutdown == "brutal_kill" else self.shutdown
        if self.drain is not None and isinstance(time, float) and self.drain >= time:
            raise SpecError(
                f"{title}: drain ({self.drain:g} s) must be less than shutdown ({self.shutdown!r}): a stop takes "
                "at most that time for the messages that wait and on_finish together"
            )
        if self.max_restarts is not None and self.restart == "temporary":
            raise SpecError(f"{title}: max_restarts makes no sense here: a temporary child is never restarted")
        for name in ("backoff", "max_memory", "spares") if self.restart == "temporary" else ():
            if getattr(self, name):
                raise SpecError(f"{title}: {name} makes no sense here: a temporary child is never restarted")
        if self.early_restart and not self.spares:
            raise SpecError(f"{title}: early_restart needs spares=1 or more: without, a restart waits for a fork")
        if self.restart == "permanent" and (self.join_after is not None or self.join_in is not None):
            limit = "join_after" if self.join_after is not None else "join_in"
            warnings.warn(
                f"{title}: it is permanent, so it is restarted each time {limit} ends it; "
                "use restart='transient' if it should end for good",
                SpecWarning,
                stacklevel=_level_of_declaration(),
            )

    def _check_worker(self, title: str, recipe: Recipe) -> None:
        """Raise SpecError if an option makes no sense for this worker."""
        target = recipe.target
        if isinstance(target, type) and issubclass(target, Startable):
            target._check_options(title, {"idle_timeout": self.idle_timeout, "concurrency": self.concurrency})
        elif self.idle_timeout is not None:
            raise SpecError(f"{title}: idle_timeout makes no sense here: a function is a loop, so it is not idle")
        elif self.concurrency != 1:
            raise SpecError(f"{title}: concurrency makes no sense here: a function is a loop, which runs alone")

    def replace(self, **changes: Any) -> Self:
        """Return a copy with some options changed, checked again.

        >>> def work() -> None: ...
        >>> Child(work).replace(restart="temporary").restart
        'temporary'
        """
        if "what" in changes:
            clone = type(self)(**{**self.given, **changes})
            clone._set(copy=self.copy)
            return clone
        what = self.what
        if isinstance(what, Recipe) and changes.keys() & {"args", "kwargs"}:
            what = with_arguments(what, changes.get("args", what.args), changes.get("kwargs", what.kwargs))
        return self._again(what, changes)

    def renamed(self, id: str) -> Self:
        """Return the same declaration under another id."""
        clone = object.__new__(type(self))
        clone._set(**{**self.__getstate__(), "id": id, "id_given": True})
        return clone

    def without_code(self) -> Self:
        """Return the same declaration without the worker's class and arguments, for a program that does not run it."""
        assert isinstance(self.what, Recipe)
        clone = object.__new__(type(self))
        clone._set(**{**self.__getstate__(), "what": Recipe(_no_code, kind=self.what.kind), "given": {}})
        return clone

    def _again(self, what: Any, changes: dict[str, Any]) -> Self:
        given = {**self.given, "id": self.id, **changes}
        if isinstance(what, Recipe):
            given |= {"args": (), "kwargs": None}
            what = _Rebuilt(what, {name: getattr(self, name) for name in _OPTIONS})
        clone = type(self)(what, **given)
        clone._set(copy=self.copy, id_given=self.id_given or "id" in changes)
        return clone

    def expanded(self) -> tuple[Child, ...]:
        """Return this child, or its `copies`, each under its own id."""
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


def _no_code() -> None:
    """Stand for a worker's class."""


def _level_of_declaration() -> int:
    """Return the stack level of the first frame outside of suitkaise: the line that declares the child."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith("suitkaise."):
        level, frame = level + 1, frame.f_back
    return level
