"""What is kept of an episode, and how it reads as JSON. The manual is docs/episodes.md.

Pure Python. How records get into files and out of them is :mod:`verl_rsim.monitoring.episode_log`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from verl_rsim.core.dialogue import Generation, Stop, Turn
from verl_rsim.core.prompts import Message
from verl_rsim.core.strategies import STRATEGIES
from verl_rsim.utils.errors import DataError

SCHEMA = 1
"""Rises when a field changes its meaning or goes; not when one is added."""

KINDS = ("train", "validation", "evaluation")
MAX_TRUTH_CHARS = 2000
"""A ground truth is cut here; the tests of a coding task can be long."""


@dataclass(frozen=True, slots=True)
class TurnRecord:
    """A strategy and the step written under it.

    Attributes:
        strategy: its name; "" where nobody chose one (an evaluation of the reasoner alone).
        text: the step.
        tokens: of the step, the end-of-sequence token included.
        end: why the step ended, a value of :class:`verl_rsim.core.dialogue.StepEnd`.
        parsed: False when a free-form planner named no strategy and *continuation* was taken.
        log_prob: of the planner's choice, in nats, under the distribution it was sampled from; None if not finite, or
            if there was no choice.
        log_prob_mean: mean over the step's tokens of the reasoner's log-probs, likewise.
    """

    strategy: str
    text: str
    tokens: int
    end: str
    parsed: bool = True
    log_prob: float | None = None
    log_prob_mean: float | None = None


@dataclass(frozen=True, slots=True)
class EpisodeRecord:
    """An episode and its rewards.

    Attributes:
        kind: one of :data:`KINDS`.
        step: step of training; a validation at 0 comes before the first update. 0 in an evaluation.
        question_id: the same for the same question, in every step and every run.
        question: the last message of the chat that was asked.
        sample: number of the episode among those of its question at this step, from 0.
        turns: what happened.
        stop: why it ended, a value of :class:`verl_rsim.core.dialogue.Stop`.
        truth: the ground truth, cut to :data:`MAX_TRUTH_CHARS` characters.
        data_source: the dataset, as verl calls it.
        uid: verl's id of the question in this step; names the rows ``{uid}_{sample}_{0|1}``.
        run: ``{project}/{experiment}``.
        weights_version: training step of the weights that played, None if the server did not say.
        acc: accuracy of the answer, in [0, 1].
        reasoner_reward, planner_reward: the rewards that the policies learned from; None in an evaluation.
        planner_parts: the weighted terms whose sum is ``planner_reward``.
        reason: the scorer's word: right, wrong, no_answer ...; None if it gives none.
        condition: of an evaluation, who answered: planner, or a control; else "".
        schema: version of this layout.
    """

    kind: str
    step: int
    question_id: str
    question: str
    sample: int
    turns: tuple[TurnRecord, ...]
    stop: str
    truth: str = ""
    data_source: str = ""
    uid: str = ""
    run: str = ""
    weights_version: int | None = None
    acc: float = 0.0
    reasoner_reward: float | None = None
    planner_reward: float | None = None
    planner_parts: Mapping[str, float] = field(default_factory=dict)
    reason: str | None = None
    condition: str = ""
    schema: int = SCHEMA

    @property
    def answer(self) -> str:
        """The last step: after *termination* the final answer."""
        return self.turns[-1].text if self.turns else ""

    @property
    def right(self) -> bool:
        """Whether the answer is right in full."""
        return self.acc >= 1

    def scored(self, info: Mapping[str, Any]) -> EpisodeRecord:
        """This record with its rewards.

        Args:
            info: the episode's ``reward_extra_info``: ``acc``, ``reasoner_reward``, ``planner_reward``,
                ``planner_{part}`` and, from some reward managers, ``reason``.
        """
        parts = {name.removeprefix("planner_"): value for name, value in info.items() if name.startswith("planner_")}
        parts.pop("reward", None)
        return dataclasses.replace(
            self,
            acc=info["acc"],
            reasoner_reward=info["reasoner_reward"],
            planner_reward=info["planner_reward"],
            planner_parts=parts,
            reason=None if info.get("reason") is None else str(info["reason"]),
        )


def record_of(
    turns: Iterable[TurnRecord],
    stop: Stop,
    messages: Sequence[Message],
    *,
    kind: str,
    step: int,
    sample: int,
    truth: str,
    data_source: str,
    uid: str,
    run: str,
    weights_version: int | None = None,
    condition: str = "",
) -> EpisodeRecord:
    """The record of a finished episode, still without scores; see :class:`EpisodeRecord` for the arguments."""
    return EpisodeRecord(
        kind=kind,
        step=step,
        question_id=question_id(messages, truth),
        question=_text(messages[-1]["content"]),
        sample=sample,
        turns=tuple(turns),
        stop=stop.value,
        truth=truth if len(truth) <= MAX_TRUTH_CHARS else truth[:MAX_TRUTH_CHARS] + " …",
        data_source=data_source,
        uid=uid,
        run=run,
        weights_version=weights_version,
        condition=condition,
    )


def question_id(messages: Sequence[Message], truth: str) -> str:
    """A short hash of the whole chat and the ground truth, 12 hex digits; verl's own uid changes every epoch."""
    text = "\0".join([*(f"{message['role']}\0{_text(message['content'])}" for message in messages), truth])
    return hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=6).hexdigest()


def is_sampled(share: float, *identity: object) -> bool:
    """Whether an episode belongs to a sample of this share; the same answer for the same identity, always."""
    text = "/".join(map(str, identity))
    digest = hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=8).digest()
    return int.from_bytes(digest, "big") < share * 2**64


def to_json(record: EpisodeRecord) -> str:
    """One line of JSON, without the line's end; numbers that are not finite become null."""
    values = {item.name: getattr(record, item.name) for item in dataclasses.fields(record)}
    values["turns"] = [{f.name: _plain(getattr(t, f.name)) for f in dataclasses.fields(t)} for t in record.turns]
    values["planner_parts"] = {name: _plain(value) for name, value in record.planner_parts.items()}
    line = {name: _plain(value) for name, value in values.items()}
    return json.dumps({"schema": line.pop("schema"), **line}, ensure_ascii=False, allow_nan=False)


_TURN_FIELDS = frozenset(item.name for item in dataclasses.fields(TurnRecord))
_FIELDS = frozenset(item.name for item in dataclasses.fields(EpisodeRecord))


def from_json(line: str | bytes) -> EpisodeRecord:
    """Read one line; fields this version does not know are left out.

    Raises:
        DataError: it is no record, or one of a newer schema.
    """
    try:
        values = json.loads(line)
        schema = values["schema"]
        if schema > SCHEMA:
            raise DataError(f"is of schema {schema}, this verl-rsim reads up to {SCHEMA}; upgrade verl-rsim")
        turns = tuple(
            TurnRecord(**{key: value for key, value in turn.items() if key in _TURN_FIELDS}) for turn in values["turns"]
        )
        known = {key: value for key, value in values.items() if key in _FIELDS}
        return EpisodeRecord(**{**known, "turns": turns})
    except DataError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"is no episode record ({type(error).__name__}: {error})") from None


def turn_record(turn: Turn) -> TurnRecord:
    """What is kept of a turn."""
    return TurnRecord(
        strategy=STRATEGIES[turn.strategy].name,
        text=turn.step_text,
        tokens=len(turn.step.token_ids),
        end=turn.step_end.value,
        parsed=turn.parsed,
        log_prob=_plain(float(sum(turn.choice.log_probs))),
        log_prob_mean=mean_log_prob(turn.step),
    )


def mean_log_prob(step: Generation) -> float | None:
    """Mean over the tokens; None if not finite."""
    return _plain(float(sum(step.log_probs) / len(step.log_probs)))


def _plain(value: Any) -> Any:
    """A number as JSON can hold it: finite or None, to five decimals; anything else as it is."""
    if not isinstance(value, float):
        return value
    return round(value, 5) if math.isfinite(value) else None


def _text(content: Any) -> str:
    """A message's text; of a multi-modal message the text parts."""
    if isinstance(content, str):
        return content
    return "\n".join(str(part["text"]) for part in content if isinstance(part, Mapping) and "text" in part)
