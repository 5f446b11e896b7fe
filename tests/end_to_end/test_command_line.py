"""`suitkaise run`: what it loads, what it prints, and how it ends."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import Finished, eventually, run_program, start_program

RUN = [sys.executable, "-m", "suitkaise", "run"]
HEADER = "from suitkaise import *\n"
ONCE = """
class Once(Process):
    restart = "transient"
    significant = True
    def loop(self):
        print("did it in", self.path, flush=True)
        self.rejoin()
"""
TREE = HEADER + ONCE + "tree = Supervisor('app', Once, auto_shutdown='any_significant')\n"


def suitkaise_run(folder: Path, source: str, *args: str, target: str = "app.py") -> Finished:
    (folder / "app.py").write_text(source)
    return run_program([*RUN, target, *args], cwd=folder)


def test_a_file_with_one_tree_is_run_to_its_clean_end(tmp_path: Path) -> None:
    finished = suitkaise_run(tmp_path, TREE).check()
    assert "did it in app/once" in finished.stdout


def test_a_file_that_runs_its_tree_itself_is_run_once(tmp_path: Path) -> None:
    finished = suitkaise_run(tmp_path, TREE + "tree.run()\nprint('after')\n").check()
    assert finished.stdout.count("did it in") == 1
    assert "after" in finished.stdout


def test_a_file_with_a_main_guard_is_run_once(tmp_path: Path) -> None:
    finished = suitkaise_run(tmp_path, TREE + "if __name__ == '__main__':\n    tree.run()\n").check()
    assert finished.stdout.count("did it in") == 1


STREAMS = """
class Looks(Process):
    restart = "transient"
    significant = True
    def loop(self):
        import os
        with open("seen", "w") as file:
            print(*(os.readlink(f"/proc/self/fd/{number}") for number in (0, 1, 2)), file=file)
        self.rejoin()
says = Command("sh", "-c", "echo up; exec sleep 600", ready="up")
tree = Supervisor("app", says, Looks, auto_shutdown="any_significant")
"""


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize("way", ["-m suitkaise run app.py", "app.py"])
def test_standard_streams_may_be_closed(way: str, closed: str, tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(HEADER + STREAMS + ("tree.run()\n" if way == "app.py" else ""))
    run_program(["sh", "-c", f"exec {sys.executable} {way} {closed}"], cwd=tmp_path).check()
    seen = (tmp_path / "seen").read_text().split()
    assert seen[0] == "/dev/null"
    for number, redirected in ((1, ">&-"), (2, "2>&-")):
        assert (seen[number] == "/dev/null") is (redirected in closed.split())


def test_suitkaise_crashes_may_have_its_output_closed(tmp_path: Path) -> None:
    command = ["sh", "-c", f"exec {sys.executable} -m suitkaise crashes >&-"]
    assert run_program(command, env={"SUITKAISE_STATE": str(tmp_path)}).check().stderr == ""


def test_one_of_several_trees_is_chosen_by_name(tmp_path: Path) -> None:
    source = TREE + "other = tree.replace(name='other')\n"
    assert "did it in other/once" in suitkaise_run(tmp_path, source, target="app.py:other").check().stdout


def test_a_module_is_run_by_its_name(tmp_path: Path) -> None:
    assert "did it in app/once" in suitkaise_run(tmp_path, TREE, target="app:tree").check().stdout


def test_the_tree_that_holds_the_other_trees_is_run(tmp_path: Path) -> None:
    source = (
        HEADER
        + ONCE
        + (
            "inner = Supervisor('inner', Once, auto_shutdown='any_significant',"
            " restart='transient', significant=True)\n"
            "outer = Supervisor('outer', inner, auto_shutdown='any_significant')\n"
        )
    )
    assert "did it in outer/inner/once" in suitkaise_run(tmp_path, source).check().stdout


def test_a_tree_that_is_nested_deeper_is_not_a_second_tree(tmp_path: Path) -> None:
    source = (
        HEADER
        + ONCE
        + "inner = Supervisor('inner', Once, auto_shutdown='any_significant', restart='temporary', significant=True)\n"
        + "def around(name, tree):\n"
        + "    return Supervisor(name, tree, auto_shutdown='any_significant', restart='temporary', significant=True)\n"
        + "outer = around('outer', around('between', inner))\n"
    )
    assert "did it in outer/between/inner/once" in suitkaise_run(tmp_path, source).check().stdout


def test_annotations_of_the_file_are_evaluated_as_python_evaluates_them(tmp_path: Path) -> None:
    source = "def f(x: int): ...\nprint(f.__annotations__)\n" + TREE
    assert "{'x': <class 'int'>}" in suitkaise_run(tmp_path, source).check().stdout


def test_a_link_to_a_file_finds_the_modules_beside_the_file(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "beside.py").write_text("print('found')\n")
    (tmp_path / "real" / "app.py").write_text("import beside\n" + TREE)
    (tmp_path / "link.py").symlink_to(Path("real", "app.py"))
    assert "found" in run_program([*RUN, "link.py"], cwd=tmp_path).check().stdout


def test_the_program_gets_its_own_arguments(tmp_path: Path) -> None:
    source = "import sys\nprint(sys.argv)\n" + TREE
    finished = suitkaise_run(tmp_path, source, "--colour", "red", "x").check()
    assert "['app.py', '--colour', 'red', 'x']" in finished.stdout


def test_the_log_names_whole_paths(tmp_path: Path) -> None:
    source = (
        HEADER
        + ONCE
        + (
            "tree = Supervisor('app', Supervisor('inner', Once, auto_shutdown='any_significant', restart='transient',"
            " significant=True), auto_shutdown='any_significant')\n"
        )
    )
    lines = [line.partition(" ")[2] for line in suitkaise_run(tmp_path, source).check().stderr.splitlines()]
    assert "app supervisor started" in lines
    assert "app/inner supervisor started" in lines
    assert any(line.startswith("app/inner/once started (pid ") for line in lines)


def test_json_logs_are_one_object_a_line(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(TREE)
    finished = run_program([*RUN, "--json", "app.py"], cwd=tmp_path).check()
    events = [json.loads(line) for line in finished.stderr.splitlines()]
    assert {"child_started", "child_exited", "supervisor_stopped"} <= {event["event"] for event in events}
    exited = next(event for event in events if event["event"] == "child_exited")
    assert exited["path"] == "app/once"
    assert (exited["reason"], exited["report_type"]) == ("normal", "exit")
    assert isinstance(exited["time"], float)


def test_json_logs_have_no_number_that_json_does_not_have(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(
        "import math\nfrom suitkaise import Child, Process, Supervisor\n"
        "class Twice(Process):\n"
        "    def loop(self):\n"
        "        if self.ref.incarnation > 1:\n            self.rejoin()\n            return\n"
        "        self.log.info('trained', loss=math.nan, scores={('a', 1): math.inf})\n        raise OSError\n"
        "tree = Supervisor('app', Child(Twice, restart='transient', significant=True), max_restarts=math.inf,\n"
        "                  auto_shutdown='any_significant')\n"
    )
    finished = run_program([*RUN, "--json", "app.py"], cwd=tmp_path).check()

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    lines = [json.loads(line, parse_constant=refuse) for line in finished.stderr.splitlines()]
    (trained,) = [line for line in lines if line["logger"] == "suitkaise.worker"]
    assert (trained["loss"], trained["scores"]) == (None, {"('a', 1)": None})
    assert [line["allowed"] for line in lines if line["event"] == "child_restarting"] == [None]


def test_json_logs_have_the_keys_of_what_workers_log(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(
        "from suitkaise import Process, Supervisor\n"
        "class Once(Process):\n    restart, significant, num_loops = 'temporary', True, 1\n"
        "    def loop(self):\n        self.log.info('sold', item='cup', left=[1, 2])\n"
        "tree = Supervisor('app', Once, auto_shutdown='any_significant')\n"
    )
    finished = run_program([*RUN, "--json", "app.py"], cwd=tmp_path).check()
    (sold,) = [line for line in map(json.loads, finished.stderr.splitlines()) if line["logger"] == "suitkaise.worker"]
    assert sold["event"] == "app/once: sold item='cup' left=[1, 2]"
    assert (sold["path"], sold["item"], sold["left"], sold["level"]) == ("app/once", "cup", [1, 2], "info")


def test_json_logs_have_the_traceback_of_a_crash_and_the_stack_of_a_record(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(
        "from suitkaise import Supervisor, Thread\n"
        "class Once(Thread):\n    restart, significant = 'temporary', True\n"
        "    def loop(self):\n        self.log.info('here', stack_info=True)\n        raise ValueError('sold out')\n"
        "tree = Supervisor('app', Once, auto_shutdown='any_significant')\n"
    )
    finished = run_program([*RUN, "--json", "app.py"], cwd=tmp_path)
    *logged, _ = finished.stderr.splitlines()  # the last line tells why the program has failed
    lines = {line["event"]: line for line in map(json.loads, logged)}
    assert "self.log.info('here', stack_info=True)" in lines["app/once: here"]["stack"]
    text = lines["child_exited"]["exception"]
    assert text.startswith("Traceback (most recent call last):\n")
    assert "raise ValueError('sold out')" in text


def test_a_record_of_others_may_have_an_event_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(
        "import logging\nfrom suitkaise import Process, Supervisor\n"
        "class Once(Process):\n    restart, significant, num_loops = 'temporary', True, 1\n"
        "    def loop(self):\n"
        "        logging.getLogger('shop').info('a cup was sold', extra={'event': 'sale', 'item': 'cup'})\n"
        "tree = Supervisor('app', Once, auto_shutdown='any_significant')\n"
    )
    finished = run_program([*RUN, "--json", "app.py"], cwd=tmp_path).check()
    (sold,) = [line for line in map(json.loads, finished.stderr.splitlines()) if line["logger"] == "shop"]
    assert (sold["event"], sold["item"]) == ("a cup was sold", "cup")


def test_a_root_that_gives_up_ends_the_program_with_exit_code_1(tmp_path: Path) -> None:
    source = HEADER + (
        "class Bad(Process):\n    def loop(self):\n        raise ValueError('no good')\n"
        "tree = Supervisor('app', Bad, max_restarts=1)\n"
    )
    finished = suitkaise_run(tmp_path, source)
    assert finished.returncode == 1
    assert "TreeFailed: 'app' gave up: 'app/bad' would need more than 1 restart in 5 s" in finished.stderr
    assert finished.stderr.count("raise ValueError('no good')") == 2  # once for each crash


def test_s65_a_killed_root_ends_the_program_with_exit_code_1(tmp_path: Path) -> None:
    source = HEADER + (
        "class Killer(Process):\n    def loop(self):\n        self.whereis('app').kill()\n        self.wait(60)\n"
        "tree = Supervisor('app', Killer)\n"
    )
    finished = suitkaise_run(tmp_path, source)
    assert finished.returncode == 1
    assert "TreeFailed: 'app' was killed (ref.kill())" in finished.stderr


def test_a_failed_start_ends_the_program_with_exit_code_1_and_the_remote_traceback(tmp_path: Path) -> None:
    source = HEADER + (
        "class Bad(Process):\n    def on_start(self):\n        raise OSError('no disk')\n"
        "tree = Supervisor('app', Bad)\n"
    )
    finished = suitkaise_run(tmp_path, source)
    assert finished.returncode == 1
    assert "ChildStartFailed: 'app/bad' failed to start: OSError in on_start: no disk" in finished.stderr
    assert "raise OSError('no disk')" in finished.stderr


STARTS_ITSELF = {
    "processes that are made by calls": (
        "from suitkaise import xprocess\nxp = xprocess.CrossProcessing()\n"
        "def work():\n    print('worked', xp.get_current_loop(), flush=True)\n"
        "xp.create_process(work, kwargs={'join_after': 2})\n"
    ),
    "a tree that the file starts": HEADER
    + "class W(Process):\n    restart = 'transient'\n    num_loops = 2\n"
    + "    def loop(self): print('worked', self.current_loop, flush=True)\n"
    + "tree = Supervisor('app', Supervisor('part', W))\n"
    + "with tree.start() as running:\n    running['part/w'].join(20)\n",
}


@pytest.mark.parametrize("what", STARTS_ITSELF)
def test_a_file_that_starts_its_processes_itself_is_run_to_its_end(what: str, tmp_path: Path) -> None:
    finished = suitkaise_run(tmp_path, STARTS_ITSELF[what])
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.splitlines() == ["worked 1", "worked 2"]
    assert "no Supervisor" not in finished.stderr


def test_a_demo_that_cannot_be_observed_says_that_alone() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        finished = run_program([sys.executable, "-m", "suitkaise", "demo", "--observe", port])
    assert finished.returncode == 1
    assert finished.stderr.startswith("suitkaise demo: ")
    assert port in finished.stderr
    assert finished.stderr.count("\n") == 1


FINE = HEADER + "class W(Process):\n    def __init__(self, x=None): pass\n"

WRONG = {
    "duplicate ids": (FINE + "tree = Supervisor('a', W, W)", "two children have the id 'w'"),
    "an unknown option": (FINE + "tree = Supervisor('a', Child(W, restrat='x'))", "did you mean 'restart'?"),
    "a wrong type": (FINE + "tree = Supervisor('a', Child(W, shutdown='soon'))", "shutdown must be seconds >= 0"),
    "no worker": (FINE + "tree = Supervisor('a', int)", "int is a class but not a worker"),
    "a called function": (FINE + "def f(): pass\ntree = Supervisor('a', f())", "was a function called"),
    "an argument that cannot be sent": (
        FINE + "import threading\ntree = Supervisor('a', Child(W, args=({'k': [threading.Lock()]},)))",
        "cannot pickle '_thread.lock' object",
    ),
    "an engine that is none": (FINE + "tree = Supervisor('a', W, engine='ray')", "engine must be a Ray(...)"),
    "an import that fails": ("import not_there\n", "No module named 'not_there'"),
    "an error in the file": ("1 / 0\n", "ZeroDivisionError"),
    "a syntax error": ("def (:\n", "SyntaxError"),
    "no tree": ("x = 1\n", "has no Supervisor at its top"),
    "two trees": (FINE + "a = Supervisor('a', W)\nb = Supervisor('b', W)\n", "app.py:a, app.py:b"),
}


@pytest.mark.parametrize("what", WRONG)
def test_an_error_in_a_file_is_reported_once_with_exit_code_2(what: str, tmp_path: Path) -> None:
    source, complaint = WRONG[what]
    finished = suitkaise_run(tmp_path, source)
    assert finished.returncode == 2, finished.stderr
    assert complaint in finished.stderr
    assert finished.stderr.count(complaint) == 1
    assert "suitkaise/cli" not in finished.stderr


def test_the_error_names_the_path_to_an_argument_that_cannot_be_pickled(tmp_path: Path) -> None:
    finished = suitkaise_run(tmp_path, WRONG["an argument that cannot be sent"][0])
    assert "a/w" in finished.stderr
    assert "['k'][0]" in finished.stderr


@pytest.mark.parametrize(
    "arguments, complaint",
    [
        (["run", "nowhere.py"], "there is no file 'nowhere.py'"),
        (["run", "nowhere"], "there is no module 'nowhere'"),
        (["run"], "MODULE_OR_FILE"),
        ([], "COMMAND"),
        (["fly"], "invalid choice"),
        (["stop", "app/worker", "--now"], "unrecognized arguments: --now"),
        (["restart"], "PATH"),
        (["signal", "MOON", "app/worker"], "there is no signal 'MOON'"),
        (["logs", "-n", "-1"], "invalid number of lines value"),
        (["stop", "--timeout", "soon"], "invalid number of seconds value"),
        (["completion", "csh"], "invalid choice"),
        (["run", "--jsno", "nowhere.py"], "unrecognized arguments: --jsno"),
        (["run", "nowhere.py", "--engine=spark"], "--engine must be local or ray, not 'spark'"),
        (["run", "nowhere.py", "--observe=here:there"], "suitkaise run: the observer listens at HOST:PORT"),
        (["run", "nowhere.py", "--observe-actions"], "suitkaise run: --observe-actions needs --observe"),
        (["demo", "--observe", "99999"], "suitkaise demo: the observer listens at HOST:PORT"),
        (["crashes", "--jsno"], "unrecognized arguments: --jsno"),
        (["crashes", "last", "one"], "unrecognized arguments: one"),
        (["crashes", "--", "last", "one"], "unrecognized arguments: one"),
        (["ps", "--", "last"], "unrecognized arguments: last"),
    ],
)
def test_wrong_usage_ends_the_program_with_exit_code_2(arguments: list[str], complaint: str, tmp_path: Path) -> None:
    finished = run_program([sys.executable, "-m", "suitkaise", *arguments], cwd=tmp_path)
    assert finished.returncode == 2
    assert complaint in finished.stderr


@pytest.mark.parametrize(
    "target, complaint",
    [
        ("folder", "'folder' is a folder; give the file or the module that declares the tree"),
        ("folder/", "'folder/' is a folder; give the file or the module that declares the tree"),
        ("folder:tree", "'folder' is a folder; give the file or the module that declares the tree"),
        ("fifo.py", "'fifo.py' is no regular file"),
        ("/dev/null", "'/dev/null' is no regular file"),
        ("file.py/", "'file.py/' cannot be read: Not a directory"),
    ],
)
def test_run_tells_what_it_was_given_in_place_of_a_file(target: str, complaint: str, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file.py").touch()
    os.mkfifo(tmp_path / "fifo.py")
    finished = run_program([*RUN, target], cwd=tmp_path)
    assert (finished.returncode, finished.stderr) == (2, f"suitkaise run: {complaint}\n")


@pytest.mark.parametrize("target", ["app.py", "app"])
def test_run_tells_the_line_of_a_wrong_declaration(target: str, tmp_path: Path) -> None:
    (tmp_path / "parts.py").write_text(HEADER + "def part(**options):\n    return Supervisor('part', **options)\n")
    wrong = "from parts import part\npart(\n    max_restart=4\n)\n"
    finished = suitkaise_run(tmp_path, wrong, target=target)
    assert finished.returncode == 2
    line = HEADER.count("\n") + 2
    complaint = "suitkaise: SpecError: Supervisor 'part': unknown option max_restart=4; did you mean 'max_restarts'?"
    assert finished.stderr == f"{complaint} (at parts.py:{line})\n"


def test_run_tells_no_line_of_an_error_that_no_line_of_the_program_has_raised(tmp_path: Path) -> None:
    unsent = "import threading\nclass W(Process):\n    def __init__(self, lock): ...\n"
    finished = suitkaise_run(tmp_path, HEADER + unsent + "tree = Supervisor('app', W(threading.Lock()))\n")
    assert "suitkaise: NotSerializable: " in finished.stderr
    assert "(at " not in finished.stderr


@pytest.mark.parametrize(
    "arguments, note",
    [
        (["--observe-action"], "--observe-action goes to the program; did you mean --observe-actions?"),
        (["--heath=8000"], "--heath goes to the program; did you mean --health?"),
        (["--", "--observe-action"], None),
        (["--chaos", "25"], None),
        (["--nodes", "2"], None),  # without --engine ray it is the program's
        (["--mine", "--observe-action"], None),
    ],
)
def test_run_tells_of_an_option_of_the_program_that_is_nearly_its_own(
    arguments: list[str], note: str | None, tmp_path: Path
) -> None:
    finished = suitkaise_run(tmp_path, TREE + "import sys\nprint(sys.argv[1:])\n", *arguments).check()
    assert str([word for word in arguments if word != "--"]) in finished.stdout
    told = [line for line in finished.stderr.splitlines() if line.startswith("suitkaise run:")]
    assert [note in line for line in told if note] == [True] * len(told) == [True] * bool(note)


CTRL_C_AT_AN_IMPORT = """
import os, signal, sys
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == os.environ["CTRL_C_AT"]:
            signal.raise_signal(signal.SIGINT)
sys.meta_path.insert(0, Finder())
"""


@pytest.mark.parametrize("module", ["cli.dispatch", "cli.parser", "cli.show"])
def test_ctrl_c_ends_a_command_quietly_also_while_its_modules_are_imported(module: str, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(CTRL_C_AT_AN_IMPORT)  # imported by Python at its start
    env = {"PYTHONPATH": str(tmp_path), "CTRL_C_AT": f"suitkaise.{module}"}
    ended = run_program([sys.executable, "-m", "suitkaise", "status"], env=env)
    assert (ended.returncode, ended.stdout, ended.stderr) == (128 + signal.SIGINT, "", "")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_gracefully_with_exit_code_0(number: signal.Signals, tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(
        HEADER + "class W(Process):\n    def loop(self):\n        print('up', flush=True)\n        self.wait(60)\n"
        "    def on_finish(self):\n        print('finished', flush=True)\ntree = Supervisor('app', W)\n"
    )
    with start_program([*RUN, "app.py"], cwd=tmp_path) as program:
        program.expect("up")
        program.send_signal(number)
        assert program.wait() == 0
    assert "finished" in program.stdout
    assert program.left_behind == []


def test_a_second_signal_kills_with_exit_code_128_plus_its_number(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(
        HEADER + "class W(Process):\n    shutdown = 'infinity'\n"
        "    def loop(self):\n        print('up', flush=True)\n        import time; time.sleep(600)\n"
        "tree = Supervisor('app', W)\n"
    )
    with start_program([*RUN, "app.py"], cwd=tmp_path) as program:
        program.expect("up")
        program.send_signal(signal.SIGTERM)
        eventually(lambda: "supervisor stops its children" in program.stderr)
        program.send_signal(signal.SIGINT)
        assert program.wait() == 128 + signal.SIGINT
    assert program.left_behind == []


CRASHES_ONCE = (
    HEADER
    + """
class Crashes(Process):
    significant = True
    restart = "transient"
    def loop(self):
        self.tree.increment("runs", path="count")
        if self.tree.get("runs", path="count") == 1:
            raise ValueError("once")
        self.rejoin()
tree = Supervisor('app', Crashes, auto_shutdown='any_significant')
"""
)


def on_a_terminal(folder: Path, **environment: str) -> str:
    """Return the output of `suitkaise run` on a terminal."""
    (folder / "app.py").write_text(CRASHES_ONCE)
    in_a_terminal = "import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))"
    command = [sys.executable, "-c", in_a_terminal, *RUN, "app.py"]
    return run_program(command, cwd=folder, env={"TERM": "xterm", "NO_COLOR": None, **environment}).check().stdout


def test_on_a_terminal_a_crash_is_red_and_a_restart_is_green(tmp_path: Path) -> None:
    text = on_a_terminal(tmp_path)
    assert re.search(r"\x1b\[31mapp/crashes ended .*ValueError", text)
    assert re.search(r"\x1b\[32mapp/crashes is back .*\x1b\[0m", text)
    assert not re.search(r"\x1b\[\d+mapp/crashes ended .*normal", text)


def test_no_color_is_respected_on_a_terminal(tmp_path: Path) -> None:
    text = on_a_terminal(tmp_path, NO_COLOR="1")
    assert "app/crashes is back" in text
    assert "\x1b[3" not in text


def test_no_colours_go_into_a_file(tmp_path: Path) -> None:
    finished = suitkaise_run(tmp_path, CRASHES_ONCE).check()
    assert "app/crashes is back" in finished.stderr
    assert "\x1b" not in finished.stderr


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_that_closes_the_pipe_early_causes_no_error(unbuffered: str, tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    environment = {**os.environ, "SUITKAISE_STATE": str(tmp_path), "PYTHONUNBUFFERED": unbuffered}
    command = [sys.executable, "-m", "suitkaise", "crashes"]
    finished = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, env=environment, check=False, timeout=30)
    os.close(writer)
    assert (finished.returncode, finished.stderr) == (0, b"")


FULL = [">/dev/full", "2>/dev/full", ">/dev/full 2>&1", "2>&1 | true"]


@pytest.mark.parametrize("goes", FULL)
@pytest.mark.parametrize("loop, code", [("self.rejoin()", 0), ("raise OSError('again')", 1)])
def test_the_exit_code_is_that_of_the_tree_also_if_its_log_cannot_be_written(
    goes: str, loop: str, code: int, tmp_path: Path
) -> None:
    source = TREE.replace('print("did it in", self.path, flush=True)', "pass")
    (tmp_path / "app.py").write_text(source.replace("self.rejoin()", loop))
    shell = f"set -o pipefail; {sys.executable} -m suitkaise run app.py {goes}"
    assert run_program(["bash", "-c", shell], cwd=tmp_path, env={"PYTHONUNBUFFERED": ""}).returncode == code


def test_the_exit_code_of_a_file_that_exits_is_kept_also_if_its_output_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text("import sys\nprint('lost')\nsys.exit(7)\n")
    shell = f"exec {sys.executable} -m suitkaise run app.py >/dev/full"
    finished = run_program(["sh", "-c", shell], cwd=tmp_path, env={"PYTHONUNBUFFERED": ""})
    assert (finished.returncode, finished.stderr) == (7, "")


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_output_for_which_there_is_no_room_is_an_error_of_the_command(unbuffered: str, tmp_path: Path) -> None:
    shell = f"exec {sys.executable} -m suitkaise crashes --json >/dev/full"
    env = {"SUITKAISE_STATE": str(tmp_path), "PYTHONUNBUFFERED": unbuffered}
    finished = run_program(["sh", "-c", shell], env=env)
    assert finished.returncode == 1
    assert finished.stderr == "suitkaise crashes: the output cannot be written: No space left on device\n"


@pytest.mark.parametrize(
    "command, code",
    [
        ("--help", 0), ("run --help", 0), ("--version", 0), ("", 2), ("tree --wrong", 2), ("run nowhere.py", 2),
        ("crashes nosuch", 2), ("store ls nowhere", 2),
    ],
)  # fmt: skip
@pytest.mark.parametrize("goes", FULL)
def test_help_and_errors_that_cannot_be_written_leave_the_exit_code_as_it_is(
    goes: str, command: str, code: int, tmp_path: Path
) -> None:
    shell = f"set -o pipefail; {sys.executable} -m suitkaise {command} {goes}"
    env = {"PYTHONUNBUFFERED": "", "SUITKAISE_STATE": str(tmp_path)}
    finished = run_program(["bash", "-c", shell], cwd=tmp_path, env=env)
    assert finished.returncode == code
    assert "Exception ignored" not in finished.stderr


def test_the_nodes_of_no_cluster_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text("from suitkaise import *\ntree = Supervisor('app')\n")
    finished = run_program([sys.executable, "-m", "suitkaise", "run", "--nodes", "3", "app.py"], cwd=tmp_path)
    assert finished.returncode == 2
    assert "--nodes needs --engine ray" in finished.stderr


def test_suitkaise_takes_options_after_the_target_and_the_program_those_after_a_double_dash(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(
        "import sys\nfrom suitkaise import *\nclass Once(Process):\n    restart, significant = 'transient', True\n"
        "    def loop(self): self.rejoin()\nprint(sys.argv)\n"
        "tree = Supervisor('app', Once, auto_shutdown='any_significant')\n"
    )
    finished = run_program(
        [sys.executable, "-m", "suitkaise", "run", "app.py", "--json", "--engine", "local", "--", "--json"],
        cwd=tmp_path,
    ).check()
    assert "['app.py', '--json']" in finished.stdout
    assert finished.stderr.startswith("{")
