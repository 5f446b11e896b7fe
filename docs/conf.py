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
autodoc_default_options = {"members": True}
napoleon_google_docstring = True
napoleon_numpy_docstring = False
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88
toc_object_entries_show_parents = "hide"

html_theme = "furo"
pygments_dark_style = "github-dark"
html_title = "suitkaise"
html_show_sphinx = False
html_show_copyright = False
html_static_path = ["_static"]
html_css_files = ["docs.css"]
html_copy_source = False


CODE = re.compile(r"(?<!`)(`+)(?!`)(.+?)(?<!`)\1(?!`)(\w)?")
RULE = re.compile(r"\b(rules? (\d+)(?:(?:-|, | and )\d+)*)")
COLON = "\ue000"  # a character that no text has


def markdown_code(app, what, name, obj, options, lines):  # the parameters are Sphinx's
    """Docstrings write code as Markdown does: `name`, also in the middle of a word, and it may hold a `*`."""
    for number, line in enumerate(lines):
        if not line.lstrip().startswith((">>>", "...")):
            line = CODE.sub(lambda code: f"``{code[2]}``" + (f"\\ {code[3]}" if code[3] else ""), line)
            lines[number] = RULE.sub(r"`\1 <supervision.html#rule-\2>`__", line)  # all of them are in `reference`
    if what in ("attribute", "property") and lines:  # of which napoleon would take a text before a colon for the type
        lines[0] = lines[0].replace(":", COLON)


def colons_back(app, what, name, obj, options, lines):
    """Undo the last step above."""
    lines[:] = [line.replace(COLON, ":") for line in lines]


def table_of_rules(app, docname, source):
    """Make the rows of the table of rules targets of links, and fold the names of their tests."""
    if docname == "reference/supervision":
        source[0] = re.sub(r"^\| (\d+) \|(.*)\|([^|]*)\|$", row_of_rule, source[0], flags=re.MULTILINE)


def row_of_rule(row):
    tests = f"<details><summary>{row[3].count('<br>') + 1}</summary>{row[3]}</details>" if row[3].strip() else ""
    return f'| <span id="rule-{row[1]}">{row[1]}</span> |{row[2]}| {tests} |'


def public_name(app, env, node, contnode):
    """Let the types of signatures link to the public names: `suitkaise.messaging.refs.WorkerRef` to `WorkerRef`."""
    name = node.get("reftarget", "")
    if node.get("refdomain") != "py" or not name:
        return None
    domain = env.get_domain("py")
    last = name.rpartition(".")[2]
    for known in (f"suitkaise.{last}", *(f"suitkaise.{module}.{last}" for module in ("events", "errors", "sktree"))):
        if known in domain.objects and known != name:
            document = node["refdoc"]
            return domain.resolve_xref(env, document, app.builder, node["reftype"], known, node, contnode)
    return None


def setup(app):
    app.connect("autodoc-process-docstring", markdown_code, priority=400)  # before napoleon
    app.connect("autodoc-process-docstring", colons_back, priority=600)
    app.connect("source-read", table_of_rules)
    app.connect("missing-reference", public_name)
