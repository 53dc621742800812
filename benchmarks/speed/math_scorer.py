"""Compares the math scorer with verl's ``math_verify`` scorer: agreement and speed on the same pairs.

    python benchmarks/speed/math_scorer.py [--callers 8] [--workers 2] [--passes 3]

The pairs are the hand-judged ones of the tests. verl's scorer runs with its own settings and its pool of four
processes. In the first pass every pair is new; later passes show the effect of each scorer's cache. Times are those of
single calls from concurrent threads, as a reward loop makes them. Prints Markdown tables.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from verl_rsim.reward.math_grading.compare import AnswerType
from verl_rsim.reward.math_grading.scorer import MathScorer

PAIRS = Path(__file__).parents[2] / "tests/fixtures/math_agreement.json"
Score = Callable[[dict], float]


@dataclass(frozen=True, slots=True)
class Pass:
    """Holds the result of one pass of a scorer over the pairs.

    Attributes:
        scores: score of each pair.
        calls: seconds of each call.
        seconds: seconds of the whole pass.
    """

    scores: Sequence[float]
    calls: Sequence[float]
    seconds: float


def run(score: Score, pairs: Sequence[dict], callers: int) -> Pass:
    """Scores all pairs once, with ``callers`` concurrent threads."""

    def timed(pair: dict) -> tuple[float, float]:
        start = time.perf_counter()
        return score(pair), time.perf_counter() - start

    start = time.perf_counter()
    with ThreadPoolExecutor(callers) as threads:
        results = list(threads.map(timed, pairs))
    seconds = time.perf_counter() - start
    return Pass(scores=[score for score, _ in results], calls=[took for _, took in results], seconds=seconds)


def agreement_table(pairs: Sequence[dict], ours: Pass, theirs: Pass) -> str:
    """Returns a table with the share of pairs on which each scorer agrees with the human judgement."""
    counts: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0])
    for pair, our_score, their_score in zip(pairs, ours.scores, theirs.scores, strict=True):
        for key in (pair["type"], "all"):
            counts[key][0] += 1
            counts[key][1] += bool(our_score) == pair["right"]
            counts[key][2] += bool(their_score) == pair["right"]
    rows = [f"| {kind} | {n} | {a / n:.1%} | {b / n:.1%} |" for kind, (n, a, b) in counts.items()]
    return "\n".join(["| type | pairs | this scorer | verl math_verify |", "| --- | --- | --- | --- |", *rows])


def speed_row(name: str, done: Pass) -> str:
    """Returns a row of the table of times."""
    percentiles = statistics.quantiles(done.calls, n=100)
    p50, p99 = percentiles[49] * 1e3, percentiles[98] * 1e3
    return f"| {name} | {len(done.calls) / done.seconds:.0f} | {p50:.1f} | {p99:.1f} | {max(done.calls) * 1e3:.0f} |"


def main() -> None:
    """Prints both tables."""
    from verl.utils.reward_score import math_verify

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--callers", type=int, default=8)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--passes", type=int, default=3)
    options = parser.parse_args()
    pairs = json.loads(PAIRS.read_text())
    scorer = MathScorer(workers=options.workers)

    def our_score(pair: dict) -> float:
        kind = pair.get("data_source") or AnswerType(pair["type"])
        return scorer.score(pair["text"], pair["truth"], kind).accuracy

    def their_score(pair: dict) -> float:
        return math_verify.compute_score(pair["text"], pair["truth"])

    # Starts both pools of processes; the pair is in no pass, so that no cache has it.
    warm_up = [{"text": r"\boxed{\frac{a}{b}+1}", "truth": r"1+\frac{a}{b}", "type": "math"}] * 64
    run(our_score, warm_up, options.callers)
    run(their_score, warm_up, options.callers)
    math_pairs = [pair for pair in pairs if pair["type"] == "math"]
    print("| scorer, pass, pairs | pairs/s | p50 ms | p99 ms | max ms |\n| --- | --- | --- | --- | --- |")
    first: dict[str, Pass] = {}
    for number in range(1, options.passes + 1):
        for name, score in (("this scorer", our_score), ("verl math_verify", their_score)):
            done = run(score, pairs, options.callers)
            first.setdefault(name, done)
            print(speed_row(f"{name}, pass {number}, all {len(pairs)}", done), flush=True)
    for name, score in (("this scorer", our_score), ("verl math_verify", their_score)):
        print(speed_row(f"{name}, later pass, type math only", run(score, math_pairs, options.callers)), flush=True)
    scorer.close()
    print("\n" + agreement_table(pairs, first["this scorer"], first["verl math_verify"]))


if __name__ == "__main__":
    main()
