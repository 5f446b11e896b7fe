"""A program that catches Ctrl-C goes on with its pools, as a notebook does."""

from __future__ import annotations

import pytest

from suitkaise.pools import ProcessPool, ThreadPool
from tests.support import GRACE, in_background, interrupted_at_each_call

pytestmark = pytest.mark.usefixtures("one_runtime_for_all")


@pytest.mark.parametrize("kind", [ProcessPool, ThreadPool])
def test_a_pool_goes_on_wherever_a_signal_handler_that_raises_has_interrupted_a_submission(
    kind: type[ProcessPool | ThreadPool],
) -> None:
    interrupts = 0
    with kind(2) as pool:

        def submit() -> None:
            pool.submit(abs, -1)
            list(pool.map(abs, [-2, -3]))

        for interrupts, _ in enumerate(interrupted_at_each_call(submit), 1):  # noqa: B007
            assert in_background(lambda: list(pool.map(abs, [-4, -5, -6]))).result(GRACE) == [4, 5, 6]
    assert interrupts > 20
