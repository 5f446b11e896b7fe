"""Sphinx: MyST pages, API from docstrings, furo. `make docs` turns warnings into errors."""

import re
from importlib.metadata import version as version_of

project = "suitkaise"
version = release = version_of("suitkaise-xprocess")

default_role = "code"  # what the hook below does not see

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
exclude_patterns = ["_build"]

myst_enable_extensions = ["colon_fence", "deflist", "fieldlist"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_default_options = {"members": True, "show-inheritance": True}
napoleon_google_docstring = True
napoleon_numpy_docstring = False

html_theme = "furo"
html_title = "suitkaise"
html_show_sphinx = False


def markdown_code(app, what, name, obj, options, lines):  # the parameters are Sphinx's
    """Docstrings write code as Markdown does: `name`, also in the middle of a word, and it may hold a `*`."""
    for number, line in enumerate(lines):
        if not line.lstrip().startswith((">>>", "...")):
            line = re.sub(r"(?<!`)`([^`]+)`(?!`)", r"``\1``", line)
            lines[number] = re.sub(r"(``[^`]+``)(?=\w)", r"\1\\ ", line)


def setup(app):
    app.connect("autodoc-process-docstring", markdown_code, priority=400)  # before napoleon
