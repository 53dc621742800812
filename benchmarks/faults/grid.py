"""Prints the tables of docs/faults.md: one cell per case, then one error of each fault.

python benchmarks/faults/grid.py FOLDER      # the folder that run.py wrote rows.json to
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from pathlib import Path

from cases import CASES, PHASES, Case
from run import Row, read_rows

from verl_rsim.monitoring.report.tables import markdown_table

CONTINUED = "on"
NOT_RUN = ""
MAX_ERROR = 300
"""Characters of an error that are shown."""


def cell(case: Case, row: Row | None) -> str:
    """Returns a cell: seconds until the command's end or "on", ``*`` if the fault hit a later phase, and violations."""
    if row is None:
        return NOT_RUN
    marks = [CONTINUED if row.outcome == "went on" else f"{row.seconds:.0f}"]
    if row.began and not row.began.endswith(f": {case.watchdog_phase}"):
        marks[0] += "*"
    return ", ".join([*marks, *row.violations(case)])


def grid(rows: dict[str, Row]) -> Iterator[str]:
    """Yields a table with a row per signal and process and a column per phase, then one of all other faults."""
    signals = list(dict.fromkeys(case.fault for case in CASES if case.signal))
    cases = {(case.fault, case.phase): case for case in CASES if not case.resume_after}

    def line(fault: str) -> list[str]:
        cells = [fault]
        for phase in PHASES:
            case = cases[fault, phase]
            cells.append(cell(case, rows.get(case.name)))
        return cells

    yield markdown_table(("", *PHASES), map(line, signals))
    yield ""
    others = [case for case in CASES if not case.signal or case.resume_after or case.phase not in PHASES]
    yield markdown_table(("", "after, s"), ([case.name, cell(case, rows.get(case.name))] for case in others))


def error_text(row: Row) -> str:
    """Returns a row's error without ids that differ between runs and without Ray's explanation."""
    text = re.sub(r"(is dead) because.*", r"\1 ...", row.said).replace(" (rsim.watchdog.stall_seconds)", "")
    text = re.sub(r"(_\d+_|_)[0-9a-f]{8}\b", r"\1...", text)
    text = re.sub(r"\w+(WorkerDict_)", r"...\1", text)
    text = re.sub(r"(process |-CONT )\d+", r"\1...", text)
    return f"`{text if len(text) < MAX_ERROR else text[:MAX_ERROR] + '...'}`"


def errors(rows: dict[str, Row]) -> str:
    """Returns a table with the first error of each fault."""
    first: dict[str, Row] = {}
    for case in CASES:
        if case.name in rows and rows[case.name].said:
            first.setdefault(case.fault, rows[case.name])
    return markdown_table(("fault", "error"), ([row.case, error_text(row)] for row in first.values()))


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    rows = read_rows(parser.parse_args().folder)
    done = sum(case.name in rows for case in CASES)
    print(f"{done} of {len(CASES)} cases\n", *grid(rows), "", errors(rows), sep="\n")


if __name__ == "__main__":
    main()
