"""The commands of docs/adding_to_verl.md: the difference is the one shown, and the job it makes passes all checks."""

from __future__ import annotations

import re
import shlex

import pytest
from omegaconf import DictConfig, OmegaConf
from support.compose import composed
from support.paths import ROOT

from verl_rsim.config.recipes import compose_recipe
from verl_rsim.training import cpu
from verl_rsim.training.preflight import hardware
from verl_rsim.training.preflight.validate_job import validate_job

pytestmark = pytest.mark.slow

PAGE = (ROOT / "docs/adding_to_verl.md").read_text()
BEFORE = re.search(r"```bash\n(.*?)```", PAGE, re.DOTALL)[1]
DIFFERENCE = re.search(r"```diff\n(.*?)```", PAGE, re.DOTALL)[1]


def command(text: str) -> list[str]:
    """A command's arguments after the module it runs."""
    words = shlex.split(text.replace("\\\n", " "))
    assert words[:3] == ["python3", "-m", "verl.trainer.main_ppo"]
    return words[3:]


def after() -> str:
    """The page's stock command with its difference applied."""
    lines = DIFFERENCE.splitlines(keepends=True)
    context = "".join(line[1:] for line in lines if line.startswith(" "))
    assert context in BEFORE
    assert not [line for line in lines if line.startswith("-")], "nothing is taken away"
    return BEFORE.replace(context, "".join(line[1:] for line in lines))


@pytest.fixture(scope="module")
def jobs() -> tuple[DictConfig, DictConfig]:
    """The configurations that verl makes of both commands."""
    path_option, path, name_option, name, *overrides = command(after())
    assert (path_option, name_option) == ("--config-path", "--config-name")
    stock = composed("verl.trainer.config", "ppo_trainer", *command(BEFORE))
    return stock, composed(path.removeprefix("pkg://"), name, *overrides)


def test_the_doctor_takes_the_same_overrides(jobs):
    assert compose_recipe("rsim_trainer", command(after())[4:]) == jobs[1]


def values(node: dict, path: str = "") -> dict[str, object]:
    """All leaves by dotted path."""
    found = {}
    for key, value in node.items():
        where = f"{path}.{key}".lstrip(".")
        found |= values(value, where) if isinstance(value, dict) and value else {where: value}
    return found


def test_only_the_keys_that_the_configuration_lists_differ(jobs):
    before, now = (values(OmegaConf.to_container(job)) for job in jobs)
    listed = set(re.findall(r"^\| `([\w.]+)` \| `", (ROOT / "docs/configuration.md").read_text(), re.MULTILINE))
    different = {key for key in before.keys() | now.keys() if before.get(key) != now.get(key)}
    assert {key for key in different if not key.startswith(("planner.", "rsim."))} <= listed


def test_the_job_passes_all_checks(jobs, home, monkeypatch):
    monkeypatch.setattr(cpu, "is_chosen", lambda: False)
    monkeypatch.setattr(hardware, "has_flash_attention", lambda: True)
    job = jobs[1].copy()
    job.planner.model.path = str(home / "models/tiny-qwen2")
    job.actor_rollout_ref.model.path = str(home / "models/tiny-llama")
    job.data.train_files, job.data.val_files = (
        str(home / f"data/arithmetic/{name}.parquet") for name in ("train", "test")
    )
    job.data.train_batch_size, job.actor_rollout_ref.actor.ppo_mini_batch_size = 32, 32  # there are 32 rows
    job.actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu = 4
    job.actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu = 4
    job.actor_rollout_ref.ref.log_prob_micro_batch_size_per_gpu = 4
    job.planner.rollout.prompt_length, job.planner.rollout.response_length = (
        1200,
        800,
    )  # a tiny model's tokens are short
    assert validate_job(job).rsim.max_turns == 6
