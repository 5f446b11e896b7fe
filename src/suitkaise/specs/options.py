"""Options of declarations: their types, their sources (rule 3), and their checks."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar, Literal, Never, TypeAlias, TypeGuard, TypeVar

from suitkaise.errors import SpecError
from suitkaise.escapes import has_control
from suitkaise.records import dataclass

__all__ = [
    "AUTO_SHUTDOWNS",
    "ELSEWHERE",
    "NOT_GIVEN",
    "RESTARTS",
    "STRATEGIES",
    "AutoShutdown",
    "Backoff",
    "Declaration",
    "Options",
    "Restart",
    "ShutdownOption",
    "Strategy",
    "checked_drain",
    "checked_env",
    "checked_flag",
    "checked_id",
    "checked_intensity",
    "is_encodable",
    "is_number",
    "is_whole",
    "path_text",
    "refuse_unknown",
]

T = TypeVar("T")

Restart: TypeAlias = Literal["permanent", "transient", "temporary"]
Strategy: TypeAlias = Literal["one_for_one", "one_for_all", "rest_for_one"]
AutoShutdown: TypeAlias = Literal["never", "any_significant", "all_significant"]
ShutdownOption: TypeAlias = float | Literal["brutal_kill", "infinity"]

RESTARTS = ("permanent", "transient", "temporary")
STRATEGIES = ("one_for_one", "one_for_all", "rest_for_one")
AUTO_SHUTDOWNS = ("never", "any_significant", "all_significant")


_UNITS = {"mib": 1 << 20, "gib": 1 << 30, "tib": 1 << 40, "mb": 10**6, "gb": 10**9, "tb": 10**12}
_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([MGT]i?B)\s*", re.IGNORECASE)


class _NotGiven:
    """The default of options: unlike None, it cannot be given by a user."""

    def __repr__(self) -> str:
        return "<not given>"


NOT_GIVEN: Any = _NotGiven()


@dataclass(frozen=True, slots=True)
class Backoff:
    """The delay before retry n: `initial * factor ** (n - 1)`, at most `maximum`, varied by `jitter` (rule 56).

    Args:
        initial: seconds before the first retry (default 0.1).
        factor: the growth of the delay with each retry (default 2.0).
        maximum: the longest delay in seconds, the first one included (default 30.0, or `initial` if that is longer).
        jitter: the fraction by which a delay is randomly longer or shorter (default 0.1).
        reset_after: once a child has run for so many seconds, the next delay is the `initial` one again (default 60.0).

    Raises:
        SpecError: a value is out of range.

    >>> Backoff(initial=0.1, factor=2, jitter=0).delay(3, random=0.5)
    0.4
    """

    initial: float = 0.1
    factor: float = 2.0
    maximum: float = NOT_GIVEN
    jitter: float = 0.1
    reset_after: float = 60.0

    def __post_init__(self) -> None:
        if self.maximum is NOT_GIVEN:
            object.__setattr__(self, "maximum", max(30.0, self.initial) if is_number(self.initial) else 30.0)
        for name, low, high in (("initial", 0, math.inf), ("factor", 1, math.inf), ("maximum", 0, math.inf),
                                ("jitter", 0, 1), ("reset_after", 0, math.inf)):  # fmt: skip
            value = getattr(self, name)
            if not is_number(value) or not low <= value <= high:
                raise SpecError(f"Backoff: {name} must be a number from {low} to {high}, not {value!r}")

    def delay(self, attempt: int, random: float) -> float:
        """Return the seconds to wait before retry `attempt` (from 1); `random` in [0, 1) selects the jitter."""
        if self.initial == 0:  # also where the growth is beyond all numbers
            return 0.0
        try:
            plain = min(self.initial * self.factor ** (attempt - 1), self.maximum)
        except OverflowError:
            plain = self.maximum
        return plain * (1 + self.jitter * (2 * random - 1))


class Options:
    """Reads and checks the options of one declaration, from the sources that rule 3 lists, in that order."""

    def __init__(self, title: str, given: Mapping[str, Any], instance: Mapping[str, Any], cls: type) -> None:
        self.title = title
        self._sources: tuple[Callable[[str], Any], ...] = (
            lambda name: given.get(name, NOT_GIVEN),
            lambda name: instance.get(name, NOT_GIVEN),
            lambda name: NOT_GIVEN if isinstance(value := getattr(cls, name, NOT_GIVEN), property) else value,
        )

    def get(self, name: str, default: Any) -> Any:
        """Return the value from the first source that has one, unchecked."""
        for source in self._sources:
            value = source(name)
            if value is not NOT_GIVEN:
                return value
        return default

    def wrong(self, name: str, takes: str, got: Any) -> SpecError:
        """Make the error about a value: the declaration, the values that are right, the value that was given."""
        return SpecError(f"{self.title}: {name} must be {takes}, not {got!r}")

    def choice(self, name: str, allowed: tuple[str, ...], default: str) -> Any:
        """Return one of the `allowed` words."""
        value = self.get(name, default)
        if value not in allowed or not isinstance(value, str):
            quoted = [repr(one) for one in allowed]
            raise self.wrong(name, f"{', '.join(quoted[:-1])} or {quoted[-1]}", value)
        return str.__str__(value)

    def shutdown(self, default: Any) -> ShutdownOption:
        """Return the seconds that a stop may take, or one of the two words; `math.inf` means `infinity`."""
        value = self.get("shutdown", default)
        match value:
            case "brutal_kill":
                return "brutal_kill"
            case "infinity" | math.inf:
                return "infinity"
            case int() | float() if is_number(value) and value >= 0:
                return float(value)
        raise self.wrong("shutdown", "seconds >= 0, 'brutal_kill' or 'infinity'", value)

    def flag(self, name: str) -> bool:
        """Return True or False (the default)."""
        return checked_flag(self.title, name, self.get(name, False))

    def positive(self, name: str) -> float | None:
        """Return seconds above 0, or None."""
        value = self.get(name, None)
        if value is None:
            return None
        if not is_number(value) or not 0 < value < math.inf:
            raise self.wrong(name, "seconds > 0 or None", value)
        return float(value)

    def size(self, name: str) -> int | None:
        """Return a number of bytes, at least 1 MiB, given as such or as a text (`"200 MiB"`); None: no limit."""
        value = self.get(name, None)
        if value is None:
            return None
        match = _SIZE.fullmatch(value) if isinstance(value, str) else None
        size = float(match[1]) * _UNITS[match[2].lower()] if match else value
        if not is_number(size) or not _UNITS["mib"] <= size < math.inf:
            raise self.wrong(name, "a size of at least 1 MiB ('200 MiB', '1.5 GiB', a number of bytes) or None", value)
        return int(size)

    def loops(self) -> float | None:
        """Return the number of loops after which a worker finishes, by either of its two names; None: no limit."""
        name, value = self._loops_wanted()
        if value is None or (is_number(value) and value == math.inf):
            return None
        if not is_whole(value, 1):
            raise self.wrong(name, "a number of loops >= 1, math.inf or None", value)
        return value

    def _loops_wanted(self) -> tuple[str, Any]:
        """Find `join_after`, or its alias `num_loops` (`_num_loops` of workers) in the first source that has it."""
        for source in self._sources:
            if (value := source("join_after")) is not NOT_GIVEN:
                return "join_after", value
            for name in ("_num_loops", "num_loops"):
                if (value := source(name)) not in (NOT_GIVEN, None):
                    return "num_loops", value
        return "join_after", None

    def count(self, name: str, default: int, least: int = 1) -> int:
        """Return a whole number of at least `least`."""
        value = self.get(name, default)
        if not is_whole(value, least):
            raise self.wrong(name, f"a whole number >= {least}", value)
        return value

    def made(self, name: str, kind: type[T]) -> T | None:
        """Return an object of this class, or None."""
        value = self.get(name, None)
        if value is not None and not isinstance(value, kind):
            raise self.wrong(name, f"a {kind.__name__}(...) or None", value)
        return value

    def refuse(self, *names: str, because: str) -> None:
        """Raise SpecError if one of the options was given, though it has no meaning here."""
        for name in names:
            if self.get(name, None) not in (None, 0):
                raise SpecError(f"{self.title}: {name} makes no sense here: {because}")


def checked_drain(value: Any) -> float | None:
    """Validate the `drain` of a call before any side effect (rule 45). Raises SpecError."""
    if value is None or (is_number(value) and 0 <= value < math.inf):
        return value  # type: ignore[no-any-return]
    raise SpecError(f"drain must be seconds >= 0, or None for the child's own, not {value!r}")


def checked_intensity(title: str, max_restarts: Any, max_seconds: Any) -> tuple[float, float]:
    """Return the restarts that are allowed, and the seconds of their window; raise SpecError if they are no such."""
    if not (is_number(max_restarts) and max_restarts >= 0 and max_restarts in (math.inf, max_restarts // 1)):
        raise SpecError(f"{title}: max_restarts must be a whole number >= 0 or math.inf, not {max_restarts!r}")
    if not (is_number(max_seconds) and 0 < max_seconds < math.inf):
        raise SpecError(f"{title}: max_seconds must be seconds > 0, not {max_seconds!r}")
    return max_restarts, float(max_seconds)


def checked_flag(title: str, name: str, value: Any) -> bool:
    """Return the value if it is True or False, else raise SpecError: `"no"` is true in Python."""
    if not isinstance(value, bool):
        raise SpecError(f"{title}: {name} must be True or False, not {value!r}")
    return value


def is_number(value: Any) -> bool:
    """Return whether the value is an int or a float, and neither a bool, nor NaN, nor too large for a float."""
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return False
    try:
        return not math.isnan(value)
    except OverflowError:
        return False


def is_whole(value: Any, least: int, most: float = math.inf) -> TypeGuard[int]:
    """Return whether the value is an int in this range, and not a bool."""
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


ELSEWHERE: Mapping[str, str] = {
    "intensity": "max_restarts", "max_retries": "max_restarts", "retries": "max_restarts",
    "startretries": "max_restarts", "period": "max_seconds", "within": "max_seconds",
    "name": "id",
    "policy": "restart", "autorestart": "restart", "restart_policy": "restart", "restart_type": "restart",
    "restart_sec": "backoff", "restart_delay": "backoff", "delay": "backoff",
    "shutdown_timeout": "shutdown", "stop_timeout": "shutdown", "stopwaitsecs": "shutdown", "grace_period": "shutdown",
    "numprocs": "copies", "processes": "copies", "replicas": "copies", "instances": "copies",
    "environment": "env", "environ": "env",
    "memory_limit": "max_memory", "memory_max": "max_memory",
    "timeout": "loop_timeout", "time_limit": "loop_timeout", "task_time_limit": "loop_timeout",
    "loops": "join_after", "runs": "join_after", "max_loops": "join_after", "iterations": "join_after",
    "loop_infinitely": "join_after",
    "lives": "max_restarts",
}  # fmt: skip
"""The names that options have in OTP, multiprocessing, systemd, supervisord, Celery, Kubernetes and the predecessor."""


def refuse_unknown(
    title: str, unknown: Mapping[str, Any], known: tuple[str, ...], of_child: tuple[str, ...] = ()
) -> None:
    """Raise SpecError about the first unknown option, and suggest the one that is most likely meant.

    Those `of_child` are options of the `Child` around what is declared.
    """
    for name, value in unknown.items():
        if name in of_child:
            raise SpecError(f"{title}: {name} is an option of Child: Child(..., {name}={value!r})")
        import difflib

        elsewhere = ELSEWHERE.get(name)
        near = [elsewhere] if elsewhere in known else difflib.get_close_matches(name, known, 1)
        hint = f"; did you mean {near[0]!r}?" if near else f"; it takes {', '.join(sorted(set(known)))}"
        raise SpecError(f"{title}: unknown option {name}={value!r}{hint}")


class Declaration:
    """The base of `Child` and `SupervisorSpec`: immutable, compared and copied by their fields."""

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


def checked_env(title: str, env: Any) -> dict[str, str]:
    """Return additional environment variables, none for None; raise SpecError if there can be no such variables."""
    if env is None:
        return {}
    if not isinstance(env, Mapping):
        raise SpecError(f"{title}: env must be a dict of texts, or None, not {env!r}")
    for name, value in env.items():
        valid = isinstance(name, str) and isinstance(value, str) and name and "=" not in name
        if not valid or "\0" in name + value or not is_encodable(name + value):
            raise SpecError(f"{title}: env must map names to texts, not {name!r} to {value!r}")
    return dict(env)


def is_encodable(text: str) -> bool:
    r"""Return whether a program can get the text as an argument.

    >>> is_encodable("n\udcff.txt"), is_encodable("\ud800")
    (True, False)
    """
    try:
        text.encode(sys.getfilesystemencoding(), "surrogateescape")  # as `os.fsencode` does
    except UnicodeEncodeError:  # a half of a surrogate pair that stands for no byte of a file name
        return False
    return True


def path_text(value: Any) -> str | None:
    """Return the path of a file, given as a text or as a `Path`, as a text; None if no file can have this path."""
    path = value.__fspath__() if hasattr(value, "__fspath__") and not isinstance(value, type) else value
    return path if isinstance(path, str) and path and "\0" not in path and is_encodable(path) else None


def checked_id(value: Any, kind: str) -> str:
    """Return the value if it can be a part of a path, else raise SpecError. `kind`: `"Child"`, `"Supervisor"`, ..."""
    if not isinstance(value, str) or not value:
        hint = "; it comes first: Supervisor('app', ...)" if kind == "Supervisor" else ""
        raise SpecError(f"{kind}: the {'id' if kind == 'Child' else 'name'} must be a text, not {value!r}{hint}")
    if "/" in value or "#" in value or has_control(value):
        raise SpecError(f"{kind} {value!r}: an id may not hold '/', '#' or control characters; paths are made of ids")
    if "*" in value or "?" in value:
        raise SpecError(f"{kind} {value!r}: an id may not hold '*' or '?', the wildcards of `whereis`")
    return str.__str__(value)  # of a member of a `class Name(str, Enum)`, whose `format` is another text
