"""Grades texts offline and explains each verdict, so that a reward can be audited before it is trusted."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from verl_rsim.evaluation.grading_rows import GradingRow, read_grading_rows, require_rows
from verl_rsim.evaluation.other_scorers import OtherScorers
from verl_rsim.reward.config import ScoringConfig
from verl_rsim.reward.math_grading.answer_types import AnswerTypes
from verl_rsim.reward.math_grading.compare import AnswerType
from verl_rsim.reward.scorer import Scorer, is_coding_task
from verl_rsim.reward.verdict import TruthError
from verl_rsim.utils.errors import ConfigError
from verl_rsim.utils.progress import track

REASONS = ("right", "wrong", "no_answer", "ambiguous", "scorer_failed")
"""Verdicts of a grading; "wrong" includes answers that are refused for their length."""
_REASONS = {"too_long": "wrong", "timeout": "scorer_failed", "crash": "scorer_failed"}


@dataclass(frozen=True, slots=True)
class Graded:
    """Holds the verdict on a row and its explanation.

    Attributes:
        row: the row.
        kind: type by which the answer was compared; "program" for a program.
        reason: one of :data:`REASONS`.
        answer: the extracted answer; None if there is none.
        explanation: what was extracted and how it was compared, in a sentence.
        others: verdicts of other scorers by their names; None where one did not decide.
    """

    row: GradingRow
    kind: str
    reason: str
    answer: str | None
    explanation: str
    others: Mapping[str, bool | None]

    @property
    def right(self) -> bool:
        """True if the text was scored right."""
        return self.reason == "right"

    @property
    def disputed(self) -> bool:
        """True if a person or another scorer judges otherwise."""
        return any(other is not None and other is not self.right for other in (self.row.right, *self.others.values()))


def grade_file(
    path: Path, kind: str, scoring: ScoringConfig, against: Sequence[str], fusion_url: str | None = None
) -> tuple[list[Graded], list[str]]:
    """Grades the rows of a file.

    Args:
        path: see :func:`.grading_rows.read_grading_rows`.
        kind: type of rows that name none.
        scoring: settings of the scorer.
        against: names of other scorers, see :data:`.other_scorers.SCORERS`.
        fusion_url: URL of the sandbox service, if the settings name it.

    Returns:
        The verdicts, and a message for each row that cannot be graded.

    Raises:
        ConfigError: a setting is unknown.
        DataError: the file cannot be read, or holds no row that can be graded.
    """
    if kind not in [item.value for item in AnswerType]:
        raise ConfigError("--type", kind, f"write one of {', '.join(item.value for item in AnswerType)}")
    types = AnswerTypes({source: AnswerType(name) for source, name in scoring.answer_types.items()})
    rows, problems = read_grading_rows(path, types, AnswerType(kind))
    require_rows(path, rows, problems)
    others, scorer = OtherScorers(against), Scorer(scoring, fusion_url)
    try:
        verdicts = grade_rows(rows, scorer, others, 2 * scoring.workers)
        return list(track(verdicts, "Grading", len(rows))), problems
    finally:
        scorer.close()
        others.close()


def grade_rows(rows: Sequence[GradingRow], scorer: Scorer, others: OtherScorers, threads: int) -> Iterator[Graded]:
    """Yields the verdicts in the order of the rows, as soon as they are there.

    Raises:
        SandboxError: a sandbox failed twice on a program.
    """

    def graded(row: GradingRow) -> Graded:
        return _graded(row, scorer, others)

    with ThreadPoolExecutor(threads) as pool:
        yield from pool.map(graded, rows)


def _graded(row: GradingRow, scorer: Scorer, others: OtherScorers) -> Graded:
    if is_coding_task(row.data_source, row.ability):
        return _program(row, scorer)
    found = scorer.math.explain(row.text, row.truth, row.data_source)
    reason = _REASONS.get(found.reason, found.reason)
    place = f" ({found.place})" if found.place else ""
    if found.answer is not None:
        explanation = f"{found.answer[:200]!r}{place} against {row.truth[:200]!r}"
        explanation += f", compared {found.method}" if found.method else ", refused: it is too long to be compared"
    elif reason == "scorer_failed":
        explanation = f"the scorer did not decide ({found.reason})"
    elif reason == "ambiguous":
        explanation = f"the text offers an alternative to its answer{place}"
    else:
        explanation = f"no answer found; looked at: {found.place or 'the end of the text'}"
    return Graded(row, found.kind.value, reason, found.answer, explanation, others.score(row))


def _program(row: GradingRow, scorer: Scorer) -> Graded:
    try:
        verdict = scorer.score(row.text, row.truth, row.data_source, row.ability)
    except TruthError as error:
        return Graded(row, "program", "scorer_failed", None, str(error), {})
    passed = verdict.parts.get("passed", verdict.accuracy)
    reason = verdict.reason if verdict.reason in REASONS else "wrong"
    return Graded(row, "program", reason, None, f"{passed:.0%} of the tests pass ({verdict.reason})", {})


def write_graded(path: Path, graded: Sequence[Graded]) -> None:
    """Writes the verdicts, one JSON object a line, with the columns of their rows."""
    with path.open("w", encoding="utf-8", errors="backslashreplace") as file:
        for item in graded:
            verdict = {"kind": item.kind, "reason": item.reason, "answer": item.answer, "explanation": item.explanation}
            line = {**item.row.columns, "graded": {**verdict, **item.others}}
            file.write(json.dumps(line, ensure_ascii=False, default=str) + "\n")
