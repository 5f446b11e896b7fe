"""CPython's own tests of executors, from the test package of the interpreter that runs this, with our pools.

They are skipped where that package is not installed. `NOT_APPLICABLE` lists the tests that ask for something else than
the public behaviour of an executor, each with the reason.
"""

from __future__ import annotations

import importlib
import multiprocessing
import pickle
import sys
import threading
import unittest
from collections.abc import Iterator
from typing import Any

import pytest

from suitkaise import NotSerializable
from suitkaise.pools import ProcessPool, TaskFailed, ThreadPool

SCRIPT = "runs a script that imports the executor from concurrent.futures; test_ends.py has the same with ours"
INTERNALS = "looks at private attributes of the standard library's executors"
ABOUT_BREAKING = "expects that the whole pool is broken; ours goes on, see test_deaths.py"

NOT_APPLICABLE = {
    "test_interpreter_shutdown": SCRIPT,
    "test_submit_after_interpreter_shutdown": SCRIPT,
    "test_hang_gh83386": SCRIPT,
    "test_hang_global_shutdown_lock": SCRIPT,
    "test_hang_gh94440": "interrupts the program by SIGALRM to end a hang, which the time-out of this test does",
    "test_python_finalization_error": INTERNALS,
    "test_killed_child": ABOUT_BREAKING,
    "test_crash_big_data": ABOUT_BREAKING,
    "test_broken_process_pool_traceback": ABOUT_BREAKING,
    "test_max_workers_too_large": "a limit of Windows",
    "test_traceback": "expects the remote traceback as a cause; ours is a note of the exception",
    "test_max_tasks_per_child_defaults_to_spawn_context": "needs a context of multiprocessing",
    "test_saturation": INTERNALS,
    "test_idle_process_reuse_one": INTERNALS,
    "test_idle_process_reuse_multiple": INTERNALS,
    "test_max_tasks_per_child": INTERNALS,
    "test_shutdown_no_wait_max_tasks_gh119592": f"{INTERNALS}; test_ends.py has the same with ours",
    "test_gc_during_max_tasks_worker_exit_gh152967": f"{INTERNALS}; test_ends.py has the same with ours",
    "test_force_shutdown_during_max_tasks_worker_exit": INTERNALS,
    "test_failed_worker_replacement_breaks_pool": INTERNALS,
    "test_terminate_workers": INTERNALS,
    "test_kill_workers": INTERNALS,
    "test_force_shutdown_workers_invalid_op": INTERNALS,
    "test_force_shutdown_workers": f"{INTERNALS}; test_ends.py has the same with ours",
    "test_force_shutdown_workers_stops_pool": f"{INTERNALS}; test_ends.py has the same with ours",
    "test_default_workers": INTERNALS,
    "test_idle_thread_reuse": INTERNALS,
    "test_shutdown_deadlock_pickle": INTERNALS,
    "test_gh105829_should_not_deadlock_if_wakeup_pipe_full": INTERNALS,
    "test_threads_terminate": INTERNALS,
    "test_context_manager_shutdown": INTERNALS,
    "test_del_shutdown": INTERNALS,
    "test_shutdown_no_wait": INTERNALS,
    "test_thread_names_assigned": "an option of ThreadPoolExecutor; ours are named after the pool",
    "test_thread_names_default": "an option of ThreadPoolExecutor; ours are named after the pool",
    "test_pending_calls_race": INTERNALS,
    "test_traceback_when_child_process_terminates_abruptly": "the cause of its error; ours tells the exit code itself",
    "FailingInitializerMixin.test_initializer": f"{INTERNALS}; test_futures.py has the same with ours",
}

SUBJECTS = {
    "process": ("ExecutorTest", "AsCompletedTests", "WaitTests", "InitializerMixin", "FailingInitializerMixin",
                "ExecutorShutdownTest", "ProcessPoolExecutorTest", "ExecutorDeadlockTest"),
    "thread": ("ExecutorTest", "AsCompletedTests", "WaitTests", "InitializerMixin", "FailingInitializerMixin",
               "ThreadPoolShutdownTest", "ThreadPoolExecutorTest"),
}  # fmt: skip
MODULES = ("executor", "test_as_completed", "test_deadlock", "test_init", "test_process_pool", "test_shutdown",
           "test_thread_pool", "test_wait", "util")  # fmt: skip


class _ProcessPool(ProcessPool):
    """Takes the options that `ProcessPoolExecutor` has under other names."""

    def __init__(self, *args: Any, mp_context: Any = None, max_tasks_per_child: Any = None, **options: Any) -> None:
        super().__init__(*args, max_tasks_per_worker=max_tasks_per_child, **options)


class _WithAWorker:
    """Waits until a worker is there, if the test expects that the first task begins at once."""

    executor: Any
    _testMethodName: str

    def setUp(self) -> None:
        super().setUp()  # type: ignore[misc]
        if self._testMethodName == "test_cancel_futures":
            self.executor.submit(id, 0).result()

    def get_context(self) -> Any:
        return multiprocessing.get_context("spawn")

    def create_event(self) -> Any:
        if isinstance(self.executor, ThreadPool):
            return threading.Event()
        manager = self.get_context().Manager()
        self.addCleanup(manager.shutdown)  # type: ignore[attr-defined]
        return manager.Event()


def _names() -> dict[str, Any]:
    """Return all names of the test package; from Python 3.12 on it has several modules."""
    try:
        package = importlib.import_module("test.test_concurrent_futures")
    except ImportError:
        return {}
    if not hasattr(package, "__path__"):
        return vars(package)
    found: dict[str, Any] = {}
    for name in MODULES:
        found.update(vars(importlib.import_module(f"test.test_concurrent_futures.{name}")))
    return found


def _cases() -> Iterator[Any]:
    names = _names()
    for kind, subjects in SUBJECTS.items():
        pool = _ProcessPool if kind == "process" else ThreadPool
        for subject in subjects:
            mixin = names.get(subject)
            if mixin is None:
                continue
            bases = tuple(
                base for base in (names["ExecutorMixin"], unittest.TestCase) if not issubclass(mixin, base)
            )  # fmt: skip
            own = {"executor_type": pool}
            cls: Any = type(subject, (_WithAWorker, mixin, *bases), own)
            for method in unittest.TestLoader().getTestCaseNames(cls):
                inherited = subject != "ExecutorTest" and hasattr(names["ExecutorTest"], method)
                if not inherited and not {method, f"{subject}.{method}"} & NOT_APPLICABLE.keys():
                    yield pytest.param(cls, method, id=f"{kind}-{subject}-{method}")


CASES = list(_cases())


@pytest.fixture
def threads_of_trees_are_no_leak(monkeypatch: pytest.MonkeyPatch) -> None:
    names = _names()
    monkeypatch.setattr(names["BaseTestCase"], "setUp", unittest.TestCase.setUp)
    monkeypatch.setattr(names["BaseTestCase"], "tearDown", unittest.TestCase.tearDown)


@pytest.mark.skipif(not CASES, reason="the test package of this interpreter is not installed")
@pytest.mark.usefixtures("one_runtime_for_all", "threads_of_trees_are_no_leak")
@pytest.mark.parametrize("cls, method", CASES)
def test_a_pool_passes(cls: Any, method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # A fatal task fails alone, so its error is another one. The tests look the names of errors up in their modules.
    errors: dict[str, Any] = {
        "BrokenProcessPool": (TaskFailed, pickle.UnpicklingError, SystemExit),
        "PicklingError": NotSerializable,
    }
    home = next(one for one in cls.__mro__ if method in vars(one))
    module = vars(sys.modules[home.__module__])
    for name in errors.keys() & module.keys():
        monkeypatch.setitem(module, name, errors[name])
    result = unittest.TestResult()
    cls(method).run(result)
    assert not [text for _, text in result.failures + result.errors]
    if result.skipped:
        pytest.skip(result.skipped[0][1])
