"""Generates good and bad values, as command-line overrides, for every key that verl-rsim reads or checks."""

from __future__ import annotations

from random import Random
from typing import Any

import yaml
from support.paths import ROOT

from verl_rsim.training.preflight.verl_option_rules import (
    FIXED_JOB_OPTIONS,
    FIXED_POLICY_OPTIONS,
    JOB_VALUES,
    POLICIES,
    POLICY_VALUES,
)
from verl_rsim.utils import validators

YAML = ROOT / "verl_rsim/config/rsim.yaml"

WORD, NULL, LIST, BLOCK = "some", "null", "[1,2]", "{a:1}"
NOT_NUMBERS = [WORD, NULL, LIST, BLOCK, "true", "nan", "inf", "-inf", "''", "1" + "0" * 400]
NOT_COUNTS = [*NOT_NUMBERS, "0", "-1", "1.5"]
NOT_FLAGS = [WORD, NULL, LIST, BLOCK, "1", "0.5"]
NOT_TEXTS = ["3", "0.5", LIST, BLOCK, NULL]
BAD_VALUES_BY_RULE = {
    validators.COUNT: NOT_COUNTS,
    validators.COUNT_OR_NULL: [bad for bad in NOT_COUNTS if bad != NULL],
    validators.NATURAL: [bad for bad in NOT_COUNTS if bad != "0"],
    validators.INTEGER: [*NOT_NUMBERS, "1.5"],
    validators.NOT_NEGATIVE: [*NOT_NUMBERS, "-0.1", "-1"],
    validators.POSITIVE: [*NOT_NUMBERS, "0", "-1"],
    validators.SHARE: [*NOT_NUMBERS, "0", "-0.1", "1.1", "2"],
    validators.TEXT: [NULL, LIST, BLOCK, "3", "true", "''"],
    validators.TEXTS: [NULL, BLOCK, "3", "true", "''", "[]", "[3]"],
    validators.FLAG: NOT_FLAGS,
}

SEEDS = {"rsim.seed"}  # any whole number is one
SHARES = ("max_failed_share", "train_share", "rsim.lambda")
BAD_STAGES = [
    "[{until:0,planner_weight:1,reasoner_weight:1}]",
    "[{until:1,planner_weight:nan,reasoner_weight:1}]",
    "[{until:1,planner_weight:0,reasoner_weight:0}]",
    "[{until:1,planner_weight:1,reasoner_weight:1,x:1}]",
]
BAD_TERMS = [
    "[{name:3,path:a.b}]",
    "[{name:a,path:no.where}]",
    "[{name:a,path:os.getcwd,weight:nan}]",
    "[{name:a,path:os.getcwd,weight:b}]",
    "[{name:a,path:os.getcwd,x:1}]",
]
OPEN = {
    "rsim.train": ["[]", "planner", "[critic]", "[planner,3]", NULL, "3"],
    "rsim.schedule": [WORD, "3", NULL, "[]", "true", "0.5", BLOCK, "[1]", "[{until:1}]", "nan", *BAD_STAGES],
    "rsim.reward.terms": [WORD, "3", NULL, "[1]", "[{name:a}]", *BAD_TERMS],
    "++rsim.scoring.answer_types": [WORD, "3", NULL, "{gsm8k:some}", "{gsm8k:3}", "{gsm8k:[1]}"],
    "rsim.episode_log.folder": ["3", LIST, BLOCK, "true"],
    "rsim.planner_adv_estimator": [WORD, "3", LIST, BLOCK, "gae", "gdpo", "true"],
}
BLOCKS = ["rsim.reward", "rsim.scoring", "rsim.planner_pool", "rsim.alarms", "rsim.alarms.ppo_kl", "rsim.watchdog"]
BLOCKS += ["rsim.episode_log", "planner.actor", "planner.rollout", "planner.model", "actor_rollout_ref.rollout"]
TYPOS = [
    "rsim.lamda",
    "rsim.weight",
    "rsim.max_turn",
    "rsim.reward.acuracy",
    "rsim.alarms.kl",
    "rsim.alarms.ppo_kl.step",
]
TYPOS += ["rsim.watchdog.poll", "rsim.scoring.worker", "rsim.planner_pool.gpus", "rsim.episode_log.share"]
TYPOS += ["planner.actor.lr", "planner.rollout.temprature", "planner.model.paht", "actor_rollout_ref.rollout.top"]
TYPOS += ["algorithm.estimator"]
OTHERS = {
    "trainer.v1.trainer_mode": ["colocate_async", "separate_async", "sync", WORD, NULL, "3"],
    "trainer.use_v1": ["false", NULL, "3"],
    "trainer.resume_mode": [WORD, NULL, "3"],
    "algorithm.adv_estimator": ["gae", "remax", "optimal_token_baseline", WORD, "3"],
    "reward.reward_manager.name": [WORD, "3"],
    "planner.model.path": [NULL, "3", LIST, "/nowhere", "no-such-model"],
    "actor_rollout_ref.model.path": ["3", LIST, "/nowhere", "no-such-model"],
    "planner.rollout.name": ["sglang", "trtllm", "hf", WORD, NULL, "3"],
    "planner.actor.strategy": ["megatron", WORD, NULL],
    "planner.actor.loss_agg_mode": [WORD],
    "planner.rollout.logprobs_mode": ["raw_logprobs"],
}
for _policy in POLICIES:
    for _key in ("rollout.calculate_log_probs", "rollout.free_cache_engine", "rollout.enforce_eager"):
        OTHERS[f"{_policy}.{_key}"] = NOT_FLAGS
    for _key in ("model.trust_remote_code", "model.use_remove_padding", "actor.use_kl_loss", "actor.use_dynamic_bsz"):
        OTHERS[f"{_policy}.{_key}"] = NOT_FLAGS
    OTHERS[f"{_policy}.actor.entropy_coeff"] = NOT_NUMBERS
    OTHERS[f"{_policy}.rollout.top_k"] = [*NOT_NUMBERS, "1.5"]

LINKED = ("planner.rollout.agent.", "planner.rollout.checkpoint_engine.")  # the reasoner's blocks, whole
UNLIKE = {None: "somewhere", True: "false", False: "true"}


def leaves(block: dict[str, Any], path: str):
    """Yields the keys below a block with their default values."""
    for name, value in block.items():
        key = f"{path}.{name}"
        if value and isinstance(value, dict):
            yield from leaves(value, key)
        elif key not in OPEN and value != {}:
            yield key, value


def _bad_for(key: str, default: Any) -> list[str]:
    if isinstance(default, bool):
        return NOT_FLAGS
    if isinstance(default, int):
        return [*NOT_NUMBERS, "1.5"] if key in SEEDS else [*NOT_NUMBERS, "1.5", "-1"]
    if isinstance(default, float):
        beyond = ["1.01", "-0.01"] if key.endswith(SHARES) else ["-0.01"]
        return [*NOT_NUMBERS, *beyond]
    if key.startswith("rsim.watchdog.phase_seconds."):
        return [WORD, "0", "-1", "true"]
    if key == "rsim.step_delimiter":
        return [*NOT_TEXTS, "''"]
    return [*NOT_TEXTS, WORD, "''"]


def bad_values() -> dict[str, list[str]]:
    """Returns, for every key, values that must be refused."""
    found = {key: _bad_for(key, default) for key, default in leaves(yaml.safe_load(YAML.read_text()), "rsim")}
    found |= (
        {key: [WORD, "3", NULL] for key in BLOCKS} | OPEN | {f"+{key}": ["3", WORD, NULL] for key in TYPOS} | OTHERS
    )
    rules = dict(JOB_VALUES)
    for policy in POLICIES:
        rules |= {f"{policy}.{key}": rule for key, rule in POLICY_VALUES.items()}
    found |= {key: BAD_VALUES_BY_RULE[rule] for key, rule in rules.items() if not key.startswith(LINKED)}
    only = dict(FIXED_JOB_OPTIONS)
    for policy in POLICIES:
        only |= {f"{policy}.{key}": rule for key, rule in FIXED_POLICY_OPTIONS.items()}
    found |= {f"++{key}": [UNLIKE.get(value, "7") if not isinstance(value, int) or isinstance(value, bool) else "7"]
              for key, (value, _) in only.items()}  # fmt: skip
    return found


def good_values(random: Random) -> dict[str, Any]:
    """Returns good values of a random selection of keys; all of them can be combined."""
    weights = "planner_weight:0.5,reasoner_weight:0.5"
    train, schedules = random.choice(
        [
            ("[planner,reasoner]", ["leader_first", "follower_first", "joint", "alternating"]),
            ("[planner]", ["leader_first", "joint"]),
            ("[reasoner]", ["follower_first", "joint", f"[{{until:0.5,{weights}}},{{until:1.0,{weights}}}]"]),
        ]
    )
    share, small = random.uniform, random.randint
    good = {
        "rsim.lambda": share(0.01, 0.99),
        "rsim.injection": random.choice(["inline", "chat"]),
        "rsim.planner_decoding": random.choice(["constrained", "free"]),
        "rsim.max_turns": small(1, 12),
        "rsim.max_step_tokens": small(1, 200),
        "rsim.max_answer_tokens": small(1, 200),
        "rsim.step_delimiter": random.choice(["';;'", '"\\n"', "'###'"]),
        "rsim.reward.accuracy": share(0, 3),
        "rsim.reward.termination_if_right": random.choice(["true", "false"]),
        "rsim.reward.turn_cost": random.choice(["0", "1", "1e-3"]),
        "rsim.reward.max_repeats": small(0, 4),
        "rsim.scoring.workers": small(1, 4),
        "rsim.scoring.tolerance": share(0, 0.5),
        "++rsim.scoring.answer_types": "{gsm8k:number}",
        "rsim.planner_adv_estimator": random.choice(["null", "grpo", "turn_grpo", "rloo"]),
        "rsim.planner_pool.enable": random.choice(["true", "false"]),
        "rsim.deterministic": random.choice(["true", "false"]),
        "rsim.seed": small(-5, 2**31),
        "rsim.max_failed_share": share(0, 1),
        "rsim.alarms.zero_groups.action": random.choice(["off", "warn", "save", "stop"]),
        "rsim.alarms.ppo_kl.limit": share(0, 5),
        "rsim.alarms.step_length.steps": small(1, 9),
        "rsim.console": random.choice(["verl", "summary"]),
        "rsim.watchdog.stall_seconds": random.choice(["10", "0.5", "1e5"]),
        "rsim.watchdog.phase_seconds.save": random.choice(["null", "600"]),
        "rsim.watchdog.phase_seconds": random.choice(["{}", "{weight_sync:60,update:0.5}"]),
        "rsim.episode_log.train_share": share(0, 1),
        "rsim.episode_log.folder": random.choice(["null", "episodes"]),
        "planner.rollout.temperature": share(0.1, 2),
        "planner.rollout.max_num_seqs": small(1, 64),
        "planner.actor.optim.lr": random.choice(["0", "1e-6", "0.1"]),
        "planner.actor.clip_ratio_high": share(0, 1),
        "planner.actor.ppo_epochs": small(1, 3),
        "actor_rollout_ref.rollout.n": small(1, 8),
        "actor_rollout_ref.rollout.top_p": share(0.1, 1),
        "actor_rollout_ref.rollout.val_kwargs.n": small(1, 3),
        "actor_rollout_ref.actor.use_kl_loss": random.choice(["true", "false"]),
        "actor_rollout_ref.actor.ppo_mini_batch_size": random.choice([1, 2, 4]),
        "algorithm.adv_estimator": random.choice(["grpo", "rloo", "reinforce_plus_plus"]),
        "algorithm.use_kl_in_reward": random.choice(["true", "false"]),
        "data.train_batch_size": random.choice([4, 8, 32]),
        "trainer.total_epochs": small(1, 9),
        "trainer.total_training_steps": random.choice(["null", "2", "100"]),
        "trainer.save_freq": random.choice(["-1", "1", "5"]),
        "trainer.logger": random.choice(["[console]", "[console,file]"]),
    }
    chosen = random.sample(sorted(good), small(1, 8))
    return {key: good[key] for key in chosen} | {"rsim.train": train, "rsim.schedule": random.choice(schedules)}
