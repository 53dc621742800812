"""Random and mutated pairs: nothing hangs, nothing raises, and the pool is right afterwards."""

from __future__ import annotations

import json
import random
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from support.paths import FIXTURES

from verl_rsim.reward.math_grading.compare import AnswerType
from verl_rsim.reward.math_grading.scorer import MathScorer
from verl_rsim.reward.verdict import TruthError

pytestmark = pytest.mark.slow

AGREEMENT = json.loads((FIXTURES / "math_agreement.json").read_text())
PAIRS = 5000
CALLERS = 4
TIMEOUT = 0.4
REASONS = {"right", "wrong", "no_answer", "ambiguous", "too_long", "timeout", "crash"}
LATEX = (
    r"\frac \sqrt \boxed{ \boxed \text{ \left( \right) \begin{pmatrix} \end{pmatrix} \\ & \pm \cup \in \leq \infty"
    r" \emptyset \sum_{n=1}^{\infty} \int_0^1 \binom{9}{3} ^{ _{ { } ( ) [ ] \{ \} $ $$ % \% , ; = < + - * / ! ^ _ |"
    r" #### 0 9 1e9 x i"
)
UNICODE = ["\x00", "\u2212", "\u00bd", "\u00b2", "\u0665", "\u221e", "\ud83d\ude00", "\ud800", "\u202e", "e\u0301"]
LONG = ["9" * 400, "{" * 60, "}" * 60, "(" * 60, "^9" * 20, "9^{" * 6]
PROSE = r"two more numbers equal x_1 the total cost is a A's add \alpha 12 \text{and} , = 3"
TOKENS = [*LATEX.split(), *UNICODE, *LONG, "\n", "\t", " ", "answer is ", " or ", " and ", "A", "yes"]


def mutated(text: str, chance: random.Random) -> str:
    """A text with one to four random edits, most of them inside its box."""
    for _ in range(chance.randint(1, 4)):
        at, to = sorted(chance.randint(0, len(text)) for _ in range(2))
        text = chance.choice(
            [
                text[:at] + chance.choice(TOKENS) + text[at:],
                text[:at] + chance.choice(TOKENS) + text[to:],
                text[:at] + text[to:],
                text[:to] + text[at:],
                text[:at],
                text[:at] + chr(chance.choice([chance.randint(0, 255), chance.randint(256, 0xFFFF)])) + text[at:],
                "\\boxed{" + "".join(chance.choices(TOKENS, k=chance.randint(1, 12))) + "}",
            ]
        )
    return text


def fuzzed_pairs() -> list[tuple[str, str, AnswerType]]:
    chance = random.Random(0)
    pairs = []
    for _ in range(PAIRS):
        row, other = chance.choice(AGREEMENT), chance.choice(AGREEMENT)
        kind = AnswerType(row["type"]) if chance.random() < 0.5 else AnswerType.MATH
        truth = row["truth"] if chance.random() < 0.9 else mutated(row["truth"], chance)
        pairs.append((mutated(chance.choice([row["text"], other["text"]]), chance), truth, kind))
    return pairs


@pytest.fixture(scope="module")
def scorer():
    scorer = MathScorer(workers=2, timeout=TIMEOUT)
    scorer.score(r"\boxed{1+x}", "x+1")
    yield scorer
    scorer.close()


def test_five_thousand_mutated_pairs(scorer):
    def timed(pair: tuple[str, str, AnswerType]) -> tuple[str, float]:
        start = time.perf_counter()
        try:
            reason = scorer.score(*pair).reason
        except TruthError:  # a mutated truth may be of no use
            reason = "wrong"
        return reason, time.perf_counter() - start

    with ThreadPoolExecutor(CALLERS) as threads:
        results = list(threads.map(timed, fuzzed_pairs()))
    assert len(results) == PAIRS
    assert {reason for reason, _ in results} <= REASONS
    waits = 1 + (CALLERS - 1) // 2  # its own turn and those ahead of it
    assert max(seconds for _, seconds in results) < waits * TIMEOUT + 5.0  # and what a busy machine adds
    for row in AGREEMENT[::10]:
        kind = row.get("data_source") or AnswerType(row["type"])
        assert bool(scorer.score(row["text"], row["truth"], kind).accuracy) == row["right"], row


def test_prose_is_read_at_once():
    """No comparison takes time that grows with every word: a small model's answers are full of them."""
    chance = random.Random(0)
    words = PROSE.split()
    scorer = MathScorer(workers=2, timeout=10.0)
    for _ in range(300):
        answer = chance.choice(["", " "]).join(chance.choices(words, k=chance.randint(1, 60)))[:290]
        kind = chance.choice([AnswerType.NUMBER, AnswerType.MATH, AnswerType.STRING, AnswerType.FLOAT])
        assert scorer.score(f"\\boxed{{{answer}}}", "-65", kind).reason in ("right", "wrong"), answer
    scorer.close()
