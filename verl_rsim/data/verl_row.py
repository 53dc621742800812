"""A question as a row of verl's dataset."""

from __future__ import annotations

from verl_rsim.data.question import Question
from verl_rsim.reward.math_grading.answer_types import AnswerTypes
from verl_rsim.reward.math_grading.compare import AnswerType

TYPES = AnswerTypes()
BOXED = "Think step by step and put the final answer in \\boxed{}."
CODE = "Think step by step and end with the whole solution in one Python code block."
INSTRUCTIONS = {
    AnswerType.OPTION: "Think step by step and put the letter of the right option in \\boxed{}.",
    AnswerType.BOOL: "Think step by step and put True or False in \\boxed{}.",
    AnswerType.YES_NO: "Think step by step and put yes or no in \\boxed{}.",
    AnswerType.LIST: "Think step by step and put the final answer, a list such as [1, 2], in \\boxed{}.",
}
"""What is added to a question by the type of its answer, where it is not the usual."""


def prompt_of(question: Question, source: str, instruction: str | None = None) -> str:
    """What the model is asked; ``instruction`` replaces the usual one, "" adds none."""
    if instruction is None:
        kind = TYPES.check_truth(question.answer, source) if question.ability != "code" else None
        instruction = INSTRUCTIONS.get(kind, BOXED) if kind else CODE
    return f"{question.text}\n{instruction}" if instruction else question.text


def verl_row(question: Question, data_source: str, split: str, index: int, instruction: str | None = None) -> dict:
    """One row in the format of verl's RLHFDataset; for ``instruction`` see :func:`prompt_of`."""
    return {
        "data_source": data_source,
        "prompt": [{"role": "user", "content": prompt_of(question, data_source, instruction)}],
        "ability": question.ability,
        "reward_model": {"style": "rule", "ground_truth": question.answer},
        "extra_info": {"split": split, "index": index, "question": question.text},
    }
