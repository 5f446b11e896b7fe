from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from suitkaise.storage import caller_path
from tests.support import run_program

PRINT_PATH = """
import sys
from suitkaise.storage import caller_path
print(caller_path.path_of_file(sys._getframe().f_code.co_filename))
"""


def run(file: Path, *args: str, cwd: Path | None = None) -> str:
    done = subprocess.run([sys.executable, str(file), *args], capture_output=True, text=True, check=True, cwd=cwd)
    return done.stdout.strip()


def script(folder: Path, name: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / name
    file.write_text(PRINT_PATH)
    return file


def test_a_file_that_cannot_be_looked_at_is_none() -> None:
    assert caller_path.path_of_file(f"/{'long' * 100}.py") == caller_path.MAIN


@pytest.mark.parametrize("marker", ["pyproject.toml", "setup.py", "setup.cfg", ".git"])
def test_the_path_is_relative_to_the_nearest_marked_folder(tmp_path: Path, marker: str) -> None:
    (tmp_path / marker).touch()
    assert run(script(tmp_path / "ui" / "parts", "main.py")) == "ui/parts/main"
    (tmp_path / "ui" / "setup.py").touch()
    assert run(script(tmp_path / "ui" / "parts", "main.py")) == "parts/main"


def test_without_a_marked_folder_the_path_is_relative_to_the_folder_of_the_main_script(tmp_path: Path) -> None:
    if any((folder / marker).exists() for folder in tmp_path.parents for marker in caller_path._MARKERS):
        pytest.skip("the temporary folder is in a project")
    main = tmp_path / "app" / "main.py"
    script(tmp_path / "app" / "lib", "part.py")
    main.write_text("import sys; sys.path.insert(0, sys.argv[1]); import part")
    assert run(main, str(tmp_path / "app" / "lib")) == "lib/part"
    assert run(Path("main.py"), str(tmp_path / "app" / "lib"), cwd=main.parent) == "lib/part"
    outside = script(tmp_path / "elsewhere", "other.py")
    main.write_text(f"import sys; sys.path.insert(0, {str(outside.parent)!r}); import other")
    assert run(main) == str(outside.with_suffix("")).strip("/")


def test_code_that_is_in_no_file_has_the_path_main() -> None:
    for filename in ("<stdin>", "<string>", "<ipython-input-1-abc>", "/tmp/ipykernel_12/345.py", ""):
        assert caller_path.path_of_file(filename) == "__main__"
    done = subprocess.run([sys.executable, "-c", PRINT_PATH], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "__main__"


def test_frames_of_the_package_itself_are_skipped() -> None:
    assert caller_path.path_of_file(caller_path.__file__) is None

    def public() -> str:
        return caller_path.caller_path()

    assert public() == "tests/storage/test_caller_path"
    scope: dict[str, object] = {"caller_path": caller_path}
    exec(compile("def inner(): return caller_path.caller_path()", caller_path.__file__, "exec"), scope)
    exec(compile("def outer(): return inner()", caller_path.__file__, "exec"), scope)
    assert scope["outer"]() == "tests/storage/test_caller_path"  # type: ignore[operator]


def test_frames_of_the_standard_library_are_skipped() -> None:
    scope: dict[str, Callable[[], str]] = {"caller_path": caller_path.caller_path}
    exec(compile("def public(): return caller_path()", caller_path.__file__, "exec"), scope)
    exec(compile("def standard(): return public()", contextlib.__file__, "exec"), scope)
    exec(
        compile("def package(): return public()", f"{Path(contextlib.__file__).parent}/site-packages/a.py", "exec"),
        scope,
    )
    assert scope["standard"]() == "tests/storage/test_caller_path"
    assert scope["package"]() != "tests/storage/test_caller_path"


def test_a_call_by_no_file_of_the_users_has_the_path_main() -> None:
    """A thread, a task of a pool and a worker call what they are given; Pykka and the standard library call them."""
    done = run_program("""
import asyncio, contextlib, threading
from suitkaise import sktree, skthreading
from suitkaise.pools import ProcessPool, ThreadPool

tree = sktree.connect()
thread = threading.Thread(target=tree.add, args=("thread", 1))
thread.start()
thread.join()
for kind in (ThreadPool, ProcessPool):
    with kind(1) as pool:
        pool.submit(tree.add, kind.__name__, 1).result(20)
skthreading.create_thread("worker", tree.add, args=("worker", 1)).join(20)
skthreading.shutdown()
print(tree.containers(), *tree.get_all_from("__main__"))
with contextlib.ExitStack() as end:
    end.callback(tree.add, "callback", 1)
print(tree.get("callback"), len(tree.containers()))
sktree.disconnect()
""").check()
    assert done.stdout.splitlines() == ["['__main__'] ProcessPool ThreadPool thread worker", "1 2"]


def test_a_symbolic_link_has_the_path_of_the_link(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").touch()
    real = script(tmp_path / "real", "main.py")
    (tmp_path / "link.py").symlink_to(real)
    assert run(tmp_path / "link.py") == "link"
