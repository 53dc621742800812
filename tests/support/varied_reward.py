"""Example of a user's reward function. Random tiny models solve no task, so it rewards a property that varies."""


def compute_score(data_source, solution_str, ground_truth, extra_info=None, **_):
    """Returns the share of distinct characters."""
    return len(set(solution_str)) / max(1, len(solution_str))
