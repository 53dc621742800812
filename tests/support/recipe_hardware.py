"""Reads the hardware that a recipe's README declares, and estimates the memory of the recipe on it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from unittest import mock

from omegaconf import DictConfig, OmegaConf
from support.paths import ROOT

from verl_rsim.config.schema import ROLES
from verl_rsim.training import cpu
from verl_rsim.training.preflight import hardware as machine
from verl_rsim.training.preflight.doctor_job import plan_of, policies
from verl_rsim.training.preflight.memory_estimate import estimate, peaks

RECIPES = ROOT / "recipes"
ROW = re.compile(
    r"^\| `(?P<name>[^`]+)` \| (?:(?P<nodes>\d+) x )??(?:(?P<gpus>\d+) x |CPU, )(?P<gb>\d+) GB\b", re.MULTILINE
)


@dataclass(frozen=True, slots=True)
class Hardware:
    """Holds the hardware of a recipe: GPUs, or a machine without any (``gpus`` is 0, ``gigabytes`` its memory)."""

    nodes: int
    gpus: int
    gigabytes: int

    @property
    def size(self) -> int:
        """Returns the bytes of one GPU, or of the machine."""
        return self.gigabytes * 10**9


def declared() -> dict[str, Hardware]:
    """Returns the hardware of each recipe, by name, from the second column of the READMEs' tables.

    It reads `8 x 80 GB`, `2 x 8 x 80 GB` (nodes first) or `CPU, 24 GB`.
    """
    rows = [row for page in RECIPES.glob("*/README.md") for row in ROW.finditer(page.read_text())]
    return {row["name"]: Hardware(int(row["nodes"] or 1), int(row["gpus"] or 0), int(row["gb"])) for row in rows}


@contextmanager
def on(hardware: Hardware) -> Iterator[None]:
    """Makes the checks see this hardware instead of the machine that runs the tests."""
    cards = [machine.Gpu("declared", hardware.size, 0)] * hardware.gpus
    with (
        mock.patch.object(cpu, "is_chosen", return_value=not hardware.gpus),
        mock.patch.object(machine, "gpus", return_value=cards),
        mock.patch.object(machine, "has_flash_attention", return_value=True),
    ):
        yield


def peak(config: DictConfig, hardware: Hardware) -> int:
    """Returns the estimated memory of the fullest GPU, or of the machine, in bytes; call it within :func:`on`."""
    trained = OmegaConf.select(config, "rsim.train") or ROLES
    frozen = set(ROLES) - set(trained)
    plans = [plan_of(config, role, frozen=role in frozen) for role in policies(config)]
    if not hardware.gpus:
        agents = config.actor_rollout_ref.rollout.agent.num_workers
        terms = estimate(plans, cpu=True, reward_workers=config.reward.num_workers, agents=agents)
        return max(peaks(terms).values())
    apart = OmegaConf.select(config, "rsim.planner_pool.enable")
    groups = [[plan] for plan in plans] if apart else [plans]
    return max(max(peaks(estimate(group, cpu=False)).values()) for group in groups)
