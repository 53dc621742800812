"""A reward function that scores at random until a fault of the reward is injected."""

import hashlib
import time

from job_hooks import is_injected


def compute_score(data_source, solution_str, ground_truth, extra_info=None, **_):
    if is_injected("reward: raises"):
        raise ValueError("this reward function is broken")
    if is_injected("reward: never returns"):
        time.sleep(10**6)
    if is_injected("reward: NaN"):
        return float("nan")
    return hashlib.sha256(solution_str.encode()).digest()[0] / 255
