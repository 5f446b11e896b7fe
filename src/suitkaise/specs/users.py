"""The users that workers and commands run as.

`grp` and `pwd` are imported where a user is named only: many a program has modules of these names.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from suitkaise.errors import SpecError
from suitkaise.records import dataclass
from suitkaise.specs.options import is_whole

__all__ = ["User", "checked_group", "checked_user"]

_LARGEST = (1 << 32) - 2


@dataclass(frozen=True, slots=True)
class User:
    """A user to run as: the number, the main group, the name for its other groups, and its environment."""

    uid: int
    gid: int
    name: str | None
    environment: Mapping[str, str]

    def __str__(self) -> str:
        return repr(self.name or self.uid)


def checked_user(title: str, user: Any, group: int | None) -> User:
    """Return the user with this name or number; `group`: instead of its main group. Raise SpecError without one."""
    import pwd

    if not isinstance(user, str) and not is_whole(user, 0, _LARGEST):
        raise SpecError(f"{title}: user must be the name or the number of a user, or None, not {user!r}")
    try:
        entry = pwd.getpwnam(user) if isinstance(user, str) else pwd.getpwuid(user)
    except (KeyError, ValueError):  # ValueError: no name can hold such a character
        if isinstance(user, int) and group is not None:
            return User(user, group, None, {})
        more = "; give a number without an entry a group= too" if isinstance(user, int) else ""
        raise SpecError(f"{title}: there is no user {user!r} on this machine{more}") from None
    environment = {"USER": entry.pw_name, "LOGNAME": entry.pw_name, "HOME": entry.pw_dir, "SHELL": entry.pw_shell}
    return User(entry.pw_uid, entry.pw_gid if group is None else group, entry.pw_name, environment)


def checked_group(title: str, group: Any) -> int | None:
    """Return the number of the group with this name or number, None for None. Raise SpecError without one."""
    if group is None:
        return None
    if isinstance(group, str):
        import grp

        try:
            return grp.getgrnam(group).gr_gid
        except (KeyError, ValueError):  # ValueError: no name can hold such a character
            raise SpecError(f"{title}: there is no group {group!r} on this machine") from None
    if is_whole(group, 0, _LARGEST):
        return int(group)
    raise SpecError(f"{title}: group must be the name or the number of a group, or None, not {group!r}")
