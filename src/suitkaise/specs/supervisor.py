"""The declaration of a supervisor and its children: a tree, which can be printed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Never, Protocol, Self

from suitkaise.errors import SpecError
from suitkaise.escapes import figure
from suitkaise.specs.child import OPTIONS_OF_CHILD, AnySupervisor, Child
from suitkaise.specs.cluster import Ray
from suitkaise.specs.options import (
    AUTO_SHUTDOWNS,
    RESTARTS,
    STRATEGIES,
    AutoShutdown,
    Options,
    Restart,
    ShutdownOption,
    Strategy,
    checked_id,
    checked_intensity,
    is_whole,
    path_text,
    refuse_unknown,
)
from suitkaise.specs.recipe import Recipe

__all__ = ["DynamicSupervisorSpec", "SupervisorSpec", "check_children", "may_start_processes"]


LOG_MAX_BYTES = 50 * 1024 * 1024
"""The default of `log_max_bytes`."""

LOG_BACKUPS = 10
"""The default of `log_backups`."""


class PathLike(Protocol):
    """A path that is no text, such as a `pathlib.Path`."""

    def __fspath__(self) -> str:
        """Return the path as a text."""
        ...


class SupervisorSpec(AnySupervisor):
    """The pure declaration of a supervisor and its children: `suitkaise.Supervisor` adds the ways to start it.

    All packages below the public face use this class.
    """

    __slots__ = (
        "auto_shutdown",
        "children",
        "engine",
        "log_backups",
        "log_dir",
        "log_max_bytes",
        "max_restarts",
        "max_seconds",
        "name",
        "restart",
        "shutdown",
        "significant",
        "strategy",
    )

    name: str
    children: tuple[Child, ...]
    strategy: Strategy
    max_restarts: float
    max_seconds: float
    auto_shutdown: AutoShutdown
    engine: Ray | None
    restart: Restart
    shutdown: ShutdownOption
    significant: bool
    log_dir: str | None
    log_max_bytes: int | None
    log_backups: int

    def __init__(
        self,
        name: str,
        *children: Any,
        strategy: Strategy = "one_for_one",
        max_restarts: float = 3,
        max_seconds: float = 5.0,
        auto_shutdown: AutoShutdown = "never",
        engine: Ray | None = None,
        restart: Restart = "permanent",
        shutdown: ShutdownOption = "infinity",
        significant: bool = False,
        log_dir: str | PathLike | None = None,
        log_max_bytes: int | str | None = LOG_MAX_BYTES,
        log_backups: int = LOG_BACKUPS,
        **unknown: Never,
    ) -> None:
        name = checked_id(name, "Supervisor")
        title = f"{type(self).__name__.removesuffix('Spec')} {name!r}"
        options: dict[str, Any] = {
            "strategy": strategy, "max_restarts": max_restarts, "max_seconds": max_seconds,
            "auto_shutdown": auto_shutdown, "restart": restart, "shutdown": shutdown, "significant": significant,
            "log_dir": log_dir, "log_max_bytes": log_max_bytes, "log_backups": log_backups,
        }  # fmt: skip
        if "children" in unknown:
            raise SpecError(
                f"{title}: children is no option; give them one by one: Supervisor({name!r}, first, second)"
            )
        refuse_unknown(title, unknown, (*options, "engine"), OPTIONS_OF_CHILD)
        if engine is not None and not isinstance(engine, Ray):
            raise SpecError(f"{title}: engine must be a Ray(...), or None for this machine, not {engine!r}")
        option = Options(title, options, {}, object)
        allowed, seconds = checked_intensity(title, max_restarts, max_seconds)
        self._set(
            name=name,
            children=tuple(
                clone
                for child in children
                for clone in (child if isinstance(child, Child) else Child(child)).expanded()
            ),
            strategy=option.choice("strategy", STRATEGIES, "one_for_one"),
            max_restarts=allowed,
            max_seconds=seconds,
            auto_shutdown=option.choice("auto_shutdown", AUTO_SHUTDOWNS, "never"),
            engine=engine,
            restart=option.choice("restart", RESTARTS, "permanent"),
            shutdown=option.shutdown("infinity"),
            significant=option.flag("significant"),
            log_dir=_checked_log_dir(title, log_dir),
            log_max_bytes=option.size("log_max_bytes"),
            log_backups=option.count("log_backups", LOG_BACKUPS, least=0),
        )
        if self.log_dir is None and (self.log_max_bytes, self.log_backups) != (LOG_MAX_BYTES, LOG_BACKUPS):
            raise SpecError(f"{title}: log_max_bytes and log_backups are for the files in log_dir; give log_dir, too")
        check_children(title, self.children, self.auto_shutdown, self.strategy)

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        for name in ("init", *SupervisorSpec.__slots__):
            if name in vars(cls):
                raise SpecError(
                    f"{cls.__name__} sets {name}, which nothing reads; a supervisor with children and options is "
                    f"an instance: Supervisor({cls.__name__!r}, first, second, strategy=...)"
                )

    def replace(self, **changes: Any) -> Self:
        """Return a copy with some options changed (`children=` included), checked again.

        >>> SupervisorSpec("app").replace(strategy="one_for_all").strategy
        'one_for_all'
        """
        fields = {**self.__getstate__(), **changes}
        if isinstance(fields["children"], str) or not isinstance(fields["children"], Iterable):
            takes = "several, as [first, second]"
            raise SpecError(f"Supervisor {self.name!r}: children must be {takes}, not {fields['children']!r}")
        return type(self)(fields.pop("name"), *fields.pop("children"), **fields)

    def __str__(self) -> str:
        return "\n".join(_picture(self))

    def _headline(self) -> str:
        auto = "" if self.auto_shutdown == "never" else f", ends with {self.auto_shutdown.replace('_', ' ')}"
        return f"{self.name}  supervisor, {self.strategy}, {self._intensity()}{auto}"

    def _intensity(self) -> str:
        return f"{figure(self.max_restarts, 6)} restarts in {figure(self.max_seconds, 6)} s"

    def __repr__(self) -> str:
        count = len(self.children)
        children = "1 child" if count == 1 else f"{count} children"
        return f"Supervisor({self.name!r}, {children}, strategy={self.strategy!r})"


def may_start_processes(tree: SupervisorSpec) -> bool:
    """Return whether the tree has workers that are no threads, or a supervisor without children, which may get some."""
    return not tree.children or any(
        may_start_processes(child.what) if isinstance(child.what, SupervisorSpec) else child.kind != "thread"
        for child in tree.children
    )


def _checked_log_dir(title: str, value: Any) -> str | None:
    """Return the directory as a text; raise SpecError if it is none."""
    path = path_text(value)
    if path is not None or value is None:
        return path
    raise SpecError(f"{title}: log_dir must be the path of a directory, or None, not {value!r}")


def check_children(title: str, children: tuple[Child, ...], auto_shutdown: AutoShutdown, strategy: Strategy) -> None:
    """Check the rules about children as a group.

    Ids are unique (rule 4), significant needs auto-shutdown (rule 50), and a child can be given up alone only where its
    siblings do not depend on it (rule 78).
    """
    seen: set[str] = set()
    for child in children:
        if child.id in seen:
            raise SpecError(f"{title}: two children have the id {child.id!r}; give one another with Child(..., id=...)")
        seen.add(child.id)
        if child.significant and auto_shutdown == "never":
            raise SpecError(
                f"{title}: child {child.id!r} is significant, but auto_shutdown is 'never'; "
                "use 'any_significant' or 'all_significant' (rule 50)"
            )
        if child.max_restarts is not None and strategy != "one_for_one":
            raise SpecError(
                f"{title}: child {child.id!r} has a max_restarts of its own, so that it is given up alone; with "
                f"strategy={strategy!r} its siblings depend on it: use 'one_for_one', or leave it out (rule 78)"
            )


def _picture(tree: SupervisorSpec) -> Iterator[str]:
    yield tree._headline()
    for number, child in enumerate(tree.children, 1):
        last = number == len(tree.children)
        if not isinstance(child.what, Recipe):
            assert isinstance(child.what, SupervisorSpec)
            lines = _picture(child.what if child.id == child.what.name else child.what.replace(name=child.id))
        else:
            import shlex  # 3 ms, to print a tree alone

            what = f": {shlex.join(child.what.args)}" if child.kind == "command" else ""
            lines = iter(
                [f"{child.id}  {child.kind}, {child.restart}{', significant' if child.significant else ''}{what}"]
            )
        for index, line in enumerate(lines):
            branch = ("└─ " if last else "├─ ") if index == 0 else ("   " if last else "│  ")
            yield branch + line


_OPTIONS = ("max_children", "max_restarts", "max_seconds", "engine", "restart", "shutdown", "significant", "log_dir",
            "log_max_bytes", "log_backups")  # fmt: skip
_FIXED = {
    "children": "children are added by start_child when it runs",
    "strategy": "its children come back independently of each other (one_for_one)",
    "auto_shutdown": "it does not end with its children",
}


class DynamicSupervisorSpec(SupervisorSpec):
    """The pure declaration of a supervisor whose children are added while it runs: see `DynamicSupervisor`."""

    __slots__ = ("max_children",)

    max_children: int | None

    def __init__(
        self,
        name: str,
        max_children: int | None = None,
        *,
        max_restarts: float = 3,
        max_seconds: float = 5.0,
        engine: Ray | None = None,
        restart: Restart = "permanent",
        shutdown: ShutdownOption = "infinity",
        significant: bool = False,
        log_dir: str | PathLike | None = None,
        log_max_bytes: int | str | None = LOG_MAX_BYTES,
        log_backups: int = LOG_BACKUPS,
        **unknown: Never,
    ) -> None:
        title = f"DynamicSupervisor {name!r}"
        for option, why in _FIXED.items():
            if option in unknown:
                raise SpecError(f"{title}: it takes no {option}: {why}")
        refuse_unknown(title, unknown, _OPTIONS, OPTIONS_OF_CHILD)
        if max_children is not None and not is_whole(max_children, 0):
            raise SpecError(
                f"{title}: max_children must be a whole number >= 0, or None for any number, not {max_children!r}; a "
                "child is added while it runs, with start_child"
            )
        super().__init__(
            name, max_restarts=max_restarts, max_seconds=max_seconds, engine=engine, restart=restart,
            shutdown=shutdown, significant=significant, log_dir=log_dir, log_max_bytes=log_max_bytes,
            log_backups=log_backups,
        )  # fmt: skip
        self._set(max_children=max_children)

    def replace(self, **changes: Any) -> Self:
        """Return a copy with some options changed, checked again.

        >>> DynamicSupervisorSpec("pool").replace(max_children=3).max_children
        3
        """
        fields = self.__getstate__()
        return type(self)(**{**{name: fields[name] for name in fields.keys() - _FIXED.keys()}, **changes})

    def _headline(self) -> str:
        most = (
            ""
            if self.max_children is None
            else f", at most {self.max_children} {'child' if self.max_children == 1 else 'children'}"
        )
        return f"{self.name}  dynamic supervisor{most}, {self._intensity()}"

    def __repr__(self) -> str:
        return f"DynamicSupervisor({self.name!r}, max_children={self.max_children})"
