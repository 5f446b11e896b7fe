"""What an import of suitkaise loads: a program pays at each start for every module that it does not use."""

from __future__ import annotations

import ast
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import suitkaise
from suitkaise.cli import dispatch
from suitkaise.cli.completion import commands_of
from suitkaise.cli.parser import PROFILE_FORMATS, make_parser
from suitkaise.cli.profile_formats import FORMATS
from tests.support import mypy_errors

HEAVY = (
    "asyncio cloudpickle dataclasses inspect logging msgspec multiprocessing numpy pathlib psutil pykka socket sqlite3 "
    "structlog subprocess"
)
"""Modules that take a millisecond or more."""

NOT_FOR_A_TREE = (
    "cloudpickle concurrent.futures dataclasses inspect logging msgspec pykka socket suitkaise.messaging.answer "
    "suitkaise.messaging.messages asyncio json multiprocessing pathlib psutil shlex shutil structlog subprocess "
    "tempfile suitkaise.events suitkaise.runtime suitkaise.storage.tree suitkaise.workers.command"
)
"""Modules that the declaration of a tree of process workers does not need."""

DECLARATION = """
from suitkaise import Child, Process, Supervisor, Thread

class Counter(Process):
    def __init__(self, limit, *, step=1):
        self.limit, self.step = limit, step

    def loop(self):
        pass

async def poll(address):
    pass

Supervisor("app", Counter(3, step=2), Child(Counter, id="other", args=(3,)), Thread.of(poll, "here"))
"""

NOT_FOR_A_WORKER = (
    "asyncio multiprocessing pathlib psutil shlex shutil structlog subprocess tempfile suitkaise.crashes "
    "suitkaise.events suitkaise.messaging.registry suitkaise.policy suitkaise.runtime suitkaise.supervision "
    "suitkaise.workers.command"
)
"""Modules that the keeper, and so each worker's process, does not need."""

NOT_FOR_A_RUNNING_TREE = (
    "asyncio json lmdb multiprocessing pathlib psutil shutil sqlite3 structlog suitkaise.storage.backends "
    "suitkaise.storage.tree suitkaise.workers.command"
)
"""Modules that a program does not need that starts a tree, beyond those of what its workers do."""

NOT_FOR_A_DECLARED_POOL = "asyncio json multiprocessing structlog suitkaise.runtime.runtime suitkaise.supervision"
"""Modules that a pool, the concept and the storage load at their first use: the keeper loads its own meanwhile."""

NOT_FOR_THE_COMMAND_LINE = (
    "asyncio cloudpickle msgspec multiprocessing psutil pykka structlog suitkaise.cli.show suitkaise.cli.profile "
    "suitkaise.engines.processes suitkaise.events suitkaise.messaging.codec suitkaise.runtime.runtime"
)
"""Modules that `suitkaise --help` does not need, nor `suitkaise run` before it loads the user's file."""


def loaded(code: str) -> set[str]:
    """Return the names of the modules that a new interpreter has after `code`."""
    program = f"{code}\nimport sys; print(*sys.modules)"
    return set(
        subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    )


@pytest.mark.parametrize(
    "code, unwanted",
    [
        ("import suitkaise", HEAVY),
        ("from suitkaise import Child, Process, Supervisor", NOT_FOR_A_TREE),
        (DECLARATION, NOT_FOR_A_TREE),
        ("import suitkaise.engines.keeper, suitkaise.engines.worker_main", NOT_FOR_A_WORKER),
        ("import suitkaise.runtime.running_tree", NOT_FOR_A_RUNNING_TREE),
        ("from suitkaise.pools import ProcessPool, ThreadPool", NOT_FOR_A_DECLARED_POOL),
        ("from suitkaise import skglobals, skthreading, sktree, xprocess", NOT_FOR_A_DECLARED_POOL),
        ("import suitkaise.cli", NOT_FOR_THE_COMMAND_LINE),
    ],
)
def test_an_import_loads_no_module_that_the_program_may_never_use(code: str, unwanted: str) -> None:
    of_python = {"pathlib"} if sys.version_info >= (3, 15) else set()  # `traceback` imports it
    assert sorted(loaded(code) & set(unwanted.split()) - of_python) == []


def test_the_import_loads_one_module_of_suitkaise_and_a_name_loads_its_own() -> None:
    assert {name for name in loaded("import suitkaise") if name.startswith("suitkaise")} == {"suitkaise"}
    assert "suitkaise.supervisor" not in loaded("from suitkaise import Status")


def test_each_command_has_its_function() -> None:
    commands = set(commands_of(make_parser())) - {"run", "demo", "completion"}
    assert set(dispatch._COMMANDS) == commands
    assert all(callable(dispatch._function_of(command)) for command in commands)
    assert set(PROFILE_FORMATS) == set(FORMATS)


def test_each_public_name_has_one_home_and_is_the_object_of_that_module() -> None:
    homes = [name for names in suitkaise._HOMES.values() for name in names.split()]
    assert sorted(homes) == sorted(set(suitkaise.__all__) - {"__version__"})
    assert suitkaise.Supervisor is suitkaise.Supervisor
    assert set(suitkaise.__all__) <= set(dir(suitkaise))


def test_type_checkers_are_told_the_home_of_each_public_name() -> None:
    source = ast.parse(Path(suitkaise.__file__).read_text())
    block = next(node for node in source.body if isinstance(node, ast.If))  # if TYPE_CHECKING
    told = {alias.name: node.module for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    homes = {name: home for home, names in suitkaise._HOMES.items() for name in names.split()}
    assert told == homes | dict.fromkeys(suitkaise._MODULES, "suitkaise")


def test_type_checkers_refuse_a_name_that_is_not_there(tmp_path: Path) -> None:
    program = """
    import suitkaise
    from suitkaise import Supervizor
    from suitkaise.pools import ProccessPool
    suitkaise.whereiss
    """
    assert [error.partition(";")[0] for error in mypy_errors(textwrap.dedent(program), tmp_path)] == [
        'Module "suitkaise" has no attribute "Supervizor"',
        'Module "suitkaise.pools" has no attribute "ProccessPool"',
        'Module has no attribute "whereiss"',
    ]


def test_the_modules_of_the_api_are_there_without_an_import_of_their_own() -> None:
    code = "import suitkaise; print(suitkaise.errors.SpecError, suitkaise.sktree, suitkaise.events.Event)"
    assert "suitkaise.sktree" in loaded(code)


@pytest.mark.parametrize(
    "name, hint",
    [
        ("ProcessPool", "use `from suitkaise.pools import ProcessPool`"),
        ("SKThread", "use `from suitkaise.skthreading import SKThread`"),
        ("ProcessSetup", "use `from suitkaise.xprocess import ProcessSetup`"),
        ("StorageFull", "use `from suitkaise.errors import StorageFull`"),
        ("ChildStarted", "use `from suitkaise.events import ChildStarted`"),
        ("Actor", "derive from Process or Thread"),
        ("AsyncProcess", "hooks of a Process or Thread may be `async def`"),
        ("ChildSpec", "use Child"),
        ("Queue", "workers send each other messages: ref.tell(message), ref.ask(message)"),
        ("create_thread", "use `from suitkaise.skthreading import create_thread`"),
    ],
)
def test_a_name_of_another_module_or_library_is_told_with_what_there_is(name: str, hint: str) -> None:
    with pytest.raises(ImportError) as refused:
        exec(f"from suitkaise import {name}")
    assert str(refused.value) == f"cannot import name {name!r} from 'suitkaise'; {hint}"
    with pytest.raises(AttributeError) as missing:
        getattr(suitkaise, name)
    assert str(missing.value) == f"module 'suitkaise' has no attribute {name!r}; {hint}"
    assert not hasattr(suitkaise, name)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match=r"module 'suitkaise' has no attribute 'Supervizor'"):
        _ = suitkaise.Supervizor  # type: ignore[attr-defined]
