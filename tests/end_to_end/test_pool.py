"""`supervisors/pool.py`: no request is lost but those in a worker that was killed."""

from __future__ import annotations

import http.client
import os
import random
import re
import select
import signal
import socket
import sys
import threading
import urllib.request
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from suitkaise.events import ChildStartFailure
from supervisors.pool import Server, hello, pool
from tests.end_to_end.kinds import next_event
from tests.support import ROOT, eventually, start_program

RUN = [sys.executable, "-m", "suitkaise", "run", str(ROOT / "supervisors" / "pool.py")]


def get(url: str) -> str:
    """Return the answer, or `lost: ...` if the connection broke."""
    try:
        with urllib.request.urlopen(url, timeout=20) as answer:
            return str(answer.read().decode())
    except (OSError, http.client.HTTPException) as error:
        return f"lost: {error!r}"


def listener() -> socket.socket:
    return socket.create_server(("127.0.0.1", 0), backlog=1024)


def test_all_workers_serve_and_a_signal_ends_the_pool(tmp_path):  # type: ignore[no-untyped-def]
    with start_program([*RUN, "--port", "0", "--workers", "2"], cwd=tmp_path) as program:
        url = program.expect("serving on").split()[-1]
        eventually(lambda: "supervisor started" in program.stderr, what="the pool is up")
        with ThreadPoolExecutor(8) as clients:
            answers = list(clients.map(get, [f"{url}{number}" for number in range(100)]))
        assert [re.sub(r"process \d+", "process", one) for one in answers] == [
            f"hello from process: /{number}\n" for number in range(100)
        ]
        assert len({one.split()[3] for one in answers}) == 2
        program.send_signal(signal.SIGTERM)
        assert program.wait() == 0, program.stderr


def test_a_wrong_application_is_an_error_before_anything_starts(tmp_path):  # type: ignore[no-untyped-def]
    with start_program([*RUN, "--port", "0", "--app", "nowhere:app"], cwd=tmp_path) as program:
        assert program.wait() == 2
        assert "No module named 'nowhere'" in program.stderr


def test_workers_are_renewed_after_their_requests_and_no_request_is_lost() -> None:
    with listener() as sock, pool(sock, workers=2, requests=20).start() as running:
        url = f"http://127.0.0.1:{sock.getsockname()[1]}/"
        served: Counter[str] = Counter()

        def a_third_process_has_served() -> bool:
            with ThreadPoolExecutor(6) as clients:
                answers = list(clients.map(get, [url] * 100))
            assert [one for one in answers if not one.startswith("hello")] == []
            served.update(one.split()[3] for one in answers)
            return len(served) > 2

        eventually(a_third_process_has_served, what="at least one worker was renewed", timeout=60.0)
        eventually(lambda: all(line.status == "running" for line in running.which_children()), what="all are back")
        assert running.crashes() == []


def test_a_worker_that_cannot_be_renewed_at_first_is_renewed_later_and_the_others_serve_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    application = tmp_path / "app_of_a_test.py"
    application.write_text("from supervisors.pool import hello as application")
    with listener() as sock, pool(sock, app="app_of_a_test", workers=2, requests=10).start() as running:
        application.write_text("broken")
        url = f"http://127.0.0.1:{sock.getsockname()[1]}/"
        both = [running[f"serve-{number}"] for number in (0, 1)]

        def one_is_down() -> bool:
            assert get(url).startswith("hello")
            return any(ref.status in ("crashed", "restarting") for ref in both)

        eventually(one_is_down, what="one could not be renewed")
        for _ in range(30):  # enough requests for the other one to be due for renewal
            assert get(url).startswith("hello")
        application.write_text("from supervisors.pool import hello as application")
        eventually(
            lambda: all(ref.incarnation > 1 and ref.status == "running" for ref in both), what="both are renewed"
        )


def test_a_connection_without_a_request_does_not_delay_the_end_of_a_worker() -> None:
    with (
        listener() as sock,
        pool(sock, workers=1).start() as running,
        socket.create_connection(sock.getsockname()) as idle,
    ):
        assert get(f"http://127.0.0.1:{sock.getsockname()[1]}/").startswith("hello")  # the idle one is accepted, too
        running["serve"].recall(15.0)
        assert idle.recv(1) == b""
        assert running.crashes() == []


@pytest.mark.parametrize(
    "half",
    [
        b"GET / HTT",
        b"GET / HTTP/1.1\r\nHost: x\r\nX-",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nthe first part",
    ],
)
def test_half_a_request_does_not_delay_the_end_of_a_worker_and_is_not_served(
    half: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "app_that_reads.py").write_text(
        """
def application(environ, start_response):
    body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    open("served", "a").write(environ["PATH_INFO"] + "\\n")
    start_response("200 OK", [])
    return [b"hello"]
"""
    )
    with (
        listener() as sock,
        pool(sock, app="app_that_reads", workers=1).start() as running,
        socket.create_connection(sock.getsockname()) as client,
    ):
        client.sendall(half)
        assert get(f"http://127.0.0.1:{sock.getsockname()[1]}/whole").startswith("hello")  # so the half is accepted
        running["serve"].recall(15.0)
        assert client.recv(1) == b""
        assert (tmp_path / "served").read_text() == "/whole\n"
        assert running.crashes() == []


def test_a_request_that_takes_too_long_to_arrive_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("supervisors.pool.PATIENCE", 0.5)
    monkeypatch.setattr("supervisors.pool._Handler.timeout", 0.5)
    with listener() as sock, socket.create_connection(sock.getsockname()) as client:
        server = Server(sock, hello, lambda: None)
        serving = threading.Thread(target=server.serve_forever, args=(0.1,))
        serving.start()
        client.settimeout(15.0)
        with suppress(BrokenPipeError, ConnectionResetError):  # one character after the other, for ever
            client.sendall(b"GET / HTTP/1.1\r\n")
            while not select.select([client], [], [], 0.05)[0]:
                client.sendall(b"X")
            assert client.recv(1) == b""
        server.end()
        serving.join()


def test_the_pool_survives_an_application_that_cannot_be_imported_for_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    application = tmp_path / "app_that_breaks.py"
    application.write_text("from supervisors.pool import hello as application")
    with listener() as sock, pool(sock, app="app_that_breaks", workers=1).start() as running:
        url = f"http://127.0.0.1:{sock.getsockname()[1]}/"
        application.write_text("import a_module_that_is_missing")
        os.utime(application, (1, 1))
        with running.events() as happened:
            running["serve"].kill()
            first = last = next_event(happened, ChildStartFailure, timeout=30)
            while last.at - first.at < 4.0:
                last = next_event(happened, ChildStartFailure, timeout=30)
        eventually(lambda: "failed to start: ModuleNotFoundError" in caplog.text)
        application.write_text("from supervisors.pool import hello as application")
        assert get(url).startswith("hello")


def test_a_worker_that_has_grown_is_renewed() -> None:
    with listener() as sock, pool(sock, workers=2, mib=1.0).start() as running:
        url = f"http://127.0.0.1:{sock.getsockname()[1]}/"
        assert get(url).startswith("hello")
        eventually(lambda: 2 in {running[f"serve-{n}"].incarnation for n in (0, 1)}, what="a worker is renewed")


def test_only_requests_in_a_killed_worker_are_lost() -> None:
    with listener() as sock, pool(sock, workers=3).start() as running:
        url = f"http://127.0.0.1:{sock.getsockname()[1]}/"
        chance, kills, over = random.Random(7), [], threading.Event()

        def kill() -> None:
            while not over.wait(0.1):
                pid = running[f"serve-{chance.randrange(3)}"].pid
                if pid is not None:
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                        kills.append(pid)

        killer = threading.Thread(target=kill)
        with ThreadPoolExecutor(6) as clients:
            killer.start()
            answers = list(clients.map(get, [url] * 1500))
            over.set()
            killer.join()
        lost = [one for one in answers if not one.startswith("hello")]
        assert len(kills) > 3
        assert len(lost) <= 6 * len(kills), lost  # at most all requests that were under way
        assert all("Refused" not in one and "timed out" not in one for one in lost), lost
        assert get(url).startswith("hello")
