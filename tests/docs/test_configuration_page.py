"""docs/configuration.md says what the configuration's files say, every key is described, and no page names another."""

from __future__ import annotations

import re
import runpy

import pytest
import yaml  # type: ignore[import-untyped]
from support.pages import PAGES
from support.paths import ROOT
from support.refused_jobs import CASES

TABLES = runpy.run_path(str(ROOT / "docs/config_tables.py"))
KEYS = {setting.key: setting for setting in TABLES["settings"](ROOT / "verl_rsim/config/rsim.yaml")}
LEAVES = {
    f"{key}.{part}"
    for key, setting in KEYS.items()
    if isinstance(value := yaml.safe_load(setting.value or ""), dict)
    for part in value
}
"""Of keys whose value is a mapping in one line: a message may name them."""
NO_SETTINGS = {"json", "strategies", "turns", "return_token_ids"}
"""A checkpoint's file, and fields of the server's answers and requests."""


def test_the_page_is_up_to_date():
    assert (ROOT / "docs/configuration.md").read_text() == TABLES["page"](), "run: make docs"


@pytest.mark.parametrize("key", KEYS)
def test_every_key_is_described(key):
    assert len(KEYS[key].description) > 5


def test_a_description_is_the_comment_above_and_behind(tmp_path):
    file = tmp_path / "some.yaml"
    file.write_text("# Not of a.\n\n# Above\n# it.\na: 'x # y' # Behind.\nb: # Block.\n  c: {d: 1}\n")
    found = [(item.key, item.value, item.description) for item in TABLES["settings"](file)]
    assert found == [("a", "'x # y'", "Above it. Behind."), ("b", None, "Block."), ("b.c", "{d: 1}", "")]


def test_what_is_refused_of_verls_keys_is_listed():
    listed = (ROOT / "docs/configuration.md").read_text().partition("## verl's keys that are constrained")[2]
    for _, key, _ in CASES.values():
        if key not in (None, "data") and not key.startswith("rsim."):  # "data" stands for an error of a file
            assert f"{key.rpartition('.')[2]}`" in listed, key


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_pages_name_only_keys_that_exist(page):
    named = set(re.findall(r"(?<![\w/.])rsim\.([a-z_]+(?:\.[a-z_]+)*)", page.read_text()))
    assert named <= KEYS.keys() | LEAVES | NO_SETTINGS
