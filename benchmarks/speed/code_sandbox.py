"""Measures how many answers per second the code scorer grades, and how long one answer takes.

    python benchmarks/speed/code_sandbox.py [--backend bubblewrap] [--count 200] [--workers 2]

The graded programs and their tests are minimal, so that the time is that of the sandbox: two tests per answer for
functions, one, 50 and 300 cases for stdio.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from concurrent.futures import ThreadPoolExecutor

from verl_rsim.reward.code_grading.scorer import CodeScorer
from verl_rsim.reward.sandbox.create import BACKENDS, create_sandbox

FUNCTION = "```python\ndef add(a, b):\n    return a + b\n```"
TASKS = {
    "humaneval": (
        FUNCTION,
        {
            "kind": "humaneval",
            "entry_point": "add",
            "prompt": 'def add(a, b):\n    """The sum."""\n',
            "test": "def check(candidate):\n    assert candidate(1, 2) == 3\n    assert candidate(0, 0) == 0",
        },
    ),
    "calls": (FUNCTION, {"kind": "calls", "entry_point": "add", "inputs": [[1, 2], [0, 0]], "outputs": [3, 0]}),
}
for cases in (1, 50, 300):
    truth = {"kind": "stdio", "inputs": ["1\n"] * cases, "outputs": ["2\n"] * cases}
    TASKS[f"stdio, {cases}"] = ("```python\nprint(int(input()) + 1)\n```", truth)


def measure(scorer: CodeScorer, text: str, truth: str, count: int, workers: int) -> str:
    """Grades one answer ``count`` times and returns a line with the rate and the times."""

    def grade_once(_: int) -> float:
        started = time.perf_counter()
        verdict = scorer.score(text, truth)
        if verdict.accuracy != 1.0:
            raise RuntimeError(f"a right answer was graded {verdict}")
        return time.perf_counter() - started

    started = time.perf_counter()
    with ThreadPoolExecutor(workers) as pool:
        seconds = list(pool.map(grade_once, range(count)))
    rate = count / (time.perf_counter() - started)
    percentiles = statistics.quantiles(seconds, n=100)
    return f"{rate:6.1f} per second   p50 {percentiles[49] * 1e3:5.1f} ms   p99 {percentiles[98] * 1e3:5.1f} ms"


def main() -> None:
    """Prints one line per kind of tests."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", choices=BACKENDS, default="bubblewrap")
    parser.add_argument("--url", default=None)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args()
    scorer = CodeScorer(create_sandbox(args.backend, url=args.url), workers=args.workers)
    for name, (text, truth) in TASKS.items():
        print(f"{name:10} {measure(scorer, text, json.dumps(truth), args.count, args.workers)}")
    scorer.close()


if __name__ == "__main__":
    main()
