"""The page of the frames in the documentation is the one that the protocol modules give."""

from __future__ import annotations

from tests.frames import PAGE, PROTOCOLS, page


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run `python -m tests.frames`"


def test_the_page_lists_the_frames_of_each_protocol() -> None:
    text = page()
    for file in PROTOCOLS:
        assert f"`{file}`" in text
    for frame in ("Tell", "HubAnswer", "Put", "Welcome"):
        assert f"| `{frame}` |" in text
