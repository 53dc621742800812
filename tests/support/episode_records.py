"""Makes records of invented episodes for tests of their readers."""

from __future__ import annotations

import json
import random
from pathlib import Path

from verl_rsim.core.episode_record import EpisodeRecord, TurnRecord
from verl_rsim.core.strategies import STRATEGIES
from verl_rsim.monitoring.episode_log import EpisodeLog


def turn(strategy: str, text: str = "Some step.\n\n", **values) -> TurnRecord:
    """Returns a turn with default values."""
    return TurnRecord(
        strategy, text, **{"tokens": 5, "end": "delimiter", "log_prob": -2.2, "log_prob_mean": -0.5} | values
    )


def episode(*strategies: str, question: str = "What is 1 + 1?", **values) -> EpisodeRecord:
    """Returns an episode with these strategies; it ended by *termination* if that is the last one."""
    stop = "termination" if strategies and strategies[-1] == "termination" else "max_turns"
    fixed = {"kind": "validation", "step": 0, "question_id": f"{hash(question):x}"[-12:], "sample": 0, "stop": stop}
    fixed |= {"reasoner_reward": 0.0, "planner_reward": 0.0}
    return EpisodeRecord(
        **{**fixed, "question": question, "turns": tuple(map(turn, strategies)), "truth": "2", **values}
    )


STEPS = 40


def run_of(folder: Path, count: int, per_question: int = 4) -> Path:
    """Writes a run of invented episodes and metrics, with one metrics file in the run's folder.

    The planner learns to decompose and to validate; the answers improve. Every second episode belongs to a validation.
    """
    rng = random.Random(0)
    log = EpisodeLog(folder / "episodes")
    names = [strategy.name for strategy in STRATEGIES]
    checks = [0, STEPS // 2, STEPS]
    share = count // (2 * len(checks))

    def played(kind: str, step: int, number: int) -> EpisodeRecord:
        learned = step / STEPS
        weights = [1, 1 + 4 * learned, 1, 1 + 5 * learned, 1 - 0.8 * learned, 1, 1, 1, 0.5]
        chosen = rng.choices(names, weights, k=rng.randint(1, 5))
        chosen = [name for name in chosen if name != "termination"]
        chosen += ["termination"] if rng.random() < 0.4 + 0.5 * learned else []
        acc = float(rng.random() < 0.2 + 0.4 * learned + 0.15 * ("validation" in chosen))
        question = f"A shop sells {number} pens. Each costs {number % 7 + 2} coins. How much do all pens cost together?"
        words = [*question.lower().split(), "let", "me", "check", "verify", "the", "final", "answer", "is"]
        texts = [
            f"Step {i + 1}: {' '.join(rng.choices(words, k=rng.randint(20, 60)))}.\n\n" for i in range(len(chosen))
        ]
        turns = tuple(
            turn(name, text, tokens=len(text.split()), log_prob=-3 * rng.random(), log_prob_mean=-rng.random())
            for name, text in zip(chosen, texts, strict=True)
        )
        parts = {"accuracy": acc, "termination": 0.1 * ("termination" in chosen), "diversity": 0.0}
        return episode(
            kind=kind,
            step=step,
            question=question,
            question_id=f"{number:012x}",
            turns=turns,
            sample=number % per_question,
            stop="termination" if "termination" in chosen else rng.choice(["max_turns", "reasoner_eos"]),
            truth=str(number * (number % 7 + 2)),
            acc=acc,
            reasoner_reward=acc,
            planner_reward=sum(parts.values()),
            planner_parts=parts,
            reason="right" if acc else "wrong",
            run="rsim/invented",
        )

    for step in range(STEPS + 1):
        if step in checks:
            log.append(played("validation", step, number) for number in range(share))
        if step:
            log.append(played("train", step, rng.randrange(10**5)) for _ in range(count // 2 // STEPS))
    (folder / "invented.jsonl").write_text("".join(json.dumps(line) + "\n" for line in _metrics(rng, checks)))
    return folder


def _metrics(rng: random.Random, checks: list[int]):
    for step in range(STEPS + 1):
        learned = step / STEPS
        shares = [rng.uniform(0.8, 1.2) * (1 + 4 * learned * (i in (1, 3))) for i in range(9)]
        data = {f"strategy/{s.name}": share / sum(shares) for s, share in zip(STRATEGIES, shares, strict=True)}
        for role, gain in (("planner", 0.5), ("reasoner", 0.4)):
            data |= {f"{role}/reward": 0.2 + gain * learned + rng.uniform(-0.05, 0.05)}
            data |= {f"{role}/entropy": 2.2 - learned, f"{role}/grad_norm": rng.uniform(0.5, 1.5)}
            data |= {f"{role}/ppo_kl": rng.uniform(0, 0.001), f"{role}/pg_clipfrac": rng.uniform(0, 0.02)}
            data |= {f"{role}/weight": 0.5 if step > STEPS // 2 else float(role == "planner")}
            data |= {f"timing_s/{role}/update": 12.0 + 8 * (role == "reasoner"), f"timing_s/{role}/adv": 0.03}
        data |= {"reasoner/acc": 0.2 + 0.4 * learned, "strategy/entropy": 2.19 - 0.4 * learned, "rsim/turns": 3.0}
        data |= {"rsim/step_tokens": 30 + 10 * learned, "timing_s/gen": 25.0, "timing_s/step": 60.0}
        if step in checks:
            seen = ("reasoner/acc", "planner/reward", "reasoner/reward", "strategy/entropy", "rsim/turns")
            yield {"step": step, "data": {f"val-{key}": data[key] for key in seen}}
        if step:
            yield {"step": step, "data": data}
