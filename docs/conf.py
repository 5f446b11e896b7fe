"""Sphinx: MyST pages, API from docstrings, furo. `make docs` turns warnings into errors."""

from importlib.metadata import version as version_of

project = "suitkaise"
version = release = version_of("suitkaise-xprocess")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
exclude_patterns = ["_build"]
default_role = "code"  # docstrings write `name` as Markdown does

myst_enable_extensions = ["colon_fence", "deflist", "fieldlist"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_default_options = {"members": True, "show-inheritance": True}
# Numbers of rules, units and short examples are told in the docstrings; the types in the signatures.
napoleon_google_docstring = True
napoleon_numpy_docstring = False

html_theme = "furo"
html_title = "suitkaise"
html_show_sphinx = False
