"""Reads a run and writes its report in the requested formats."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from rich.console import Console

from verl_rsim.monitoring.episode_log import find_sources, read_log
from verl_rsim.monitoring.report.episode_archive import EpisodeArchive
from verl_rsim.monitoring.report.figure import write_png
from verl_rsim.monitoring.report.page import write_page
from verl_rsim.monitoring.report.report_data import ReportData, find_metrics, load_steps
from verl_rsim.monitoring.report.tables import write_csv, write_markdown
from verl_rsim.utils.errors import ConfigError, DataError
from verl_rsim.utils.progress import progress_bar

FORMATS = ("html", "md", "png", "csv")


def write_report(
    run_dir: Path, metrics: Path | None, out: Path | None, formats: Sequence[str], home: Path, console: Console
) -> list[Path]:
    """Writes a report.

    Args:
        run_dir: ``trainer.default_local_dir`` of the run, or the folder of an evaluation.
        metrics: File that verl's file logger wrote; None to search for it.
        out: File to write. None stands for ``report.{format}`` in the run's folder, or ``episodes.{format}`` in an
            evaluation's, which has a report of its own. Other formats get their own suffix.
        formats: Some of :data:`FORMATS`.
        home: ``$RSIM_HOME``.
        console: Console for progress messages.

    Returns:
        The written files.

    Raises:
        ConfigError: A format is unknown.
        DataError: The run or its metrics file does not exist, or a log cannot be read.
    """
    for name in formats:
        if name not in FORMATS:
            raise ConfigError("--format", name, f"choose some of {','.join(FORMATS)}")
    archive = EpisodeArchive()
    data = read_run(run_dir, metrics, home, console, archive)
    default_name = "episodes" if data.is_evaluation else "report"
    writers: dict[str, Callable[[Path, ReportData], None]] = {
        "html": partial(write_page, archive=archive),
        "md": write_markdown,
        "png": write_png,
        "csv": write_csv,
    }
    written = []
    for name in formats:
        path = (out or run_dir / default_name).with_suffix(f".{name}")
        path.parent.mkdir(parents=True, exist_ok=True)
        writers[name](path, data)
        console.print(f"Wrote {path} ({path.stat().st_size / 2**20:.1f} MiB)", soft_wrap=True, highlight=False)
        written.append(path)
    return written


def read_run(
    run_dir: Path, metrics: Path | None, home: Path, console: Console, archive: EpisodeArchive | None = None
) -> ReportData:
    """Reads what a report shows of a run, in one pass over the episodes; the arguments are those of `write_report`.

    Args:
        archive: Gets the episodes themselves; None to count them only.

    Raises:
        DataError: The run or its metrics file does not exist, or a log cannot be read.
    """
    if not run_dir.is_dir():
        raise DataError(f"{run_dir}: there is no such folder; name the run's trainer.default_local_dir")
    try:
        bytes_to_read = sum(source.path.stat().st_size for source in find_sources(run_dir))
    except DataError:
        bytes_to_read = 0  # a run without a log still has its curves
    data = ReportData(run_dir.resolve().name, [])
    run = ""
    if bytes_to_read:
        with progress_bar(console, "Reading episodes (bytes)", bytes_to_read) as advance:
            for record in read_log(run_dir, advance):
                data.add(record)
                if archive is not None:
                    archive.add(record)
                run = record.run
    console.print(f"Read {data.overall.episodes:,} episodes", highlight=False)
    if metrics or not data.is_evaluation:
        data.steps = load_steps(metrics or find_metrics(run_dir, run, home))
    data.title = run or data.title
    return data
