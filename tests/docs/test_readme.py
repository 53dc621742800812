"""README.md is short and shows the difference of docs/adding_to_verl.md; pictures and dependencies are in place."""

from __future__ import annotations

import re
import sys

import pytest
from packaging.requirements import Requirement
from support.pages import PAGES
from support.paths import ROOT

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = pytest.importorskip("tomli")

README = (ROOT / "README.md").read_text()
DIFFERENCE = re.compile(r"```diff\n(.*?)```", re.DOTALL)
IMAGES = ROOT / "docs/images"


def test_the_first_screen_is_short():
    assert len(README.split()) <= 900


def test_the_difference_is_the_one_that_is_tested():
    page = (ROOT / "docs/adding_to_verl.md").read_text()
    assert DIFFERENCE.search(README)[1] == DIFFERENCE.search(page)[1]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_pictures_for_both_colour_schemes_exist(page):
    for source in re.findall(r'(?:src|srcset)="([^":]+)"', page.read_text()):
        assert (page.parent / source).is_file(), source


def test_every_picture_is_used_and_small():
    pages = "\n".join(page.read_text() for page in PAGES)
    for picture in IMAGES.iterdir():
        assert f"images/{picture.name}" in pages
        assert picture.stat().st_size <= 300_000


def test_light_and_dark_diagrams_differ_in_colours_only():
    for light in IMAGES.glob("*_light.svg"):
        dark = light.with_name(light.name.replace("_light", "_dark"))
        assert _without_colours(light.read_text()) == _without_colours(dark.read_text())


def _without_colours(svg: str) -> str:
    return re.sub(r"#[0-9a-f]{6}", "", svg)


def test_every_dependency_is_explained():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    table = (ROOT / "docs/development.md").read_text().partition("## Dependencies")[2].partition("\n## ")[0]
    explained = set(re.findall(r"[\w-]+", " ".join(line.split("|")[1] for line in table.splitlines() if "|" in line)))
    wanted = {Requirement(text).name for group in groups for text in group}
    assert wanted <= explained, wanted - explained
