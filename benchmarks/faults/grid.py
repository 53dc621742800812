"""What came of the matrix, as docs/faults.md shows it: a cell a case, then one error of each fault.

python benchmarks/faults/grid.py FOLDER      # where run.py wrote rows.json
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from pathlib import Path

from cases import CASES, PHASES, Case
from run import Row, read_rows

from verl_rsim.monitoring.report.tables import markdown_table

WENT_ON = "on"
NOT_RUN = ""
LONG = 300
"""Characters of an error that are shown."""


def cell(case: Case, row: Row | None) -> str:
    """Seconds to the command's end, or "on"; a ``*`` if the fault came a phase later, and what is not as promised."""
    if row is None:
        return NOT_RUN
    marks = [WENT_ON if row.outcome == "went on" else f"{row.seconds:.0f}"]
    if row.began and not row.began.endswith(f": {case.watched}"):
        marks[0] += "*"
    return ", ".join([*marks, *row.unkept(case)])


def grid(rows: dict[str, Row]) -> Iterator[str]:
    """A line a signal and process, a column a phase; then what fails without a signal."""
    signals = list(dict.fromkeys(case.fault for case in CASES if case.signal))
    cases = {(case.fault, case.phase): case for case in CASES if not case.thaw}

    def line(fault: str) -> list[str]:
        of_phases = (cases[fault, phase] for phase in PHASES)
        return [fault, *(cell(case, rows.get(case.name)) for case in of_phases)]

    yield markdown_table(("", *PHASES), map(line, signals))
    yield ""
    others = [case for case in CASES if not case.signal or case.thaw or case.phase not in PHASES]
    yield markdown_table(("", "after, s"), ([case.name, cell(case, rows.get(case.name))] for case in others))


def said(row: Row) -> str:
    """Its error without what differs from run to run and without Ray's explanation."""
    text = re.sub(r"(is dead) because.*", r"\1 ...", row.said).replace(" (rsim.watchdog.stall_seconds)", "")
    text = re.sub(r"(_\d+_|_)[0-9a-f]{8}\b", r"\1...", text)
    text = re.sub(r"\w+(WorkerDict_)", r"...\1", text)
    text = re.sub(r"(process |-CONT )\d+", r"\1...", text)
    return f"`{text if len(text) < LONG else text[:LONG] + '...'}`"


def errors(rows: dict[str, Row]) -> str:
    """The first error there is of each fault."""
    first: dict[str, Row] = {}
    for case in CASES:
        if case.name in rows and rows[case.name].said:
            first.setdefault(case.fault, rows[case.name])
    return markdown_table(("fault", "error"), ([row.case, said(row)] for row in first.values()))


def main() -> None:
    """Print both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    rows = read_rows(parser.parse_args().folder)
    done = sum(case.name in rows for case in CASES)
    print(f"{done} of {len(CASES)} cases\n", *grid(rows), "", errors(rows), sep="\n")


if __name__ == "__main__":
    main()
