"""Measures time and memory of the search for overlap between training questions and an evaluation set.

    python benchmarks/speed/data_overlap.py [TRAIN] [EVALUATION]

The questions are random words. Every thousandth training question is in the evaluation set, and every thousandth shares
20 words with one of it.
"""

from __future__ import annotations

import random
import resource
import sys
import time

from verl_rsim.data.filters import Split, drop_evaluation_questions
from verl_rsim.data.overlap import EvaluationSet
from verl_rsim.data.question import Question


def main(train: int, evaluation: int) -> None:
    """Prints the overlaps, the seconds and the memory."""
    rng = random.Random(0)
    words = [f"word{number}" for number in range(5000)]
    known = [" ".join(rng.choices(words, k=80)) for _ in range(evaluation)]
    texts = [" ".join(rng.choices(words, k=60)) for _ in range(train)]
    for number in range(0, train - 1, 1000):
        copied = known[number // 1000 % evaluation]
        texts[number] = copied
        texts[number + 1] += " " + " ".join(copied.split()[10:30])
    split = Split([Question(text, "1") for text in texts])
    memory, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    (report,) = drop_evaluation_questions(split, [EvaluationSet("known", known)], drop_overlap=False)
    seconds = time.monotonic() - start
    added = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory) / 1024
    print(f"{train} questions against {evaluation}: {split.counts}, {report['rows']} overlap")
    print(f"{seconds:.1f} s, {added:.0f} MiB more than the questions themselves")


if __name__ == "__main__":
    main(*(int(each) for each in (sys.argv[1:] or ["100000", "12000"])))
