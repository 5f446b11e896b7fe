"""The web observer over HTTP: the one-time link, the checks, the stream, the actions, its process and its end."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import sys
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

from suitkaise.observer.feed import MOST_PAGES
from tests.support import Program, eventually, only_root, run_program, start_program, stranger, wait_gone

pytest.importorskip("uvicorn")

APP = """
from suitkaise import Child, Process, Supervisor, Thread

class Steady(Process):
    def on_start(self):
        print("steady starts, incarnation", self.ref.incarnation, flush=True)
    def loop(self):
        self.wait(0.01)
    def on_receive(self, message):
        raise ValueError("as it was told")

class Idle(Thread):
    def on_start(self):
        self.tree.add("password", "s3cret", path="settings", metadata={"kind": "text"})

tree = Supervisor("app", Supervisor("jobs", Child(Steady, copies=2), strategy="one_for_all"), Idle(), max_restarts=50)
"""
RUN = [sys.executable, "-m", "suitkaise", "run", "app.py"]


@dataclass
class Site:
    """An observer: requests to it, with the cookie once it has been got."""

    program: Program
    url: str
    cookie: str = ""
    csrf: str = ""
    buffered: bytes = b""
    opened: list[http.client.HTTPConnection] = field(default_factory=list)

    @property
    def host(self) -> str:
        return urllib.parse.urlsplit(self.url).netloc

    @property
    def link(self) -> str:
        return self.url.removeprefix(f"http://{self.host}")

    def send(
        self, method: str, path: str, headers: dict[str, str] | None = None, body: str | None = None
    ) -> http.client.HTTPResponse:
        connection = http.client.HTTPConnection(self.host, timeout=20)
        self.opened.append(connection)
        sent = {"Host": self.host} | ({"Cookie": self.cookie} if self.cookie else {}) | (headers or {})
        connection.request(method, path, body, sent)
        return connection.getresponse()

    def get(self, path: str, **headers: str) -> tuple[int, str]:
        answer = self.send("GET", path, {name.replace("_", "-"): value for name, value in headers.items()})
        return answer.status, answer.read().decode()

    def enter(self) -> None:
        answer = self.send("GET", self.link)
        assert answer.status == 303
        self.cookie = answer.headers["Set-Cookie"].partition(";")[0]

    def stream(self, query: str = "") -> Iterator[dict[str, Any]]:
        answer = self.send("GET", f"/events{query}")
        assert answer.status == 200
        while line := answer.readline():
            if line.startswith(b"data: "):
                message = json.loads(line[6:])
                self.csrf = message.get("csrf", self.csrf)
                yield message

    def change(self, action: str, path: str, **headers: str) -> tuple[int, dict[str, Any]]:
        sent = {"Origin": f"http://{self.host}", "X-CSRF-Token": self.csrf}
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        body = json.dumps({"action": action, "path": path})
        answer = self.send("POST", "/api/change", {k: v for k, v in sent.items() if v}, body)
        return answer.status, json.loads(answer.read())


@contextlib.contextmanager
def observed(folder: Path, *options: str, command: list[str] | None = None) -> Iterator[Site]:
    (folder / "app.py").write_text(APP)
    with start_program([*(command or RUN[:-1]), "--observe", *options, "app.py"], cwd=folder) as program:
        url = eventually(lambda: re.search(r"http://\S+", program.stderr), what="the URL")
        site = Site(program, url.group())
        try:
            yield site
        finally:
            for connection in site.opened:
                connection.close()
        if program.returncode is None:
            program.send_signal(signal.SIGINT)
            assert program.wait() == 0
    assert program.left_behind == []


def rows_of(site: Site, wanted: str = "running") -> dict[str, Any]:
    """Read the stream until all workers have the wanted state; return the rows."""
    rows: dict[str, Any] = {}
    for message in site.stream():
        for path, facts in message.get("rows", {}).items():
            rows.setdefault(path, {}).update(facts)
        if len(rows) == 5 and all(row["status"] == wanted for row in rows.values()):
            return rows
    raise AssertionError(f"the stream has ended: {rows}")


def test_the_link_works_once_and_nothing_is_told_without_the_cookie(tmp_path: Path) -> None:
    with observed(tmp_path) as site:
        for path in (
            "/",
            "/events",
            "/api/history?path=app",
            "/api/follow?page=1&path=app/jobs/steady-0",
            "/api/crashes/1",
        ):
            assert site.get(path)[0] == 401
        assert site.get("/?token=wrong")[0] == 401
        assert site.get(site.link, Host="evil.example")[0] == 421
        assert site.get(site.link, Origin="http://evil.example")[0] == 403
        first = site.send("GET", site.link)
        assert (first.status, first.headers["Location"]) == (303, "/")
        cookie = first.headers["Set-Cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=strict" in cookie
        assert site.get(site.link)[0] == 401
        site.cookie = cookie.partition(";")[0]
        status, page = site.get("/")
        assert status == 200
        assert not re.search(r"<script(?! type=\"module\" src=)|\son\w+=|style=|https?://(?!www\.w3\.org)", page)
        assert site.get(site.link)[0] == 303  # the browser that has the cookie may open the link again


@only_root
def test_another_user_sees_no_page_and_changes_nothing(tmp_path: Path) -> None:
    with observed(tmp_path, "--observe-actions") as site:
        token = site.link.partition("=")[2]

        def act(out: int) -> None:
            theirs = Site(site.program, site.url, csrf="a guess")
            paths = [
                "/",
                "/events",
                "/api/history?path=app",
                "/api/follow?page=1&path=app/jobs/steady-0",
                "/api/crashes/1",
            ]
            seen = [theirs.get(path)[0] for path in [*paths, "/?token=a-guess", "/?token="]]
            seen += [theirs.change(action, "app/jobs/steady-0")[0] for action in ("restart", "stop")]
            theirs.cookie = "suitkaise=a-guess"
            seen += [theirs.get("/")[0], theirs.change("restart", "app/jobs/steady-0")[0]]
            processes = [psutil.Process(site.program.pid), *psutil.Process(site.program.pid).children(recursive=True)]
            told = sum(token in Path(f"/proc/{one.pid}/cmdline").read_text() for one in processes)
            os.write(out, json.dumps([seen, told]).encode())

        with stranger(act) as told, open(told, "rb", closefd=False) as pipe:
            seen, leaks = json.loads(pipe.read())
        assert (set(seen), len(seen), leaks) == ({401}, 11, 0)
        site.enter()  # the guesses have used nothing up
        rows = rows_of(site)
        assert rows["app/jobs/steady-0"]["incarnation"] == 1


def test_all_answers_have_the_headers_that_protect_the_page(tmp_path: Path) -> None:
    with observed(tmp_path) as site:
        site.enter()
        for path in ("/", "/static/app.js", "/static/none.js", "/api/history", "/events", "/none"):
            answer = site.send("GET", path)
            assert answer.headers["Content-Security-Policy"].startswith("default-src 'self'"), path
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
            assert answer.headers["Cache-Control"] == "no-store"
        assert site.get("/static/..%2fweb.py")[0] == 404
        assert site.get("/events", Sec_Fetch_Site="cross-site")[0] == 403
        assert site.get("/events", Host="evil.example")[0] == 421


def test_a_crash_comes_over_the_stream_with_its_incident_and_report(tmp_path: Path) -> None:
    with observed(tmp_path) as site:
        site.enter()
        victim = rows_of(site)["app/jobs/steady-1"]["pid"]
        stream = site.stream()
        state = next(stream)
        assert state["type"] == "state"
        assert state["actions"] is False
        os.kill(victim, signal.SIGKILL)
        incident = next(
            one for message in stream for one in message.get("incidents", ()) if one["state"] == "recovered"
        )
        assert incident["path"] == "app/jobs/steady-1"
        assert set(incident["affected"]) == {"app/jobs/steady-0", "app/jobs/steady-1"}
        (id,) = incident["reports"]
        report = json.loads(site.get(f"/api/crashes/{id}")[1])
        assert report["pid"] == victim
        text = site.send("GET", f"/api/crashes/{id}.txt")
        assert text.headers["Content-Disposition"] == f'attachment; filename="crash-{id}.txt"'
        assert b"app/jobs/steady-1" in text.read()
        assert site.get("/api/crashes/none")[0] == 404


def test_the_log_of_a_worker_and_of_a_part_of_the_tree_comes_over_the_stream_of_the_page(tmp_path: Path) -> None:
    with observed(tmp_path) as site:
        site.enter()
        victim = rows_of(site)["app/jobs/steady-1"]["pid"]
        assert site.get("/api/follow?page=mine&path=app")[0] == 404
        logs = (message for message in site.stream("?page=mine") if message["type"] in ("state", "log"))
        assert next(logs)["type"] == "state"
        assert site.get("/api/follow?page=mine&path=app/jobs/steady-1")[0] == 200
        log = next(logs)
        assert (log["path"], log["first"], log["skipped"]) == ("app/jobs/steady-1", True, 0)
        started = ["app/jobs/steady-1", 1, "stdout", "steady starts, incarnation 1"]
        assert started in [[*line[:3], line[4]] for line in log["lines"]]
        os.kill(victim, signal.SIGKILL)
        lines: list[str] = []
        while "steady starts, incarnation 2" not in lines:
            log = next(logs)
            lines += [line[4] for line in log["lines"]]
        assert not log["first"]
        assert any("SIGKILL" in line for line in lines)  # what has happened is told, too
        assert site.get("/api/follow?page=mine&path=app/jobs")[0] == 200
        log = next(one for one in logs if one["path"] == "app/jobs")
        assert {line[0] for line in log["lines"]} >= {"app/jobs/steady-0", "app/jobs/steady-1"}
        assert site.get("/api/follow?page=mine&path=")[0] == 200


def test_actions_are_off_unless_they_are_asked_for(tmp_path: Path) -> None:
    with observed(tmp_path) as site:
        site.enter()
        rows_of(site)
        status, answer = site.change("restart", "app/jobs/steady-0")
        assert (status, "--observe-actions" in answer["error"]) == (403, True)


def test_actions_need_cookie_origin_and_csrf_token_and_are_logged(tmp_path: Path) -> None:
    with observed(tmp_path, "--observe-actions") as site:
        assert site.change("stop", "app/jobs/steady-0")[0] == 401
        site.enter()
        rows_of(site)
        for wrong in ({"Origin": ""}, {"Origin": "http://evil.example"}, {"X_CSRF_Token": ""}, {"X_CSRF_Token": "x"}):
            assert site.change("stop", "app/jobs/steady-0", **wrong)[0] == 403
        assert site.change("explode", "app/jobs/steady-0")[0] == 409
        assert site.change("stop", "app")[0] == 409
        assert site.change("stop", "app/jobs/none")[0] == 409
        assert (
            site.send("POST", "/api/change", {"Origin": f"http://{site.host}", "X-CSRF-Token": site.csrf}, "no").status
            == 400
        )
        long = site.send(
            "POST", "/api/change", {"Origin": f"http://{site.host}", "X-CSRF-Token": site.csrf}, "x" * 5000
        )
        assert long.status == 413
        for action in ("restart", "suspend", "resume", "stop", "start"):
            assert site.change(action, "app/jobs/steady-0")[0] == 200, action
        assert "restart of 'app/jobs/steady-0' is requested from the page, by 127.0.0.1" in site.program.stderr


def test_a_request_that_is_no_http_or_is_cut_off_leaves_no_traceback(tmp_path: Path) -> None:
    with observed(tmp_path, "--observe-actions") as site:
        site.enter()
        rows_of(site)
        begin = f"POST /api/change HTTP/1.1\r\nHost: {site.host}\r\nCookie: {site.cookie}\r\n"
        allowed = f"{begin}Origin: http://{site.host}\r\nX-CSRF-Token: {site.csrf}\r\n"
        assert " 400 " in answer_to(site, f"{allowed}Content-Length: 14\r\n\r\n".encode() + b'{"action":"\xff"}')
        assert " 400 " in answer_to(site, f"{begin}Transfer-Encoding: chunked\r\n\r\nzz\r\n".encode())
        assert answer_to(site, f"{allowed}Content-Length: 500\r\n\r\n{{".encode(), cut_off=True) == ""
        assert site.get("/")[0] == 200
    assert "Traceback" not in site.program.stderr
    assert "ASGI" not in site.program.stderr


def answer_to(site: Site, request: bytes, *, cut_off: bool = False) -> str:
    """Send bytes, and return the first line of the answer; with `cut_off`, send nothing more after them."""
    host, _, port = site.host.partition(":")
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        connection.sendall(request)
        if cut_off:
            connection.shutdown(socket.SHUT_WR)
        return connection.makefile("rb").readline().decode()


@pytest.mark.parametrize("hidden", [False, True])
def test_the_storage_is_told_without_its_values_where_they_are_hidden(tmp_path: Path, hidden: bool) -> None:
    with observed(tmp_path, *["--observe-hide-values"] * hidden) as site:
        assert site.get("/api/storage")[0] == 401
        site.enter()
        rows_of(site)
        root = json.loads(eventually(lambda: site.get("/api/storage?path=")[1]))
        assert (root["containers"], root["entries"], root["count"]) == (["settings"], [], 1)
        told = json.loads(site.get("/api/storage?path=settings")[1])
        [entry] = told["entries"]
        shown = None if hidden else "'s3cret'"
        assert (entry["name"], entry["value"], entry["metadata"]) == ("password", shown, {"kind": "text"})
        assert json.loads(site.get(f"/api/storage?path=settings&seen={told['revision']}")[1]) == {
            "revision": told["revision"]
        }
        assert json.loads(site.get("/api/storage?path=settings&name=password")[1])["value"] == shown
        assert site.get("/api/storage?path=settings&name=none")[0] == 404
        assert site.get("/api/storage?path=%00")[0] == 400
        assert site.get("/api/storage?path=settings&name=")[0] == 400


def test_pages_are_told_the_end_of_the_program_and_the_observer_ends_with_it(tmp_path: Path) -> None:
    with observed(tmp_path) as site:
        site.enter()
        rows_of(site)
        stream = site.stream()
        observer = next(stream)["observer"]
        site.program.send_signal(signal.SIGINT)
        messages = list(stream)
        assert messages[-1]["type"] == "ended"
        told = [event["event"] for message in messages for event in message.get("events", ())]
        assert told[-1] == "supervisor_stopped"
        wait_gone(observer)
        assert site.program.wait() == 0


def test_the_observer_ends_with_a_program_that_is_killed(tmp_path: Path) -> None:
    with observed(tmp_path) as site:
        site.enter()
        rows_of(site)
        stream = site.stream()
        observer = next(stream)["observer"]
        site.program.send_signal(signal.SIGKILL)
        assert list(stream)[-1]["type"] == "ended"
        wait_gone(observer)
        site.program.wait()
        eventually(lambda: not site.program.relatives())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_an_observer_that_no_page_has_visited_ends_with_the_program(tmp_path: Path, number: int) -> None:
    with observed(tmp_path) as site:
        (observer,) = eventually(lambda: site.program.relatives("sk:observer"))
        site.program.send_signal(number)
        site.program.wait()
        wait_gone(observer.pid)
        eventually(lambda: not site.program.relatives())


def test_a_killed_observer_harms_nothing(tmp_path: Path) -> None:
    with observed(tmp_path) as site:
        site.enter()
        pids = {path: row["pid"] for path, row in rows_of(site).items()}
        os.kill(next(site.stream())["observer"], signal.SIGKILL)
        assert all(psutil.pid_exists(pid) for pid in pids.values())


def test_a_page_that_never_reads_is_dropped_and_the_others_go_on(tmp_path: Path) -> None:
    with observed(tmp_path) as site:
        site.enter()
        host, _, port = site.host.partition(":")
        with contextlib.ExitStack() as sockets:
            for _ in range(40):
                sock = sockets.enter_context(socket.create_connection((host, int(port))))
                request = f"GET /events HTTP/1.1\r\nHost: {site.host}\r\nCookie: {site.cookie}\r\n\r\n"
                sock.sendall(request.encode())
            rows_of(site)


def test_a_thousand_pages_are_told_the_same_and_one_more_is_refused(tmp_path: Path) -> None:
    with observed(tmp_path) as site, contextlib.ExitStack() as sockets:
        site.enter()
        victim = rows_of(site)["app/jobs/steady-1"]["pid"]
        host, _, port = site.host.partition(":")
        pages = []
        for _ in range(MOST_PAGES - 1):  # `rows_of` has opened one
            sock = sockets.enter_context(socket.create_connection((host, int(port)), timeout=30))
            sock.sendall(f"GET /events HTTP/1.1\r\nHost: {site.host}\r\nCookie: {site.cookie}\r\n\r\n".encode())
            pages.append(sock)
        received = [b""] * len(pages)

        def read_until(text: bytes) -> None:
            for number, page in enumerate(pages):
                while text not in received[number]:
                    part = page.recv(1 << 16)
                    assert part, received[number][-200:]
                    received[number] = received[number][-100:] + part

        read_until(b'"order":')
        assert site.get("/events")[0] == 503
        os.kill(victim, signal.SIGKILL)
        read_until(b"signal 9 (SIGKILL)")


def test_a_program_that_runs_already_is_observed(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(APP)
    with start_program([*RUN], cwd=tmp_path) as program:
        eventually(lambda: "app supervisor started" in program.stderr)
        command = [sys.executable, "-m", "suitkaise", "observe", "--json", "--pid", str(program.pid)]
        with start_program(command, cwd=tmp_path) as observer:
            site = Site(program, json.loads(observer.expect("url"))["url"])
            site.enter()
            assert rows_of(site)["app"]["pid"] == program.pid
            for connection in site.opened:
                connection.close()
            program.send_signal(signal.SIGINT)
            assert program.wait() == 0
            assert observer.wait() == 0
        assert "the program has ended" in observer.stderr


def test_without_a_program_or_with_a_wrong_address_one_line_tells_it(tmp_path: Path) -> None:
    finished = run_program([sys.executable, "-m", "suitkaise", "observe", "--pid", "1"], cwd=tmp_path)
    assert (finished.returncode, len(finished.stderr.splitlines())) == (3, 1)
    (tmp_path / "app.py").write_text(APP)
    finished = run_program([*RUN[:-1], "--observe=here:there", "app.py"], cwd=tmp_path)
    assert finished.returncode == 2
    assert "HOST:PORT" in finished.stderr
