"""Shows logged episodes in a terminal, and as plain text where there is none."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from verl_rsim.core.dialogue import Stop
from verl_rsim.core.episode_record import EpisodeRecord, TurnRecord
from verl_rsim.core.strategies import STRATEGIES
from verl_rsim.utils.errors import ConfigError

_STYLES = ("blue", "dark_orange", "red", "cyan", "green", "magenta", "purple", "bright_black", "yellow")
_STYLE_OF = {strategy.name: style for strategy, style in zip(STRATEGIES, _STYLES, strict=True)}
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


@dataclass(frozen=True, slots=True)
class Filter:
    """Which episodes to show; None and False ask for nothing.

    Attributes:
        step: of training.
        wrong: only those whose answer is not right in full.
        strategy: name of a strategy that was used.
        stop: why it ended.
        condition: of an evaluation.
        search: text in the question, a step or the ground truth, in any case.

    Raises:
        ConfigError: there is no such strategy or reason.
    """

    step: int | None = None
    wrong: bool = False
    strategy: str | None = None
    stop: str | None = None
    condition: str | None = None
    search: str | None = None

    def __post_init__(self) -> None:
        choices = {"strategy": [item.name for item in STRATEGIES], "stop": [item.value for item in Stop]}
        for name, known in choices.items():
            value = getattr(self, name)
            if value is not None and value not in known:
                raise ConfigError(f"--{name}", value, f"choose one of {', '.join(known)}")

    def passes(self, record: EpisodeRecord) -> bool:
        """Whether to show this one."""
        texts = (record.question, record.truth, *(turn.text for turn in record.turns))
        return (
            (self.step is None or record.step == self.step)
            and not (self.wrong and record.right)
            and (self.strategy is None or any(turn.strategy == self.strategy for turn in record.turns))
            and (self.stop is None or record.stop == self.stop)
            and (self.condition is None or record.condition == self.condition)
            and (self.search is None or any(self.search.lower() in text.lower() for text in texts))
        )


def replay(records: Iterable[EpisodeRecord], wanted: Filter, console: Console) -> int:
    """Print the episodes that pass.

    Returns:
        How many.
    """
    shown = 0
    for record in filter(wanted.passes, records):
        if shown:
            console.rule(style="dim") if console.is_terminal else console.print("-" * 80)
        _show(record, console)
        shown += 1
    return shown


def _show(record: EpisodeRecord, console: Console) -> None:
    head = Text.assemble(
        (f"{record.kind}, {record.condition}" if record.condition else f"{record.kind} at step {record.step}", "bold"),
        f", question {record.question_id}, sample {record.sample}: ",
        ("right", "bold green") if record.right else ("wrong", "bold red"),
    )
    if record.reason and record.reason not in ("right", "wrong"):
        head.append(f" ({record.reason})")
    _print(console, head)
    _print(console, f"{_rewards(record)}ended by {record.stop}", style="dim")
    _print(console, record.question, indent=2)
    for position, turn in enumerate(record.turns, 1):
        style = _STYLE_OF.get(turn.strategy, "")
        name = turn.strategy or "without a strategy"
        _print(console, Text.assemble((f"{position}. {name}", f"bold {style}"), (f"  {_about(turn)}", "dim")))
        _print(console, turn.text.strip() or "(nothing)", indent=3)
    _print(console, Text.assemble(("ground truth: ", "dim"), record.truth))


def _rewards(record: EpisodeRecord) -> str:
    if record.planner_reward is None or record.reasoner_reward is None:
        return ""
    parts = ", ".join(f"{name} {value:.2f}" for name, value in record.planner_parts.items() if value)
    planners = f"planner's reward {record.planner_reward:.2f}{f' ({parts})' if parts else ''}"
    return f"{planners}, reasoner's {record.reasoner_reward:.2f}, "


def _about(turn: TurnRecord) -> str:
    said = [] if turn.log_prob is None else [f"p = {math.exp(turn.log_prob):.2f}"]
    mean = "" if turn.log_prob_mean is None else f" of mean log-prob {turn.log_prob_mean:.2f}"
    said += [f"{turn.tokens} tokens{mean}", turn.end, *([] if turn.parsed else ["named no strategy"])]
    return ", ".join(said)


def _print(console: Console, text: str | Text, indent: int = 0, style: str = "") -> None:
    """Without control characters; wrapped to a terminal's width, elsewhere a line stays a line."""
    body = Text(text, style=style) if isinstance(text, str) else text
    body.plain = visible(body.plain)
    if console.is_terminal:
        console.print(Padding(body, (0, 0, 0, indent)), highlight=False)
    else:
        lines = body.plain.split("\n")
        console.print("\n".join(" " * indent + line for line in lines), markup=False, highlight=False, soft_wrap=True)


def visible(text: str) -> str:
    """The text without control characters, which could rewrite what a terminal shows."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text)
