"""`suitkaise run --health`: what the probes of a container and Prometheus get."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from suitkaise import Child, Ignore, Process, Supervisor, Thread
from suitkaise.cli.command import UsageError
from suitkaise.cli.health import CONNECTIONS, _Handler, _Server, checked_address, health, readiness
from suitkaise.events import Event
from suitkaise.runtime import runtime
from tests.support import Program, eventually, in_background, only_root, run_program, start_program, stranger

APP = """
import time
from pathlib import Path
from suitkaise import Child, Process, Supervisor

class Slow(Process):
    def on_start(self):
        while not Path("may start").exists():
            time.sleep(0.01)

    def on_receive(self, message): ...

class Once(Process):
    restart = "transient"

    def loop(self):
        self.rejoin()

    def on_finish(self):
        Path("done").touch()

class Leaves(Process):
    def on_receive(self, message): ...

    def on_finish(self):
        while not Path("may finish").exists():
            time.sleep(0.01)

tree = Supervisor("app", Once, Child(Slow, shutdown=60.0), Supervisor("below", Child(Leaves, shutdown=60.0)))
"""


@contextmanager
def served(folder: Path, *options: str) -> Iterator[tuple[Program, str]]:
    (folder / "app.py").write_text(APP)
    command = [sys.executable, "-m", "suitkaise", "run", *options, "app.py"]
    with start_program(command, cwd=folder) as program:
        match = eventually(lambda: re.search(r"(http://\S+)/healthz", program.stderr))
        assert match
        yield program, match[1]


def get(url: str) -> tuple[int, str, str]:
    """Return the status, the media type and the text of a page."""
    try:
        with urllib.request.urlopen(url, timeout=20) as answer:
            return answer.status, answer.headers["Content-Type"], answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers["Content-Type"], error.read().decode()


def down(url: str) -> dict[str, str]:
    """Return what is not ready."""
    status, kind, text = get(f"{url}/readyz")
    answer: dict[str, Any] = json.loads(text)
    assert kind == "application/json"
    assert (status, answer["ready"]) in ((200, True), (503, False))
    assert (status == 200) == (answer["down"] == {})
    found: dict[str, str] = answer["down"]
    return found


def test_a_program_is_healthy_from_its_start_and_ready_while_all_permanent_children_run(tmp_path: Path) -> None:
    with served(tmp_path, "--health", "0") as (program, url):
        assert url.startswith("http://127.0.0.1:")
        eventually(lambda: down(url).get("app/slow") == "starting")
        assert "app" in down(url)
        assert get(f"{url}/healthz") == (200, "application/json", '{"healthy": true, "down": {}}\n')
        (tmp_path / "may start").touch()
        eventually(lambda: down(url) == {})  # a transient child that has finished is as it should be
        eventually((tmp_path / "done").exists)
        eventually(lambda: 'suitkaise_up{kind="process",path="app/once"} 0.0' in get(f"{url}/metrics")[2])
        assert down(url) == {}
        status, kind, text = get(f"{url}/metrics")
        assert (status, kind.partition(";")[0]) == (200, "text/plain")
        assert 'suitkaise_up{kind="process",path="app/slow"} 1.0' in text
        assert get(f"{url}/")[0] == 404
        program.send_signal(signal.SIGTERM)
        eventually(lambda: down(url).get("app") == "stopping")
        assert get(f"{url}/healthz")[0] == 200
        (tmp_path / "may finish").touch()
        assert program.wait() == 0


@only_root
def test_another_user_may_ask_whether_the_program_is_healthy_and_nothing_else(tmp_path: Path) -> None:
    with served(tmp_path, "--health", "0") as (program, url):

        def act(out: int) -> None:
            seen = [get(f"{url}/healthz")[0]]
            for method in ("POST", "PUT", "DELETE", "PATCH"):
                with pytest.raises(urllib.error.HTTPError) as caught:
                    urllib.request.urlopen(urllib.request.Request(f"{url}/healthz", b"{}", method=method), timeout=20)
                seen.append(caught.value.code)
            seen += [get(f"{url}/{path}")[0] for path in ("", "..", "%2e%2e/hub.sock", "api/change", "metrics/../x")]
            os.write(out, json.dumps(seen).encode())

        with stranger(act) as told, open(told, "rb", closefd=False) as pipe:
            assert json.loads(pipe.read()) == [200] + [501] * 4 + [404] * 5
        (tmp_path / "may start").touch()
        (tmp_path / "may finish").touch()
        eventually(lambda: down(url) == {})
        program.send_signal(signal.SIGTERM)
        assert program.wait() == 0


class Declines(Thread):
    def on_start(self) -> None:
        raise Ignore


def test_a_child_that_has_declined_to_run_leaves_the_program_ready() -> None:
    with Supervisor("app", Declines).start() as running:
        assert running["declines"].status == "ignored"
        assert readiness() == {}


def test_a_permanent_child_that_is_stopped_makes_the_program_unready(tmp_path: Path) -> None:
    (tmp_path / "may start").touch()
    (tmp_path / "may finish").touch()
    with served(tmp_path, "--health=localhost:0") as (program, url):
        eventually(lambda: down(url) == {})
        run_program([sys.executable, "-m", "suitkaise", "stop", "--pid", str(program.pid), "app/below"]).check()
        assert down(url) == {"app/below": "stopped"}
        run_program([sys.executable, "-m", "suitkaise", "start", "--pid", str(program.pid), "app/below"]).check()
        assert down(url) == {}
        program.send_signal(signal.SIGTERM)
        assert program.wait() == 0


def test_clients_that_ask_nothing_are_turned_away_and_harm_no_other(tmp_path: Path) -> None:
    (tmp_path / "may start").touch()
    (tmp_path / "may finish").touch()
    with served(tmp_path, "--health", "127.0.0.1:0") as (program, url):
        port = int(url.rpartition(":")[2])
        idle = [socket.create_connection(("127.0.0.1", port), timeout=20) for _ in range(CONNECTIONS)]
        with socket.create_connection(("127.0.0.1", port), timeout=20) as one_more:
            assert one_more.recv(100) == b""
        for one in idle:
            one.close()
        eventually(lambda: down(url) == {}) if _answers(url) else None
        program.send_signal(signal.SIGTERM)
        assert program.wait() == 0


def _answers(url: str) -> bool:
    def answers() -> bool:
        try:
            return get(f"{url}/healthz")[0] == 200
        except OSError:  # the places of the idle clients are not free yet
            return False

    return eventually(answers)


def test_the_start_asks_no_name_server_for_the_name_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(socket, "getfqdn", asked.append)
    with _Server(("0.0.0.0", 0), _Handler):
        assert asked == []


def test_a_request_for_what_is_no_url_is_answered_as_a_wrong_one() -> None:
    with _Server(("127.0.0.1", 0), _Handler) as server:
        served = in_background(server.handle_request)
        with socket.create_connection(("127.0.0.1", server.server_address[1]), timeout=20) as client:
            client.sendall(b"GET http://[x HTTP/1.1\r\n\r\n")
            with client.makefile("rb") as answer:
                assert answer.readline().startswith(b"HTTP/1.0 400 ")
        served.result(20)


def test_an_address_that_cannot_be_used_is_wrong_usage(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(APP)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        for address, text in (
            ("eighty", "suitkaise run: health takes [HOST:]PORT"),
            (str(taken.getsockname()[1]), "cannot listen there: [Errno 98]"),
        ):
            ended = run_program([sys.executable, "-m", "suitkaise", "run", "--health", address, "app.py"], cwd=tmp_path)
            assert ended.returncode == 2
            assert text in ended.stderr


@pytest.mark.parametrize("text", ["", "x:", "1.5", "-1", "65536", "a:b", "٣"])
def test_what_is_no_port_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"health takes \[HOST:\]PORT, such as 8080"):
        checked_address(text)


def test_a_thread_that_cannot_be_started_leaves_the_place_of_its_client_free(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*of: Any) -> None:
        raise RuntimeError("can't start new thread")

    with _Server(("127.0.0.1", 0), _Handler) as server, socket.socket() as client:
        with monkeypatch.context() as without_threads:
            without_threads.setattr(threading.Thread, "start", refuse)
            for _ in range(CONNECTIONS):
                with pytest.raises(RuntimeError, match="can't start new thread"):
                    server.process_request(client, None)
        monkeypatch.setattr(server, "process_request_thread", lambda *of: server._places.release())
        monkeypatch.setattr(server, "shutdown_request", lambda request: pytest.fail("a client was turned away"))
        server.process_request(client, None)


class Idle(Thread):
    def on_receive(self, message: Any) -> Any:
        return message


class Answers(Process):
    def on_receive(self, message: Any) -> Any:
        return message


def test_a_supervision_that_does_not_answer_is_not_healthy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("suitkaise.cli.health.PATIENCE", 0.3)
    assert health() == {}
    assert readiness() == {"": "no tree has been started"}
    with Supervisor("app", Idle, Child(Answers, restart="temporary")).start() as running:
        assert health() == {}
        now = runtime.current()
        assert now is not None
        gate = threading.Event()
        try:
            now.reactor.call_soon_threadsafe(gate.wait)
            assert health() == {"app": "the I/O thread does not answer"}
        finally:
            gate.set()
        eventually(lambda: health() == {})
        gate = threading.Event()

        def wait(event: Event) -> None:
            gate.wait()

        now.bus.subscribe(wait)
        try:
            running["idle"].kill()
            eventually(lambda: health() == {"app": "the supervisor 'app' does not answer"})
        finally:
            gate.set()
        now.bus.unsubscribe(wait)
        eventually(lambda: health() == {} and readiness() == {})
        running.terminate_child("answers")
        assert readiness() == {}
