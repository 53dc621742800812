"""Sphinx's settings: ``make docs`` builds the pages below ``docs/`` and those that README.md and the recipes have.

The source directory is the repository, so that links are the same here and on GitHub. The table of contents follows
docs/index.md: a caption for each section, and the pages that the section links. A page without a link fails the build.
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

LINK = re.compile(r"\]\((?!https?:)([^)#]+)\)")
PICTURE = re.compile(r'<picture>\s*<source [^>]*srcset="(.+?)">\s*<img [^>]*src="(.+?)"[^>]*alt="(.+?)">\s*</picture>')


def adapt_page(app, docname, source):
    """Prepares a page for Sphinx: the index gets a table of contents, a ``<picture>`` becomes two images."""
    if docname == root_doc:
        source[0] += "".join(contents(section) for section in source[0].split("\n## "))
    source[0] = PICTURE.sub(themed_images, source[0])


def contents(section):
    """Returns the hidden table of contents of one section of the index, with the section's title as its caption."""
    title, _, text = section.partition("\n")
    pages = dict.fromkeys(page.removesuffix(".md").removesuffix(".rst") for page in LINK.findall(text))
    caption = "Overview" if title.startswith("# ") else title
    return "\n\n```{toctree}\n:hidden:\n:caption: " + caption + "\n\n" + "\n".join(pages) + "\n```\n" if pages else ""


def themed_images(picture):
    """Returns a light and a dark image; furo shows the one of the theme that the reader chose.

    A ``<picture>`` does not work here: Sphinx copies only images that are not named in HTML.
    """
    dark, light, text = picture.groups()
    image = "```{{image}} {path}\n:class: only-{scheme}\n:alt: {text}\n```\n"
    return image.format(path=light, scheme="light", text=text) + image.format(path=dark, scheme="dark", text=text)


def setup(app):
    """Connects to Sphinx's events; Sphinx calls it."""
    app.connect("source-read", adapt_page)
