"""The report as one HTML file that needs no network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, PackageLoader
from markupsafe import Markup

from verl_rsim import __version__
from verl_rsim.core.strategies import STRATEGIES
from verl_rsim.monitoring.report import charts
from verl_rsim.monitoring.report.browser import Pack
from verl_rsim.monitoring.report.facts import Facts, Group
from verl_rsim.monitoring.report.stats import ShareEstimate, StrategyStats, Tally


@dataclass(frozen=True, slots=True)
class PageRow:
    """A line of the comparison before and after."""

    name: str
    before: str
    after: str


def comparison(before: Tally, after: Tally) -> list[PageRow]:
    """What two groups of episodes did; a line that says nothing of either is left out."""
    rows: list[tuple[str, Callable[[Tally], str]]] = [
        ("Episodes", lambda tally: f"{tally.episodes:,}"),
        ("Accuracy (95 %)", lambda tally: interval(tally.accuracy())),
        ("Planner's reward", lambda tally: f"{tally.mean(tally.planner_reward):.3f}" if tally.rewarded else ""),
        ("Reasoner's reward", lambda tally: f"{tally.mean(tally.reasoner_reward):.3f}" if tally.rewarded else ""),
        ("Turns per answer", lambda tally: f"{tally.mean(tally.turns.total()):.2f}"),
        ("Different strategies per answer", lambda tally: f"{tally.mean(tally.used.total()):.2f}"),
        ("Tokens per answer", lambda tally: f"{tally.mean(tally.tokens):.1f}"),
        ("Ended by termination", lambda tally: f"{tally.mean(tally.stops['termination']):.1%}"),
    ]
    found = [PageRow(name, say(before), say(after)) for name, say in rows]
    return [row for row in found if row.before or row.after]


def interval(found: ShareEstimate | None, signed: bool = False) -> str:
    """An estimate for people, in percent."""
    if found is None:
        return "–"  # noqa: RUF001
    sign = "+" if signed else ""
    return f"{found.value:{sign}.1%} ({found.low:{sign}.1%} to {found.high:{sign}.1%})"


def numbers(stats: list[StrategyStats]) -> list[list[str]]:
    """The strategies' table for people."""
    return [
        [
            strategy.title,
            f"{item.turns:,}",
            f"{item.share:.1%}",
            f"{item.per_answer:.2f}",
            f"{item.keywords_per_answer:.2f}",
            interval(item.win_rate),
            interval(item.lift, signed=True),
        ]
        for strategy, item in zip(STRATEGIES, stats, strict=True)
    ]


def write_page(path: Path, facts: Facts, pack: Pack) -> None:
    """Write the page.

    Args:
        path: the HTML file.
        facts: what the charts show.
        pack: the episodes.
    """
    environment = Environment(
        loader=PackageLoader("verl_rsim.monitoring.report", "."), autoescape=True, trim_blocks=True
    )
    assets = files("verl_rsim.monitoring.report")
    index = pack.index()
    page = environment.get_template("page.html").stream(
        facts=facts,
        version=__version__,
        summary=summary(facts),
        alarms=facts.alarms(),
        style=Markup(assets.joinpath("page.css").read_text()),
        script=Markup(assets.joinpath("page.js").read_text()),
        titles=[strategy.title for strategy in STRATEGIES],
        logged=f"{facts.overall.episodes:,}" if facts.overall.episodes else "",
        chunks=pack.chunks,
        index=index,
        **_drawn(facts),
    )
    page.dump(str(path), encoding="utf-8")


def summary(facts: Facts) -> str:
    """The run in a sentence."""
    training = [step for step in facts.steps if "timing_s/step" in step]
    said = [f"{len(training):,} steps of training"] if facts.steps else []
    if training:
        seconds = sum(step["timing_s/step"] for step in training)
        said.append(f"{seconds / 3600:.1f} hours" if seconds >= 5400 else f"{seconds / 60:.1f} minutes")
    said.append(f"{facts.overall.episodes:,} logged episodes")
    counts = ", ".join(f"{group.condition} {group.tally.episodes:,}" for group in facts.groups.values())
    return ", ".join(said) + (f": {counts}." if facts.is_evaluation else ".")


def _drawn(facts: Facts) -> dict[str, object]:
    """The template's variables that hold charts and tables."""
    bands, panels, shares, phases = facts.bands(), facts.panels(), facts.shares(), facts.phases()
    studied = facts.studied()
    stats = studied.tally.strategies() if studied.tally.episodes else []
    drawn: dict[str, object] = {
        "panels": [(panel.title, Markup(charts.lines(panel, bands))) for panel in panels],
        "bands": bands,
        "shares": Markup(charts.areas(shares, bands)) if shares else "",
        "phases": Markup(charts.bars(phases)) if phases else "",
        "step_seconds": _step_seconds(facts),
        "win_rates": Markup(charts.win_rates(stats)) if stats else "",
        "lifts": Markup(charts.lifts(stats)) if stats else "",
        "table": numbers(stats) if stats else [],
        "studied": studied.label,
    }
    pair = facts.pair()
    groups = [group for group in pair or (studied,) if group.tally.turns]
    drawn["matrices"] = [(_matrix_title(group), Markup(_matrix(group))) for group in groups]
    if pair:
        drawn |= _pair(*pair)
    titles = {"result": facts.pair_title, "curves": "Training", "strategies": "Strategies", "time": "Time"}
    there = {"result": pair, "curves": panels, "strategies": True, "time": phases}
    sections = [(name, title) for name, title in titles.items() if there[name]]
    return drawn | {"sections": [*sections, ("episodes", "Episodes")]}


def _pair(before: Group, after: Group) -> dict[str, object]:
    first, last = before.tally.strategies(), after.tally.strategies()
    return {
        "before": before,
        "after": after,
        "comparison": comparison(before.tally, after.tally),
        "choices": Markup(
            charts.pairs((s.per_answer for s in first), (s.per_answer for s in last), "Strategies per answer, chosen")
        ),
        "keywords": Markup(
            charts.pairs(
                (s.keywords_per_answer for s in first),
                (s.keywords_per_answer for s in last),
                "Strategies per answer, by key words",
            )
        ),
    }


def _matrix_title(group: Group) -> str:
    return f"What follows what, {group.label}"


def _matrix(group: Group) -> str:
    return charts.matrix(group.tally.transitions(), _matrix_title(group))


def _step_seconds(facts: Facts) -> str:
    seconds = [step["timing_s/step"] for step in facts.steps if "timing_s/step" in step]
    return f"A whole step takes {sum(seconds) / len(seconds):.1f} s." if seconds else ""
