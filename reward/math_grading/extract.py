"""Extracts from a text the answer that it states, in time linear in its length.

The answer is read after the thinking, inside ``<answer>`` if there is one. It is the content of the last complete
``\\boxed``; else what follows the last ``####`` or "answer is"; else, by the type of the answer, the last number,
option, truth value or line. Of several boxes the last is the answer. The answer is not interpreted here.
"""

from __future__ import annotations

from dataclasses import dataclass

from verl_rsim.reward.math_grading.boxes import MAX_BOX_CHARS, boxed_answer, has_box, last_boxed
from verl_rsim.reward.math_grading.markup import after_thinking, tagged_answer
from verl_rsim.reward.math_grading.multiple_choice import option
from verl_rsim.reward.math_grading.statements import Statement, is_hedged, last_statement, stated_answer
from verl_rsim.reward.math_grading.unmarked import Fallback, unmarked_answer

__all__ = ["MAX_BOX_CHARS", "Extraction", "Fallback", "excerpt", "extract", "find_answer", "last_boxed"]

TAIL_CHARS = 20_000
"""Length of the end of a text that is searched; a box that begins before it is kept."""
BOX, HASHES, SENTENCE, TAG = "box", "after ####", "sentence that states it", "<answer>"
"""Places of an answer."""


@dataclass(frozen=True, slots=True)
class Extraction:
    """Answer that a text states.

    Attributes:
        answer: the answer as written; None if there is none.
        place: where it stands, in words; "" if nothing marks it or there is none.
        ambiguous: True if the text offers an alternative to its answer, so that it has none.
    """

    answer: str | None
    place: str = ""
    ambiguous: bool = False


def excerpt(text: str) -> str:
    """Returns the part of a text that :func:`extract` reads, of at most about :data:`TAIL_CHARS` characters.

    It uses string searches only, so that it may run outside of a worker.
    """
    answer = after_thinking(text)
    if answer is None:
        return ""
    answer = tagged_answer(answer) or answer
    start = max(0, len(answer) - TAIL_CHARS)
    box = max(answer.rfind("\\boxed"), answer.rfind("\\fbox"))
    if 0 <= box < start + MAX_BOX_CHARS:
        start = max(0, box - MAX_BOX_CHARS // 2)
        return answer[start : start + TAIL_CHARS]
    return answer[start:]


def extract(text: str, fallback: Fallback = Fallback.NUMBER) -> Extraction:
    """Returns the answer that a text states, and whether it is ambiguous."""
    tagged = tagged_answer(after_thinking(text) or "")
    part = excerpt(text)
    boxed = boxed_answer(part) if has_box(part) else None
    statement = last_statement(part)
    if has_box(part) and not (fallback is Fallback.OPTION and _states_option(statement, boxed)):
        return Extraction(boxed or None, BOX)
    if statement is not None:
        place = HASHES if statement.after_hashes else SENTENCE
        answer = None if statement.negated else stated_answer(statement)
        if answer and is_hedged(statement, answer):
            return Extraction(None, place, ambiguous=True)
        return Extraction(answer, place)
    if tagged is not None and len(tagged) <= 300:
        return Extraction(tagged, TAG)
    return Extraction(unmarked_answer(part, fallback), f"last {fallback.value}")


def _states_option(statement: Statement | None, boxed: str | None) -> bool:
    """Returns True if a sentence states an option where the box holds none: a formula that is framed on the way."""
    if statement is None or statement.negated or (boxed is not None and option(boxed) is not None):
        return False
    return option(stated_answer(statement) or "") is not None


def find_answer(text: str, fallback: Fallback = Fallback.NUMBER) -> str | None:
    """Returns the answer that a text states, as written there; None if it states none."""
    return extract(text, fallback).answer
