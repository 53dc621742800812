"""Defines the rules of play: the bounds of an episode, and the form in which the two models talk."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from verl_rsim.core.dialogue import Dialogue
from verl_rsim.core.episode import Injection, Limits
from verl_rsim.core.prompts import Codec
from verl_rsim.utils.errors import ConfigError

PLANNER_DECODINGS = ("constrained", "free")
"""Decoding modes of the planner: one of the nine strategy labels, or any text."""


@dataclass(frozen=True, slots=True)
class Rules:
    """Sets the bounds of an episode; the defaults are those of training.

    They give every condition of an evaluation the same budget of reasoner tokens.

    Attributes:
        max_turns, max_step_tokens, max_answer_tokens: see :class:`verl_rsim.core.episode.Limits`.
        max_prompt_tokens: most tokens of each model's prompt; None for all that its context leaves. Questions with a
            longer prompt are not played.
        injection: "inline" or "chat".
        delimiter: text that ends a step.
        planner_decoding: "constrained" (to the nine labels) or "free", as the planner was trained.

    Raises:
        ConfigError: a value is out of range or unknown.
    """

    max_turns: int = 6
    max_step_tokens: int = 128
    max_answer_tokens: int = 128
    max_prompt_tokens: int | None = None
    injection: str = "inline"
    delimiter: str = "\n\n"
    planner_decoding: str = "constrained"

    def __post_init__(self) -> None:
        for name in ("max_turns", "max_step_tokens", "max_answer_tokens", "max_prompt_tokens"):
            value = getattr(self, name)
            if value is None and name == "max_prompt_tokens":
                continue
            if type(value) is not int or value < 1:
                raise ConfigError(name, value, "must be a whole number >= 1")
        if self.injection not in [item.value for item in Injection]:
            raise ConfigError("injection", self.injection, "choose inline or chat")
        if not isinstance(self.delimiter, str) or not self.delimiter:
            raise ConfigError("delimiter", self.delimiter, 'must be text that is not empty, e.g. "\\n\\n"')
        if self.planner_decoding not in PLANNER_DECODINGS:
            fix = f"choose {' or '.join(PLANNER_DECODINGS)}"
            raise ConfigError("planner_decoding", self.planner_decoding, fix)

    @property
    def budget(self) -> int:
        """Most tokens that the reasoner may generate for one answer in any condition; inserted tokens do not count."""
        return (self.max_turns - 1) * self.max_step_tokens + max(self.max_step_tokens, self.max_answer_tokens)

    def dialogue(self, planner: Codec, planner_context: int, reasoner: Codec, reasoner_context: int) -> Dialogue:
        """Builds the dialogue of two models.

        The reasoner's row has room for the whole budget and all instructions, so that only the budget limits it.

        Args:
            planner, reasoner: codecs of the models.
            planner_context, reasoner_context: most tokens of each model's row.

        Raises:
            ConfigError: a context is too short for these rules, or the planner's tokenizer has no single token for a
                strategy label.
        """
        unbounded = Limits(self.max_turns, self.max_step_tokens, self.max_answer_tokens, 1, 1, 1, 1)
        constrained = self.planner_decoding == "constrained"
        dialogue = Dialogue(planner, reasoner, unbounded, Injection(self.injection), constrained, self.delimiter)
        if constrained:
            _ = dialogue.label_ids  # raises now, rather than in the first episode, if a label is no single token
        reasoner_response = self.budget + self.max_turns * dialogue.longest_injection()
        # The planner reads the steps in its own tokens; another tokenizer may need up to twice as many.
        planner_response = min(2 * reasoner_response, planner_context // 2)
        planner_prompt = self._max_prompt("planner", planner_context, planner_response)
        reasoner_prompt = self._max_prompt("reasoner", reasoner_context, reasoner_response)
        limits = dataclasses.replace(
            unbounded,
            planner_prompt=planner_prompt,
            planner_response=planner_context - planner_prompt,
            reasoner_prompt=reasoner_prompt,
            reasoner_response=reasoner_response,
        )
        return dataclasses.replace(dialogue, limits=limits, _encoded={})

    def _max_prompt(self, role: str, context: int, response: int) -> int:
        """Returns the most tokens of a prompt that leave room for the response."""
        room = context - (response if role == "reasoner" else 1)
        if (self.max_prompt_tokens or 1) > room:
            fix = f"leaves {max(0, room)} of the {role}'s {context} tokens for the prompt; lower it or max_step_tokens"
            raise ConfigError("max_turns", self.max_turns, fix)
        return self.max_prompt_tokens or context - response
