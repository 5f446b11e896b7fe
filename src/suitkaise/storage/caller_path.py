"""The default path of a caller in the tree: the path of its file in its project, without the suffix.

The project's root is the nearest folder above the file with a `pyproject.toml`, `setup.py`, `setup.cfg` or
`.git`, else the folder of the main script. Code that is in no file (a notebook's cell, the interactive
prompt, `python -c`, `exec`) has the path `__main__`. So has a call that no file of the user's makes: that of a thread
or of a task of a pool, whose function is the method itself.
"""

from __future__ import annotations

import functools
import os
import sys
from pathlib import Path
from types import FrameType

__all__ = ["caller_path", "path_of_file"]

MAIN = "__main__"
"""The path of code that is in no file."""

_MARKERS = ("pyproject.toml", "setup.py", "setup.cfg", ".git")
_OURSELVES = str(Path(__file__).resolve().parent.parent) + os.sep
_STANDARD = os.path.dirname(os.__file__) + os.sep
_PACKAGES = ("site-packages", "dist-packages")  # may lie in the folder of the standard library


def caller_path() -> str:
    """Return the path of the first caller that is the user's; called by a public function of this package.

    Neither this package is the user's, nor the standard library and Pykka, which call what they are given.
    It costs about one dict access for each frame: the path of each file is cached.
    """
    frame: FrameType | None = sys._getframe(2)
    while frame is not None:
        path = _path_of_user(frame.f_code.co_filename)
        if path is not None:
            return path
        frame = frame.f_back
    return MAIN


@functools.lru_cache(maxsize=4096)
def _path_of_user(filename: str) -> str | None:
    """Return the path of code that was compiled from `filename`; None for files that are not the user's."""
    if filename.startswith(_STANDARD) and not filename.removeprefix(_STANDARD).startswith(_PACKAGES):
        return None
    pykka = getattr(sys.modules.get("pykka"), "__file__", None)
    if pykka is not None and filename.startswith(os.path.dirname(pykka) + os.sep):
        return None
    return path_of_file(filename)


@functools.lru_cache(maxsize=4096)
def path_of_file(filename: str) -> str | None:
    """Return the path of code that was compiled from `filename`; None for this package's own files.

    >>> path_of_file("<stdin>")
    '__main__'
    """
    if filename.startswith("<") or not filename:
        return None if filename.startswith("<frozen ") else MAIN
    file = Path(os.path.abspath(filename))
    if str(file).startswith(_OURSELVES) or str(file.resolve()).startswith(_OURSELVES):
        return None
    if not os.path.isfile(file):  # a notebook's cell, for example, whose name only looks like a file's
        return MAIN
    root = project_root(file)
    if not file.is_relative_to(root):
        return file.with_suffix("").as_posix().strip("/")
    return file.relative_to(root).with_suffix("").as_posix()


def project_root(file: Path) -> Path:
    """Return the root of the project that contains `file`."""
    return _marked_root(file.parent) or _main_folder()


@functools.lru_cache(maxsize=1024)
def _marked_root(folder: Path) -> Path | None:
    for candidate in (folder, *folder.parents):
        if any(os.path.exists(candidate / marker) for marker in _MARKERS):
            return candidate
    return None


def _main_folder() -> Path:
    """Use `sys.argv`, which a worker's process inherits from its program, unlike `__main__`."""
    main = sys.argv[0] if sys.argv else ""
    return Path(os.path.abspath(main)).parent if main and main != "-c" else Path.cwd()
