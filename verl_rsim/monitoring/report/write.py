"""Reads a run and writes its report in the formats that were asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from rich.console import Console

from verl_rsim.monitoring.episode_log import read_log, sources
from verl_rsim.monitoring.report.browser import Pack
from verl_rsim.monitoring.report.facts import Facts, find_metrics, load_steps
from verl_rsim.monitoring.report.figure import write_png
from verl_rsim.monitoring.report.page import write_page
from verl_rsim.monitoring.report.tables import write_csv, write_markdown
from verl_rsim.utils.errors import ConfigError, DataError
from verl_rsim.utils.progress import shown

FORMATS = ("html", "md", "png", "csv")


def write_report(
    run_dir: Path, metrics: Path | None, out: Path | None, formats: Sequence[str], home: Path, console: Console
) -> list[Path]:
    """Write a report.

    Args:
        run_dir: ``trainer.default_local_dir`` of the run, or the folder of an evaluation.
        metrics: what verl's file logger wrote; None to look for it.
        out: the file; None for ``report.{format}`` in the run's folder, ``episodes.{format}`` in an evaluation's, which
            has a report of its own. Other formats get their own suffix.
        formats: some of :data:`FORMATS`.
        home: ``$RSIM_HOME``.
        console: says how far it is.

    Returns:
        The files.

    Raises:
        ConfigError: an unknown format.
        DataError: no such run, no metrics file, or a log that cannot be read.
    """
    for name in formats:
        if name not in FORMATS:
            raise ConfigError("--format", name, f"choose some of {','.join(FORMATS)}")
    if not run_dir.is_dir():
        raise DataError(f"{run_dir}: there is no such folder; name the run's trainer.default_local_dir")
    facts, pack = read_run(run_dir, metrics, home, console)
    writers: dict[str, Callable[[Path, Facts], None]] = {
        "html": partial(write_page, pack=pack),
        "md": write_markdown,
        "png": write_png,
        "csv": write_csv,
    }
    written = []
    for name in formats:
        path = (out or run_dir / ("episodes" if facts.is_evaluation else "report")).with_suffix(f".{name}")
        path.parent.mkdir(parents=True, exist_ok=True)
        writers[name](path, facts)
        console.print(f"Wrote {path} ({path.stat().st_size / 2**20:.1f} MiB)", soft_wrap=True, highlight=False)
        written.append(path)
    return written


def read_run(run_dir: Path, metrics: Path | None, home: Path, console: Console) -> tuple[Facts, Pack]:
    """Everything a report needs, in one pass over the episodes.

    Raises:
        DataError: no metrics file, or a log that cannot be read.
    """
    try:
        bytes_to_read = sum(source.path.stat().st_size for source in sources(run_dir))
    except DataError:
        bytes_to_read = 0  # a run without a log still has its curves
    facts, pack = Facts(run_dir.resolve().name, []), Pack()
    run = ""
    if bytes_to_read:
        with shown(console, "Reading episodes (bytes)", bytes_to_read) as advance:
            for record in read_log(run_dir, advance):
                facts.add(record)
                pack.add(record)
                run = record.run
    console.print(f"Read {pack.count:,} episodes", highlight=False)
    if metrics or not facts.is_evaluation:
        facts.steps = load_steps(metrics or find_metrics(run_dir, run, home))
    facts.title = run or facts.title
    return facts, pack
