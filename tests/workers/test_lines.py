"""How the output of a program is split into lines."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from suitkaise.workers.output import Lines


def cut(*chunks: bytes, longest: int = 16_384) -> list[str]:
    lines = Lines(longest)
    return [line for chunk in chunks for line in lines.feed(chunk)] + lines.rest()


def test_a_line_is_returned_when_it_is_complete() -> None:
    lines = Lines()
    assert lines.feed(b"on") == []
    assert lines.feed(b"e\ntwo\n\nth") == ["one", "two", ""]
    assert lines.rest() == ["th"]
    assert lines.rest() == []


def test_the_end_of_a_line_may_have_a_carriage_return() -> None:
    assert cut(b"one\r\ntw\ro\r", b"\n") == ["one", "tw\ro"]


def test_bytes_that_are_no_utf8_are_shown_as_escapes() -> None:
    assert cut(b"a\xffb\n\xc3", b"\xa9 \xc3\n") == [r"a\xffb", r"é \xc3"]


def test_a_line_as_long_as_allowed_is_whole_and_a_longer_one_is_not() -> None:
    assert cut(b"abcd\n", longest=4) == ["abcd"]
    assert cut(b"abcdefghij\nk", longest=4) == ["abcd", "efgh", "ij", "k"]
    assert cut(b"abc", b"def", b"ghij", longest=4) == ["abcd", "efgh", "ij"]


def test_a_long_line_is_split_between_characters() -> None:
    assert cut("aééé\n".encode(), longest=4) == ["aé", "éé"]
    assert cut("€€€".encode(), longest=4) == ["€", "€", "€"]


def test_a_line_that_looks_like_one_endless_character_is_split_anyway() -> None:
    assert cut(b"\x80" * 9, longest=4) == [r"\x80" * 4, r"\x80" * 4, r"\x80"]


@given(st.lists(st.binary(max_size=20)), st.integers(4, 9))
def test_no_piece_is_too_long_and_none_is_held_back(chunks: list[bytes], longest: int) -> None:
    lines = Lines(longest)
    for chunk in chunks:
        for line in lines.feed(chunk):
            assert len(line) <= 4 * longest
        assert len(lines._partial) <= longest


@given(st.text(alphabet=st.characters(exclude_characters="\r", exclude_categories=["Cs"])), st.integers(1, 7))
def test_the_lines_do_not_depend_on_the_chunks(text: str, size: int) -> None:
    data = text.encode()
    chunks = [data[at : at + size] for at in range(0, len(data), size)]
    assert "\n".join(cut(*chunks)) == text.removesuffix("\n")
