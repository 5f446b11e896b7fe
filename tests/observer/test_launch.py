"""The address of an observer, and what is told without the extra `web`."""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest

from suitkaise.cli.observe import with_address
from suitkaise.errors import SpecError, SuitkaiseError
from suitkaise.observer.launch import Place, parse


@pytest.mark.parametrize("address", ["localhost:http", "127.0.0.1:70000", "[::1]:x"])
def test_what_is_no_address_is_told(address: str) -> None:
    with pytest.raises(SpecError, match="HOST:PORT"):
        parse(address)


def test_without_the_extra_one_error_tells_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    find: Any = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "uvicorn" else find(name))
    with pytest.raises(SuitkaiseError, match=r"pip install 'suitkaise-xprocess\[web\]'"):
        Place()


def test_an_address_that_is_taken_is_told() -> None:
    pytest.importorskip("uvicorn")
    first = Place()
    try:
        port = first.listener.getsockname()[1]
        with pytest.raises(SuitkaiseError, match=f"cannot listen at 127.0.0.1:{port}"):
            Place(str(port))
        assert first.url.startswith(f"http://127.0.0.1:{port}/?token=")
    finally:
        first.close()


def test_an_observer_that_cannot_be_started_is_no_fault_of_the_tree(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("uvicorn")

    def refuse(*args: Any, **options: Any) -> None:
        raise OSError("no process is left")

    monkeypatch.setattr("suitkaise.observer.launch.subprocess.Popen", refuse)
    place = Place()
    try:
        place.start_process("/nowhere")()
    finally:
        place.close()


@pytest.mark.parametrize(
    "words, joined",
    [
        (["--observe", "app.py"], ["--observe=", "app.py"]),
        (["--observe", "app.py:tree"], ["--observe=", "app.py:tree"]),
        (["--observe", "127.0.0.1:80", "app.py"], ["--observe=127.0.0.1:80", "app.py"]),
        (["--observe", "[::1]:80"], ["--observe=[::1]:80"]),
        (["--observe"], ["--observe="]),
        (["--observe=8000", "9000"], ["--observe=8000", "9000"]),
        (["--observe-actions", "9000"], ["--observe-actions", "9000"]),
        (["--engine", "local", "--observe", "app.py"], ["--engine", "local", "--observe=", "app.py"]),
        (["--health", "8080", "--observe", "app.py"], ["--health", "8080", "--observe=", "app.py"]),
        (["--health=8080", "--observe", "app.py"], ["--health=8080", "--observe=", "app.py"]),
        (["app.py", "--observe", "x"], ["app.py", "--observe", "x"]),
        (["--", "--observe"], ["--", "--observe"]),
    ],
)
def test_what_follows_observe_is_its_address_only_if_it_is_one(words: list[str], joined: list[str]) -> None:
    assert with_address(words) == joined
