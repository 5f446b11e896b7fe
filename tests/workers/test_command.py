"""The declaration of a command: valid and invalid arguments."""

from __future__ import annotations

import asyncio
import pickle
import re
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from suitkaise import Child, Command, Process, SpecError, Supervisor
from suitkaise.workers.readiness import pattern_of
from tests.support import run_program


def sleep(**options: Any) -> Command:
    return Command("sleep", "5", **options)


WRONG: list[tuple[Callable[[], Any], str]] = [
    (lambda: Command(), "a program is needed"),
    (lambda: Command(""), "a program is needed"),
    (lambda: Command("/usr/bin/"), "'/usr/bin/' ends with '/', and is no program"),
    (lambda: Command("sleep", 5), "must be texts, not 5"),  # type: ignore[arg-type]
    (lambda: Command(["sleep", "5"]), r"must be texts, not \['sleep', '5'\]; give them one by one"),  # type: ignore[arg-type]
    (lambda: Command(Path("/bin/true")), "must be texts, not PosixPath"),  # type: ignore[arg-type]
    (lambda: Command("a\0b"), "null character"),
    (lambda: Command("echo", "\ud800"), r"no program can get this argument, .* '\\ud800'"),
    (lambda: sleep(env={"A": "\ud800"}), r"env must map names to texts, not 'A' to '\\ud800'"),
    (lambda: sleep(stdin="\ud800"), r"stdin is a text that cannot be encoded: '\\ud800'; use bytes"),
    (lambda: sleep(cwd="\ud800"), "cwd must be a folder"),
    (lambda: sleep(redy=5), "Command 'sleep': unknown option redy=5; did you mean 'ready'"),
    (lambda: sleep(shutdown=9), r"Command 'sleep': shutdown is an option of Child: Child\(\.\.\., shutdown=9\)"),
    (lambda: sleep(id="a"), r"Command 'sleep': id is an option of Child: Child\(\.\.\., id='a'\)"),
    (lambda: sleep(ready=0), "ready must be .* not 0"),
    (lambda: sleep(ready=65536), "ready must be"),
    (lambda: sleep(ready=""), "ready must be .* not ''"),
    (lambda: sleep(ready=True), "ready must be"),
    (lambda: sleep(ready=1.5), "ready must be"),
    (lambda: sleep(ready=b"up"), "ready must be"),
    (lambda: sleep(ready=re.compile(b"up")), "ready must be"),
    (lambda: sleep(ready=("localhost", "80")), "ready must be"),
    (lambda: sleep(ready=["localhost", 80]), "ready must be"),
    (lambda: sleep(ready=lambda x: 1), r"ready is called without arguments, and .* is \(x\): missing .* 'x'"),
    (lambda: sleep(ready=asyncio.sleep), "ready must be a plain function, not the async <function sleep"),
    (lambda: sleep(stop_signal="TERM"), "stop_signal must be a signal"),
    (lambda: sleep(stop_signal=0), "stop_signal must be a signal"),
    (lambda: sleep(stop_signal=True), "stop_signal must be a signal"),
    *[
        (lambda number=number: sleep(stop_signal=number), "stop_signal must be a signal that ends a process")
        for number in (signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGCONT, signal.SIGCHLD, signal.SIGURG)
    ],
    (lambda: sleep(kill_mode="process"), "kill_mode must be .group. or .mixed., not .process."),  # type: ignore[arg-type]
    (lambda: sleep(env={"A": 1}), "env must map names to texts, not 'A' to 1"),
    (lambda: sleep(env={"A=B": "1"}), "env must map"),
    (lambda: sleep(env={"": "1"}), "env must map"),
    (lambda: sleep(env={"A": "\0"}), "env must map"),
    (lambda: sleep(env=[("A", "1")]), "env must be a dict"),
    (lambda: sleep(user="no-such-user"), "Command 'sleep': there is no user 'no-such-user' on this machine"),
    (lambda: sleep(user=4_000_000_000), "there is no user 4000000000 .*; give a number without an entry a group="),
    (lambda: sleep(user=-1), "user must be the name or the number of a user, or None, not -1"),
    (lambda: sleep(user=True), "user must be"),
    (lambda: sleep(user="a\0b"), r"there is no user 'a\\x00b' on this machine"),
    (lambda: sleep(user="\ud800"), r"there is no user '\\ud800' on this machine"),
    (lambda: sleep(group="a\0b"), r"there is no group 'a\\x00b' on this machine"),
    (lambda: sleep(group="\ud800"), r"there is no group '\\ud800' on this machine"),
    (lambda: sleep(group="no-such-group"), "there is no group 'no-such-group'"),
    (lambda: sleep(group=1.5), "group must be the name or the number of a group"),
    (lambda: sleep(umask=0o1000), "umask must be a number from 0 to 0o777"),
    (lambda: sleep(umask="022"), "umask must be"),
    (lambda: sleep(nice=20), "nice must be a number from -20 .* to 19"),
    (lambda: sleep(limits=5), "limits must be a dict"),
    (lambda: sleep(limits={"nofiles": 5}), "limits has no name 'nofiles'; did you mean 'nofile'"),
    (lambda: sleep(limits={"nofile": -1}), r"limits\['nofile'\] must be a number >= 0"),
    (lambda: sleep(limits={"nofile": (5, 4)}), "the soft limit 5 is above the hard limit 4"),
    (lambda: sleep(limits={"nofile": ("infinity", 4)}), "the soft limit 'infinity' is above the hard limit 4"),
    (lambda: sleep(stdin=5), "stdin must be the Path of a file"),
    (lambda: sleep(stdin=Path("a\0b")), r"stdin: no file can have this name: 'a\\x00b'"),
    (lambda: sleep(stdin=Path("\ud800")), r"stdin: no file can have this name: '\\ud800'"),
    (lambda: sleep(stdout="/a\0b"), r"stdout: no file can have this name: '/a\\x00b'"),
    (lambda: sleep(stderr=Path("/\ud800")), r"stderr: no file can have this name: '/\\ud800'"),
    (lambda: sleep(stdin="/etc/passwd"), r"looks like a file: use Path\('/etc/passwd'\)"),
    (lambda: sleep(stdin="null"), "'null' is a word of the output streams; leave stdin out for no input"),
    (lambda: sleep(stdin="log"), "'log' is a word of the output streams"),
    (lambda: sleep(stdout="lgo"), "stdout must be 'log', 'null', 'inherit', or a file"),
    (lambda: sleep(stderr=None), "stderr must be"),
    (lambda: sleep(tty=1), "tty must be True or False"),
    (lambda: sleep(tty=True, stdout="null"), "stdout='null' and tty=True exclude each other"),
    (lambda: sleep(ready="up", stdout="null", stderr=Path("x")), "waits for a line of output, but"),
    (lambda: sleep(cwd=5), "cwd must be a folder"),
    (lambda: sleep(cwd=""), "cwd must be a folder"),
    (lambda: sleep(cwd=b"/"), "cwd must be a folder"),
    (lambda: Child(Command, args=("sleep", 5)), "must be texts"),
    (lambda: Child(Command), "a program is needed"),
    (lambda: Child(sleep()).replace(args=()), "a program is needed"),
    (lambda: Child(sleep(), args=("6",)), "not with an instance"),
    (lambda: Supervisor("a", sleep(name="a/b")), "may not hold '/'"),
    (lambda: Supervisor("a", sleep(), sleep()), "two children have the id 'sleep'"),
    *[
        (lambda name=name: Child(sleep(), **{name: 1}), f"{name} makes no sense here: commands have no loop")
        for name in ("join_after", "before_loop_timeout", "loop_timeout", "after_loop_timeout")
    ],
    *[
        (lambda name=name: Child(sleep(), **{name: 1}), f"{name} makes no sense here: commands take no messages")
        for name in ("receive_timeout", "mailbox")
    ],
    (lambda: type("Mine", (Command,), {}), "cannot be derived from"),
]


@pytest.mark.parametrize("make, part", WRONG, ids=range(len(WRONG)))
def test_s05_a_wrong_argument_is_a_spec_error_at_once(make: Callable[[], Any], part: str) -> None:
    with pytest.raises(SpecError, match=part):
        make()


def test_the_words_of_the_output_streams_are_input_as_bytes() -> None:
    options = sleep(stdin=b"null")._options
    assert options.stdin == b"null"


@pytest.mark.filterwarnings("error")
def test_a_text_that_would_be_an_odd_pattern_is_no_warning() -> None:
    ready = pattern_of(sleep(ready="listening on [[::]]:80")._ready)
    assert ready is not None
    assert ready.search("now listening on [[::]]:80")


@pytest.mark.parametrize(
    "ready",
    [
        None,
        "up",
        "(Press CTRL+C",
        re.compile("Up"),
        1,
        65535,
        ("localhost", 80),
        Path("sock"),
        Path("sock").exists,
        lambda: True,
    ],
)
def test_ready_may_be_a_pattern_a_port_a_socket_or_a_function(ready: Any) -> None:
    assert Child(sleep(ready=ready)).kind == "command"


def test_the_id_is_the_name_or_the_name_of_the_programs_file() -> None:
    assert Child(Command("/usr/bin/redis-server")).id == "redis-server"
    assert Child(Command("redis-server", name="cache")).id == "cache"
    assert Child(Command("redis-server", name="cache"), id="store").id == "store"
    assert Child(Command, args=("/bin/sleep", "5")).id == "sleep"
    assert Child(Command, args=("/bin/sleep", "5"), kwargs={"name": "nap"}).id == "nap"


def test_s03_s06_a_command_is_a_child_like_any_other() -> None:
    child = Child(sleep(), restart="transient", shutdown="brutal_kill", start_timeout=3, finish_timeout=2, join_in=1)
    assert (child.restart, child.shutdown, child.start_timeout, child.join_in) == ("transient", "brutal_kill", 3.0, 1.0)
    assert Child(sleep()).shutdown == 5.0
    assert [one.id for one in Supervisor("app", Child(sleep(), copies=2)).children] == ["sleep-0", "sleep-1"]
    assert Child(sleep()).replace(args=("sleep", "6")).what.args == ("sleep", "6")


def test_the_picture_of_the_tree_shows_the_command_line() -> None:
    tree = Supervisor("app", Child(Command("sh", "-c", "echo $HOME"), restart="temporary"), Child(Process, id="p"))
    assert str(tree).splitlines()[1:] == ["├─ sh  command, temporary: sh -c 'echo $HOME'", "└─ p  process, permanent"]
    assert repr(sleep()) == "Command('sleep', '5')"


def test_the_environment_is_a_snapshot_and_the_command_can_be_pickled() -> None:
    environment = {"A": "1"}
    command = sleep(env=environment)
    environment["A"] = "2"
    again = pickle.loads(pickle.dumps(command))
    assert again.__recipe__ == command.__recipe__
    assert again.__recipe__.kwargs["env"] == {"A": "1"}


def test_a_program_may_have_modules_of_its_own_with_the_names_of_those_that_few_commands_need(tmp_path: Path) -> None:
    for name in ("grp", "resource") if sys.version_info < (3, 13) else ("resource",):  # pathlib imports grp there
        (tmp_path / f"{name}.py").write_text("raise RuntimeError('a module of the program')")
    (tmp_path / "app.py").write_text("from suitkaise import Command\nprint(Command('true', ready=5))")
    assert run_program(tmp_path / "app.py").check().stdout == "Command('true')\n"
