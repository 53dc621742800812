"""A user's own reward function: random tiny models never solve a task, so this one rewards what they do vary in."""


def compute_score(data_source, solution_str, ground_truth, extra_info=None, **_):
    """Share of distinct characters."""
    return len(set(solution_str)) / max(1, len(solution_str))
