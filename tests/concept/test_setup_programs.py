"""Programs that set processes and threads up with `with` blocks: with real processes, wherever the program is written."""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path

import pytest

from tests.support import run_program

IMPORTS = """
from suitkaise import Child, Supervisor
from suitkaise import current_worker
from suitkaise.concept.setup import AfterLoop, BeforeLoop, OnFinish, OnStart, ProcessSetup, ThreadSetup
from suitkaise.concept.setup_worker import worker_for


def finished(kind, function, setup, **options):
    recipe = worker_for(kind, function, setup.build())
    with Supervisor("app", Child(recipe, id="it", restart="transient", **options)).start() as running:
        return running["it"].result(timeout=20)


"""


def program(text: str) -> str:
    return IMPORTS + textwrap.dedent(text)


SHARES_MAIN = program(
    """
    import os
    import threading

    lock = threading.Lock()  # not used, so not sent
    hits = 0
    SETTING = "old"


    class Record:
        pass


    def main(record, n):
        global hits
        hits += n
        return type(record) is Record, hits


    with ProcessSetup() as setup:
        with OnStart():
            record = Record()
            n = 2
            parent = os.getppid()
        with AfterLoop():
            seen = hits  # the global that the function changes
        with OnFinish():
            print("finish", seen, hits, type(record) is Record, SETTING, parent == os.getppid(), flush=True)

    built = setup
    SETTING = "new"  # code is sent when the tree starts
    print(finished("process", main, setup, join_after=3), hits, flush=True)
    """
)


@pytest.mark.parametrize("how", ["file", "-c", "-Bc", "-X no_debug_ranges", "-m pdb"])
def test_a_script_without_a_main_guard(how: str, tmp_path: Path) -> None:
    file = tmp_path / "app.py"
    file.write_text(SHARES_MAIN)
    command = {
        "file": [str(file)],
        "-c": ["-c", SHARES_MAIN],
        "-Bc": ["-Bc", SHARES_MAIN, "-c", "an argument"],
        "-X no_debug_ranges": ["-X", "no_debug_ranges", str(file)],
        "-m pdb": ["-m", "pdb", "-c", "c", "-c", "q", str(file)],
    }[how]
    done = run_program([sys.executable, *command], cwd=tmp_path)
    assert "finish 6 6 True new True" in done.stdout, done.stderr
    assert "(True, 6) 0" in done.stdout
    done.check()


RESTARTS = program(
    """
    import os
    import signal

    made = 0


    def started():
        global made
        made += 1
        return made


    def main(starts, loops):
        loops.append(len(loops))
        if current_worker().recalled is None and len(loops) == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return starts, len(loops)


    with ProcessSetup() as setup:
        with OnStart():
            starts = started()
            loops = []
        with AfterLoop():
            if len(loops) == 5:
                current_worker().rejoin()
    print(finished("process", main, setup))
    """
)


def test_a_process_that_is_killed_starts_anew_with_variables_of_its_own() -> None:
    assert run_program(RESTARTS).check().stdout == "(1, 5)\n"


def test_a_module_that_can_be_imported_serves_with_its_own_globals(tmp_path: Path) -> None:
    (tmp_path / "parts.py").write_text(
        IMPORTS + "counter = 0\nCONFIG = 'at import'\n\n\ndef main(**given):\n    global counter\n    counter += 10\n"
        "    return given['seen'], counter, CONFIG, __name__\n\n\ndef make():\n    first = 1\n"
        "    with ProcessSetup() as setup:\n        with OnStart():\n            seen = first\n        with AfterLoop():\n"
        "            seen = counter\n        with OnFinish():\n            print(seen, CONFIG, __name__, flush=True)\n"
        "    return setup\n"
    )
    text = "import parts\nparts.CONFIG = 'changed'\nprint(parts.finished('process', parts.main, parts.make(), join_after=2))"
    (tmp_path / "app.py").write_text(text)
    done = run_program(tmp_path / "app.py", cwd=tmp_path).check()
    assert done.stdout == "20 at import parts\n(1, 20, 'at import', 'parts')\n"


def test_the_blocks_of_a_module_that_was_loaded_by_hand_share_its_globals_with_the_function(tmp_path: Path) -> None:
    (tmp_path / "plugin.py").write_text(
        IMPORTS + "counter = 0\n\n\ndef main():\n    global counter\n    counter += 10\n\n\n"
        "with ProcessSetup() as setup:\n    with OnStart():\n        start = 1\n"
        "    with OnFinish():\n        print(start, counter, flush=True)\n"
    )
    text = """
        import importlib.util, sys

        spec = importlib.util.spec_from_file_location("plugins.counting", "plugin.py")
        sys.modules["plugins.counting"] = module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        module.finished("process", module.main, module.setup, join_after=2)
    """
    assert run_program(textwrap.dedent(text), cwd=tmp_path).check().stdout == "1 20\n"


CRASHES = program(
    """
    from suitkaise import WorkerFailed

    with ProcessSetup() as setup:
        with OnStart():
            entries = {}
        with BeforeLoop():
            found = entries["missing"]
    recipe = worker_for("process", print, setup.build())
    with Supervisor("app", Child(recipe, id="it", restart="temporary")).start() as running:
        try:
            running["it"].result(timeout=20)
        except WorkerFailed as error:
            print(error.traceback)
        print(running.crashes()[0])
    """
)


def test_a_crash_report_shows_the_line_of_the_block(tmp_path: Path) -> None:
    file = tmp_path / "app.py"
    file.write_text(CRASHES)
    line = 1 + CRASHES.splitlines().index('        found = entries["missing"]')
    done = run_program(file).check()
    lines = [one.strip() for one in done.stdout.splitlines()]
    at = [lines[index + 1] for index, one in enumerate(lines) if one == f'File "{file}", line {line}, in BeforeLoop']
    assert at == ['found = entries["missing"]'] * 2, done.stdout  # of the error and of the crash report


NOTEBOOK = """
import nbformat, nbclient
cells = [
    {imports!r},
    '''
n = 2
def main(record, total=0, **rest):
    return type(record) is Record, total
class Record: pass
''',
    '''
with ProcessSetup() as setup:
    with OnStart():
        record = Record()
        total = n
    with BeforeLoop():
        total += 1
''',
    'finished("process", main, setup, join_after=3)',
    '''
def make():
    with ThreadSetup as setup:
        setup.num_loops = 2
        with OnStart():
            record, total = Record(), 4
    return setup
finished("thread", main, make())
''',
    '''
with ProcessSetup() as setup:
    with OnStart():
        record = 1
        b = missing
try:
    finished("process", main, setup)
except Exception as error:
    text = str(error) + getattr(error, "traceback", "")
print("b = missing" in text, "in OnStart" in text)
''',
    '''
try:
    with ProcessSetup() as setup:
        with OnStart():
            await x
except Exception as error:
    print(error.lineno, error.text)
''',
]
notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
nbclient.NotebookClient(notebook, timeout=40, kernel_name="python3").execute()
for cell in notebook.cells[3:]:
    for output in cell.outputs:
        if output.get("name") != "stderr":  # the log
            print(output["data"]["text/plain"] if "data" in output else output["text"].rstrip())
"""


def test_a_notebook(tmp_path: Path) -> None:
    pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    env = {"IPYTHONDIR": str(tmp_path), "JUPYTER_PLATFORM_DIRS": "1"}
    done = run_program(NOTEBOOK.replace("{imports!r}", repr(IMPORTS)), env=env, timeout=80).check()
    assert done.stdout == "(True, 5)\n(True, 4)\nTrue True\n4             await x\n"


def test_ipython(tmp_path: Path) -> None:
    pytest.importorskip("IPython")
    cell = (
        "with ThreadSetup() as setup:\n    with OnStart():\n        a = 5\n"
        "print(finished('thread', lambda a: a + 1, setup))"
    )
    text = (
        "from IPython.core.interactiveshell import InteractiveShell\nshell = InteractiveShell()\n"
        f"for cell in ({IMPORTS!r}, {cell!r}):\n    shell.run_cell(cell).raise_error()"
    )
    assert run_program(text, env={"IPYTHONDIR": str(tmp_path)}).check().stdout == "6\n"


DEBUGGED = program(
    """
    import bdb
    import io
    import pdb
    import sys
    import threading


    class Debugger(bdb.Bdb):  # the base of pdb
        def user_line(self, frame):
            if self.break_here(frame):
                print("stopped:", frame.f_code.co_name, frame.f_lineno, frame.f_locals["a"])


    with ThreadSetup() as setup:
        with OnStart():
            a = 1
            b = a + 1  # here
            c = b
    if sys.argv[1:]:
        debugger = Debugger()
        debugger.reset()
        debugger.set_break(__file__, int(sys.argv[1]))
        threading.settrace(debugger.trace_dispatch)
    else:
        debugger = pdb.Pdb(stdin=io.StringIO("p a\\nn\\nc\\n"), stdout=sys.stdout, nosigint=True)
    print(finished("thread", lambda c: c, setup))
    """
)


def test_a_breakpoint_in_a_block_stops_at_its_line(tmp_path: Path) -> None:
    file = tmp_path / "app.py"
    file.write_text(DEBUGGED)
    line = 1 + DEBUGGED.splitlines().index("        b = a + 1  # here")
    assert run_program(file, str(line)).check().stdout == f"stopped: OnStart {line} 1\n2\n"


def test_a_call_of_breakpoint_in_a_block_stops_there(tmp_path: Path) -> None:
    text = DEBUGGED.replace("        a = 1\n", "        a = 1; debugger.set_trace()\n")
    line = 1 + text.splitlines().index("        b = a + 1  # here")
    file = tmp_path / "app.py"
    file.write_text(text)
    done = run_program(file).check()
    assert f"> {file}({line})OnStart()\n-> b = a + 1  # here\n" in done.stdout
    assert "(Pdb) 1\n" in done.stdout
    assert done.stdout.endswith("2\n")


def test_coverage_sees_the_lines_of_a_block(tmp_path: Path) -> None:
    """The standard library's `trace` measures as `coverage` does: with a trace function."""
    file = tmp_path / "app.py"
    file.write_text(
        program(
            """
            with ThreadSetup() as setup:
                with OnStart():
                    a = 1
                    if a == 2:
                        a = 3
            print(finished("thread", lambda a: a, setup))
            """
        )
    )
    command = [sys.executable, "-m", "trace", "--count", "--missing", "-C", str(tmp_path), str(file)]
    done = run_program(command, cwd=tmp_path, timeout=50).check()
    assert done.stdout.startswith("1\n")
    counted = [one.strip() for one in (tmp_path / "app.cover").read_text().splitlines()]
    assert "1:         a = 1" in counted
    assert ">>>>>>             a = 3" in counted


def test_a_program_from_standard_input_is_told_what_is_missing() -> None:
    text = "import sys\nfrom suitkaise.concept.setup import ProcessSetup\nwith ProcessSetup() as setup:\n    pass\n"
    code = f"import subprocess, sys\nsubprocess.run([sys.executable], input={text!r}, text=True)"
    done = run_program(code)
    assert (
        "its source cannot be read; put the setup into a file, or a notebook cell without %%time, or write a class"
        in done.stderr
    )


SPARES = program(
    """
    import os
    import signal


    def main(first, **rest):
        if current_worker().recalled is None:
            os.kill(os.getpid(), signal.SIGKILL)
        current_worker().rejoin()
        return first, rest


    def make():
        first = 7
        with ProcessSetup() as setup:
            with OnStart():
                names = [first]
        return setup


    recipe = worker_for("process", main, make().build(), (1,), {"given": 2})
    with Supervisor("app", Child(recipe, id="it", spares=1, restart="transient")).start() as running:
        print(running["it"].result(timeout=20))
    """
)


def test_a_spare_runs_the_blocks_of_a_setup() -> None:
    assert run_program(SPARES).check().stdout == "(1, {'given': 2, 'names': [7]})\n"


ASYNC = program(
    """
    import asyncio

    async def main(n):
        await asyncio.sleep(0)
        return n, current_worker().name

    with ProcessSetup() as setup:
        with BeforeLoop() as before:
            before.add(n=current_worker().current_loop)
    print(finished("process", main, setup, join_after=2))
    """
)


def test_an_async_function_in_a_process() -> None:
    assert run_program(ASYNC).check().stdout == "(2, 'it')\n"
