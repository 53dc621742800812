"""Writes the report as one HTML file that needs no network."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, PackageLoader
from markupsafe import Markup

from verl_rsim import __version__
from verl_rsim.core.strategies import STRATEGIES
from verl_rsim.monitoring.report import charts
from verl_rsim.monitoring.report.episode_archive import EpisodeArchive
from verl_rsim.monitoring.report.report_data import EpisodeGroup, ReportData
from verl_rsim.monitoring.report.stats import ShareEstimate, StrategyStats, Tally


@dataclass(frozen=True, slots=True)
class ComparisonRow:
    """Holds one row of the comparison of two groups of episodes, as text."""

    name: str
    before: str
    after: str


def _planner_reward(tally: Tally) -> str:
    return f"{tally.mean(tally.planner_reward):.3f}" if tally.rewarded else ""


def _reasoner_reward(tally: Tally) -> str:
    return f"{tally.mean(tally.reasoner_reward):.3f}" if tally.rewarded else ""


def _comparison_cells(tally: Tally) -> dict[str, str]:
    """Returns the cells of one group, by the name of the row; "" if the group does not define the value."""
    return {
        "Episodes": f"{tally.episodes:,}",
        "Accuracy (95 %)": format_estimate(tally.accuracy()),
        "Planner's reward": _planner_reward(tally),
        "Reasoner's reward": _reasoner_reward(tally),
        "Turns per answer": f"{tally.mean(tally.turns.total()):.2f}",
        "Different strategies per answer": f"{tally.mean(tally.used.total()):.2f}",
        "Tokens per answer": f"{tally.mean(tally.tokens):.1f}",
        "Ended by termination": f"{tally.mean(tally.stops['termination']):.1%}",
    }


def compare_groups(before: Tally, after: Tally) -> list[ComparisonRow]:
    """Returns the rows that compare two groups of episodes, without rows that are empty for both."""
    first, last = _comparison_cells(before), _comparison_cells(after)
    return [ComparisonRow(name, first[name], last[name]) for name in first if first[name] or last[name]]


def format_estimate(estimate: ShareEstimate | None, signed: bool = False) -> str:
    """Returns an estimate and its interval in percent, or a dash for None."""
    if estimate is None:
        return "–"  # noqa: RUF001
    sign = "+" if signed else ""
    return f"{estimate.value:{sign}.1%} ({estimate.low:{sign}.1%} to {estimate.high:{sign}.1%})"


def strategy_rows(stats: list[StrategyStats]) -> list[list[str]]:
    """Returns the rows of the table of strategies, as text."""
    return [
        [
            strategy.title,
            f"{item.turns:,}",
            f"{item.share:.1%}",
            f"{item.per_answer:.2f}",
            f"{item.keywords_per_answer:.2f}",
            format_estimate(item.win_rate),
            format_estimate(item.lift, signed=True),
        ]
        for strategy, item in zip(STRATEGIES, stats, strict=True)
    ]


def write_page(path: Path, data: ReportData, archive: EpisodeArchive) -> None:
    """Writes the page.

    Args:
        path: The HTML file.
        data: Data of the charts and tables.
        archive: The episodes.
    """
    # Episodes hold whatever a model wrote, so everything is escaped that is not Markup of this package.
    environment = Environment(
        loader=PackageLoader("verl_rsim.monitoring.report", "."), autoescape=True, trim_blocks=True
    )
    assets = files("verl_rsim.monitoring.report")
    index = archive.index()  # closes the last chunk, so it comes before the chunks are read
    page = environment.get_template("page.html").stream(
        data=data,
        version=__version__,
        summary=summarize(data),
        alarms=data.alarms(),
        style=Markup(assets.joinpath("page.css").read_text()),
        script=Markup(assets.joinpath("page.js").read_text()),
        titles=[strategy.title for strategy in STRATEGIES],
        logged=data.overall.episodes > 0,
        chunks=archive.chunks,
        index=index,
        **_chart_variables(data),
    )
    page.dump(str(path), encoding="utf-8")


def summarize(data: ReportData) -> str:
    """Returns a sentence about the size of the run."""
    training = [step for step in data.steps if "timing_s/step" in step]
    parts = [f"{len(training):,} training steps"] if data.steps else []
    if training:
        seconds = sum(step["timing_s/step"] for step in training)
        parts.append(f"{seconds / 3600:.1f} hours" if seconds >= 5400 else f"{seconds / 60:.1f} minutes")
    parts.append(f"{data.overall.episodes:,} logged episodes")
    text = ", ".join(parts)
    if data.is_evaluation:
        counts = [f"{group.condition} {group.tally.episodes:,}" for group in data.groups.values()]
        text += f": {', '.join(counts)}"
    return f"{text}."


def _chart_variables(data: ReportData) -> dict[str, object]:
    """Returns the template's variables that hold charts and tables."""
    bands, panels, shares, phases = data.bands(), data.panels(), data.shares(), data.phases()
    main_group = data.main_group()
    stats = main_group.tally.strategies() if main_group.tally.episodes else []
    variables: dict[str, object] = {
        "panels": [(panel.title, Markup(charts.line_chart(panel, bands))) for panel in panels],
        "bands": bands,
        "shares": Markup(charts.stacked_area_chart(shares, bands)) if shares else "",
        "phases": Markup(charts.phase_bar_chart(phases)) if phases else "",
        "step_seconds": _step_seconds(data),
        "win_rates": Markup(charts.win_rate_chart(stats)) if stats else "",
        "lifts": Markup(charts.lift_chart(stats)) if stats else "",
        "table": strategy_rows(stats) if stats else [],
        "main_group": main_group.label,
    }
    pair = data.compared_groups()
    groups = [group for group in pair or (main_group,) if group.tally.turns]
    variables["matrices"] = [(_matrix_title(group), Markup(_matrix(group))) for group in groups]
    if pair:
        variables |= _comparison_variables(*pair)
    titles = {"result": data.comparison_title, "curves": "Training", "strategies": "Strategies", "time": "Time"}
    available = {"result": pair, "curves": panels, "strategies": True, "time": phases}
    sections = [(name, title) for name, title in titles.items() if available[name]]
    variables["sections"] = [*sections, ("episodes", "Episodes")]
    return variables


def _comparison_variables(before: EpisodeGroup, after: EpisodeGroup) -> dict[str, object]:
    """Returns the template's variables that compare two groups."""
    first, last = before.tally.strategies(), after.tally.strategies()
    choices = charts.paired_bar_chart(
        [item.per_answer for item in first],
        [item.per_answer for item in last],
        "Strategies per answer, chosen",
    )
    keywords = charts.paired_bar_chart(
        [item.keywords_per_answer for item in first],
        [item.keywords_per_answer for item in last],
        "Strategies per answer, by key words",
    )
    return {
        "before": before,
        "after": after,
        "comparison": compare_groups(before.tally, after.tally),
        "choices": Markup(choices),
        "keywords": Markup(keywords),
    }


def _matrix_title(group: EpisodeGroup) -> str:
    return f"Transitions between strategies, {group.label}"


def _matrix(group: EpisodeGroup) -> str:
    return charts.transition_matrix(group.tally.transitions(), _matrix_title(group))


def _step_seconds(data: ReportData) -> str:
    """Returns a sentence about the mean time of a training step; "" without one."""
    seconds = [step["timing_s/step"] for step in data.steps if "timing_s/step" in step]
    return f"A whole training step takes {sum(seconds) / len(seconds):.1f} s." if seconds else ""
