"""Exports at the hub: uploaded to a stand-in of it, and read back from there by id."""

from __future__ import annotations

import pytest
from support.hub import TOKEN, hub, run_with_hub

from verl_rsim.core.policy_description import POLICY_FILE, PolicyDescription, TrainedRules
from verl_rsim.core.rules import Rules

PROGRAM = """
import sys
from pathlib import Path
from verl_rsim.core.policy_description import find_description
from verl_rsim.training.checkpoint.upload import upload_policies
from verl_rsim.utils.errors import ConfigError
folder, name, *roles = sys.argv[1:]
try:
    urls = upload_policies({role: Path(folder) / role for role in roles}, name, private=True)
except ConfigError as error:
    sys.exit(print(error))
for role, url in urls.items():
    repository = url.partition("//")[2].partition("/")[2]
    found = find_description(repository, role)
    print(role, url, found and found.rules.rules.max_turns)
"""


@pytest.fixture
def folder(tmp_path):
    """Folders of two exported policies."""
    for role in ("planner", "reasoner"):
        (tmp_path / "out" / role).mkdir(parents=True)
        (tmp_path / "out" / role / "config.json").write_text("{}")
        rules = TrainedRules(Rules(max_turns=3))
        PolicyDescription(role=role, base_model="base", step=1, rules=rules).write(tmp_path / "out" / role)
    return str(tmp_path / "out")


def test_each_policy_gets_a_repository_and_is_read_back_by_its_id(folder, tmp_path):
    with hub() as server:
        one = run_with_hub(PROGRAM, server.url, tmp_path / "c", folder, "user/rsim", "planner", HF_TOKEN=TOKEN)
        both = run_with_hub(
            PROGRAM, server.url, tmp_path / "c", folder, "user/two", "planner", "reasoner", HF_TOKEN=TOKEN
        )
        repositories, private = server.repositories, server.private
    assert one == [f"planner {server.url}/user/rsim 3"]
    assert both == [f"planner {server.url}/user/two-planner 3", f"reasoner {server.url}/user/two-reasoner 3"]
    assert private == set(repositories) == {"user/rsim", "user/two-planner", "user/two-reasoner"}
    assert set(repositories["user/rsim"]) == {"config.json", POLICY_FILE, "README.md"}
    assert b"verl-rsim eval --planner user/rsim --reasoner REASONER" in repositories["user/rsim"]["README.md"]


def test_an_upload_that_cannot_be_done_is_one_sentence(folder, tmp_path):
    with hub() as server:
        for name, token in (("user/rsim", "wrong"), ("user", TOKEN), ("user/a b", TOKEN)):
            (said,) = run_with_hub(PROGRAM, server.url, tmp_path / "c", folder, name, "planner", HF_TOKEN=token)
            assert said.startswith(f"--hub='{name}': ")
    (said,) = run_with_hub(PROGRAM, server.url, tmp_path / "c", folder, "user/rsim", "planner", HF_TOKEN=TOKEN)
    assert "cannot be uploaded (" in said
