"""The page of the web observer in a real browser: headless Chromium."""

from __future__ import annotations

import os
import re
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import eventually, start_program

pytest.importorskip("uvicorn")
api = pytest.importorskip("playwright.sync_api")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine"),
    pytest.mark.timeout(180),
]

PATIENCE = 30_000  # milliseconds
APP = """
from suitkaise import Child, Process, Supervisor, Thread

class Steady(Process):
    def on_start(self):
        print("steady starts, incarnation", self.ref.incarnation, flush=True)
    def loop(self):
        self.wait(0.05)

class Keeper(Process):
    def on_start(self):
        self.tree.add("limits", {"retries": 3, "text": "<b>bold</b>"}, path="settings/jobs")
    def loop(self):
        self.tree.increment("turns", path="settings")
        self.wait(0.2)

class Failing(Steady):
    restart = "temporary"
    def loop(self):
        if self.path.endswith("fails"):
            raise ValueError("<b>as it was told</b> \\u202e\\x1b[31m, and \\r")

class Idle(Thread):
    def loop(self):
        self.wait(5.0)

def deep(levels):
    return Supervisor("deep", Child(Idle, id=f"leaf{levels}"), *([deep(levels - 1)] if levels else []))

tree = Supervisor(
    "app", Supervisor("jobs", Child(Steady, copies=2), strategy="one_for_all"), Child(Failing, id="fails"),
    Supervisor("many", Child(Idle, copies=COPIES)), max_restarts=50,
    *[deep(20), Keeper, Child(Failing, id="brief")] * (COPIES == 1),
)
"""


class Open:
    """A page that shows a running program."""

    def __init__(self, page: Any, program: Any, url: str, faults: list[str]) -> None:
        self.page = page
        self.program = program
        self.url = url
        self.faults = faults

    def row(self, path: str) -> Any:
        return self.page.locator(f'.row[data-path="{path}"]')

    def expect(self, path: str, state: str) -> None:
        self.page.wait_for_selector(f'.row[data-path="{path}"][data-state="{state}"]', timeout=PATIENCE)

    def pid(self, path: str) -> int:
        self.row(path).click()
        shown = self.page.locator('.facts div:has(dt:text-is("Pid")) dd')
        return int(eventually(shown.inner_text, what="a pid: it has none while it restarts"))


@pytest.fixture
def browser() -> Iterator[Any]:  # one for each test: it starts some of its processes late
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def opened(browser: Any, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Open]:
    """Run a tree (of so many idle threads), and open its page."""
    copies = getattr(request, "param", 2)
    (tmp_path / "app.py").write_text(APP.replace("COPIES", str(copies)))
    command = [sys.executable, "-m", "suitkaise", "run", "--observe", "--observe-actions", "app.py"]
    context = browser.new_context(viewport={"width": 1300, "height": 700})
    try:
        with start_program(command, cwd=tmp_path) as program:
            url = eventually(lambda: re.search(r"http://\S+", program.stderr), what="the URL").group()
            page = context.new_page()
            faults: list[str] = []
            page.on("pageerror", lambda error: faults.append(str(error)))
            page.on("console", lambda line: faults.append(line.text) if "Content Security" in line.text else None)
            page.goto(url)
            open_page = Open(page, program, url, faults)
            open_page.expect("app", "running")
            yield open_page
            assert faults == []
            if program.returncode is None:
                program.send_signal(signal.SIGINT)
                assert program.wait() == 0
        assert program.left_behind == []
    finally:
        context.close()


def test_a_killed_worker_goes_red_then_green_and_tells_its_story(opened: Open) -> None:
    page = opened.page
    victim = opened.pid("app/jobs/steady-1")
    page.keyboard.press("Escape")
    os.kill(victim, signal.SIGKILL)
    opened.expect("app/jobs/steady-1", "killed")
    opened.expect("app/jobs/steady-1", "running")
    card = page.locator(".incident", has_text="app/jobs/steady-1")
    page.wait_for_selector('.incident[data-state="recovered"]', timeout=PATIENCE)
    card.locator("button").click()
    story = card.locator(".steps").inner_text()
    assert "steady-1 ended" in story
    assert "steady-0 stopped" in story  # the sibling, which the strategy restarts
    assert "steady-1 is back" in story
    assert opened.pid("app/jobs/steady-1") != victim


def test_a_crash_shows_its_traceback_as_text_and_its_report_can_be_kept(opened: Open) -> None:
    page = opened.page
    card = page.locator(".incident", has_text="app/fails")
    card.locator("> button").click()
    traceback = card.locator("pre.error")
    traceback.wait_for(timeout=PATIENCE)
    assert "ValueError: <b>as it was told</b>" in traceback.inner_text()
    assert page.locator("aside b", has_text="as it was told").count() == 0  # nothing of it is markup
    assert "</b> \\u202e\\x1b[31m, and \\r" in traceback.inner_text()  # and nothing turns the text around
    assert "</b> \\u202e\\x1b[31m, and \\r" in card.locator(".why").inner_text()
    with page.expect_download() as download:
        card.get_by_text("Download").click()
    assert "as it was told" in Path(download.value.path()).read_text()


def test_a_worker_is_restarted_stopped_and_started_by_clicks(opened: Open) -> None:
    page = opened.page
    before = opened.pid("app/jobs/steady-0")
    eventually(
        lambda: page.evaluate("document.getElementById('log').textContent.includes('incarnation 1')"), timeout=30.0
    )
    page.locator('[data-action="restart"]').click()
    page.locator("#ask .strong").click()
    page.locator("#toast", has_text="restart is done").wait_for(timeout=PATIENCE)
    eventually(
        lambda: page.evaluate("document.getElementById('log').textContent.includes('incarnation 2')"), timeout=30.0
    )
    eventually(lambda: opened.pid("app/jobs/steady-0") != before)
    page.locator('[data-action="stop"]').click()
    page.locator("#ask .strong").click()
    opened.expect("app/jobs/steady-0", "stopped")
    page.locator('[data-action="start"]').click()
    opened.expect("app/jobs/steady-0", "running")


@pytest.mark.parametrize("failure", ["no answer", "no such page"])
def test_a_log_that_could_not_be_asked_for_is_asked_for_again(opened: Open, failure: str) -> None:
    page = opened.page
    failed = []

    def fail_once(route: Any) -> None:
        if failed:
            return route.continue_()
        failed.append(route.request.url)
        return route.abort() if failure == "no answer" else route.fulfill(status=404, body="")

    page.route("**/api/follow?*", fail_once)
    opened.row("app/jobs/steady-0").click()
    page.locator("#log", has_text="steady starts, incarnation 1").wait_for(timeout=PATIENCE)
    assert failed


def test_the_log_of_a_part_of_the_tree_is_followed_and_filtered(opened: Open) -> None:
    page = opened.page
    opened.row("app/jobs").click()
    shown = "[...document.querySelectorAll('#log p:not([hidden])')].map((line) => line.textContent).join('\\n')"
    both = [f"steady-{number} steady starts, incarnation 1" for number in (0, 1)]
    eventually(lambda: all(text in page.evaluate(shown) for text in both), timeout=30.0)
    victim = opened.pid("app/jobs/steady-1")
    opened.row("app/jobs").click()
    os.kill(victim, signal.SIGKILL)
    eventually(lambda: "steady-1 steady starts, incarnation 2" in page.evaluate(shown), timeout=30.0)
    page.locator("#detail .incident", has_text="app/jobs/steady-1").wait_for(timeout=PATIENCE)
    page.locator("#log-filter").fill("STEADY-1 ")
    assert page.evaluate(shown)
    assert all("steady-1 " in line for line in page.evaluate(shown).split("\n"))
    page.locator("#log-filter").press("Escape")
    assert "steady-0 " in page.evaluate(shown)


def test_without_the_token_the_page_says_what_to_do(opened: Open, browser: Any) -> None:
    context = browser.new_context()
    page = context.new_page()
    for url in (opened.url, opened.url.partition("?")[0]):  # the link was used by the first page
        assert page.goto(url).status == 401
        assert "suitkaise observe" in page.locator("body").inner_text()
    context.close()


def test_the_keyboard_is_enough(opened: Open) -> None:
    page = opened.page
    focused = "document.activeElement.dataset.path"
    page.locator('.row[data-path="app"]').focus()
    page.keyboard.press("ArrowDown")
    assert page.evaluate(focused) == "app/jobs"
    page.keyboard.press("ArrowLeft")
    assert opened.row("app/jobs/steady-0").count() == 0
    page.keyboard.press("ArrowRight")
    opened.row("app/jobs/steady-0").wait_for()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    assert page.locator("#detail h3").inner_text() == "steady-0"
    page.keyboard.press("Escape")
    assert not page.locator("#detail").is_visible()
    assert page.evaluate(focused) == "app/jobs/steady-0"
    page.keyboard.press("/")
    page.keyboard.type("steady-1")
    eventually(lambda: page.evaluate("document.querySelectorAll('#rows .row').length === 3"), timeout=30.0)
    page.keyboard.press("Escape")
    eventually(lambda: page.evaluate("document.querySelectorAll('#rows .row').length > 3"), timeout=30.0)
    page.keyboard.press("t")
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"


@pytest.mark.parametrize("opened", [1], indirect=True)
def test_the_storage_can_be_looked_through_and_is_followed(opened: Open) -> None:
    page = opened.page
    page.locator("#tab-storage").click()
    page.locator("#storage .folder", has_text="settings/").click()
    turns = page.locator("#storage li", has_text="turns").locator(".value")
    first = int(turns.inner_text())
    page.wait_for_function(
        "(first) => [...document.querySelectorAll('#storage .value')].some((one) => Number(one.textContent) > first)",
        arg=first, timeout=PATIENCE,
    )  # fmt: skip
    page.locator("#storage .folder", has_text="jobs/").click()
    page.locator("#storage li button", has_text="limits").click()
    assert page.locator("#storage .whole pre").inner_text() == "{'retries': 3, 'text': '<b>bold</b>'}"
    assert page.locator('#storage dl div:has(dt:text-is("Owner")) dd').inner_text() == "app/keeper"
    page.locator("#storage .crumbs button", has_text="storage").click()
    page.locator("#storage .folder", has_text="settings/").wait_for(timeout=PATIENCE)
    page.locator("#tab-storage").press("ArrowRight")
    assert page.locator("#incidents").is_visible()


@pytest.mark.parametrize("opened", [1], indirect=True)
def test_a_worker_that_is_gone_while_its_page_is_open_has_its_crash_and_no_actions(opened: Open) -> None:
    page = opened.page
    os.kill(opened.pid("app/brief"), signal.SIGKILL)  # it is temporary
    opened.row("app/brief").wait_for(state="detached", timeout=PATIENCE)
    page.wait_for_selector("#detail .where:has-text('gone process at app/brief')")
    page.locator("#detail .incident", has_text="SIGKILL").wait_for(timeout=PATIENCE)
    assert page.locator(".actions button").count() == 0
    assert not page.locator('.facts div:has(dt:text-is("Pid"))').is_visible()
    page.keyboard.press("Escape")
    page.wait_for_function("document.activeElement.dataset.path === 'app'")


def test_the_storage_of_a_program_that_has_ended_is_told_to_have_ended_with_it(opened: Open) -> None:
    opened.program.send_signal(signal.SIGINT)
    opened.page.wait_for_selector('#live:has-text("ended")', timeout=PATIENCE)
    opened.page.get_by_role("tab", name="Storage").click()
    opened.page.wait_for_selector("#storage:has-text('The program has ended, and its storage with it.')")
    assert opened.program.wait() == 0  # a second SIGINT would kill what still ends


def test_a_supervisor_that_is_stopped_has_neither_strategy_nor_budget(opened: Open) -> None:
    page = opened.page
    opened.row("app/many").click()
    page.get_by_role("button", name="Stop").click()
    page.locator("#ask .strong").click()
    opened.expect("app/many", "stopped")
    doing = opened.row("app/many").locator(".doing")
    eventually(lambda: "one_for_one" not in doing.inner_text(), what="the supervisor without its strategy")
    assert doing.inner_text() in ("", "shutdown")
    assert not page.locator('.facts div:has(dt:text-is("Restart budget"))').is_visible()


def test_hours_of_failures_cost_the_page_neither_memory_nor_the_marks_of_its_timeline(opened: Open) -> None:
    page = opened.page
    session = page.context.new_cdp_session(page)

    def nodes() -> int:
        session.send("HeapProfiler.collectGarbage")
        return int(session.send("Memory.getDOMCounters")["nodes"])

    before = nodes()
    marks = page.evaluate("""async () => {
        const { now, store, take } = await import("/static/store.js"), { drawSide } = await import("/static/side.js");
        const began = now(), path = "app/often", text = "ended", reason = "exit code 1", where = "";
        for (let id = 100; id < 5000; id++) {
            const at = began - 250 + id % 200;
            const incident = { id, path, scope: "app", began: at, ended: at, reason, where, state: "down",
                               reports: [], affected: [path], steps: [], more: 0 };
            const event = { event: "child_exited", path, at, level: "error", text, reason, number: id };
            take({ type: "changes", incidents: [incident], dropped: [id - 1], events: [event] });
            if (id % 10 === 9) drawSide();
        }
        return store.marks.size;
    }""")
    assert 200 <= marks <= 215  # each second has one
    assert nodes() - before < 2_000
    assert "of 4,999" in page.locator("#count").inner_text()


def test_no_time_of_day_makes_a_formatter_of_its_own(opened: Open) -> None:
    made = opened.page.evaluate("""async () => {
        const { clock } = await import("/static/format.js"), own = Date.prototype.toLocaleTimeString;
        let made = 0;
        Date.prototype.toLocaleTimeString = function (...of) { made += 1; return own.apply(this, of); };
        clock(0);
        Date.prototype.toLocaleTimeString = own;
        return made;
    }""")
    assert made == 0  # one for each line of a busy log took most of a processor


@pytest.mark.parametrize("opened", [200], indirect=True)
def test_two_hundred_workers_scroll_and_filter(opened: Open) -> None:
    page = opened.page
    eventually(
        lambda: page.evaluate("document.querySelectorAll('.row[data-state=running]').length >= 204"), timeout=30.0
    )
    page.locator('.row[data-path="app"]').focus()
    page.keyboard.press("End")
    last = opened.row("app/many/idle-199")
    assert last.is_visible()
    box = last.bounding_box()
    assert 0 < box["y"] < 700
    last.locator(".n", has_text=re.compile(r"^0")).first.wait_for(timeout=PATIENCE)  # its figures are drawn
    rows = page.evaluate_handle("[...document.querySelectorAll('#rows .row')]")
    assert page.evaluate("(rows) => rows.length > 200 && rows.every((row) => row.isConnected)", rows)
    page.keyboard.press("Home")
    assert page.evaluate("document.querySelector('section.tree').scrollTop") == 0


def test_at_each_width_the_columns_fit_the_screen_and_have_their_heads_above_them(opened: Open) -> None:
    page = opened.page
    for width in (1600, 1300, 1261, 1260, 1100, 961):
        page.set_viewport_size({"width": width, "height": 700})
        too_wide, heads, cells = page.evaluate(
            """() => {
                const tree = document.querySelector("section.tree"), row = document.querySelector("#rows .row");
                const seen = (row) => [...row.children].filter((cell) => cell.offsetWidth);
                const places = (row) => seen(row).map((cell) => cell.offsetLeft);
                return [tree.scrollWidth - tree.clientWidth, places(document.querySelector(".head")), places(row)];
            }"""
        )
        assert (width, too_wide, heads) == (width, 0, cells)


@pytest.mark.parametrize("opened", [1], indirect=True)
@pytest.mark.parametrize("width", [1300, 1000, 390])
def test_the_names_of_a_deep_tree_can_be_read(width: int, opened: Open) -> None:
    opened.page.set_viewport_size({"width": width, "height": 700})
    deepest = opened.row("app" + "/deep" * 21 + "/leaf0").locator(".name b")
    deepest.scroll_into_view_if_needed()
    deepest.filter(has_text="leaf0").wait_for(timeout=PATIENCE)
    assert deepest.evaluate("(name) => name.scrollWidth <= name.clientWidth && name.clientWidth > 20")


def test_a_narrow_screen_shows_everything_without_scrolling_sideways(opened: Open) -> None:
    page = opened.page
    page.set_viewport_size({"width": 360, "height": 700})
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    opened.row("app/jobs/steady-0").click()
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert page.locator("#detail h3").is_visible()


def test_the_end_of_the_program_is_told(opened: Open) -> None:
    opened.program.send_signal(signal.SIGINT)
    opened.page.locator("#banner", has_text="The program has ended").wait_for(timeout=PATIENCE)
    assert opened.page.locator("#live").inner_text() == "ended"
    assert opened.program.wait() == 0


def test_a_lost_observer_is_told(opened: Open) -> None:
    page = opened.page
    observer = page.evaluate("fetch('/events').then(a => a.body.getReader().read()).then(r => 1)")
    assert observer == 1
    for process in opened.program.relatives("sk:observer"):
        process.kill()
    page.locator("#banner", has_text="Trying again").wait_for(timeout=PATIENCE)
