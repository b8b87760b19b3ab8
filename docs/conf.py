"""Sphinx: MyST-NB runs every page's code; nothing here or there needs a network."""

import os
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
# The kernels that run the pages are processes of their own.
os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])

import minigraph  # noqa: E402

project = "minigraph"
version = release = minigraph.__version__
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.autosummary"]
exclude_patterns = ["_build", "pictures"]
nitpicky = False

html_theme = "furo"
html_title = f"minigraph {version}"
html_show_copyright = False
html_copy_source = False

# "force": a cache would not notice that the package changed.
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 120
nb_merge_streams = True
# Tables that cells print: CommonMark has none.
nb_render_markdown_format = "myst"
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "none"
autosummary_generate = False

_CODE = re.compile(r"(`[^`\n]+`)")


def _as_rst(app, what, name, obj, options, lines):
    """Docstrings are plain text with `code`: make reStructuredText of them, doctests left as they are."""
    doctest = False
    for i, line in enumerate(lines):
        doctest = bool(line.strip()) and (doctest or line.lstrip().startswith(">>>"))
        if doctest:
            continue
        parts = _CODE.split(line)
        lines[i] = "".join(
            f"`{part}`" if k % 2 else re.sub(r"([\\*|]|_(?!\w))", r"\\\1", part) for k, part in enumerate(parts)
        )


def setup(app):
    """Connect the docstring filter."""
    app.connect("autodoc-process-docstring", _as_rst)
