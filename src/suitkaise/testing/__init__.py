"""Help for tests of trees: a simulation of whole trees on a virtual clock."""

from __future__ import annotations

from suitkaise.engines.simulated import Behaviour, VirtualClock
from suitkaise.testing.simulation import Simulation

__all__ = ["Behaviour", "Simulation", "VirtualClock"]
