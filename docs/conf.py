"""Sphinx's settings: ``make docs`` builds the pages below and those that README.md and the recipes have.

The source directory is the repository, so that links are the same here and on GitHub. The contents are the links of
docs/index.md, in its order; a page that it does not link is an error of the build.
"""

import re

project = "verl-rsim"
html_title = project
html_theme = "furo"
html_extra_path = ["redirect"]  # index.html, which leads to docs/index.html
html_show_sphinx = False
html_show_copyright = False

root_doc = "docs/index"
include_patterns = ["*.md", "docs/**", "recipes/*/README.md", "examples/*/README.md"]
exclude_patterns = [".*", "build", "dist", "outputs"]
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
myst_heading_anchors = 3
napoleon_use_rtype = False  # the text says what is returned; the signature has the type


def add_contents(app, docname, source):
    """Append a table of contents with the pages that the index links."""
    if docname == root_doc:
        pages = re.findall(r"\]\((?!https?:)([^)#]+)\)", source[0])
        listed = "\n".join(page.removesuffix(".md").removesuffix(".rst") for page in dict.fromkeys(pages))
        source[0] += f"\n```{{toctree}}\n:hidden:\n\n{listed}\n```\n"


def setup(app):
    """Called by Sphinx."""
    app.connect("source-read", add_contents)
