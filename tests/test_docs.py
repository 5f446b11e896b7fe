"""What the documentation shows is run as it stands there, where it says so (see `snippets.py`)."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

from suitkaise.cli.completion import commands_of
from suitkaise.cli.parser import make_parser
from tests.sessions import commands, first_difference
from tests.snippets import Snippet, check_output, promises, run_snippet, snippets
from tests.support import ROOT

PAGES = [page for page in sorted(ROOT.glob("docs/**/*.md")) if "_build" not in page.parts]
BLOCKS = [block for page in PAGES for block in snippets(page)]
RUNNABLE = [block for block in BLOCKS if block.runs]
NONE_YET = pytest.param(None, marks=pytest.mark.skip(reason="docs/ holds no block to run yet"), id="none")


def without_code(page: Path) -> str:
    return re.sub(r"^```.*?^```|`[^`]*`", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


@pytest.mark.example
@pytest.mark.parametrize("block", RUNNABLE or [NONE_YET], ids=lambda block: block.id)
def test_a_block_of_the_documentation_runs_and_prints_what_it_promises(block: Snippet, tmp_path: Path) -> None:
    run_snippet(block, tmp_path)


# --- how snippets are found and judged -----------------------------------------------------------------

PAGE = """\
Text.

```python
not_run
```

<!-- run -->
```python
# helper.py
answer = 42
```

<!-- run: python app.py more; stop -->

```python
# app.py
import helper, signal, sys
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
print("I am", sys.argv[1])
print("and it is", helper.answer)
signal.pause()
# prints: I am more
# prints: it is 42
```
"""


@pytest.fixture
def page(tmp_path: Path) -> Path:
    page = tmp_path / "page.md"
    page.write_text(PAGE)
    return page


def test_a_block_runs_only_below_a_run_comment(page: Path) -> None:
    assert [(block.runs, block.name, block.line) for block in snippets(page)] == [
        (False, None, 4),
        (True, "helper.py", 9),
        (True, "app.py", 16),
    ]


def test_a_block_finds_the_files_above_it_and_is_stopped_once_it_has_printed_all(page: Path, tmp_path: Path) -> None:
    run_snippet(snippets(page)[2], tmp_path)


def test_a_block_that_fails_is_reported_with_its_output(page: Path, tmp_path: Path) -> None:
    page.write_text("<!-- run -->\n```python\nraise SystemExit('no fuel')\n```\n")
    with pytest.raises(AssertionError, match=r"page\.md:3 ended with 1[\s\S]*no fuel"):
        run_snippet(snippets(page)[0], tmp_path)


def test_an_unknown_word_in_the_comment_is_an_error(page: Path) -> None:
    page.write_text("<!-- run: python; slowly -->\n```python\npass\n```\n")
    with pytest.raises(ValueError, match="slowly"):
        snippets(page)


def test_promised_lines_must_be_printed_in_order() -> None:
    code = "x = 1\n# prints: one\n# prints: two\n"
    assert promises(code) == ["one", "two"]
    check_output(code, "one, then two")
    with pytest.raises(AssertionError, match="'two'"):
        check_output(code, "two, then one")


SESSION = """\
<!-- run: while suitkaise run app.py -->
```console
$ suitkaise tree
app  running  4711  1.2 s
...
$ python other.py
started (pid 12)
^C
```
"""


def test_a_session_is_its_commands_each_with_the_lines_that_it_prints(tmp_path: Path) -> None:
    (tmp_path / "page.md").write_text(SESSION)
    (block,) = snippets(tmp_path / "page.md")
    assert (block.runs, block.is_session, block.command) == (True, True, "while suitkaise run app.py")
    assert commands(block.code) == [
        ("suitkaise tree", ["app  running  4711  1.2 s", "..."]),
        ("python other.py", ["started (pid 12)", "^C"]),
    ]


@pytest.mark.parametrize(
    "expected, missing",
    [
        (["one", "...", "two"], None),
        (["two", "one"], "one"),
        (["o..."], None),
        (["on"], "on"),
        (["10:00:00.000 app/a started (pid 1)", "one"], None),
        (["10:00:00.000 app/b started (pid 1)"], "10:00:00.000 app/b started (pid 1)"),
        (["└─ a  running  7  1.2 s  3  loop for 1.5 s"], None),
        (["└─ a  stopped  7"], "└─ a  stopped  7"),
    ],
)
def test_the_lines_of_a_session_must_be_printed_in_their_order(expected: list[str], missing: str | None) -> None:
    stderr = "12:34:56.789 app/a started (pid 4711)\n└─ a  running  4711  800 ms  loop\n"
    assert first_difference(expected, "one\ntwo\n", stderr) == missing


def test_a_session_that_prints_something_else_is_reported_with_its_output(tmp_path: Path) -> None:
    (tmp_path / "page.md").write_text("<!-- run -->\n```console\n$ python -c 'print(\"tea\")'\ncoffee\n```\n")
    with pytest.raises(AssertionError, match=r"did not print, or not in this place: 'coffee'[\s\S]*tea"):
        run_snippet(snippets(tmp_path / "page.md")[0], tmp_path)


def test_an_exit_code_that_a_session_does_not_show_is_an_error(tmp_path: Path) -> None:
    session = "<!-- run -->\n```console\n$ python -c 'exit(3)'\n$ echo $?\n3\n$ python -c 'exit(4)'\n```\n"
    (tmp_path / "page.md").write_text(session)
    with pytest.raises(AssertionError, match="exit code 4 of the last command"):
        run_snippet(snippets(tmp_path / "page.md")[0], tmp_path)


# --- docstrings as the reference shows them -------------------------------------------------------------


@pytest.mark.parametrize(
    "docstring, shown",
    [
        ("`a` and `b`", "``a`` and ``b``"),
        ("``a`` or `b` in ``c``", "``a`` or ``b`` in ``c``"),
        ("some `Child`s", "some ``Child``\\ s"),
        ("as it says (rules 23-26)", "as it says (`rules 23-26 <supervision.html#rule-23>`__)"),
        (">>> f(`a`)", ">>> f(`a`)"),
    ],
)
def test_code_in_docstrings_is_marked_as_in_markdown(docstring: str, shown: str) -> None:
    lines = [docstring]
    runpy.run_path(str(ROOT / "docs" / "conf.py"))["markdown_code"](None, "class", "name", None, lines, lines)
    assert lines == [shown]


# --- the tests that a page names ------------------------------------------------------------------------


def test_each_test_that_the_page_about_security_names_exists() -> None:
    named = set(re.findall(r"`(test_\w+)`", (ROOT / "docs/explanation/security.md").read_text()))
    sources = [path.read_text(encoding="utf-8") for path in ROOT.glob("tests/**/test_*.py")]
    assert named
    assert not [name for name in sorted(named) if not any(f"def {name}(" in source for source in sources)]


def test_the_page_about_the_command_line_names_each_command_and_option() -> None:
    page = (ROOT / "docs/reference/command_line.md").read_text(encoding="utf-8")
    for command, (_, options) in commands_of(make_parser()).items():
        for word in [command, *options]:
            assert re.search(rf"(?<![\w-]){re.escape(word)}(?![\w-])", page), f"{word} of {command}"


def test_the_links_between_pages_lead_somewhere() -> None:
    broken = [
        f"{page.name}: {target}"
        for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *PAGES]
        for target in re.findall(r"\]\((?!\w+:)([^)#\s]+)", without_code(page))
        if not (page.parent / target).exists()
    ]
    assert not broken


# --- words ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", [ROOT / "README.md", *PAGES], ids=lambda page: f"{page.parent.name}/{page.name}")
def test_no_sentence_is_about_nobody(page: Path) -> None:
    assert "nobody" not in without_code(page).lower(), "name what cannot, or does not"
