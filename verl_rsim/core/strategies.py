"""Defines the nine reasoning strategies that a planner chooses from (rSIM, arXiv 2512.08300).

The names are the paper's. The descriptions, instructions and key words are this project's.
"""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Strategy:
    """Defines one action of the planner.

    Attributes:
        name: identifier, as it appears in metrics and configuration.
        description: the strategy's line in the planner's menu.
        instruction: the text that inline injection puts into the reasoner's chain of thought, in the first person.
        keywords: lower-case phrases that show the strategy in free text; used for counting, never for training.
    """

    name: str
    description: str
    instruction: str
    keywords: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """The name as the paper writes it: ``self_reflection`` becomes ``self-reflection``."""
        return self.name.replace("_", " " if self.name == "deliberative_thinking" else "-")

    @property
    def request(self) -> str:
        """The instruction as a user's message (chat injection)."""
        return f"In the next step, {self.description}."


TERMINATION = "termination"
CONTINUATION = "continuation"

STRATEGIES: tuple[Strategy, ...] = (
    Strategy(
        "self_reflection",
        "find and correct mistakes in the reasoning so far",
        "Wait, let me look back at what I did so far and correct any mistake.",
        ("wait", "let me reconsider", "look back", "i made a mistake", "let me rethink"),
    ),
    Strategy(
        "decomposition",
        "break what is left of the problem into smaller parts",
        "Let me break this into smaller parts.",
        ("break this", "break it down", "smaller parts", "split the problem", "into parts"),
    ),
    Strategy(
        "deliberative_thinking",
        "work through the current point carefully",
        "Let me think about this point carefully before going on.",
        ("think carefully", "let me think", "consider the alternatives", "on the other hand"),
    ),
    Strategy(
        "validation",
        "check the latest result in another way",
        "Let me check this result in another way.",
        ("let me check", "verify", "double-check", "substitute back"),
    ),
    Strategy(
        "summarization",
        "restate what is known so far",
        "Let me sum up what is known so far.",
        ("to summarize", "in summary", "sum up", "so far we"),
    ),
    Strategy(
        "prioritization",
        "turn to the point that matters most",
        "Let me decide what matters most here and do that first.",
        ("most important", "matters most", "first priority", "focus on"),
    ),
    Strategy(
        "sub_planning",
        "plan the next few steps",
        "Let me plan the next steps.",
        ("plan the next", "my plan", "next steps", "here is the plan"),
    ),
    Strategy(
        CONTINUATION,
        "go on as before",
        "Let me go on.",
        ("go on", "continuing", "next,"),
    ),
    Strategy(
        TERMINATION,
        "state the final answer",
        "I have enough to answer. Now I state the final answer.",
        ("the final answer", "the answer is", "therefore the answer"),
    ),
)

LABELS = "123456789"
"""The one-token labels of the strategies, in order."""


def strategy_index(name: str) -> int:
    """Returns the position of a strategy in :data:`STRATEGIES`.

    Raises:
        KeyError: there is no such strategy.
    """
    for index, strategy in enumerate(STRATEGIES):
        if strategy.name == name:
            return index
    raise KeyError(name)


def parse_choice(text: str) -> int | None:
    """Returns the strategy that a free-form planner wrote, by label or by name; None if it wrote none or several."""
    lowered = text.strip().lower().replace("_", " ").replace("-", " ")
    if match := re.match(r"[\W_]*([1-9])(?!\d)", lowered):
        return int(match[1]) - 1
    named = [i for i, s in enumerate(STRATEGIES) if re.search(rf"\b{s.name.replace('_', ' ')}\b", lowered)]
    return named[0] if len(named) == 1 else None


def count_by_keyword(text: str) -> list[int]:
    """Counts each strategy's key words in ``text``, in the order of :data:`STRATEGIES`."""
    lowered = text.lower()
    counts = []
    for strategy in STRATEGIES:
        counts.append(sum(lowered.count(word) for word in strategy.keywords))
    return counts
