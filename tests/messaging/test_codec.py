from __future__ import annotations

import collections
import dataclasses
import datetime
import decimal
import enum
import fractions
import functools
import operator
import re
import socket
import subprocess
import sys
import textwrap
import threading
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from suitkaise.errors import AskTimeout, NotSerializable, WorkerFailed, add_note
from suitkaise.exits import Crashed, GaveUp, Shutdown
from suitkaise.messaging import codec
from suitkaise.messaging.answer import Answer
from suitkaise.messaging.descriptor_codec import dumps_with_descriptors
from suitkaise.messaging.messages import Message, Payload, value_of
from suitkaise.workers.hooks import body_of
from tests.support import in_background

PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.complex_numbers(allow_nan=False)
    | st.text()
    | st.binary(),
    lambda inner: (
        st.lists(inner)
        | st.lists(inner).map(tuple)
        | st.dictionaries(st.text() | st.integers() | st.tuples(st.integers(), st.text()), inner)
        | st.sets(st.integers() | st.text())
        | st.frozensets(st.binary())
    ),
    max_leaves=20,
)


def same(value: Any, other: Any) -> bool:
    """Return whether two values are equal, with the same types at all levels."""
    if type(value) is not type(other):
        return False
    if isinstance(value, dict):
        return list(map(repr, value)) == list(map(repr, other)) and all(same(value[key], other[key]) for key in value)
    if isinstance(value, list | tuple):
        return len(value) == len(other) and all(map(same, value, other))
    return bool(value == other)


@given(PLAIN)
@settings(deadline=None, max_examples=150)
def test_plain_values_come_back_unchanged(value: Any) -> None:
    assert same(codec.loads(codec.dumps(value)), value)


class Colour(enum.Enum):
    RED = 1


class Point(NamedTuple):
    x: int
    y: int


@dataclasses.dataclass
class Job:
    name: str
    steps: list[int] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True, slots=True)
class Frozen:
    left: int
    right: tuple[int, ...]


class Slotted:
    __slots__ = ("a", "b")


class OddError(Exception):
    def __init__(self, code: int, *, where: str) -> None:
        super().__init__(f"code {code} at {where}")
        self.code = code
        self.where = where


class OddFileError(OSError):
    def __init__(self, path: str) -> None:
        super().__init__(2, "not there", path)
        self.wanted = path


@pytest.mark.parametrize(
    "value",
    [
        -(2**3000),
        float("inf"),
        bytearray(b"x"),
        Colour.RED,
        Point(1, 2),
        Job("a", [1, 2]),
        Frozen(1, (2, 3)),
        decimal.Decimal("1.10"),
        fractions.Fraction(1, 3),
        datetime.datetime(2024, 1, 2, tzinfo=datetime.UTC),
        uuid.UUID(int=7),
        Path("a/b"),
        re.compile("a+"),
        collections.OrderedDict(b=1, a=2),
        collections.Counter("aab"),
        collections.deque([1], maxlen=3),
        range(3),
        slice(1, 2),
        Ellipsis,
        int,
        Job,
        len,
        operator.add,
        [Colour.RED, {Point(0, 0): Job}],
    ],
    ids=repr,
)
def test_values_of_importable_types_come_back_equal_and_of_their_type(value: Any) -> None:
    back = codec.loads(codec.dumps(value))
    assert type(back) is type(value)
    assert back == value


def test_cycles_and_shared_parts_keep_their_shape() -> None:
    shared: list[Any] = []
    value: dict[str, Any] = {"a": shared, "b": shared}
    value["self"] = value
    back = codec.loads(codec.dumps(value))
    assert back["a"] is back["b"]
    assert back["self"] is back


def test_values_in_slots_come_back() -> None:
    value = Slotted()
    value.a = [1]
    back = codec.loads(codec.dumps(value))
    assert back.a == [1]
    assert not hasattr(back, "b")


def test_an_exception_with_its_own_constructor_comes_back_exactly() -> None:
    error = OddError(3, where="here")
    error.add_note("a note")
    back = codec.loads(codec.dumps({"error": error}))["error"]
    assert type(back) is OddError
    assert (back.args, back.code, back.where, back.__notes__) == (error.args, 3, "here", ["a note"])


class Reserved(ValueError):
    __slots__ = ("__private", "count", "unset")

    def __init__(self, count: int, *, private: str) -> None:
        super().__init__(f"{count} is too much")
        self.count = count
        self.__private = private

    @property
    def private(self) -> str:
        return self.__private


class ReservedToo(Reserved):
    """Has a `__dict__`, too."""


@dataclasses.dataclass(frozen=True, slots=True)
class Declared(Exception):
    code: int
    why: str = "unknown"


def test_what_exceptions_hold_in_slots_comes_back() -> None:
    error = ReservedToo(3, private="secret")
    error.other = [1]  # type: ignore[attr-defined]
    error.add_note("a note")
    back = codec.loads(codec.dumps(error))
    assert (type(back), back.args, back.count, back.private) == (ReservedToo, error.args, 3, "secret")
    assert (vars(back), hasattr(back, "unset")) == ({"other": [1], "__notes__": ["a note"]}, False)
    declared = codec.loads(codec.dumps(Declared(code=4)))
    assert (declared, declared.why) == (Declared(4), "unknown")


def rebuilt_frozen(code: int) -> FrozenWithItsOwnWay:
    return FrozenWithItsOwnWay(code)


@dataclasses.dataclass(frozen=True)
class FrozenError(Exception):
    code: int


@dataclasses.dataclass(frozen=True)
class FrozenWithItsOwnWay(Exception):
    code: int

    def __reduce__(self) -> Any:
        return rebuilt_frozen, (self.code,)


class FrozenByHand(Exception):
    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{name} cannot be set")

    @property
    def code(self) -> Any:
        return self.args[0]


@pytest.mark.parametrize("kind", [FrozenError, FrozenWithItsOwnWay, Declared, FrozenByHand])
def test_an_exception_that_is_a_frozen_dataclass_comes_back_with_its_notes(kind: Any) -> None:
    error = kind(4)
    add_note(error, "a note")
    back = codec.loads(codec.dumps(error))
    assert (type(back), back.code, back.__notes__) == (kind, 4, ["a note"])


class Delegating(Exception):
    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(f"there is no {name} yet")


def test_an_exception_whose_attributes_cannot_be_read_can_be_sent() -> None:
    back = codec.loads(codec.dumps_error(Delegating("a text")))
    assert (type(back), back.args) == (Delegating, ("a text",))


def test_exceptions_that_keep_their_attributes_in_c_come_back_exactly() -> None:
    missing = codec.loads(codec.dumps(OddFileError("some/file")))
    assert (missing.errno, missing.filename, missing.wanted) == (2, "some/file", "some/file")
    decode = codec.loads(codec.dumps(UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad")))
    assert (decode.object, decode.start) == (b"\xff", 0)
    group = codec.loads(codec.dumps(ExceptionGroup("both", [ValueError(1), OddError(2, where="x")])))
    assert [type(error) for error in group.exceptions] == [ValueError, OddError]
    ours = codec.loads(codec.dumps(AskTimeout("too late", path="a/b")))
    assert (str(ours), ours.path) == ("too late", "a/b")


def test_classes_and_functions_of_a_function_are_sent_by_value() -> None:
    factor = 3

    class Local:
        def __init__(self, number: int) -> None:
            self.number = number

        def times(self) -> int:
            return self.number * factor

    back = codec.loads(codec.dumps([Local(2), lambda number: number + factor]))
    assert type(back[0]) is Local
    assert (back[0].times(), back[1](4)) == (6, 7)


def test_code_that_is_sent_by_value_keeps_its_file_name() -> None:
    def outer() -> Any:
        def inner() -> None: ...

        return inner

    class Local:
        def method(self) -> None: ...

    again, local = codec.loads(codec.dumps(outer)), codec.loads(codec.dumps(Local))
    for code in (again.__code__, again().__code__, local.method.__code__):
        assert code.co_filename == __file__
    assert again.__code__ == outer.__code__


def test_classes_and_functions_of_main_arrive_in_a_process_with_another_main() -> None:
    sender = """
        import dataclasses, sys
        from suitkaise.messaging import codec
        LIMIT = 5
        @dataclasses.dataclass
        class Task:
            name: str
            def over(self, number): return number > LIMIT
        class Broken(Exception):
            def __init__(self, task): super().__init__(f"{task.name} is broken"); self.task = task
        def double(number): return number * 2
        value = {"task": Task("a"), "double": double, "error": Broken(Task("b"))}
        sys.stdout.buffer.write(codec.dumps(value))
    """
    receiver = """
        import sys
        from suitkaise.messaging import codec
        value = codec.loads(sys.stdin.buffer.read())
        assert value["task"].over(6) and not value["task"].over(5)
        assert value["double"](4) == 8
        assert str(value["error"]) == "b is broken" and value["error"].task == type(value["task"])("b")
    """
    data = subprocess.run([sys.executable, "-c", textwrap.dedent(sender)], stdout=subprocess.PIPE, check=True).stdout
    subprocess.run([sys.executable, "-c", textwrap.dedent(receiver)], input=data, check=True)


class Holder:
    def __init__(self, **attributes: Any) -> None:
        self.__dict__.update(attributes)


class Stateful:
    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def __getstate__(self) -> dict[str, Any]:
        return {"sent": self.inner}


class Reduced:
    """It is made by a function of what its attributes hold."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def __reduce__(self) -> Any:
        return _made, ("a name", self.inner)


def _made(name: str, inner: Any) -> Reduced:
    return Reduced(inner)


class Refuses:
    def __reduce__(self) -> Any:
        raise RuntimeError("not today")


def with_slots(lock: Any) -> Slotted:
    value = Slotted()
    value.a = lock
    return value


def closure_over(lock: Any) -> Any:
    return lambda: lock


def tree_with_parent_links(lock: Any) -> Any:
    root = Holder()
    root.children = [Holder(parent=root), Holder(parent=root)]
    root.lock = lock
    return root


@pytest.mark.parametrize(
    "make, path",
    [
        (lambda lock: lock, "value"),
        (lambda lock: {"jobs": [1, 2, 3, Holder(lock=lock)]}, "value['jobs'][3].lock"),
        (lambda lock: (1, [lock]), "value[1][0]"),
        (lambda lock: {lock}, "list(value)[0]"),
        (lambda lock: {"a": {lock: 1}}, "list(value['a'])[0]"),
        (lambda lock: Job("a", [lock]), "value.steps[0]"),
        (lambda lock: Frozen(1, (lock,)), "value.right[0]"),
        (with_slots, "value.a"),
        (lambda lock: Point(1, lock), "value.y"),
        (closure_over, "value.__closure__['lock']"),
        (lambda lock: functools.partial(print, 1, end=lock), "value.keywords['end']"),
        (lambda lock: functools.partial(closure_over(lock)), "value.func.__closure__['lock']"),
        (lambda lock: Stateful(lock), "value.sent"),
        (lambda lock: Reduced({"a": lock}), "value.inner['a']"),
        (lambda lock: collections.deque([1, lock]), "value[1]"),
        (lambda lock: collections.OrderedDict(a=lock), "value['a']"),
        (lambda lock: ValueError("x", lock), "value.args[1]"),
        (lambda lock: Holder(lock=lock).__init__, "value.__self__.lock"),
        (tree_with_parent_links, "value.lock"),
    ],
)
def test_the_error_names_the_path_to_the_culprit(make: Any, path: str) -> None:
    with pytest.raises(NotSerializable) as caught:
        codec.dumps(make(threading.Lock()))
    assert str(caught.value).startswith(f"{path}: cannot pickle '_thread.lock' object")
    assert caught.value.path == path


def test_the_caller_gives_the_first_word_of_the_path() -> None:
    with pytest.raises(NotSerializable, match=r"^message\.steps\[0\]: "):
        codec.dumps(Job("a", [threading.Lock()]), root="message")


def test_the_error_about_a_coroutine_or_a_generator_tells_what_to_send() -> None:
    async def later() -> int:
        return 5

    coroutine = later()
    with pytest.raises(NotSerializable, match=r"cannot pickle 'coroutine' .*an `await` forgotten, before later\(\)\?"):
        codec.dumps([coroutine])
    coroutine.close()
    with pytest.raises(NotSerializable, match="make a list or a tuple of what it yields"):
        codec.dumps(number for number in range(3))


def test_the_error_holds_the_text_of_an_object_that_refuses_to_be_pickled() -> None:
    with pytest.raises(NotSerializable, match=r"^value\[0\]: cannot pickle 'Refuses' object: RuntimeError: not today"):
        codec.dumps([Refuses()])


@pytest.mark.parametrize("encode", [codec.dumps, codec.dumps_in_pieces, dumps_with_descriptors])
def test_a_refused_value_is_told_with_the_error_of_its_culprit_alone(encode: Callable[[object], object]) -> None:
    with pytest.raises(NotSerializable) as caught:
        try:
            raise KeyError("what the caller handles")
        except KeyError:
            encode({"jobs": [1, {"lock": threading.Lock()}]})
    cause = caught.value.__cause__
    assert isinstance(cause, TypeError)
    assert isinstance(cause.__context__, KeyError)  # and none of the errors of the other parts that were tried


def test_a_lock_in_a_global_that_a_local_function_uses_is_found() -> None:
    program = """
        import threading
        from suitkaise.messaging import codec
        from suitkaise.errors import NotSerializable
        guard = threading.Lock()
        def work():
            with guard: pass
        try:
            codec.dumps({"work": work})
        except NotSerializable as error:
            print(error.path)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "value['work'].__globals__['guard']"


def test_the_error_about_the_code_of_a_program_tells_how_to_use_it_by_way_of_a_module() -> None:
    program = """
        import threading
        from logging import lastResort as last
        from suitkaise.messaging import codec
        from suitkaise.errors import NotSerializable
        class Row:
            guard = threading.Lock()
        own = threading.Lock()
        def log():
            last.emit(None)
        def work():
            log()
        def make():
            Row()
        def wait():
            own.acquire()
        for value in (work, make, [Row()], wait):
            try:
                codec.dumps(value)
            except NotSerializable as error:
                print(str(error).replace(" cannot pickle ", "").replace(" object", ""))
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, check=True)
    by_name = "use `logging.lastResort`, after `import logging`: each process then has its own"
    assert done.stdout.splitlines() == [
        f"value.__globals__['log'].__globals__['last'].lock:'_thread.RLock'; {by_name}",
        "value.__globals__['Row'].guard:'_thread.lock'; put 'Row' into a module, which each process imports",
        "type(value[0]).guard:'_thread.lock'; put 'Row' into a module, which each process imports",
        "value.__globals__['own']:'_thread.lock'; make it where it is used, or leave it out in __getstate__",
    ]


def test_an_open_file_is_refused_and_not_copied() -> None:
    with Path(__file__).open() as file, pytest.raises(NotSerializable, match=r"^value\.file: cannot pickle"):
        codec.dumps(Holder(file=file))


def test_a_value_that_is_nested_too_deep_is_a_clear_error() -> None:
    value: list[Any] = []
    for _ in range(100_000):
        value = [value]
    with pytest.raises(NotSerializable, match="deep"):
        codec.dumps({"a": value})
    while value:  # taken apart by hand: letting go of it at once is deep, too
        value = value.pop()


def test_a_wide_value_with_a_culprit_is_searched_within_bounds() -> None:
    with pytest.raises(NotSerializable, match=r"^value: |^value\["):
        codec.dumps([*map(list, [[]] * 20_000), threading.Lock()])


def test_a_refused_value_does_not_change_the_codec() -> None:
    for _ in range(40):
        with pytest.raises(NotSerializable):
            codec.dumps({"a": "b" * 100, "lock": threading.Lock()})
        assert codec.loads(codec.dumps(["a", 1])) == ["a", 1]


def test_dumps_may_be_called_while_dumping() -> None:
    class Nested:
        def __reduce__(self) -> Any:
            return codec.loads, (codec.dumps({"inner": [1, 2]}),)

    assert codec.loads(codec.dumps([Nested(), Nested()])) == [{"inner": [1, 2]}] * 2


def test_threads_share_the_codec() -> None:
    wrong: list[Any] = []

    def work(number: int) -> None:
        for index in range(2_000):
            value = {"number": number, "index": index, "words": ["x" * (index % 50)]}
            if codec.loads(codec.dumps(value)) != value:
                wrong.append(value)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_dumps_refuses_a_socket() -> None:
    with (
        socket.socket() as sock,
        pytest.raises(NotSerializable, match=r"^value\['a'\]: cannot pickle 'socket'"),
    ):
        codec.dumps({"a": sock})


def test_the_error_of_a_crash_comes_back_and_is_decoded_once() -> None:
    sent = Crashed("loop", ValueError("no", 7), "Traceback")
    came = codec.loads(codec.dumps(Shutdown(GaveUp("app", sent, 3, 5.0)))).detail.reason
    assert (came.phase, came.traceback, str(came)) == ("loop", "Traceback", str(sent))
    assert repr(came) == repr(sent)
    assert came.error.args == ("no", 7)
    assert came.error is came.error
    match came:
        case Crashed("loop", ValueError(args=("no", 7)), "Traceback"):
            pass
        case _:
            pytest.fail(f"not matched: {came!r}")


def test_a_crash_is_passed_on_without_the_class_of_its_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "heavy.py").write_text("class HeavyError(Exception): pass")
    monkeypatch.syspath_prepend(tmp_path)
    import heavy  # type: ignore[import-not-found]

    data = codec.dumps(Crashed("loop", heavy.HeavyError("out of memory")))
    monkeypatch.delitem(sys.modules, "heavy")
    passed_on = codec.dumps(codec.loads(data))
    came = codec.loads(passed_on)
    assert str(came) == "HeavyError in loop: out of memory"
    assert "heavy" not in sys.modules
    assert type(came.error).__name__ == "HeavyError"
    assert "heavy" in sys.modules


def test_the_error_of_a_crash_whose_class_cannot_be_imported_keeps_its_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere.py").write_text("class OurError(Exception): pass")
    monkeypatch.syspath_prepend(tmp_path)
    import elsewhere  # type: ignore[import-not-found]

    came = codec.loads(codec.dumps(Crashed("loop", elsewhere.OurError("no"), "Traceback")))
    monkeypatch.delitem(sys.modules, "elsewhere")
    (tmp_path / "elsewhere.py").unlink()
    assert isinstance(came.error, WorkerFailed)
    assert str(came.error).startswith("OurError in loop: no (the error cannot be decoded here: ModuleNotFoundError(")
    assert came.error.traceback == "Traceback"
    with pytest.raises(AttributeError, match="'Crashed' object has no attribute 'eror'"):
        came.eror  # noqa: B018


def test_threads_that_decode_the_error_of_a_crash_at_once_get_the_same_one() -> None:
    both = threading.Barrier(2)

    def decode() -> BaseException:
        both.wait(10)
        return ValueError("decoded")

    crashed = Crashed.undecoded("loop", "", "ValueError in loop: decoded", decode)
    reading = in_background(lambda: crashed.error)
    assert crashed.error is reading.result(10)
    assert crashed.error is reading.result(10)


# ------------------------------------------------------------ signal handlers
class Alarmed:
    """A value in whose first encoding, or decoding, an alarm raises, as it may between any two bytecodes."""

    def __init__(self, where: str, number: int = 0) -> None:
        self.where = where
        self.number = number
        self.alarms = [1]

    def _ring(self, where: str) -> None:
        if self.where == where and self.alarms:
            self.alarms.pop()
            raise TimeoutError("of an alarm")

    def __getstate__(self) -> Any:
        self._ring("encoding")
        return self.where, self.number

    def __setstate__(self, state: Any) -> None:
        self.where, self.number = state
        self.alarms = _alarms_of_decoding
        self._ring("decoding")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Alarmed) and self.number == other.number


_alarms_of_decoding: list[int] = []


@pytest.mark.parametrize("encode", [codec.dumps, codec.dumps_apart, codec.dumps_in_pieces, dumps_with_descriptors])
@pytest.mark.parametrize("deep", [False, True])
def test_what_an_alarm_raises_while_a_value_is_encoded_is_raised(encode: Any, deep: bool) -> None:
    alarmed = Alarmed("encoding", 7)
    value = {"key": (alarmed, lambda: None)} if deep else alarmed
    with pytest.raises(TimeoutError, match="of an alarm"):
        encode(value)
    decoded = codec.loads(codec.dumps(value))
    assert (decoded["key"][0] if deep else decoded) == alarmed


def test_what_an_alarm_raises_while_an_answer_or_a_message_is_decoded_is_raised_and_the_value_is_not_lost() -> None:
    data = codec.dumps(Alarmed("decoding", 7))
    answer: Answer[Any] = Answer()
    answer.settle(True, Payload(data=data))
    message = Message("message", Payload(data=data))
    for decode in (
        lambda: value_of(True, Payload(data=data)),
        lambda: answer.get(0.0),
        lambda: body_of(message, "app/worker"),
    ):
        _alarms_of_decoding.append(1)
        with pytest.raises(TimeoutError, match="of an alarm"):
            decode()
        assert decode() == Alarmed("decoding", 7)
