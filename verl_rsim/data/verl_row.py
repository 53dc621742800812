"""Converts a question to a row of verl's dataset."""

from __future__ import annotations

from verl_rsim.data.question import Question
from verl_rsim.reward.math_grading.answer_types import AnswerTypes
from verl_rsim.reward.math_grading.compare import AnswerType

ANSWER_TYPES = AnswerTypes()
BOXED_INSTRUCTION = "Think step by step and put the final answer in \\boxed{}."
CODE_INSTRUCTION = "Think step by step and end with the whole solution in one Python code block."
INSTRUCTIONS = {
    AnswerType.OPTION: "Think step by step and put the letter of the right option in \\boxed{}.",
    AnswerType.BOOL: "Think step by step and put True or False in \\boxed{}.",
    AnswerType.YES_NO: "Think step by step and put yes or no in \\boxed{}.",
    AnswerType.LIST: "Think step by step and put the final answer, a list such as [1, 2], in \\boxed{}.",
}
"""Instructions added to a question for answer types that need another one than :data:`BOXED_INSTRUCTION`."""

SOURCE_INSTRUCTIONS = {"sums": "Reply with the answer alone, in \\boxed{}."}
"""Instructions of single datasets: a sum of two small numbers needs no steps, and a small model gets lost in them."""


def build_prompt(question: Question, source: str, instruction: str | None = None) -> str:
    """Returns the prompt of a question: its text and an instruction.

    Args:
        question: the question.
        source: its ``data_source``, from which the answer type follows.
        instruction: replaces the default instruction of the answer type; "" adds none.
    """
    if instruction is None:
        instruction = SOURCE_INSTRUCTIONS.get(source)
    if instruction is None:
        kind = ANSWER_TYPES.check_truth(question.answer, source) if question.ability != "code" else None
        instruction = INSTRUCTIONS.get(kind, BOXED_INSTRUCTION) if kind else CODE_INSTRUCTION
    return f"{question.text}\n{instruction}" if instruction else question.text


def verl_row(question: Question, data_source: str, split: str, index: int, instruction: str | None = None) -> dict:
    """Returns a row in the format of verl's RLHFDataset; see :func:`build_prompt` for ``instruction``."""
    context = [{"role": role, "content": content} for role, content in question.context]
    return {
        "data_source": data_source,
        "prompt": [*context, {"role": "user", "content": build_prompt(question, data_source, instruction)}],
        "ability": question.ability,
        "reward_model": {"style": "rule", "ground_truth": question.answer},
        "extra_info": {"split": split, "index": index, "question": question.text},
    }
