"""Help for tests of trees: a fixture, faults for running workers, and simulated trees on a virtual clock.

The pytest plugin (`suitkaise.pytest_plugin`) brings the fixture `tree`; pytest finds it where suitkaise is installed.
"""

from __future__ import annotations

from suitkaise.engines.simulated import Behaviour, VirtualClock
from suitkaise.testing.actions import Kill, chaos, hang, kill, wait_until
from suitkaise.testing.exploration import Crash, assert_survives
from suitkaise.testing.simulation import Simulation

__all__ = [
    "Behaviour",
    "Crash",
    "Kill",
    "Simulation",
    "VirtualClock",
    "assert_survives",
    "chaos",
    "hang",
    "kill",
    "wait_until",
]
