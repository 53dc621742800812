"""A reward function that scores by chance until it is told to fail."""

import hashlib
import time

from inside import asked


def compute_score(data_source, solution_str, ground_truth, extra_info=None, **_):
    if asked("reward: raises"):
        raise ValueError("this reward function is broken")
    if asked("reward: never returns"):
        time.sleep(10**6)
    if asked("reward: NaN"):
        return float("nan")
    return hashlib.sha256(solution_str.encode()).digest()[0] / 255
