"""The levels of the program's loggers, and what of them a worker's process takes over."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterator

import pytest

from suitkaise.platform import log_levels
from suitkaise.platform.log_levels import apply_levels, levels, watch_levels


@pytest.fixture
def logger() -> Iterator[logging.Logger]:
    """A logger of this test's own; afterwards all levels are as before."""
    name, root = uuid.uuid4().hex, logging.root.level
    yield logging.getLogger(name)
    logging.getLogger(name).setLevel(logging.NOTSET)
    logging.root.setLevel(root)
    log_levels._applied.clear()


def test_a_change_of_any_level_is_told_and_seen_at_once(logger: logging.Logger) -> None:
    changes: list[int | None] = []
    end = watch_levels(lambda: changes.append(levels().get(logger.name)))
    try:
        assert logger.name not in levels()
        logger.setLevel(logging.ERROR)
        logger.setLevel("DEBUG")
        logger.setLevel(logging.NOTSET)
    finally:
        end()
    logger.setLevel(logging.INFO)
    assert changes == [logging.ERROR, logging.DEBUG, None]
    assert levels()[logger.name] == logging.INFO


def test_the_manager_of_logging_is_as_before_when_nothing_is_watched() -> None:
    watch_levels(lambda: None)()
    assert "_clear_cache" not in vars(logging.root.manager)


def test_a_level_that_the_worker_has_set_stays_until_the_program_changes_it(logger: logging.Logger) -> None:
    root = {"": logging.root.level}
    apply_levels({**root, logger.name: logging.ERROR})
    logger.setLevel(logging.DEBUG)
    apply_levels({**root, logger.name: logging.ERROR, "another": logging.INFO})
    assert logger.level == logging.DEBUG
    apply_levels({**root, logger.name: logging.WARNING})
    assert logger.level == logging.WARNING
    apply_levels(root)
    assert logger.level == logging.NOTSET
