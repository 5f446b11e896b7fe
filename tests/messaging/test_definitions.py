"""Which object of a process a class or function that was sent by value leads to."""

from __future__ import annotations

import gc
import sys
import textwrap
import weakref
from pathlib import Path
from typing import Any

import pytest

from suitkaise.messaging import codec, definitions
from tests.support import run_program

SCRIPT = """
import sys
from pathlib import Path
from suitkaise.messaging import codec

class Job:
    def __init__(self, number):
        self.number = number
        self.word = "{word}"

    def text(self):
        return self.word, self.number, "{word}"

file = Path("{file}")
if file.exists():
    job = codec.loads(file.read_bytes())
    print(type(job) is Job, *job.text())
else:
    file.write_bytes(codec.dumps(Job(3)))
"""


def where_it_arrives(code: str, expression: str) -> str:
    """Return what an expression is in another process, to which what it needs of `__main__` was sent."""
    sender = f"""
{textwrap.dedent(code)}
import sys
from suitkaise.messaging import codec
sys.stdout.write(codec.dumps(lambda: ({expression})).hex())
"""
    data = run_program(sender).check().stdout
    receiver = f"""
from suitkaise.messaging import codec
print(codec.loads(bytes.fromhex({data!r}))())
"""
    return run_program(receiver).check().stdout.strip()


def script(folder: Path, name: str, word: str) -> Path:
    path = folder / name
    path.write_text(SCRIPT.format(word=word, file=folder / "data"), encoding="utf-8")
    return path


def test_a_value_that_an_earlier_run_of_the_program_has_written_has_the_class_of_this_run(tmp_path: Path) -> None:
    run_program([sys.executable, str(script(tmp_path, "one.py", "first"))]).check()
    later = run_program([sys.executable, str(script(tmp_path, "one.py", "second"))]).check()
    assert later.stdout == "True first 3 second\n"


def test_a_value_of_another_program_keeps_its_own_class(tmp_path: Path) -> None:
    run_program([sys.executable, str(script(tmp_path, "one.py", "one"))]).check()
    other = run_program([sys.executable, str(script(tmp_path, "two.py", "two"))]).check()
    assert other.stdout == "False one 3 one\n"


def test_functions_of_another_program_share_their_globals_and_leave_those_of_this_one(tmp_path: Path) -> None:
    sender = """
    import sys
    from suitkaise.messaging import codec
    COUNT = 0
    def add():
        global COUNT
        COUNT += 1
    def count():
        return COUNT
    sys.stdout.write(codec.dumps(add).hex() + " " + codec.dumps(count).hex())
    """
    one, other = run_program(textwrap.dedent(sender)).check().stdout.split()
    receiver = f"""
    from suitkaise.messaging import codec
    COUNT = 7
    add, count = codec.loads(bytes.fromhex({one!r})), codec.loads(bytes.fromhex({other!r}))
    add()
    add()
    print(count(), COUNT)
    """
    assert run_program(textwrap.dedent(receiver)).check().stdout == "2 7\n"


def test_a_local_class_or_function_is_the_same_object_at_each_arrival() -> None:
    class Local: ...

    def local() -> type:
        return Local

    for _ in range(2):
        cls, function = codec.loads(codec.dumps((Local, local)))
        assert cls is Local
        assert function is local


def test_nothing_is_kept_of_a_local_function_that_is_gone() -> None:
    def make() -> Any:
        count = 0

        def function() -> int:
            return count

        return function

    function = make()
    key = definitions.key_of(function)
    codec.dumps(function)
    gone = weakref.ref(function)
    del function
    gc.collect()
    assert gone() is None
    assert definitions.known(key) is None
    assert key not in definitions._objects
    assert not [cell for cell in definitions._cells if cell.startswith(key)]
    assert key not in {entry[1] for entry in definitions._keys.values()}


def test_a_class_that_could_not_be_filled_is_filled_at_its_next_arrival() -> None:
    sender = """
    import sys, types
    from suitkaise.messaging import codec
    late = sys.modules["late"] = types.ModuleType("late")
    late.value = lambda: 3
    late.value.__module__, late.value.__qualname__ = "late", "value"
    from late import value
    class Job:
        def get(self): return value()
    sys.stdout.write(codec.dumps(Job()).hex())
    """
    data = run_program(textwrap.dedent(sender)).check().stdout
    receiver = f"""
    import sys, types
    from suitkaise.messaging import codec
    data = bytes.fromhex({data!r})
    try:
        codec.loads(data)
    except ModuleNotFoundError as error:
        print(error)
    late = sys.modules["late"] = types.ModuleType("late")
    late.value = lambda: 4
    print(codec.loads(data).get())
    """
    assert run_program(textwrap.dedent(receiver)).check().stdout == "No module named 'late'\n4\n"


@pytest.mark.parametrize(
    "bases, body",
    {
        "abc.ABC": "",
        "Mapping": "__getitem__ = __iter__ = __len__ = lambda self, *args: 0",
        "Generic[T]": "",
        "Protocol": "",
        "WithoutSlots": "",
        "WithSlots": "",
        "OnlyWeak": "",
        "WithoutSlots, dict": "",
        "Exception": "",
        "object": "",
        "object, metaclass=Registering": "",
    }.items(),
)
def test_a_subclass_of_a_class_that_registers_its_subclasses_arrives_whatever_the_bases_are(
    bases: str, body: str
) -> None:
    code = f"""
    import abc
    from collections.abc import Mapping
    from typing import Generic, Protocol, TypeVar
    T = TypeVar("T")
    class Registering(type): ...
    class WithoutSlots:
        __slots__ = ()
    class WithSlots(WithoutSlots):
        __slots__ = ("a", "_b")
    class OnlyWeak:
        __slots__ = ("__weakref__",)
    class Plugin({bases}):
        known = []
        def __init_subclass__(cls):
            super().__init_subclass__()
            Plugin.known.append(cls.__name__)
        {body}
    class Reader(Plugin): ...
    class FastReader(Reader):
        __slots__ = ("speed",)
    """
    expression = "Plugin.known, [cls.__name__ for cls in FastReader.__mro__][:3], type(FastReader()).__name__"
    assert where_it_arrives(code, expression) == (
        "(['Reader', 'FastReader'], ['FastReader', 'Reader', 'Plugin'], 'FastReader')"
    )
