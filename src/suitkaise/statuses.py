"""The states that a worker or supervisor can be seen in."""

from __future__ import annotations

from enum import StrEnum

__all__ = ["Status"]


class Status(StrEnum):
    """What a child is doing, as `ref.status` and `which_children` tell it.

    >>> Status.RUNNING == "running"
    True
    """

    CREATED = "created"
    STARTING = "starting"
    RUNNING = "running"
    SUSPENDED = "suspended"
    STOPPING = "stopping"
    FINISHED = "finished"
    CRASHED = "crashed"
    KILLED = "killed"
    HUNG = "hung"
    RESTARTING = "restarting"
    STOPPED = "stopped"
    IGNORED = "ignored"
    ABANDONED = "abandoned"
