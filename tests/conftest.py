"""Around every test: nothing of it may be left behind, and nothing may hang for ever.

The run gets a runtime folder of its own: trees of other programs on this machine are neither seen nor swept.
"""

from __future__ import annotations

import faulthandler
import fnmatch
import gc
import os
import re
import resource
import shutil
import signal
import threading
import uuid
from collections.abc import Callable, Generator, Iterator
from types import FrameType

import hypothesis
import pytest
from _pytest.faulthandler import fault_handler_stderr_fd_key

from suitkaise import Supervisor, preload
from suitkaise.crashes import read_reports
from tests.fast import is_fast
from tests.leaks import MARK, Footprint, clean_up, private_base, wait_for_leaks_to_go

if signal.getsignal(signal.SIGQUIT) is signal.SIG_IGN:  # a background job of a shell; the programs of tests inherit it
    signal.signal(signal.SIGQUIT, signal.SIG_DFL)


GRACE = float(os.environ.get("SUITKAISE_TEST_GRACE", "5"))  # seconds that what is about to go gets to go
RAY_GRACE = 40.0  # and that Ray's own daemons get, which notice the end of their node only when they look for it
WATCHDOG = 30.0  # seconds after a test's time-out at which a run that cannot be interrupted is ended

# Two noisy cores: time tells nothing about an example.
hypothesis.settings.register_profile("suitkaise", deadline=None)
hypothesis.settings.load_profile("suitkaise")


class TimedOut(BaseException):
    """The test took too long. Hypothesis would take a pytest failure for an example, and start to shrink it."""


class FailuresAtOnce:
    """Tells a failure when it happens: pytest tells none of them after an error of its own, or when it is killed."""

    def __init__(self, plugins: pytest.PytestPluginManager) -> None:
        self._plugins = plugins

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        terminal = self._plugins.getplugin("terminalreporter")
        if report.failed and terminal is not None:
            lines = report.longreprtext.splitlines()[-20:]
            terminal.write_line("\n".join(["", f"{report.nodeid} failed ({report.when}):", *lines]))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--on-a-cluster", choices=("processes", "ray"),
        help="run the trees of the tests, where they declare no engine, on two nodes that are plain processes, "
        "or on a cluster of Ray with three nodes on this machine",
    )  # fmt: skip


def pytest_configure(config: pytest.Config) -> None:
    outer = os.environ.get(MARK)
    os.environ[MARK] = "/".join(filter(None, [outer, uuid.uuid4().hex[:12]]))
    base = private_base()
    config.add_cleanup(lambda: shutil.rmtree(base, ignore_errors=True))
    os.environ["XDG_RUNTIME_DIR"] = str(base)
    os.environ["SUITKAISE_STATE"] = str(base / "state")
    preload("pytest", "tests.support", "tests.end_to_end.kinds")  # what a worker imports with its class: 0.3 s each
    if not hasattr(config, "workerinput"):  # not in the processes of xdist
        config.pluginmanager.register(FailuresAtOnce(config.pluginmanager))
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a shell that runs this in the background has it ignored
        signal.signal(signal.SIGINT, signal.default_int_handler)  # also in every program that a test interrupts


def pytest_sessionstart() -> None:
    """Have pytest see no exception of a worker in a thread: its supervisor handles them."""
    seen_by_pytest = threading.excepthook

    def hook(args: threading.ExceptHookArgs) -> None:
        if args.thread is None or re.search(r"#\d+$", args.thread.name) is None:
            seen_by_pytest(args)

    threading.excepthook = hook


@pytest.hookimpl(tryfirst=True)  # before `-m` selects
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        if is_fast(item):
            item.add_marker(pytest.mark.fast)
        mark = item.get_closest_marker("one_machine")
        if mark is not None and config.getoption("--on-a-cluster"):
            item.add_marker(pytest.mark.skip(f"on one machine only: {mark.args[0]}"))


def pytest_collection_finish() -> None:
    """Exempt what the collection has made from garbage collections, which the check of each test may need."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_timeout_set_timer(item: pytest.Item, settings: object) -> Generator[None, object, object]:
    limit = getattr(settings, "timeout", None)
    if limit:
        stderr = item.config.stash[fault_handler_stderr_fd_key]
        faulthandler.dump_traceback_later(limit + WATCHDOG, file=stderr, exit=True)
    result = yield
    timer = signal.getsignal(signal.SIGALRM) if limit and hasattr(signal, "SIGALRM") else None
    if callable(timer):

        def on_alarm(number: int, frame: FrameType | None) -> None:
            try:
                timer(number, frame)
            except pytest.fail.Exception as failure:
                raise TimedOut(str(failure)) from None

        signal.signal(signal.SIGALRM, on_alarm)
    return result


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_timeout_cancel_timer(item: pytest.Item) -> Generator[None, object, object]:
    faulthandler.cancel_dump_traceback_later()
    return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show with a failure the crash reports of the test's workers, which have the stacks of those that hung."""
    report = yield
    if report.failed:
        reports = [str(one) for one in read_reports()[0] if one.wall >= call.start]
        if reports:
            report.sections.append(("crash reports", "\n\n".join(reports[-5:])))
    return report


@pytest.fixture(scope="session", autouse=True)
def _on_a_cluster(request: pytest.FixtureRequest) -> Iterator[Callable[[], None] | None]:
    """Run the processes of all trees on nodes, if the command line says so: on the same ones all the time."""
    which = request.config.getoption("--on-a-cluster")
    if which is None:
        yield None
        return
    from tests.cluster.choice import all_trees_on_a_cluster

    with all_trees_on_a_cluster(which) as forget:
        yield forget


@pytest.fixture(scope="module")
def one_runtime_for_all() -> Iterator[None]:
    """Keep the runtime and its keeper during all tests of a module: a tree without children runs meanwhile.

    Nine tenths of what a test with a process worker costs is a keeper of its own. Modules whose tests are about the
    start and the end of a program, or about its keeper, do without this.
    """
    from tests.support import start_threads_of_the_runtime

    with Supervisor("keeps-the-runtime").start():
        start_threads_of_the_runtime()
        yield


@pytest.fixture(autouse=True)
def nothing_is_left_behind(request: pytest.FixtureRequest, _on_a_cluster: Callable[[], None] | None) -> Iterator[None]:
    """Fail the test that leaves a process, a thread, an open file or a runtime directory behind."""
    if _on_a_cluster is not None:  # all tests share a runtime, which starts its parts when they are first used
        yield
        _on_a_cluster()
        return
    before = Footprint.take()
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    yield
    grace = RAY_GRACE if request.node.get_closest_marker("ray") else GRACE
    leaks = wait_for_leaks_to_go(before, grace)
    clean_up(leaks)
    allowed = [pattern for mark in request.node.iter_markers("may_leave") for pattern in mark.args]
    unexpected = [leak for leak in leaks if not any(fnmatch.fnmatch(str(leak), p) for p in allowed)]
    if unexpected:
        lines = "\n".join(f"  {leak}" for leak in unexpected)
        pytest.fail(f"the test left behind, {grace:g} seconds after its end:\n{lines}", pytrace=False)
    if request.node.get_closest_marker("fast") and resource.getrusage(resource.RUSAGE_CHILDREN) != ended:
        pytest.fail("the test is marked `fast` (see tests/fast.py) but has started a process", pytrace=False)
