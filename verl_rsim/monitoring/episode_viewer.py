"""Shows logged episodes in a terminal, or as plain text in a file or a pipe."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from verl_rsim.core.episode import Stop
from verl_rsim.core.episode_record import EpisodeRecord, TurnRecord
from verl_rsim.core.strategies import STRATEGIES
from verl_rsim.utils.errors import ConfigError

_STYLES = ("blue", "dark_orange", "red", "cyan", "green", "magenta", "purple", "bright_black", "yellow")
_STRATEGY_STYLES = {strategy.name: style for strategy, style in zip(STRATEGIES, _STYLES, strict=True)}
_CONTROL_CHARACTERS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


@dataclass(frozen=True, slots=True)
class EpisodeFilter:
    """Selects the episodes to show. A field that is None or False selects all.

    Attributes:
        step: Training step.
        wrong: Only episodes with answers that are not entirely right.
        strategy: Name of a strategy that the episode used.
        stop: Reason for which the episode ended.
        condition: Control condition of an evaluation.
        search: Text in the question, a step or the ground truth; upper and lower case are the same.

    Raises:
        ConfigError: There is no such strategy or reason.
    """

    step: int | None = None
    wrong: bool = False
    strategy: str | None = None
    stop: str | None = None
    condition: str | None = None
    search: str | None = None

    def __post_init__(self) -> None:
        choices = {"strategy": [strategy.name for strategy in STRATEGIES], "stop": [stop.value for stop in Stop]}
        for name, allowed in choices.items():
            value = getattr(self, name)
            if value is not None and value not in allowed:
                raise ConfigError(f"--{name}", value, f"choose one of {', '.join(allowed)}")

    def passes(self, record: EpisodeRecord) -> bool:
        """Returns True if the filter selects the episode."""
        texts = (record.question, record.truth, *(turn.text for turn in record.turns))
        return (
            (self.step is None or record.step == self.step)
            and not (self.wrong and record.right)
            and (self.strategy is None or any(turn.strategy == self.strategy for turn in record.turns))
            and (self.stop is None or record.stop == self.stop)
            and (self.condition is None or record.condition == self.condition)
            and (self.search is None or any(self.search.lower() in text.lower() for text in texts))
        )


def replay(records: Iterable[EpisodeRecord], selection: EpisodeFilter, console: Console) -> int:
    """Prints the selected episodes.

    Returns:
        The number of printed episodes.
    """
    count = 0
    for record in filter(selection.passes, records):
        if count and console.is_terminal:
            console.rule(style="dim")
        elif count:
            console.print("-" * 80)
        _print_episode(record, console)
        count += 1
    return count


def _print_episode(record: EpisodeRecord, console: Console) -> None:
    origin = f"{record.kind}, {record.condition}" if record.condition else f"{record.kind} at step {record.step}"
    head = Text.assemble(
        (origin, "bold"),
        f", question {record.question_id}, sample {record.sample}: ",
        ("right", "bold green") if record.right else ("wrong", "bold red"),
    )
    if record.reason and record.reason not in ("right", "wrong"):
        head.append(f" ({record.reason})")
    _print(console, head)
    _print(console, f"{_reward_text(record)}ended by {record.stop}", style="dim")
    _print(console, record.question, indent=2)
    for position, turn in enumerate(record.turns, 1):
        style = _STRATEGY_STYLES.get(turn.strategy, "")
        name = turn.strategy or "without a strategy"
        _print(console, Text.assemble((f"{position}. {name}", f"bold {style}"), (f"  {_turn_details(turn)}", "dim")))
        _print(console, turn.text.strip() or "(nothing)", indent=3)
    _print(console, Text.assemble(("ground truth: ", "dim"), record.truth))


def _reward_text(record: EpisodeRecord) -> str:
    """Returns the rewards in words; "" for an evaluation, which has none."""
    if record.planner_reward is None or record.reasoner_reward is None:
        return ""
    parts = ", ".join(f"{name} {value:.2f}" for name, value in record.planner_parts.items() if value)
    planner = f"planner's reward {record.planner_reward:.2f}"
    if parts:
        planner += f" ({parts})"
    return f"{planner}, reasoner's {record.reasoner_reward:.2f}, "


def _turn_details(turn: TurnRecord) -> str:
    """Returns the probability of the choice, the step's length and log-prob, and how the step ended."""
    details = [] if turn.log_prob is None else [f"p = {math.exp(turn.log_prob):.2f}"]
    mean = "" if turn.log_prob_mean is None else f" of mean log-prob {turn.log_prob_mean:.2f}"
    details += [f"{turn.tokens} tokens{mean}", turn.end]
    if not turn.parsed:
        details.append("named no strategy")
    return ", ".join(details)


def _print(console: Console, text: str | Text, indent: int = 0, style: str = "") -> None:
    """Prints text without control characters. Lines are wrapped in a terminal only."""
    body = Text(text, style=style) if isinstance(text, str) else text
    body.plain = visible(body.plain)
    if console.is_terminal:
        console.print(Padding(body, (0, 0, 0, indent)), highlight=False)
    else:
        lines = body.plain.split("\n")
        console.print("\n".join(" " * indent + line for line in lines), markup=False, highlight=False, soft_wrap=True)


def visible(text: str) -> str:
    """Returns the text without control characters: a model could write some that rewrite what the terminal shows."""
    return _CONTROL_CHARACTERS.sub("\N{REPLACEMENT CHARACTER}", text)
