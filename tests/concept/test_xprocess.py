"""`xprocess.CrossProcessing`: processes that are made by calls, under a supervisor."""

from __future__ import annotations

import functools
import math
import os
import pickle
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import suitkaise
from suitkaise import (
    AskTimeout,
    ChildNotFound,
    ChildStartFailed,
    Killed,
    Process,
    Signaled,
    SpecError,
    SpecWarning,
    Status,
    Thread,
    WorkerFailed,
    skthreading,
    whereis,
)
from suitkaise.concept.declare import SPECIAL, Call, declared
from suitkaise.concept.setup import ProcessSetup
from suitkaise.messaging.registry import Registry
from suitkaise.runtime import runtime
from suitkaise.specs import Child
from suitkaise.xprocess import CrossProcessing
from tests.support import eventually, run_program, send_signal, wait_gone

pytestmark = pytest.mark.usefixtures("one_runtime_for_all")

LIMIT = 30.0


@pytest.fixture
def xp() -> Iterator[CrossProcessing]:
    with CrossProcessing() as made:
        yield made


def product(a: int, *, b: int = 1) -> int:
    return a * b


def takes_any(**options: Any) -> dict[str, Any]:
    return options


def facts(xp: CrossProcessing) -> tuple[str, int, int, bool]:
    return xp.get_process_name(), xp.get_process_id(), xp.get_current_loop(), xp.get_last_loop_time() > 0


def waits() -> None:
    threading.Event().wait(0.01)


def hangs() -> None:
    threading.Event().wait()


def fails() -> None:
    raise LookupError("nothing here")


def kills_itself_once(flag: Path) -> str:
    if not flag.exists():
        flag.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return "recalled"


def makes_another(xp: CrossProcessing) -> Any:
    ref = xp.create_process("inner", product, args=(21,), kwargs={"b": 2, "join_after": 1})
    return ref.path, xp.get_process_result(ref, timeout=LIMIT), sorted(xp.list_processes())


def makes_a_thread() -> None:
    suitkaise.skthreading.create_thread(waits)


def makes_its_own() -> None:
    CrossProcessing().create_process(product, args=(1,))


async def awaits(value: int) -> int:
    return value


class Count(Process):
    num_loops = 3

    def loop(self) -> int:
        return self.current_loop


class Notes(Process):
    """A setup: it has no loop of its own."""

    def __init__(self, folder: Path, name: str | None = None) -> None:
        super().__init__(name)
        self.folder = folder

    def before_loop(self) -> None:
        (self.folder / f"before-{self.current_loop}").touch()

    def __onfinish__(self) -> None:
        (self.folder / "finished").touch()


def test_the_module_is_loaded_when_it_is_first_used() -> None:
    assert suitkaise.xprocess.Process is suitkaise.Process
    loaded = "import sys, suitkaise; print([name for name in sys.modules if 'xprocess' in name or 'concept' in name])"
    assert run_program([sys.executable, "-c", loaded]).check().stdout.strip() == "[]"


# ---------------------------------------------------------------- making processes
def test_a_function_runs_once_a_loop_in_a_process_of_its_own(xp: CrossProcessing) -> None:
    ref = xp.create_process("work", facts, args=(xp,), kwargs={"join_after": 3})
    name, pid, loop, has_looped = xp.get_process_result("work", timeout=LIMIT)
    assert (name, loop, has_looped) == ("work", 3, True)
    assert pid != os.getpid()
    assert ref == whereis(ref.path)


def test_special_keys_configure_and_the_rest_goes_to_the_function(xp: CrossProcessing) -> None:
    xp.create_process("work", product, args=[3], kwargs={"b": 7, "join_after": 1, "shutdown": 2.5, "loop_timeout": 60})
    assert xp.get_process_result("work", timeout=LIMIT) == 21
    spec = whereis("xprocess").get_child_spec("work")  # type: ignore[attr-defined]
    assert (spec.restart, spec.shutdown, spec.loop_timeout, spec.max_restarts) == ("transient", 2.5, 60, 3)


@lambda function: functools.wraps(function)(lambda *args, times=1, **kwargs: function(*args, **kwargs) * times)
def repeated(a: int, b: int = 1) -> int:
    return a * b


def test_a_keyword_of_a_decorator_goes_to_it_and_a_misspelt_one_of_what_it_wraps_is_refused(
    xp: CrossProcessing,
) -> None:
    xp.create_process("work", repeated, args=(2,), kwargs={"b": 3, "times": 4, "join_after": 1})
    assert xp.get_process_result("work", timeout=LIMIT) == 24
    with pytest.raises(SpecError, match="c=1 is neither an option nor a parameter of repeated"):
        xp.create_process(repeated, args=(2,), kwargs={"c": 1})


def test_the_special_keys_are_the_options_of_a_child() -> None:
    fields = set(vars(Child)["__slots__"]) - {"id", "id_given", "what", "kind", "copy", "given"}
    assert fields - SPECIAL == {"copies", "significant"}


def test_the_name_is_that_of_the_function_by_default_and_a_number_is_added(xp: CrossProcessing) -> None:
    for _ in range(2):
        xp.create_process(product, args=(1,), kwargs={"join_after": 1})
    xp.create_process(func=Count)
    assert list(xp.join_all(LIMIT)) == ["product", "product-2", "count"]


def test_a_given_name_that_is_taken_gets_a_number_with_a_warning_at_the_callers_line(xp: CrossProcessing) -> None:
    xp.create_process("UI_handler", waits)
    with pytest.warns(SpecWarning, match="'UI_handler' is taken, so this process is called 'UI_handler-2'") as caught:
        ref = xp.create_process("UI_handler", waits)
    assert ref.name == "UI_handler-2"
    assert caught[0].filename == __file__


def test_a_worker_class_or_a_worker_runs_with_its_own_loop(xp: CrossProcessing) -> None:
    xp.create_process(Count)
    xp.create_process("three", Count())
    xp.create_process(Count("named", num_loops=2))
    assert xp.join_all(LIMIT) == dict.fromkeys(["count", "three", "named"], Status.FINISHED)
    assert [xp.get_process_result(name) for name in ("count", "three", "named")] == [3, 3, 2]


@pytest.mark.parametrize("by_class", [True, False])
def test_with_a_class_as_setup_the_function_is_its_loop(xp: CrossProcessing, tmp_path: Path, by_class: bool) -> None:
    class Here(Notes):
        def __init__(self) -> None:
            super().__init__(tmp_path)

    setup = Here if by_class else Notes(tmp_path, "noted")
    ref = xp.create_process(product, setup, args=(2,), kwargs={"b": 5, "join_after": 2})
    assert ref.name == ("product" if by_class else "noted")
    assert xp.get_process_result(ref, timeout=LIMIT) == 10
    assert sorted(file.name for file in tmp_path.iterdir()) == ["before-1", "before-2", "finished"]


def test_an_async_function_is_awaited_also_with_a_class_as_setup(xp: CrossProcessing, tmp_path: Path) -> None:
    xp.create_process("plain", awaits, args=(1,), kwargs={"join_after": 1})
    xp.create_process("set up", awaits, Notes(tmp_path), args=(2,), kwargs={"join_after": 1})
    assert [xp.get_process_result(name, timeout=LIMIT) for name in ("plain", "set up")] == [1, 2]


def test_a_start_that_fails_raises_its_reason_and_leaves_no_name(xp: CrossProcessing) -> None:
    class Fails(Process):
        def on_start(self) -> None:
            raise LookupError("no port")

    with pytest.raises(ChildStartFailed, match="no port"):
        xp.create_process(Fails)
    assert xp.list_processes() == {}


# ---------------------------------------------------------------- what is refused
def ui_loop() -> None: ...


def test_a_function_that_was_called_instead_of_passed_is_named() -> None:
    xp = CrossProcessing()
    with pytest.raises(TypeError, match=r"'UI_handler'.* got None: pass `ui_loop`, not `ui_loop\(\)`"):
        xp.create_process("UI_handler", ui_loop(), args=None)  # type: ignore[func-returns-value]
    with pytest.raises(TypeError, match=r"pass `self.main`, not `self.main\(\)`"):
        self = type("Self", (), {"main": lambda self: 42})()
        xp.create_process(
            func=self.main(),
        )


def test_a_call_without_a_function_is_told_that_it_needs_one() -> None:
    xp = CrossProcessing()
    with pytest.raises(TypeError, match=r"create_process\('UI_handler'\) needs a function or a worker.* got none"):
        xp.create_process("UI_handler", setup=str(1))
    with pytest.raises(TypeError, match="got 'ui_loop': pass it, and not its name"):
        xp.create_process("UI_handler", "ui_loop")
    parts = ("UI_handler", 42)
    with pytest.raises(TypeError, match="got 42: pass it without calling it"):
        xp.create_process(*parts)


def test_a_name_that_is_no_text_or_stands_behind_the_function_is_told_so() -> None:
    xp = CrossProcessing()
    with pytest.raises(TypeError, match=r"create_process\(\): the name, before the function, must be a text, not 3"):
        xp.create_process(3, product, (3, 4))
    with pytest.raises(SpecError, match="not 'work'; a name stands before the function"):
        xp.create_process(product, "work", (3, 4))


@pytest.mark.parametrize(
    "what",
    [
        ("work", product, (3,), {"b": 4, "join_after": 1}),  # the concept: "params: name, func, func args, func kwargs"
        ("work", product, [3], {"b": 4, "join_after": 1}),
        ("work", product, None, (3,), {"b": 4, "join_after": 1}),
        (product, (3,), {"b": 4, "join_after": 1}),
    ],
)
def test_args_and_kwargs_may_be_positional(what: Any) -> None:
    child, _ = declared(Call("create_process", what), {"restart": "transient"})
    assert (child.what.args, child.what.kwargs, child.join_after) == ((3,), {"b": 4}, 1)


def test_positional_args_and_kwargs_go_with_a_setup(tmp_path: Path) -> None:
    setup = Notes(tmp_path)
    child, _ = declared(
        Call("create_process", ("work", product, setup, (3,), {"join_after": 2})), {"restart": "transient"}
    )
    assert child.join_after == 2
    child, _ = declared(
        Call("create_process", ("work", ui_loop, setup, None, {"join_after": 2})), {"restart": "transient"}
    )
    assert child.join_after == 2
    with pytest.raises(TypeError, match="got args twice"):
        declared(Call("create_process", (product, (1,)), args=(1,)), {})
    with pytest.raises(TypeError, match="takes a name, a function or worker, a setup, args and kwargs, not"):
        declared(Call("create_process", ("work", product, setup, (1,), {}, 3)), {})


def test_a_worker_class_whose_constructor_takes_an_option_is_to_be_passed_as_a_worker() -> None:
    class UiProcess(Process):
        def __init__(self, name: str, num_loops: int | None = None) -> None:
            super().__init__(name, num_loops)

        def loop(self) -> None: ...

    with pytest.raises(
        SpecError, match=r"'num_loops' is an option .*; pass a worker .*: UiProcess\(num_loops=\.\.\.\)"
    ):
        CrossProcessing().create_process("ui", UiProcess, args=("ui",), kwargs={"num_loops": 3})


@pytest.mark.parametrize(
    "what, kwargs, message",
    [
        (product, {"loop_infinitely": True}, r"loop_infinitely=True is neither .*; did you mean 'join_after'\?"),
        (product, {"join_afer": 3}, r"join_afer=3 is neither .* of product\(\); did you mean 'join_after'\?"),
        (product, {"bb": 3}, "did you mean 'b'"),
        (product, {"zzz": 3}, "it takes a, b; the options are .*join_after"),
        (Count, {"num_lops": 3}, r"parameter of Count\(\); did you mean 'num_loops'"),
        (lambda env: env, {"env": {}}, "'env' is an option of .* and a parameter"),
        (ui_loop, {"restart": "sometimes"}, "restart must be"),
        (ui_loop, {"max_restarts": -1}, "max_restarts must be"),
        (product, {"num_loops": 1, "join_after": 1}, "another name of join_after"),
        (product, [1], "kwargs must be a dict"),
        (Thread, None, "Thread is a thread, not a process; use skthreading.create_thread"),
        (dict, None, "dict is a class but not a worker"),
    ],
)
def test_wrong_keys_and_parts_are_refused_with_what_is_right(what: Any, kwargs: Any, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        CrossProcessing().create_process("wrong", what, kwargs=kwargs)


def test_a_key_that_only_resembles_an_option_goes_to_a_function_that_takes_any_with_a_warning() -> None:
    with pytest.warns(SpecWarning, match="join_afer=3 goes to takes_any.* the option is called 'join_after'") as caught:
        child, _ = declared(Call("create_process", (takes_any,), kwargs={"join_afer": 3, "colour": 1}), {})
    assert child.what.kwargs == {"join_afer": 3, "colour": 1}
    assert caught[0].filename == __file__


def test_a_setup_must_go_with_what_it_sets_up(tmp_path: Path) -> None:
    xp = CrossProcessing()
    with pytest.raises(SpecError, match="Count has a loop of its own"):
        xp.create_process(product, Count)
    with pytest.raises(SpecError, match="a setup goes with a function"):
        xp.create_process(Count, Notes(tmp_path))
    with pytest.raises(SpecError, match="a setup is what"):
        xp.create_process(product, {"a": 1}, args=(1,))
    with pytest.raises(SpecError, match="missing a required argument: 'a'"):
        xp.create_process(product, Notes(tmp_path))
    with pytest.raises(TypeError, match="setup twice"):
        xp.create_process("x", product, Count, setup=Count)
    with pytest.raises(TypeError, match="got a setup in the place of the function; the function stands before"):
        xp.create_process("x", ProcessSetup().build(), product)
    with pytest.raises(SpecError, match=r"Notes is a worker with hooks .*; the function stands before its setup"):
        xp.create_process("x", Notes(tmp_path), product)


def test_the_questions_of_a_process_about_itself_are_refused_elsewhere() -> None:
    for question in ("get_process_name", "get_process_id", "get_current_loop", "get_last_loop_time"):
        with pytest.raises(RuntimeError, match=rf"{question}\(\) is for the code of a worker"):
            getattr(CrossProcessing(), question)()


# ---------------------------------------------------------------- recalls, orders, results
def test_a_process_that_is_killed_is_recalled(xp: CrossProcessing, tmp_path: Path) -> None:
    xp.create_process("work", kills_itself_once, args=(tmp_path / "flag",), kwargs={"join_after": 1})
    assert xp.get_process_result("work", timeout=LIMIT) == "recalled"
    assert xp.get_process_stats("work")["restarts"] == 1


def test_one_that_keeps_crashing_is_given_up_alone_and_its_result_is_its_cause(xp: CrossProcessing) -> None:
    xp.create_process("good", waits)
    xp.create_process("bad", fails, kwargs={"max_seconds": 600})  # a start may take seconds
    with pytest.raises(WorkerFailed, match="nothing here") as caught:
        xp.get_process_result("bad", timeout=LIMIT)
    assert "in fails" in caught.value.traceback
    assert xp.list_processes() == {"good": Status.RUNNING, "bad": Status.FAILED}
    assert xp.get_process_stats("bad")["restarts"] == 3


def test_max_restarts_of_one_process_is_its_own(xp: CrossProcessing) -> None:
    xp.create_process("bad", fails, kwargs={"max_restarts": 0})
    xp.create_process("once", fails, kwargs={"restart": "temporary"})
    for name in ("bad", "once"):
        with pytest.raises(WorkerFailed):
            xp.get_process_result(name, timeout=LIMIT)
        assert xp.get_status(name) == (Status.FAILED if name == "bad" else Status.CRASHED)
    assert xp.get_process_stats("bad")["restarts"] == 0


def test_rejoin_lets_a_process_finish_and_it_stays_finished(xp: CrossProcessing, tmp_path: Path) -> None:
    xp.create_process("work", waits, Notes(tmp_path))
    xp.rejoin("work", timeout=LIMIT)
    assert xp.get_status("work") == Status.FINISHED
    assert (tmp_path / "finished").exists()
    with pytest.raises(AskTimeout):
        xp.create_process("stuck", hangs, kwargs={"shutdown": 60})
        xp.rejoin("stuck", timeout=0.0)
    xp.kill("stuck")


def test_a_process_can_rejoin_itself_by_its_name(xp: CrossProcessing) -> None:
    def leaves() -> str:
        xp.rejoin(xp.get_process_name())
        return f"left in loop {xp.get_current_loop()}"

    xp.create_process(leaves)
    assert xp.get_process_result("leaves", timeout=LIMIT) == "left in loop 1"


def test_s79_kill_is_an_order_also_while_another_one_starts(xp: CrossProcessing, tmp_path: Path) -> None:
    class SlowStart(Process):
        def on_start(self) -> None:
            while not (tmp_path / "go").exists():
                self.wait(0.005)

    pid = xp.create_process("stuck", hangs).pid
    assert pid is not None
    starter = threading.Thread(target=xp.create_process, args=(SlowStart,))
    starter.start()
    eventually(lambda: "slow_start" in xp.list_processes())
    killer = threading.Thread(target=xp.kill, args=("stuck",))
    killer.start()
    (tmp_path / "go").touch()
    starter.join()
    killer.join()
    wait_gone(pid)
    assert xp.get_status("stuck") == Status.KILLED
    stats = xp.get_process_stats("stuck")
    assert (stats["restarts"], stats["pid"], stats["last_exit"]) == (0, None, Killed("kill_child()"))
    with pytest.raises(WorkerFailed, match="killed"):
        xp.get_process_result("stuck", timeout=LIMIT)


def test_recall_starts_a_process_anew_and_a_finished_one_again(xp: CrossProcessing) -> None:
    ref = xp.create_process("work", waits)
    before = ref.pid
    xp.recall("work")
    assert ref.pid not in (None, before)
    xp.create_process("done", product, args=(1,), kwargs={"join_after": 1})
    assert xp.get_process_result("done", timeout=LIMIT) == 1
    xp.recall("done")
    assert xp.get_process_result("done", timeout=LIMIT) == 1
    assert xp.get_process_stats("done")["restarts"] == 1


def test_a_process_that_hangs_is_killed_and_recalled(xp: CrossProcessing) -> None:
    xp.create_process("stuck", hangs, kwargs={"loop_timeout": 0.2, "max_restarts": 1})
    with pytest.raises(WorkerFailed, match="hung in loop"):
        xp.get_process_result("stuck", timeout=LIMIT)
    assert xp.get_status("stuck") == Status.FAILED


def test_join_all_waits_for_the_end_and_names_what_still_runs(xp: CrossProcessing) -> None:
    xp.create_process("brief", product, args=(1,), kwargs={"join_after": 1})
    assert xp.join_all(timeout=LIMIT) == {"brief": Status.FINISHED}
    xp.create_process("long", waits)
    with pytest.raises(AskTimeout, match=r"there still run: 'long'$"):
        xp.join_all(timeout=0.05)


def test_a_temporary_process_has_the_same_statuses_at_its_end_as_others(xp: CrossProcessing) -> None:
    once = {"restart": "temporary"}
    xp.create_process("done", product, args=(1,), kwargs={**once, "join_after": 1})
    xp.create_process("stuck", hangs, kwargs={**once, "loop_timeout": 0.05})
    xp.create_process("bad", fails, kwargs=once)
    xp.create_process("long", waits, kwargs=once)
    ends = {"done": Status.FINISHED, "stuck": Status.HUNG, "bad": Status.CRASHED, "long": Status.KILLED}
    xp.kill("long")
    for name in ("done", "stuck", "bad"):
        eventually(lambda name=name: name not in xp.list_processes())  # type: ignore[misc]
    assert {name: xp.get_status(name) for name in ends} == ends


def test_orders_to_a_temporary_process_that_has_ended_are_those_to_any_other_but_no_recall(xp: CrossProcessing) -> None:
    process = xp.create_process("done", product, args=(1,), kwargs={"restart": "temporary", "join_after": 1})
    process.join(LIMIT)
    eventually(lambda: "done" not in xp.list_processes())
    xp.rejoin(process, timeout=LIMIT)
    xp.kill("done")
    assert xp.get_status("done") == Status.FINISHED
    with pytest.raises(ChildNotFound, match=r"no worker at 'xprocess[^']*/done' any more: it has ended"):
        xp.recall("done")


def test_join_all_returns_the_statuses_of_the_temporary_processes_that_it_has_waited_for(xp: CrossProcessing) -> None:
    xp.create_process("once", product, args=(1,), kwargs={"restart": "temporary", "join_in": 2.0})
    assert xp.join_all(timeout=LIMIT) == {"once": Status.FINISHED}


def test_unknown_names_are_refused_with_the_nearest(xp: CrossProcessing) -> None:
    with pytest.raises(ChildNotFound, match="there is no process 'work'; there are none"):
        xp.get_status("work")
    xp.create_process("worker", waits)
    for call in (xp.get_status, xp.rejoin, xp.kill, xp.recall, xp.get_process_result, xp.get_process_stats):
        with pytest.raises(ChildNotFound, match="did you mean 'worker'"):
            call("wroker")


def test_a_ref_of_another_tree_is_none_of_these_though_it_has_the_same_name(xp: CrossProcessing) -> None:
    own = xp.create_process("work", waits)
    with CrossProcessing("others") as others:
        other = others.create_process("work", waits)
        with pytest.raises(ChildNotFound, match="'others/work' is no process of 'xprocess'"):
            xp.kill(other)
        assert xp.get_status(own) == others.get_status(other) == Status.RUNNING
    assert repr(others) == "CrossProcessing('others')"


def test_what_crossprocessing_offers_is_named_where_the_module_is_asked_for_it() -> None:
    with pytest.raises(
        AttributeError, match=r"make xp = xprocess.CrossProcessing\(\) once, and call xp.create_process"
    ):
        suitkaise.xprocess.create_process  # type: ignore[attr-defined]
    with pytest.raises(AttributeError, match=r"and call xp\.create_pool\(function, size\)$"):
        suitkaise.xprocess.Pool  # type: ignore[attr-defined]
    with pytest.raises(AttributeError, match=r"module 'suitkaise.xprocess' has no attribute 'nothing'$"):
        suitkaise.xprocess.nothing  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "name, hint",
    [
        ("start", r"use xp\.create_process\(\.\.\.\)$"),
        ("join", r"use xp\.join_all\(\), or xp\.get_process_result\(name\)$"),
        ("terminate", r"use xp\.rejoin\(name\), or xp\.kill\(name\)$"),
        ("is_alive", r"use xp\.get_status\(name\)$"),
        ("nothing", r"'CrossProcessing' object has no attribute 'nothing'$"),
    ],
)
def test_what_processes_of_multiprocessing_have_is_named_as_it_is_called_here(name: str, hint: str) -> None:
    with pytest.raises(AttributeError, match=hint):
        getattr(suitkaise.xprocess.CrossProcessing(), name)


def test_each_name_of_another_library_is_missing_and_leads_to_one_that_is_there() -> None:
    for module, owner in (
        (suitkaise.xprocess, suitkaise.xprocess.CrossProcessing()),
        (suitkaise.skthreading, suitkaise.skthreading),
    ):
        for name, here in module._OTHER_NAMES.items():  # type: ignore[attr-defined]
            assert not hasattr(owner, name)
            assert hasattr(owner, here.partition("(")[0])


def test_a_wrong_name_or_number_is_refused_where_crossprocessing_is_made() -> None:
    with pytest.raises(SpecError, match="CrossProcessing: the name must be a text, not 3"):
        CrossProcessing(3)  # type: ignore[arg-type]
    with pytest.raises(SpecError, match="CrossProcessing 'a/b': an id may not hold"):
        CrossProcessing("a/b")
    with pytest.raises(SpecError, match="CrossProcessing 'xprocess': max_restarts must be a whole number"):
        CrossProcessing(max_restarts="x")  # type: ignore[arg-type]
    with pytest.raises(SpecError, match="CrossProcessing 'xprocess': max_seconds must be seconds > 0"):
        CrossProcessing(max_seconds=0)


def test_the_class_itself_makes_no_processes() -> None:
    xp: Any = CrossProcessing
    for call in (xp.create_process, xp.create_pool):
        with pytest.raises(TypeError, match=r"was called on the class CrossProcessing; make xp = xprocess.CrossPro"):
            call("work", waits)


@pytest.mark.parametrize("create", [CrossProcessing().create_process, skthreading.create_thread])
def test_a_keyword_of_the_call_that_belongs_elsewhere_is_refused_with_its_place(create: Any) -> None:
    with pytest.raises(SpecError, match=r"join_after=3; an option goes into kwargs: kwargs=\{'join_after': 3\}"):
        create("work", waits, join_after=3)
    with pytest.raises(SpecError, match=r"unknown argument target=.*; the function is called func"):
        create("work", target=waits)
    with pytest.raises(SpecError, match="unknown argument daemon=True; it takes name, func, setup, args, kwargs"):
        create("work", waits, daemon=True)


def test_stats_of_a_process_that_runs(xp: CrossProcessing) -> None:
    xp.create_process("work", waits)
    eventually(lambda: xp.get_process_stats("work")["loops"] > 2)
    stats = xp.get_process_stats("work")
    assert stats["pid"] == xp.status().children[0].pid
    assert stats["status"] == Status.RUNNING
    assert stats["uptime"] > 0
    assert stats["memory"] > 1_000_000
    assert stats["mean_loop_time"] >= 0.01
    xp.rejoin("work")
    after = xp.get_process_stats("work")
    assert after["loops"] >= stats["loops"]
    assert (after["pid"], after["memory"], after["uptime"]) == (None, None, None)


# ---------------------------------------------------------------- the supervisor
def test_the_processes_are_children_of_a_supervisor(xp: CrossProcessing) -> None:
    assert str(xp.status()) == "xprocess  supervisor  created"
    ref = xp.create_process("work", waits)
    assert ref.path == "xprocess/work"
    supervisor = whereis("xprocess")
    assert isinstance(supervisor, suitkaise.SupervisorRef)
    assert [line.ref for line in supervisor.which_children()] == [ref]
    send_signal(ref, signal.SIGKILL)
    eventually(lambda: xp.get_process_stats("work")["restarts"] == 1 and ref.is_alive())
    assert "work  process  running" in str(xp.status())
    assert supervisor.which_children()[0].last_exit == Signaled(9)


def test_two_of_them_have_names_of_their_own(xp: CrossProcessing) -> None:
    with CrossProcessing() as other, CrossProcessing("mine") as mine:
        refs = [one.create_process("work", waits) for one in (xp, other, mine)]
        assert [ref.path for ref in refs] == ["xprocess/work", "xprocess-2/work", "mine/work"]


def test_what_is_known_at_the_end_stays_known_after_shutdown() -> None:
    with CrossProcessing() as xp:
        xp.create_process("done", product, args=(4,), kwargs={"join_after": 1})
        xp.create_process("bad", fails, kwargs={"restart": "temporary", "max_restarts": None})
        xp.create_process("runs", waits)
        xp.get_process_result("done", timeout=LIMIT)
        eventually(lambda: "bad" not in xp.list_processes())
    assert xp.get_process_result("done") == 4
    assert xp.get_process_result("runs") is None
    assert {name: str(status) for name, status in xp.list_processes().items()} == {
        "done": "finished", "runs": "finished",
    }  # fmt: skip
    assert xp.get_process_stats("done")["loops"] == 1
    assert "done  process  finished" in str(xp.status())
    with pytest.raises(RuntimeError, match="has ended with all others"):
        xp.rejoin("runs")
    assert xp.create_process("new", product, args=(1,)).path == "xprocess/new"
    xp.shutdown()
    xp.shutdown()
    assert list(xp.list_processes()) == ["done", "runs", "new"]


@pytest.mark.parametrize("wrong", ["soon", math.nan, True])
def test_a_time_out_that_is_no_number_is_refused_before_anything_happens(xp: CrossProcessing, wrong: Any) -> None:
    xp.create_process("work", waits)
    for waiting in (
        CrossProcessing().shutdown, xp.shutdown, xp.join_all,
        lambda timeout: xp.rejoin("work", timeout), lambda timeout: xp.get_process_result("no such", timeout),
    ):  # fmt: skip
        with pytest.raises(TypeError, match="timeout must be seconds, or None for ever, not "):
            waiting(wrong)
    assert xp.get_status("work") == "running"


def test_after_shutdown_a_kill_is_refused_and_starts_nothing() -> None:
    with CrossProcessing() as xp:
        xp.create_process("done", product, args=(4,), kwargs={"join_after": 1})
    with pytest.raises(RuntimeError, match="has ended with all others"):
        xp.kill("done")
    assert xp.list_processes() == {"done": Status.FINISHED}
    assert "xprocess" not in runtime.running_trees()


def test_a_temporary_process_that_runs_at_the_shutdown_is_known_after_it() -> None:
    with CrossProcessing() as xp:
        xp.create_process("once", waits, kwargs={"restart": "temporary"})
    assert xp.list_processes() == {"once": Status.FINISHED}
    assert xp.get_process_result("once") is None
    assert xp.get_process_stats("once")["status"] == Status.FINISHED


def test_a_temporary_process_that_ended_before_the_shutdown_is_known_after_it() -> None:
    with CrossProcessing() as xp:
        xp.create_process("once", product, args=(4,), kwargs={"restart": "temporary", "join_after": 1})
        xp.create_process("bad", fails, kwargs={"restart": "temporary"})
        eventually(lambda: not xp.list_processes())
    assert xp.list_processes() == {}
    assert (xp.get_status("once"), xp.get_status("bad")) == (Status.FINISHED, Status.CRASHED)
    assert xp.get_process_result("once") == 4
    assert xp.get_process_stats("once")["loops"] == 1
    with pytest.raises(WorkerFailed):
        xp.get_process_result("bad")


def test_a_temporary_process_that_is_just_being_removed_at_the_shutdown_is_known_after_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looked = threading.Event()
    remove, removed_below = Registry.remove, Registry.removed_below

    def remove_late(registry: Registry, path: str) -> None:
        looked.wait(LIMIT)
        remove(registry, path)

    def look(registry: Registry, path: str) -> list[str]:
        found = removed_below(registry, path)
        looked.set()
        return found

    monkeypatch.setattr(Registry, "remove", remove_late)
    monkeypatch.setattr(Registry, "removed_below", look)
    with CrossProcessing() as xp:
        xp.create_process("once", product, args=(4,), kwargs={"restart": "temporary", "join_after": 1})
        eventually(lambda: not xp.list_processes())
    assert (xp.get_status("once"), xp.get_process_result("once")) == (Status.FINISHED, 4)


# ---------------------------------------------------------------- in a process
def test_a_process_uses_the_object_of_the_program(xp: CrossProcessing) -> None:
    xp.create_process("outer", makes_another, args=(xp,), kwargs={"join_after": 1})
    assert xp.get_process_result("outer", timeout=LIMIT) == ("xprocess/inner", 42, ["inner", "outer"])
    assert xp.get_process_result("inner") == 42
    assert pickle.loads(pickle.dumps(xp)) is xp


def test_a_process_cannot_own_processes(xp: CrossProcessing) -> None:
    xp.create_process("owner", makes_its_own, kwargs={"max_restarts": 0})
    with pytest.raises(WorkerFailed, match="use the CrossProcessing of the main program"):
        xp.get_process_result("owner", timeout=LIMIT)
    xp.create_process("other", makes_a_thread, kwargs={"max_restarts": 0})
    with pytest.raises(WorkerFailed, match=r"threads of its own with self.start_thread"):
        xp.get_process_result("other", timeout=LIMIT)


def test_only_the_program_shuts_down(xp: CrossProcessing) -> None:
    def ends_all() -> str:
        try:
            xp.shutdown()
        except RuntimeError as error:
            return str(error)
        return "shut down"

    xp.create_process(ends_all, kwargs={"join_after": 1})
    assert "only the main program" in xp.get_process_result("ends_all", timeout=LIMIT)
