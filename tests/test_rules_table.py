"""The table of rules in the documentation tells the truth."""

from __future__ import annotations

import re

import pytest

from tests.rules import TABLE, filled, is_end_to_end, names_by_rule

RULES = range(1, 86)


def test_each_rule_has_one_row_in_order() -> None:
    numbers = [int(number) for number in re.findall(r"^\| (\d+) \|", TABLE.read_text(), re.MULTILINE)]
    assert numbers == list(RULES)


def test_the_table_names_the_existing_tests() -> None:
    text = TABLE.read_text()
    assert text == filled(text), "run `python -m tests.rules`"


@pytest.mark.parametrize("rule", RULES)
def test_a_rule_is_tested_on_the_pure_policy_and_end_to_end(rule: int) -> None:
    tests = names_by_rule()[rule]
    assert [test for test in tests if is_end_to_end(test)], f"rule {rule} has no end-to-end test"
    assert [test for test in tests if not is_end_to_end(test)], f"rule {rule} has no test without processes"


def test_no_test_carries_the_number_of_an_unknown_rule() -> None:
    assert set(names_by_rule()) <= set(RULES)
