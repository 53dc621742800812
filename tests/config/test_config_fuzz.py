"""Random jobs: every bad one is refused with key, value and fix, every good one is let through. The overrides go
through hydra's own grammar; reading a configuration's text anew for each would take longer than checking it.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from random import Random

import omegaconf.base
import pytest
from hydra import compose, initialize_config_module
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import ConfigCompositionException
from omegaconf import DictConfig, OmegaConf
from support.config_samples import TYPOS, bad_values, good_values

from verl_rsim.config.schema import parse_config
from verl_rsim.core.schedule import build_schedule
from verl_rsim.training.preflight.verl_option_rules import check_early
from verl_rsim.utils.errors import ConfigError

pytestmark = pytest.mark.slow

JOBS, WHOLE_EVERY = 500, 50
BAD = bad_values()
GRAMMAR = OverridesParser.create()


@pytest.fixture(scope="module")
def job(home) -> Iterator[DictConfig]:
    """The tiny recipe; interpolations are parsed once, which takes most of the time otherwise."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RSIM_HOME", str(home))
        patch.setattr(omegaconf.base, "parse", functools.cache(omegaconf.base.parse))
        with initialize_config_module("verl_rsim.recipes.tiny", version_base=None):
            yield compose("tiny")


@contextmanager
def overridden(config: DictConfig, overrides: Sequence[str]) -> Iterator[DictConfig]:
    """Applies command-line overrides to the configuration while the context is open."""
    parsed = GRAMMAR.parse_overrides(list(overrides))
    before = []
    for override in parsed:
        block, _, name = override.key_or_group.rpartition(".")
        parent = OmegaConf.select(config, block)
        before.append((parent, name, copy.deepcopy(parent._content.get(name))))  # an override changes the node itself
    try:
        ConfigLoaderImpl._apply_overrides_to_config(parsed, config)
        yield config
    finally:
        for parent, name, node in reversed(before):
            if node is None:
                parent._content.pop(name, None)
            else:
                parent._content[name] = node


def whole_check(config: DictConfig) -> None:
    from verl_rsim.training.preflight.validate_job import validate_job

    check_early(config)
    validate_job(config)


def quick_check(config: DictConfig) -> None:
    """Runs the checks that need no data and no model."""
    check_early(config)
    rsim = parse_config(OmegaConf.to_container(config.rsim, resolve=True))
    build_schedule(rsim.schedule, rsim.weight, 100).check_trainable(rsim.frozen)


def refusal(config: DictConfig, overrides: Sequence[str]) -> ConfigError:
    with overridden(config, overrides) as changed:
        try:
            whole_check(changed)
        except ConfigError as error:
            return error
    pytest.fail(f"accepted: {overrides}")


def names(error: ConfigError, key: str) -> bool:
    """Returns True if an error names a key, or a key below or above it."""
    key = key.lstrip("+")
    return error.key.startswith(key) or key.startswith(error.key + ".")


def test_every_key_is_refused_by_itself(job):
    random = Random(2)
    for key, values in BAD.items():
        value = random.choice(values)
        error = refusal(job, [f"{key}={value}"])
        assert names(error, key), f"{key}={value}: {error}"
        assert str(error) == f"{error.key}={error.value!r}: {error.fix}"
        assert len(error.fix) > 8


def test_random_bad_jobs_are_refused_for_something_bad(job):
    random = Random(0)
    for _ in range(JOBS):
        bad = {key: random.choice(BAD[key]) for key in random.sample(sorted(BAD), random.randint(1, 3))}
        good = {key: value for key, value in good_values(random).items() if key not in bad}
        overrides = [f"{key}={value}" for key, value in (good | bad).items()]
        random.shuffle(overrides)
        overrides.sort(key=lambda text: text.lstrip("+").partition("=")[0].count("."), reverse=True)
        error = refusal(job, overrides)
        assert any(names(error, key) for key in bad), f"{overrides}: {error}"


def test_random_good_jobs_pass(job):
    random = Random(1)
    for number in range(JOBS):
        overrides = [f"{key}={value}" for key, value in good_values(random).items()]
        with overridden(job, overrides) as changed:
            try:
                (quick_check if number % WHOLE_EVERY else whole_check)(changed)
            except ConfigError as error:
                pytest.fail(f"{overrides}: {error}")


@pytest.mark.parametrize("key", TYPOS)
def test_hydra_refuses_an_unknown_key_without_a_plus(job, key):
    with pytest.raises(ConfigCompositionException, match=key.rsplit(".", 1)[-1]), overridden(job, [f"{key}=1"]):
        pass
