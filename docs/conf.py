"""Sphinx settings; `make docs` builds the pages and runs their code."""

import runpy
from pathlib import Path

from polytask import __version__
from polytask.weighting._catalogue import methods, page

project = "polytask"
author = "The polytask developers"
copyright = "The polytask developers, Apache-2.0"
release = version = __version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx.ext.doctest",
]
exclude_patterns = ["_build", "_templates"]
templates_path = ["_templates"]

# Single backticks name objects in docstrings; what is not ours stays plain code.
default_role = "py:obj"
autosummary_ignore_module_all = False
# One object is described once, under the package it belongs to.
autosummary_context = {"elsewhere": {"polytask.MultiTaskLoss": "polytask.losses.MultiTaskLoss"}}
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 88
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_custom_sections = ["Shape", "When", "Reference", "Deviations"]

myst_enable_extensions = ["dollarmath", "deflist"]
myst_heading_anchors = 3

# Examples in docstrings run under pytest, in the namespace of their own module.
doctest_test_doctest_blocks = ""

# The table of methods.md, which includes it.
_build = Path(__file__).parent / "_build"
_build.mkdir(exist_ok=True)
(_build / "methods.md").write_text(page(methods()))

# The table of explanation/architecture.md: the one that a test holds the code to.
_root = Path(__file__).parents[1]
_imports = runpy.run_path(str(_root / "scripts" / "imports.py"))
(_build / "rooms.md").write_text(_imports["page"](_root / "src" / "polytask"))

smartquotes = False  # options begin with two dashes
html_theme = "furo"
html_title = f"polytask {release}"
html_show_sphinx = False
