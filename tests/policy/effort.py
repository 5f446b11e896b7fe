"""How long the state machines search: briefly, or thoroughly with `SUITKAISE_HYPOTHESIS_PROFILE=long`."""

from __future__ import annotations

import os

import hypothesis
import pytest

__all__ = ["LONG", "patience", "search"]

LONG = os.environ.get("SUITKAISE_HYPOTHESIS_PROFILE") == "long"


def search(examples: int, steps: int) -> hypothesis.settings:
    """Settings for a state machine; the long search takes some forty times as many, and longer, examples."""
    if LONG:
        examples, steps = 40 * examples, 2 * steps
    return hypothesis.settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        suppress_health_check=[hypothesis.HealthCheck.too_slow, hypothesis.HealthCheck.filter_too_much],
    )


# A search takes seconds; one that has found something takes up to five minutes more to make it small.
patience = pytest.mark.timeout(0 if LONG else 400)
