"""Defines the record of an episode and its JSON form (docs/episodes.md).

:mod:`verl_rsim.monitoring.episode_log` writes records to files and reads them.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from verl_rsim.core.episode import Generation, Stop, Turn
from verl_rsim.core.prompts import Message
from verl_rsim.core.strategies import STRATEGIES
from verl_rsim.utils.errors import DataError

SCHEMA = 1
"""Version of the layout. It rises when a field is removed or changes its meaning, not when one is added."""

KINDS = ("train", "validation", "evaluation")
MAX_TRUTH_CHARS = 2000
"""Longer ground truths are cut: the tests of a coding task can be long."""


@dataclass(frozen=True, slots=True)
class TurnRecord:
    """Records a strategy and the step that was written under it.

    Attributes:
        strategy: name of the strategy; "" where none was chosen (an evaluation of the reasoner alone).
        text: the step.
        tokens: number of tokens of the step, the end-of-sequence token included.
        end: why the step ended, a value of :class:`verl_rsim.core.episode.StepEnd`.
        parsed: False when a free-form planner named no strategy and *continuation* was taken.
        log_prob: log-prob of the planner's choice, in nats, under the distribution that it was sampled from; None if
            it is not finite or there was no choice.
        log_prob_mean: mean of the reasoner's log-probs over the tokens of the step; None if it is not finite.
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
    """Records an episode and its rewards.

    Attributes:
        kind: one of :data:`KINDS`.
        step: training step; a validation at 0 comes before the first update. 0 in an evaluation.
        question_id: hash of the question, the same in every training step and every run.
        question: text of the chat's last message.
        sample: number of the episode among those of its question in this training step, from 0.
        turns: the turns in order.
        stop: why it ended, a value of :class:`verl_rsim.core.episode.Stop`.
        truth: the ground truth, cut to :data:`MAX_TRUTH_CHARS` characters.
        data_source: the dataset, as verl calls it.
        uid: verl's id of the question in this step; names the rows ``{uid}_{sample}_{0|1}``.
        run: ``{project}/{experiment}``.
        weights_version: training step of the weights that played, None if the server did not say.
        acc: accuracy of the answer, in [0, 1].
        reasoner_reward, planner_reward: the rewards that the policies learned from; None in an evaluation.
        planner_parts: the weighted terms whose sum is ``planner_reward``.
        reason: the scorer's verdict in a word: right, wrong, no_answer ...; None if it gives none.
        condition: in an evaluation, the planner or the control that answered; else "".
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
        """Returns the text of the last step: after *termination* the final answer."""
        return self.turns[-1].text if self.turns else ""

    @property
    def right(self) -> bool:
        """Returns True if the answer is fully right."""
        return self.acc >= 1

    def scored(self, info: Mapping[str, Any]) -> EpisodeRecord:
        """Returns this record with its rewards.

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
    """Returns the record of a finished episode, without rewards; see :class:`EpisodeRecord` for the arguments."""
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
    """Returns a hash of the whole chat and the ground truth, 12 hex digits; verl's own uid changes every epoch."""
    parts = [f"{message['role']}\0{_text(message['content'])}" for message in messages]
    text = "\0".join([*parts, truth])
    return hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=6).hexdigest()


def is_sampled(share: float, *identity: object) -> bool:
    """Returns True for a fixed pseudo-random share of all identities, always the same ones."""
    text = "/".join(map(str, identity))
    digest = hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=8).digest()
    return int.from_bytes(digest, "big") < share * 2**64


def to_json(record: EpisodeRecord) -> str:
    """Returns a record as one line of JSON, without the newline; numbers that are not finite become null."""
    line = _plain_fields(record)
    line["turns"] = [_plain_fields(turn) for turn in record.turns]
    line["planner_parts"] = {name: _plain(value) for name, value in record.planner_parts.items()}
    return json.dumps({"schema": line.pop("schema"), **line}, ensure_ascii=False, allow_nan=False)


def _plain_fields(record: EpisodeRecord | TurnRecord) -> dict[str, Any]:
    """Returns the fields of a record by name, floats as JSON can hold them."""
    return {item.name: _plain(getattr(record, item.name)) for item in dataclasses.fields(record)}


_TURN_FIELDS = frozenset(item.name for item in dataclasses.fields(TurnRecord))
_FIELDS = frozenset(item.name for item in dataclasses.fields(EpisodeRecord))


def from_json(line: str | bytes) -> EpisodeRecord:
    """Reads one line of JSON; fields that this version does not know are ignored.

    Raises:
        DataError: the line is no record, or a record of a newer schema.
    """
    try:
        values = json.loads(line)
        schema = values["schema"]
        if schema > SCHEMA:
            raise DataError(f"is of schema {schema}, this verl-rsim reads up to {SCHEMA}; upgrade verl-rsim")
        turns = []
        for turn in values["turns"]:
            turns.append(TurnRecord(**{key: value for key, value in turn.items() if key in _TURN_FIELDS}))
        known = {key: value for key, value in values.items() if key in _FIELDS}
        return EpisodeRecord(**{**known, "turns": tuple(turns)})
    except DataError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"is no episode record ({type(error).__name__}: {error})") from None


def turn_record(turn: Turn) -> TurnRecord:
    """Returns the record of a turn."""
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
    """Returns the mean log-prob of a generation's tokens, in nats; None if it is not finite."""
    return _plain(float(sum(step.log_probs) / len(step.log_probs)))


def _plain(value: Any) -> Any:
    """Rounds a float to five decimals and replaces one that is not finite by None; returns anything else unchanged."""
    if not isinstance(value, float):
        return value
    return round(value, 5) if math.isfinite(value) else None


def _text(content: Any) -> str:
    """Returns the text of a message; of a multi-modal message its text parts, joined by newlines."""
    if isinstance(content, str):
        return content
    return "\n".join(str(part["text"]) for part in content if isinstance(part, Mapping) and "text" in part)
