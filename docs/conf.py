"""The site, from Markdown and the docstrings: make docs. Pages need nothing from elsewhere."""

import os
import re
import subprocess
import sys
from pathlib import Path

from docutils import nodes
from jupyter_client import KernelManager
from latex2mathml.converter import convert

import gpe

ROOT = Path(__file__).parents[1]
# Pages that show files of the repository, and where these go on the site.
SHOWN = {
    "README.md#what-was-measured": "/results.md#table-1-measured",
    "CONTRIBUTING.md": "/contributing.md",
    "CHANGELOG.md": "/changelog.md",
    "results/README.md": "/results.md",
    "benches/README.md": "/guides/kernel.md",
}

project = "gpe"
copyright = "the gpe developers"
version = release = gpe.__version__
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
smartquotes = False  # of --option they make a dash
html_theme = "furo"
pygments_dark_style = "monokai"
html_title = f"gpe {version}"
html_static_path = ["style.css"]
html_css_files = ["style.css"]
html_copy_source = html_show_sourcelink = False

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 80
napoleon_custom_sections = [("Source", "returns_style"), ("Warns", "returns_style")]
napoleon_use_rtype = False

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
# Notebooks run when the site is built, and are kept without outputs.
KernelManager.transport_encryption.default_value = "auto"  # else each of them warns
nb_execution_mode = "force"
nb_execution_timeout = 300
nb_execution_raise_on_error = True
nb_merge_streams = True


def setup(app):
    app.connect("builder-inited", describe_commands)
    app.connect("include-read", point_links_at_the_site)
    app.connect("autodoc-process-docstring", keep_bars)
    app.add_html_math_renderer(
        "mathml",
        (lambda self, node: mathml(self, node, "inline"), None),
        (lambda self, node: mathml(self, node, "block"), None),
    )


html_math_renderer = "mathml"


def describe_commands(app):
    """The options of every command, as ``--help`` has them; git ignores the page."""
    command = [sys.executable, "-m", "typer", "gpe.cli", "utils", "docs"]
    command += ["--name", "gpe", "--title", "Commands"]
    page = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    (app.srcdir / "reference" / "commands.md").write_text(page, encoding="utf-8")


def mathml(writer, node, display):
    """What browsers draw by themselves."""
    writer.body.append(convert(node.astext(), display=display))
    raise nodes.SkipNode


def keep_bars(app, what, name, found, options, lines):
    """``|Δ|`` in a docstring is no substitution."""
    lines[:] = [re.sub(r"(?<!`)\|", r"\\|", line) for line in lines]


def point_links_at_the_site(app, path, parent, content):
    """Links of an included file, which go out from its folder, go to pages or to files here."""
    folder = (app.srcdir / path).resolve().parent

    def target(match):
        name, mark, anchor = match[1].partition("#")
        if "://" in name or not name:
            return match[0]
        file = (folder / name).resolve()
        known = os.path.relpath(file, ROOT)
        if page := SHOWN.get(f"{known}{mark}{anchor}"):
            return f"]({page})"
        if page := SHOWN.get(known):
            return f"]({page}{mark}{anchor})"
        return f"](path:/{os.path.relpath(file, app.srcdir)})"

    content[0] = re.sub(r"\]\(([^)\s]+)\)", target, content[0])
