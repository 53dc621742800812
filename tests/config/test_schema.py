from __future__ import annotations

import pytest
import yaml
from support.paths import ROOT

from verl_rsim.config.schema import RsimConfig, parse_config
from verl_rsim.utils.errors import ConfigError

YAML = ROOT / "verl_rsim/config/rsim.yaml"


def test_the_yaml_and_the_dataclass_have_the_same_defaults():
    assert parse_config(yaml.safe_load(YAML.read_text())) == RsimConfig()


@pytest.mark.parametrize(
    ("block", "key"),
    [
        ({"max_turns": 0}, "rsim.max_turns"),
        ({"max_turns": "many"}, "rsim.max_turns"),
        ({"max_turns": 2.5}, "rsim.max_turns"),
        ({"max_turn": 2}, "rsim.max_turn"),
        ({"injection": "infix"}, "rsim.injection"),
        ({"planner_decoding": "greedy"}, "rsim.planner_decoding"),
        ({"train": []}, "rsim.train"),
        ({"train": "planner"}, "rsim.train"),
        ({"train": ["critic"]}, "rsim.train"),
        ({"reward": {"acuracy": 1.0}}, "rsim.reward.acuracy"),
        ({"reward": 3}, "rsim.reward"),
        ({"reward": {"max_repeats": -1}}, "rsim.reward.max_repeats"),
        ({"lambda": "half"}, "rsim.lambda"),
        ({"step_delimiter": ""}, "rsim.step_delimiter"),
        ({"max_failed_share": 2.0}, "rsim.max_failed_share"),
        ({"watchdog": {"stall_seconds": 0.0}}, "rsim.watchdog.stall_seconds"),
        ({"watchdog": {"phase_seconds": {"saving": 60}}}, "rsim.watchdog.phase_seconds"),
        ({"watchdog": {"phase_seconds": {"save": 0}}}, "rsim.watchdog.phase_seconds.save"),
        ({"watchdog": {"phase_seconds": {"save": "long"}}}, "rsim.watchdog.phase_seconds.save"),
        ({"watchdog": {"phase_seconds": 60}}, "rsim.watchdog.phase_seconds"),
        ({"episode_log": {"train_share": 1.5}}, "rsim.episode_log.train_share"),
        ({"episode_log": {"folder": 3}}, "rsim.episode_log.folder"),
        ({"episode_log": {"max_file_mb": 0}}, "rsim.episode_log.max_file_mb"),
    ],
)
def test_bad_settings_are_refused_by_key(block, key):
    with pytest.raises(ConfigError) as refused:
        parse_config(block)
    assert refused.value.key == key
    assert key in str(refused.value)


def test_integers_serve_as_floats_and_frozen_is_the_rest():
    parsed = parse_config({"lambda": 1, "train": ["planner"]})
    assert parsed.weight == 1.0
    assert parsed.frozen == {"reasoner"}
