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


def test_functions_that_exec_has_made_keep_globals_of_their_own_and_share_them() -> None:
    code = """
    MADE = "def rate(): return RATE\\ndef set_rate(value):\\n  global RATE\\n  RATE = value"
    def made(**scope):
        exec(MADE, scope)
        return scope["rate"], scope["set_rate"]
    rate, set_rate = made(RATE=2, __name__="__main__")
    other, _ = made(RATE=3)
    RATE = 1
    """
    assert where_it_arrives(code, "set_rate(5), rate(), other(), RATE") == "(None, 5, 3, 1)"


def test_nothing_is_kept_of_a_function_that_exec_has_made_and_that_is_gone() -> None:
    scope: dict[str, Any] = {"RATE": 2}
    exec("def rate(): return RATE", scope)
    codec.dumps(scope["rate"])
    assert id(scope) in definitions._scope_keys
    number, gone = id(scope), weakref.ref(scope["rate"])
    scope.clear()
    gc.collect()
    assert gone() is None
    assert number not in definitions._scope_keys


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


def test_a_class_arrives_with_its_attributes_in_the_order_of_its_definition() -> None:
    code = """
    class Table:
        number = 1
        date = 2
        def total(self): ...
        amount = 3
    """
    expression = "[name for name in vars(Table) if not name.startswith('_')]"
    assert where_it_arrives(code, expression) == "['number', 'date', 'total', 'amount']"


def test_an_attribute_that_a_class_sets_to_the_value_of_its_base_counts_where_it_arrives() -> None:
    code = """
    class Base:
        level = __version__ = 1
    class Low(Base):
        level = __version__ = 1
    class High(Base):
        level = __version__ = 2
    class Both(Low, High): ...
    """
    assert where_it_arrives(code, "Both.level, Both.__version__") == "(1, 1)"


def test_an_attribute_that_has_the_name_of_one_of_all_classes_or_of_its_metaclass_arrives() -> None:
    code = """
    class Kind(type):
        @property
        def table(cls):
            return "of the metaclass"
    class Proxy(metaclass=Kind):
        table = 5
        __bases__ = "none"
        @property
        def __name__(self):
            return "its own"
        @property
        def __class__(self):
            return Special
    class Special(Proxy): ...
    """
    expression = "(p := Proxy()).table, p.__bases__, p.__name__, isinstance(p, Special), Proxy.table, Proxy.__name__"
    assert where_it_arrives(code, expression) == "(5, 'none', 'its own', True, 'of the metaclass', 'Proxy')"


def test_a_dataclass_can_be_extended_where_it_arrives() -> None:
    code = """
    import inspect
    from dataclasses import KW_ONLY, dataclass, field
    @dataclass
    class Job:
        name: str
        steps: list = field(default_factory=list)
        mark: KW_ONLY
        urgent: bool = False
    def extended():
        @dataclass
        class Late(Job):
            until: int = 3
        return inspect.signature(Late)
    """
    expected = "(name: str, steps: list = <factory>, until: int = 3, *, urgent: bool = False) -> None"
    assert where_it_arrives(code, "extended()") == expected


@pytest.mark.skipif(sys.version_info < (3, 12), reason="the syntax of Python 3.12")
def test_a_type_that_names_itself_arrives() -> None:
    code = """
    from dataclasses import dataclass
    from typing import get_type_hints
    type Json = dict[str, Json] | list[Json] | str
    @dataclass
    class Job:
        data: Json
    """
    expression = "Json.__value__, Json.__value__.__args__[1].__args__[0] is Json, get_type_hints(Job), Json.__module__"
    expected = "(dict[str, Json] | list[Json] | str, True, {'data': Json}, '__main__')"
    assert where_it_arrives(code, expression).replace("__main__.Json", "Json") == expected  # so from Python 3.15 on


@pytest.mark.skipif(sys.version_info < (3, 15), reason="`sentinel` is of Python 3.15")
def test_a_sentinel_arrives_as_one_object_whoever_has_made_it() -> None:
    code = """
    from dataclasses import MISSING
    NOTHING = sentinel("NOTHING", repr="<nothing>")
    def check(value=NOTHING):
        return value is NOTHING
    sent = [NOTHING, NOTHING, check, MISSING]
    """
    expression = (
        "sent[0] is sent[1], sent[2](), sent[2](sent[0]), sent[0], sent[3] is __import__('dataclasses').MISSING"
    )
    assert where_it_arrives(code, expression) == "(True, True, True, <nothing>, True)"


ENUMS = """
import abc, datetime, enum, functools
class Planet(enum.Enum):
    def __init__(self, mass, radius):
        self.mass = mass
        self.radius = radius
    EARTH = 6, 2
    HOME = 6, 2
    @property
    def density(self):
        return self.mass / self.radius
Planet._value2member_map_["blue"] = Planet.EARTH
class Country(str, enum.Enum):
    def __new__(cls, code, prefix):
        self = str.__new__(cls, code.upper())
        self._value_ = code
        self.prefix = prefix
        return self
    ITALY = "it", 39
class Mode(enum.Flag):
    NONE = 0
    WRITE = 2
    READ = 1
    BOTH = 3
class Kept(enum.IntFlag, boundary=enum.STRICT):
    ONE = 1
class Day(datetime.date, enum.Enum):
    FIRST = 2026, 1, 1
class Pair(tuple, enum.Enum):
    ONE = 1, 2
class Items(list, enum.Enum):
    ONE = [1, 2]
class Step(enum.Enum):
    def next(self):
        return NEXT[self]
    ONE = enum.member(functools.partial(lambda step: step.next(), "x"))
    @enum.member
    def two():
        return Step.ONE
NEXT = {Step.ONE: Step.two}
class Loose(enum.EnumMeta):
    def __getitem__(cls, name):
        return super().__getitem__(name.upper())
class Word(enum.Enum, metaclass=Loose):
    YES = 1
class Both(abc.ABCMeta, enum.EnumMeta): ...
class Abstract(abc.ABC):
    @abc.abstractmethod
    def get(self): ...
class Concrete(Abstract, enum.Enum, metaclass=Both):
    ONE = 1
    def get(self):
        return self.value
class Registering(enum.Enum):
    def __init_subclass__(cls):
        KNOWN.append(cls.__name__)
    @staticmethod
    def _generate_next_value_(name, start, count, last):
        return name * 2
KNOWN = []
class Registered(Registering):
    A = enum.auto()
"""


@pytest.mark.parametrize(
    "expression, expected",
    {
        "Planet.EARTH.density, Planet['HOME'] is Planet.EARTH, Planet('blue').name": "(3.0, True, 'EARTH')",
        "Country('it').prefix, Country.ITALY.lower(), repr(Country.ITALY)": "(39, 'it', \"<Country.ITALY: 'it'>\")",
        "[*Mode.__members__], [*Mode], Mode(3).name, bool(Mode.NONE)": (
            "(['NONE', 'WRITE', 'READ', 'BOTH'], [<Mode.WRITE: 2>, <Mode.READ: 1>], 'BOTH', False)"
        ),
        "str(~Mode.READ), Mode.READ | Mode.WRITE is Mode.BOTH, Kept._boundary_.name": "('Mode.WRITE', True, 'STRICT')",
        "Day.FIRST.year, Day.FIRST < datetime.date.max, Pair.ONE[1], Items.ONE[1]": "(2026, True, 2, 2)",
        "Step.ONE.next().name, Step.two.value(), Step.ONE.value.args": "('two', <Step.ONE: ",
        "Word['yes'].name, Concrete.ONE.get(), isinstance(Concrete.ONE, Abstract)": "('YES', 1, True)",
        "KNOWN, Registered.A.value, [one.value for one in Registering('More', 'B')]": (
            "(['Registered', 'More'], 'AA', ['BB'])"
        ),
    }.items(),
)
def test_an_enum_arrives_with_all_names_values_and_attributes_of_its_members(expression: str, expected: str) -> None:
    assert where_it_arrives(ENUMS, expression).startswith(expected)


def test_a_class_whose_module_is_no_name_is_left_to_pickle() -> None:
    odd = type("Odd", (), {"__module__": 5})
    assert not definitions.may_be_by_value(odd)
    assert not definitions.is_module_by_value(5)
    assert definitions.is_module_by_value(None)
