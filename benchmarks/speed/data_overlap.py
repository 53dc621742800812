"""What looking for overlap costs: made-up training questions against a made-up evaluation set, with known overlaps.

    python benchmarks/speed/data_overlap.py [TRAIN] [EVALUATION]

Every thousandth training question stands in the evaluation set, every thousandth shares 20 words with it.
"""

from __future__ import annotations

import random
import resource
import sys
import time

from verl_rsim.data.filters import Split, drop_known
from verl_rsim.data.overlap import EvaluationSet
from verl_rsim.data.question import Question


def main(train: int, evaluation: int) -> None:
    """Print what was found, seconds and memory."""
    source = random.Random(0)
    words = [f"word{number}" for number in range(5000)]
    known = [" ".join(source.choices(words, k=80)) for _ in range(evaluation)]
    texts = [" ".join(source.choices(words, k=60)) for _ in range(train)]
    for number in range(0, train - 1, 1000):
        other = known[number // 1000 % evaluation]
        texts[number], texts[number + 1] = other, f"{texts[number + 1]} {' '.join(other.split()[10:30])}"
    split = Split([Question(text, "1") for text in texts])
    memory, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    (report,) = drop_known(split, [EvaluationSet("known", known)], drop_overlap=False)
    seconds = time.monotonic() - began
    more = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory) / 1024
    print(f"{train} questions against {evaluation}: {split.counts}, {report['rows']} overlap")
    print(f"{seconds:.1f} s, {more:.0f} MiB more than the questions themselves")


if __name__ == "__main__":
    main(*(int(each) for each in (sys.argv[1:] or ["100000", "12000"])))
