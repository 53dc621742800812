"""Lists all pages of the documentation."""

from support.paths import ROOT

PAGES = sorted(
    [
        *ROOT.glob("*.md"),
        *ROOT.glob("docs/**/*.md"),
        *ROOT.glob("recipes/*/README.md"),
        *ROOT.glob("examples/*/README.md"),
    ]
)
