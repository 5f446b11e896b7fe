"""Declarations: what a supervision tree is made of, as immutable data.

Each declaration is checked when it is made, so that a tree that exists can be started. A worker that is built where
the tree is declared is a *recipe*: its class and arguments are recorded, and every start builds a new worker from them.
"""

from __future__ import annotations

from suitkaise.specs.bounded import Bounded
from suitkaise.specs.child import LIMITS, Child, SpecWarning
from suitkaise.specs.cluster import Place, Ray
from suitkaise.specs.options import AutoShutdown, Backoff, Restart, ShutdownOption, Strategy
from suitkaise.specs.recipe import Kind, Recipe, Startable, snapshot
from suitkaise.specs.supervisor import DynamicSupervisorSpec, SupervisorSpec, check_children

__all__ = [
    "LIMITS",
    "AutoShutdown",
    "Backoff",
    "Bounded",
    "Child",
    "DynamicSupervisorSpec",
    "Kind",
    "Place",
    "Ray",
    "Recipe",
    "Restart",
    "ShutdownOption",
    "SpecWarning",
    "Startable",
    "Strategy",
    "SupervisorSpec",
    "check_children",
    "snapshot",
]
