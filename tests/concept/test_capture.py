"""The `with` blocks of a setup do not run where they are written, but later, wherever they stand."""

from __future__ import annotations

import asyncio
import contextlib
import doctest
import gc
import linecache
import sys
import textwrap
import threading
import weakref
from pathlib import Path
from typing import Any

import pytest

from suitkaise import CaptureError, SuitkaiseError, errors
from suitkaise.concept.setup import AfterLoop, BeforeLoop, OnFinish, OnStart, ProcessSetup, ThreadSetup
from suitkaise.messaging import codec
from tests.concept.blocks import load, run

SEEN: list[Any] = []
COUNT = 1


@pytest.fixture(autouse=True)
def _nothing_seen() -> None:
    SEEN.clear()


def see(*values: Any) -> None:
    SEEN.append(values if len(values) > 1 else values[0])


# --- blocks run later ---


def test_blocks_do_not_run_where_they_are_written() -> None:
    with ProcessSetup() as setup:
        with OnStart() as start:
            see("start")
            a = 1
        with BeforeLoop():
            b = a + 1
        with AfterLoop():
            a = b
        with OnFinish():
            see(a, b)
    assert SEEN == []
    assert not {"a", "b", "start"} & set(locals())
    run(setup.build(), loops=2)
    assert SEEN == ["start", (3, 3)]


def test_a_name_that_a_block_sets_cannot_be_read_after_the_with_statement() -> None:
    with ProcessSetup() as setup:
        with OnStart():
            a = 1
    with pytest.raises(NameError):
        see(a)
    run(setup.build())


def test_a_shared_name_that_has_no_value_yet_is_told_as_such() -> None:
    with ProcessSetup() as setup:
        with OnStart():
            see(time)
        with AfterLoop():
            time = 1
    with pytest.raises(NameError) as caught:
        run(setup.build())
    assert "share the name 'time', and none has given it a value yet" in caught.value.__notes__[0]


def test_each_start_has_variables_of_its_own() -> None:
    with ProcessSetup() as setup:
        with OnStart():
            a = []
        with BeforeLoop():
            a.append(1)
        with OnFinish():
            see(len(a))
    for _ in range(3):
        run(setup.build(), loops=2)
    assert SEEN == [2, 2, 2]


def test_statements_above_the_first_block_run_where_they_are_written() -> None:
    with ThreadSetup() as setup:
        n = 2
        setup.num_loops = n
        with OnStart():
            see(n)
    assert n == 2
    assert setup.build().num_loops == 2
    run(setup.build())
    assert SEEN == [2]


def test_all_that_python_can_bind_is_shared_by_the_blocks() -> None:
    outer = 10

    def helper(x: int) -> int:
        return x + outer

    with ProcessSetup() as setup:
        with OnStart():
            base = 5
            f = lambda y: base + y + outer

            def g():
                return [helper(i) + base for i in range(2)]

            class K:
                v = base

                def m(self):
                    return base + self.v

            squares = {i: base for i in range(2) if (w := i) >= 0}
            total = sum(base for _ in range(3))
        with BeforeLoop():
            base = 6
            import json
            import os.path as where
            from collections import OrderedDict as Order

            try:
                1 / 0
            except ZeroDivisionError as error:
                message = str(error)
            match {"a": (1, 2), "c": 3}:
                case {"a": (p, q) as pair, **rest}:
                    pass
            for i in range(3):
                pass
            with contextlib.nullcontext(4) as inner:
                pass
            t: int = 3
            u: str
            (c, *d) = [1, 2, 3]
            del c
        with OnFinish():
            see(f(1), g(), K().m(), squares, total, w, where.sep, json.dumps(1), Order is not None)
            see(message, p, q, pair, rest, i, inner, t, d)
    run(setup.build())
    assert SEEN == [
        (17, [16, 17], 11, {0: 5, 1: 5}, 15, 1, "/", "1", True),
        ("division by zero", 1, 2, (1, 2), {"c": 3}, 2, 4, 3, [2, 3]),
    ]


def test_the_variable_of_a_comprehension_is_none_of_the_block() -> None:
    i = "outer"
    with ProcessSetup() as setup:
        with OnStart():
            squares = [i * i for i in range(3)]
        with OnFinish():
            see(squares, i)
    run(setup.build())
    assert SEEN == [([0, 1, 4], "outer")]


def test_names_of_our_own_do_not_meet_those_of_the_user() -> None:
    with ProcessSetup() as setup:
        with OnStart():
            v = 3
            with ThreadSetup() as inner:
                with OnStart():
                    w = v * 2
                with OnFinish():
                    see("inner", w)
            run(inner.build())
            see("outer")
    run(setup.build())
    assert SEEN == [("inner", 6), "outer"]


# --- where a setup can stand ---


class Private:
    __tag = "class"

    def __init__(self) -> None:
        self.__x = 7
        self.__after = AfterLoop

    def setup(self) -> Any:
        __local = 3
        with ProcessSetup() as setup:
            with OnStart() as __start:
                __sum = self.__x + __local
            with self.__after(add_for_next=self.__x == 7):
                see(__sum, self.__tag, type(__start).__name__)
        return setup.build()


def test_private_names_belong_to_the_class_around() -> None:
    built = Private().setup()
    assert built.hooks[1].add_for_next
    run(built)
    assert SEEN == [(10, "class", "OnStart")]


class Body:
    y = 4
    with ProcessSetup() as setup:
        with OnStart():
            z = y + 1
            see(z)


def test_a_setup_can_stand_in_a_class() -> None:
    run(Body.setup.build())
    assert SEEN == [5]
    assert not hasattr(Body, "z")


def test_a_setup_can_stand_in_a_coroutine_and_in_a_generator() -> None:
    async def coroutine() -> Any:
        n = 2
        with ProcessSetup() as setup:
            with OnStart():
                see(n)
        return setup.build()

    def generator() -> Any:
        n = 3
        with ProcessSetup() as setup:
            with OnStart():
                see(n)
        yield setup.build()

    run(asyncio.run(coroutine()))
    run(next(generator()))
    assert SEEN == [2, 3]


def test_two_coroutines_can_write_setups_in_turns() -> None:
    async def write(n: int) -> Any:
        with ProcessSetup() as setup:
            await asyncio.sleep(0)
            with OnStart():
                see(n)
        return setup.build()

    async def both() -> Any:
        return await asyncio.gather(write(1), write(2))

    for built in asyncio.run(both()):
        run(built)
    assert SEEN == [1, 2]


SHAPES = """
def make(é, k):
    if é:
\t    # an odd indentation, one-liners, several statements a line
\t    with ProcessSetup() as setup:
\t       with OnStart(): a = é; b = "ñ" + a; see(b)
\t       pass
\t       "some words"
\t       with (
\t            BeforeLoop()   # comment
\t       ) as before: \\
\t              see(k)
    with ProcessSetup() as one: x = 1
    with ProcessSetup() as two:
        with OnStart(): pass
        with OnFinish(): ...
    return setup, one, two
"""


def test_the_shape_of_the_code_does_not_matter(tmp_path: Path) -> None:
    for setup in load(tmp_path / "m.py", SHAPES, see=see)["make"]("ü", 1):
        run(setup.build())
    assert SEEN == ["ñü", 1]


def test_setups_of_one_function_can_be_nested() -> None:
    with ProcessSetup() as a:
        with ThreadSetup as b:
            with OnStart():
                see("b")
        n = 3
        with OnStart():
            see("a", n)
    run(a.build())
    run(b.build())
    assert SEEN == [("a", 3), "b"]


def test_a_setup_can_be_entered_without_parentheses() -> None:
    with ThreadSetup as setup:
        setup.loop_infinitely = True
        with OnStart():
            see(1)
    run(setup.build())
    assert SEEN == [1]
    with pytest.raises(ZeroDivisionError):
        with ThreadSetup as setup:
            1 / 0


def test_setups_can_be_written_in_many_threads_at_once() -> None:
    found: list[int] = []
    problems: list[BaseException] = []

    def write(n: int) -> None:
        try:
            for k in range(20):
                with ThreadSetup() as setup:
                    with OnStart():
                        v = n * 100 + k
                    with OnFinish():
                        found.append(v)
                run(setup.build())
        except BaseException as error:
            problems.append(error)

    threads = [threading.Thread(target=write, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    assert sorted(found) == sorted(n * 100 + k for n in range(8) for k in range(20))


def test_the_exception_that_is_being_handled_stays_the_same() -> None:
    try:
        1 / 0
    except ZeroDivisionError:
        with ProcessSetup() as setup:
            with OnStart():
                a = 1
        assert sys.exc_info()[0] is ZeroDivisionError
    run(setup.build())


def test_no_trace_function_is_set() -> None:
    def trace(frame: Any, event: str, value: Any) -> Any:
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        with ProcessSetup() as setup:
            with OnStart():
                a = 1
        assert sys.gettrace() is trace
    finally:
        sys.settrace(before)
    run(setup.build())


def example() -> None:
    """
    >>> with ProcessSetup() as setup:
    ...     with OnStart():
    ...         a = 1
    ...         print("doctest", a)
    >>> run(setup.build())
    doctest 1
    """


def test_a_setup_can_stand_in_a_doctest() -> None:
    test = doctest.DocTestFinder().find(example, "example", globs=dict(globals()))[0]
    assert doctest.DocTestRunner().run(test).failed == 0


def test_annotations_that_are_never_evaluated_stay_so(tmp_path: Path) -> None:
    text = (
        "from __future__ import annotations\nfrom suitkaise.concept.setup import *\nwith ProcessSetup() as setup:\n"
        "    with OnStart():\n        def f(x: Nope) -> Missing: return x\n        y: Nope = f(1)\n"
    )
    path = tmp_path / "m.py"
    path.write_text(text)
    scope: dict[str, Any] = {"__name__": "m"}
    exec(compile(text, str(path), "exec", dont_inherit=True), scope)
    run(scope["setup"].build())


@pytest.mark.skipif(sys.version_info < (3, 12), reason="the syntax of Python 3.12")
def test_the_syntax_of_python_3_12_works(tmp_path: Path) -> None:
    scope = load(
        tmp_path / "m.py",
        """
        def make():
            with ProcessSetup() as setup:
                with OnStart():
                    type L[T] = list[T]
                    def same[T](x: T) -> T: return x
                    class B[T]: pass
                    n = 2
                    q = f"{same("a" + f"{n}")}"
                with OnFinish(): see((q, L.__name__, B.__name__))
            return setup.build()
        """,
        see=see,
    )
    run(scope["make"]())
    assert SEEN == [("a2", "L", "B")]


# --- names from around ---


def test_a_block_reads_the_globals_of_its_module_when_it_runs() -> None:
    def make() -> Any:
        with ProcessSetup() as setup:
            with OnStart():
                see(LATE)
        return setup.build()

    built = make()
    globals()["LATE"] = "late"
    run(built)
    del globals()["LATE"]
    assert SEEN == ["late"]


@pytest.mark.parametrize("where", ["in the block", "in the function"])
def test_a_global_that_is_declared_so_is_assigned(where: str, tmp_path: Path) -> None:
    inside, outside = ("global G", "pass") if where == "in the block" else ("pass", "global G")
    scope = load(
        tmp_path / "m.py",
        f"""
        G = 1
        def make():
            {outside}
            with ProcessSetup() as setup:
                with OnStart():
                    {inside}
                    G = G + 1
                with OnFinish():
                    G += 1
            return setup.build()
        """,
    )
    run(scope["make"]())
    assert scope["G"] == 3


def test_only_the_names_that_blocks_use_are_kept() -> None:
    class Big: ...

    def make() -> Any:
        big, unused, lock = Big(), threading.Lock(), 1
        with ProcessSetup() as setup:
            with OnStart():
                for lock in (lock,):
                    see(lock)
        return setup.build(), weakref.ref(big)

    with pytest.raises(NameError):  # the block sets `lock` itself
        run(make()[0])
    built, ref = make()
    gc.collect()
    assert ref() is None
    assert codec.loads(codec.dumps(built)).blocks == built.blocks


def test_a_name_without_a_value_where_the_setup_is_written_is_refused() -> None:
    with pytest.raises(CaptureError, match="'later' is used in a block, but has no value"):
        with ProcessSetup() as setup:
            with OnStart():
                see(later)
    later = 1


def test_a_class_in_a_function_has_to_have_the_names_that_its_blocks_use() -> None:
    outer = 1
    with pytest.raises(CaptureError, match="'outer' is used in a block, but has no value here"):

        class Body:
            with ProcessSetup() as setup:
                with OnStart():
                    see(outer)


def test_a_traceback_shows_the_line_of_the_user() -> None:
    with ProcessSetup() as setup:
        with OnStart():
            a = 1

            b = a + undefined
    line = setup.build().blocks[0].line + 3
    with pytest.raises(NameError) as caught:
        run(setup.build())
    last = caught.traceback[-1]
    assert (str(last.path), last.lineno + 1, last.name) == (__file__, line, "OnStart")


def test_an_assert_in_a_block_works_under_pytest() -> None:
    with ProcessSetup() as setup:
        with OnStart():
            a = 1
            assert a == 2, "plain"
    with pytest.raises(AssertionError, match="plain"):
        run(setup.build())


# --- what is refused ---

REFUSED = {
    "return": ("return 1", "`return` cannot be used in a block", 3),
    "return in a loop": ("for i in []:\n    return", "`return` cannot", 4),
    "yield": ("yield", "`yield` cannot", 3),
    "yield from": ("yield from ()", "`yield from` cannot", 3),
    "nonlocal": ("nonlocal outer", "`nonlocal` cannot", 3),
    "break": ("for i in (): break\nbreak", "'break' outside loop", 4),
    "break in an else": ("for i in ():\n    pass\nelse:\n    break", "'break' outside loop", 6),
    "continue": ("continue", "'continue' not properly in loop", 3),
    "super": ("a = super()", "super\\(\\) and __class__ cannot be used", 3),
    "__class__": ("a = __class__", "super\\(\\) and __class__ cannot be used", 3),
    "updated only": ("total += 1", "'total' is updated here, but no block sets it", 3),
    "await": ("await x", "'await' outside async function", 3),
    "async for": ("async for i in x: pass", "'async for' outside async function", 3),
    "async with": ("async with x: pass", "'async with' outside async function", 3),
    "async comprehension": ("a = [i async for i in x]", "asynchronous comprehension outside of", 3),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_makes_no_sense_in_a_block_is_refused_at_its_line(case: str, tmp_path: Path) -> None:
    body, message, line = REFUSED[case]
    kind = "async def" if "async" in body or "await" in body else "def"
    text = f"{kind} f():\n  total = 0\n  while True:\n    with ProcessSetup() as setup:\n      with OnStart():\n"
    text += textwrap.indent(body, "        ") + "\n    return\n"
    if "super" in body or "__class__" in body:
        text = "class C:\n" + textwrap.indent(text, "  ") + "f = C.f\n"
        text = text.replace("f():", "f(self=None):")
    if "nonlocal" in body:
        text = "def g():\n  outer = 0\n" + textwrap.indent(text, "  ") + "  return f\nf = g()\n"
    f = load(tmp_path / "m.py", text)["f"]
    with pytest.raises(CaptureError, match=message) as caught:
        made = f()
        if kind == "async def":
            asyncio.run(made)
        elif "yield" in body:
            next(made)
    error = caught.value
    first = text.splitlines().index(next(one for one in text.splitlines() if "OnStart" in one))
    assert error.filename == str(tmp_path / "m.py")
    assert error.lineno == first + line
    assert (error.text or "").strip() in text
    assert "class" in str(error) or case == "updated only"


def test_the_same_words_are_fine_inside_of_a_loop_or_a_function_of_the_block() -> None:
    with ProcessSetup() as setup:
        with OnStart():
            for i in range(3):
                break
            while True:
                if i:
                    continue
                break

            def f():
                for i in range(3):
                    if i:
                        return i

            def g():
                yield 5

            async def h():
                await asyncio.sleep(0)
                return 6

            class A:
                def m(self):
                    return 7

            class B(A):
                def m(self):
                    return super().m()

            see(f(), next(g()), asyncio.run(h()), B().m())
    run(setup.build())
    assert SEEN == [(1, 5, 6, 7)]


def test_super_in_a_function_of_a_block_is_refused() -> None:
    class C:
        def f(self) -> None:
            with ProcessSetup() as setup:
                with OnStart():

                    def g():
                        return super().f()

    with pytest.raises(CaptureError, match="super"):
        C().f()


def test_a_nonlocal_name_cannot_be_assigned() -> None:
    outer = 0

    def f() -> None:
        nonlocal outer
        with ProcessSetup() as setup:
            with OnStart():
                outer = 1

    with pytest.raises(CaptureError, match="'outer' is nonlocal around the setup"):
        f()
    assert outer == 0


def test_import_star_is_refused(tmp_path: Path) -> None:
    text = "with ProcessSetup() as setup:\n    with OnStart():\n        from os import *\n"
    with pytest.raises(CaptureError, match="import \\* only allowed at module level") as caught:
        load(tmp_path / "m.py", text)
    assert caught.value.lineno == 4


def test_a_block_must_stand_directly_in_the_setup() -> None:
    with pytest.raises(CaptureError, match="OnStart must stand directly in the setup"):
        with ProcessSetup() as setup:
            if True:
                with OnStart():
                    pass
    with pytest.raises(CaptureError, match="must stand directly in a `with ProcessSetup"):
        with OnStart():
            pass


def test_a_block_that_a_helper_writes_is_refused() -> None:
    def helper() -> None:
        with OnStart():
            pass

    with pytest.raises(CaptureError, match="in the same function") as caught:
        with ProcessSetup() as setup:
            helper()
    assert caught.value.lineno == helper.__code__.co_firstlineno + 1


def test_only_blocks_may_follow_the_first_block() -> None:
    with pytest.raises(CaptureError, match="put this above it") as caught:
        with ThreadSetup() as setup:
            with OnStart():
                pass
            setup.num_loops = 1
    assert (caught.value.text or "").strip() == "setup.num_loops = 1"
    with pytest.raises(CaptureError, match="put this above it"):
        with ProcessSetup() as setup:
            with OnStart():
                pass
            with contextlib.nullcontext():
                pass
    with pytest.raises(CaptureError, match="put this above it"):
        with ProcessSetup() as setup:
            with OnStart():
                pass
            if True:
                with OnFinish():
                    pass


def test_two_blocks_of_one_kind_are_refused() -> None:
    with pytest.raises(CaptureError, match="the setup has two OnStart blocks"):
        with ProcessSetup() as setup:
            with OnStart():
                pass
            with OnStart():
                pass


def test_each_block_and_each_setup_has_a_with_statement_of_its_own() -> None:
    with pytest.raises(CaptureError, match="OnStart must have a `with` statement of its own"):
        with ProcessSetup() as setup:
            with OnStart(), contextlib.nullcontext():
                pass
    with pytest.raises(CaptureError, match="OnStart must have a `with` statement of its own"):
        with ProcessSetup() as setup:
            with contextlib.nullcontext(), OnStart():
                pass
    with pytest.raises(CaptureError, match="the setup must have a `with` statement of its own"):
        with ProcessSetup() as setup, OnStart():
            pass


def test_an_exit_stack_is_refused_at_the_line_of_the_user() -> None:
    with pytest.raises(CaptureError, match="ExitStack") as caught:
        with contextlib.ExitStack() as stack:
            stack.enter_context(ProcessSetup())
    assert caught.value.filename == __file__
    assert "enter_context" in (caught.value.text or "")
    with pytest.raises(CaptureError, match="no `with` statement"):
        ProcessSetup().__enter__()


def test_the_target_of_a_block_is_a_plain_name() -> None:
    with pytest.raises(CaptureError, match="plain name"):
        with ProcessSetup() as setup:
            with OnStart() as (_a, _b):
                pass


# --- the source ---


def test_code_without_a_source_is_refused() -> None:
    text = "with ProcessSetup() as setup:\n    with OnStart(): pass\n"
    with pytest.raises(CaptureError, match="its source cannot be read"):
        exec(compile(text, "<no file>", "exec"), {"ProcessSetup": ProcessSetup, "OnStart": OnStart})


def test_a_source_that_only_linecache_knows_is_enough() -> None:
    text = "with ProcessSetup() as setup:\n    with OnStart(): see('known')\n"
    linecache.cache["<made up>"] = (len(text), None, text.splitlines(True), "<made up>")
    scope: dict[str, Any] = {"ProcessSetup": ProcessSetup, "OnStart": OnStart, "see": see}
    exec(compile(text, "<made up>", "exec"), scope)
    run(scope["setup"].build())
    assert SEEN == ["known"]


WRITTEN = """
def make():
    with ProcessSetup() as setup:
        with OnStart():
            alpha = 1
            beta = alpha + 2
    return setup.build()
"""


@pytest.mark.parametrize("change", [("beta", "delta"), ("+ 2", "+ 3"), ("+", "-"), ("\ndef", "\n\n\ndef"), ("\n", "")])
def test_a_file_that_was_edited_since_is_refused(change: tuple[str, str], tmp_path: Path) -> None:
    make = load(tmp_path / "m.py", WRITTEN)["make"]
    (tmp_path / "m.py").write_text((tmp_path / "m.py").read_text().replace(*change))
    with pytest.raises(CaptureError, match="restart the program"):
        make()


def test_a_file_that_was_edited_in_another_place_is_fine(tmp_path: Path) -> None:
    make = load(tmp_path / "m.py", WRITTEN)["make"]
    (tmp_path / "m.py").write_text((tmp_path / "m.py").read_text() + "\nx = 1\n")
    run(make())


def test_lines_that_were_read_before_the_edit_are_used(tmp_path: Path) -> None:
    path = tmp_path / "m.py"
    make = load(path, WRITTEN)["make"]
    linecache.getlines(str(path))
    path.write_text("\n\n" + path.read_text())
    run(make())


def test_without_columns_the_line_is_enough(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from suitkaise.concept import capture

    position_of = capture._position_of
    monkeypatch.setattr(capture, "_position_of", lambda frame: (position_of(frame)[0], None, None, None))
    make = load(tmp_path / "m.py", WRITTEN)["make"]
    run(make())


def test_the_second_capture_of_a_setup_compiles_nothing() -> None:
    def make(n: int) -> Any:
        with ProcessSetup() as setup:
            with OnStart():
                see(n)
        return setup.build()

    one, two = make(1), make(2)
    assert one.factory.__code__ is two.factory.__code__
    run(one)
    run(two)
    assert SEEN == [1, 2]


# --- the error ---


def test_the_error_is_a_syntax_error_of_ours_that_can_be_sent() -> None:
    error = CaptureError("no", filename="app.py", lineno=3, offset=1, text="return\n")
    assert isinstance(error, SuitkaiseError)
    assert isinstance(error, SyntaxError)
    assert str(error) == "no (app.py, line 3)"
    again = codec.loads(codec.dumps(error))
    assert type(again) is errors.CaptureError
    assert (again.msg, again.filename, again.lineno, again.offset, again.text) == ("no", "app.py", 3, 1, "return\n")
