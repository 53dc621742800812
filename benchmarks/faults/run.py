"""Injects every fault of cases.py into a real training job and checks that the job ends as promised.

    python benchmarks/faults/run.py FOLDER [CASE ...] [--list] [--compare]

A case is a job of two tiny models that resumes from the last checkpoint in ``FOLDER``. Each case thereby shows that the
one before it left the checkpoint intact; ``no fault`` runs last and shows it for the last fault. With ``--compare`` one
more job runs all those training steps from the beginning without a fault and must have the same metrics. A case takes
two to four minutes. Results go to ``FOLDER/rows.json`` and ``FOLDER/table.md``; a case that has been run is run again.
Exit status 1 if a promise of docs/faults.md is broken. Linux only; the full disk needs root, to mount a small tmpfs.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import psutil

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[1] / "tests"))

from cases import CASES, INJECTED, Case  # noqa: E402
from support.job import Job, shared_memory  # noqa: E402

from verl_rsim.monitoring.report.tables import markdown_table  # noqa: E402
from verl_rsim.training.checkpoint.store import complete_checkpoints, read_state  # noqa: E402
from verl_rsim.utils.artifact_folders import home  # noqa: E402

START_SECONDS = 600
"""Seconds for a job to reach the case's phase."""
STALL_SECONDS = 30
"""Seconds without progress until the watchdog ends the job."""
END_SECONDS = 120
"""Seconds from the fault until a job counts as hung."""
PHASE_DELAY = 0.05
"""Seconds between the beginning of a phase and the fault."""
EXIT_SECONDS = 20
"""Seconds after the command's end within which all processes must be gone."""
MAX_SECONDS = 60
"""Seconds from the fault to the end that are promised, the stall included.

TransferQueue gives up its storage unit ten seconds later than the watchdog, and a stopped task runner is noticed ten
seconds later than other processes.
"""
MAX_SHARED_MIB = 1.0
"""MiB of shared memory that may be left behind."""
SURVIVED = ("stop driver",)
"""Faults that training survives, besides a stop that is resumed."""
COMPARED_METRICS = ("planner/loss", "reasoner/loss", "planner/grad_norm", "reasoner/grad_norm", "planner/reward",
        "reasoner/reward", "planner/entropy", "reasoner/entropy", "rsim/turns", "rsim/step_tokens")  # fmt: skip
TOLERANCE = 1e-4
"""Largest relative difference of a metric between two jobs."""
DISK_SIZE = "400m"
MAX_ERROR = 400
"""Characters of an error that are kept."""
SUPERVISOR_ERRORS = (
    r"Raylet is terminated\. Termination is unexpected\.",
    r"the trainer's process .* has sent no heartbeat.*$",
    r"the trainer's process .* died.*$",
    r"^Ray's raylet is stopped .* it is ended with the job",
)
"""Messages of processes that end a job from outside the trainer; they say more than the errors that follow."""
OVERRIDES = (
    f"rsim.watchdog.stall_seconds={STALL_SECONDS}",
    "rsim.schedule=joint",
    "rsim.deterministic=true",
    "rsim.alarms.ppo_kl={action:off}",
    "reward.reward_manager.name=naive",
    f"reward.custom_reward_function.path={HERE / 'faulty_reward.py'}",
    "trainer.resume_mode=auto",
    "trainer.save_freq=1",
    "trainer.test_freq=2",
    "trainer.val_before_train=false",
    "trainer.max_actor_ckpt_to_keep=2",
)


@dataclass(slots=True)
class Row:
    """Holds the result of a case.

    Attributes:
        case: name of the case.
        began: phase that the job reported when the fault came; a phase of tenths of a second may have been missed.
        outcome: "ended with status N", "went on", "hung" or "did not start".
        seconds: seconds from the fault to the outcome.
        said: the error.
        named: True if the error names the culprit; None if no process is left to report it, or nothing failed.
        left: processes of the job that still ran ``EXIT_SECONDS`` after its end.
        shared: MiB of shared memory left behind.
        saved: training step of the last checkpoint after the job.
        resumed: training step that the next job resumed from; None until there is one.
        numbers: compared metrics by training step.
    """

    case: str
    began: str = ""
    outcome: str = "did not start"
    seconds: float = 0.0
    said: str = ""
    named: bool | None = None
    left: tuple[str, ...] = ()
    shared: float = 0.0
    saved: int = 0
    resumed: int | None = None
    numbers: dict[str, dict[str, float]] = field(default_factory=dict)

    def violations(self, case: Case | None) -> list[str]:
        """Returns the broken promises; a job without a fault (None) must succeed."""
        broken = []
        if case is None:
            return [] if self.outcome == "ended with status 0" and not self.left else [self.outcome, *self.left]
        if self.outcome in ("hung", "did not start"):
            broken.append(self.outcome)
        elif (self.outcome == "went on") != (case.fault in SURVIVED or case.resume_after is not None):
            broken.append(f"unexpected: {self.outcome}")
        elif self.outcome == "ended with status 0":
            broken.append("as if nothing had happened")
        if self.seconds > MAX_SECONDS:
            broken.append("late")
        if self.named is False:
            broken.append("does not name it")
        if self.left:
            broken.append(f"leaves {len(self.left)}")
        if self.shared > MAX_SHARED_MIB:
            broken.append(f"leaves {self.shared:.0f} MiB")
        if self.resumed is None:
            broken.append("not resumed")
        elif self.resumed != self.saved:
            broken.append(f"resumed from {self.resumed} of {self.saved}")
        return broken

    def cells(self) -> tuple[str, ...]:
        """Returns the row's cells of the table."""
        named = {None: "-", True: "yes", False: "no"}[self.named]
        resumed = "?"
        if self.resumed is not None:
            resumed = "yes" if self.resumed == self.saved else f"no: {self.resumed}"
        left, error = ", ".join(self.left) or "none", f"`{self.said}`" if self.said else "-"
        return (self.case, self.began or "-", self.outcome, f"{self.seconds:.0f}", named, left,
                 f"{self.shared:.0f}", str(self.saved), resumed, error)  # fmt: skip


HEAD = ("case", "came in", "outcome", "after s", "names the culprit", "processes left", "shared memory left, MiB",
        "last checkpoint", "resumed from it", "error")  # fmt: skip


def run(case: Case | None, folder: Path) -> tuple[Row, int | None]:
    """Runs a case, or a job of one more training step if it is None.

    Returns:
        The row, and the training step that the job resumed from (None if it did not get that far).
    """
    row = Row(case.name if case else "no fault")
    hook_folder = folder / "hooks"
    hook_folder.mkdir(exist_ok=True)
    for path in hook_folder.iterdir():
        path.unlink()
    before = _saved(folder)
    steps = 1000 if case else before + 1
    shared = shared_memory()
    overrides = [*OVERRIDES, f"trainer.total_training_steps={steps}"]
    job = Job(folder, home(), "job", *overrides, environment={"RSIM_FAULTS": str(hook_folder)}, hooks=HERE)
    try:
        if case is None:
            row.outcome = f"ended with status {job.wait(START_SECONDS)}"
        elif _wait_for_phase(job, hook_folder, case, before + 2):
            _inject(job, case, hook_folder, folder, row)
        ended = time.monotonic()
        if row.outcome.startswith("ended"):
            while job.processes() and time.monotonic() < ended + EXIT_SECONDS:
                time.sleep(0.5)
            row.left = tuple(sorted(_describe(process) for process in job.processes()))
    finally:
        log = job.log()
        job.stop()
        (folder / "checkpoints/filler").unlink(missing_ok=True)
        (folder / f"{re.sub('[^a-z]+', '_', row.case.lower())}.log").write_text(log)
    row.said = _error(log)
    if case and case.expected_error and row.outcome != "went on":
        row.named = bool(re.search(case.expected_error, row.said))
    row.shared, row.saved = (shared_memory() - shared) / 2**20, _saved(folder)
    resumed = _resumed_step(log)
    # The metrics file also holds the steps of the jobs before; only this job's own steps count.
    row.numbers = {step: numbers for step, numbers in _numbers(job).items() if int(step) > (resumed or 0)}
    return row, resumed


def uninterrupted(folder: Path, steps: int) -> dict[str, dict[str, float]]:
    """Runs a job of this many training steps without a fault; returns its compared metrics by step."""
    whole = folder / "whole"
    job = Job(whole, home(), "whole", *OVERRIDES, "trainer.save_freq=-1", f"trainer.total_training_steps={steps}",
              environment={"RSIM_FAULTS": str(folder / "hooks")}, hooks=HERE)  # fmt: skip
    (folder / "hooks/fault").unlink(missing_ok=True)
    try:
        status = job.wait(START_SECONDS + 60 * steps)
    finally:
        job.stop()
    if status:
        raise SystemExit(f"the job without faults ended with exit status {status}:\n{job.log()[-3000:]}")
    return _numbers(job)


def compare(rows: list[Row], whole: dict[str, dict[str, float]]) -> tuple[int, float, list[str]]:
    """Compares the metrics of the cases with those of the job without faults (``whole``).

    A metric that a fault made NaN is left out: nothing of such a step is saved.

    Returns:
        The number of compared values, the largest relative difference, and a line for each value that differs.
    """
    count, largest, differ = 0, 0.0, []
    for row in rows:
        for step, numbers in row.numbers.items():
            for name, value in numbers.items():
                if step not in whole or value is None:
                    continue
                count += 1
                wanted = whole[step].get(name, math.nan)
                gap = abs(value - wanted) / max(abs(wanted), 1e-2)
                largest = max(largest, gap)
                if not gap <= TOLERANCE:
                    differ.append(f"{row.case}, step {step}: {name} is {value}, and {wanted} without faults")
    return count, largest, differ


def _numbers(job: Job) -> dict[str, dict[str, float]]:
    return {
        str(step): {name: values[name] for name in COMPARED_METRICS if name in values}
        for step, values in job.metrics().items()
    }


def _resumed_step(log: str) -> int | None:
    """Returns the training step that a job resumed from: 0 for a new job, None if it did not get that far."""
    match = re.search(r"Resumed both policies.*\(step (\d+)\)", log)
    if match:
        return int(match[1])
    return 0 if "step 1: rollout" in log else None


def _saved(folder: Path) -> int:
    complete = complete_checkpoints(folder / "checkpoints")
    return read_state(complete[-1]).step if complete else 0


def _phase(hook_folder: Path) -> str:
    """Returns the newest phase that the job has reported; empty if it has reported none."""
    path = hook_folder / "phases"
    phases = path.read_text().splitlines() if path.exists() else []
    return phases[-1] if phases else ""


def _wait_for_phase(job: Job, hook_folder: Path, case: Case, step: int) -> bool:
    """Waits for the case's phase in this training step or a later one; returns False if the job does not reach it."""
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end and job.process.poll() is None:
        match = re.fullmatch(r"step (\d+): (.*)", _phase(hook_folder))
        if match and int(match[1]) >= step and match[2] == case.watchdog_phase:
            time.sleep(PHASE_DELAY)
            return True
        time.sleep(0.01)
    return False


def _inject(job: Job, case: Case, hook_folder: Path, folder: Path, row: Row) -> None:
    """Injects the case's fault and waits for the outcome; fills in the row."""
    start, row.began = time.monotonic(), _phase(hook_folder)
    if case.signal:
        victim = _victim(job, case.victim, hook_folder)
        row.began = _phase(hook_folder)  # finding the victim takes a while
        victim.send_signal(case.signal)
    elif case.fault == "full disk":
        _fill_disk(folder / "checkpoints")
    else:
        (hook_folder / "fault").write_text(INJECTED[case.fault][0])
    if case.resume_after:
        time.sleep(case.resume_after)
        victim.resume()
    reached = len(job.metrics())
    while time.monotonic() < start + END_SECONDS:
        if (status := job.process.poll()) is not None:
            row.outcome = f"ended with status {status}"
            break
        if len(job.metrics()) > reached + 2:
            row.outcome = "went on"
            break
        time.sleep(0.1)
    else:
        row.outcome = "hung"
    row.seconds = time.monotonic() - start


def _victim(job: Job, name: str, hook_folder: Path) -> psutil.Process:
    """Returns the process that a case's signal goes to."""
    if name == "driver":
        return psutil.Process(job.process.pid)
    if name == "raylet":
        return next(process for process in job.processes() if process.name() == "raylet")
    pids = json.loads((hook_folder / "processes.json").read_text())
    classes = {"storage unit": "SimpleStorageUnit", "task runner": "TaskRunnerV1"}
    if name.endswith(" engine"):
        server = psutil.Process(pids[name.replace("engine", "server")])
        return next(child for child in server.children() if "EngineCore" in " ".join(child.cmdline()))
    return psutil.Process(pids[classes.get(name, name)])


def _fill_disk(folder: Path) -> None:
    free = os.statvfs(folder)
    with contextlib.suppress(OSError), (folder / "filler").open("wb") as file:
        file.write(b"\0" * max(free.f_bavail * free.f_frsize - 2**20, 0))


def _describe(process: psutil.Process) -> str:
    try:
        return f"{' '.join(process.cmdline())[:40] or process.name()} ({process.status()})"
    except psutil.Error:
        return str(process.pid)


def _error(log: str) -> str:
    """Returns the error of a log in one line: that of a supervising process if there is one, else the last."""
    plain = re.sub(r"\x1b\[[0-9;]*m|\(\w+ pid=\d+\) ?", "", log)
    for pattern in SUPERVISOR_ERRORS:
        match = re.search(pattern, plain, re.MULTILINE)
        if match:
            return match[0]
    lines = re.findall(r"^(?:[\w.]+\.)?(\w*(?:Error|Died|Collapsed|Exception)\b.*)$", plain, re.MULTILINE)
    error = lines[-1].replace("|", "/") if lines else ""  # a | would end a cell of the table
    return error if len(error) < MAX_ERROR else error[:MAX_ERROR] + "..."


@contextlib.contextmanager
def _small_disk(folder: Path) -> Iterator[None]:
    """Mounts a small tmpfs over the folder of checkpoints while the context is open, if this user may."""
    folder.mkdir(parents=True, exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_SIZE}", "tmpfs", str(folder)]
    mounted = not os.path.ismount(folder) and subprocess.run(mount).returncode == 0
    try:
        yield
    finally:
        if mounted:
            subprocess.run(["umount", str(folder)], check=True)


def main() -> int:
    """Runs the cases, writes their rows, and returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("case", nargs="*", help="a name that --list prints; default: all")
    parser.add_argument("--list", action="store_true", help="print the names of all cases")
    parser.add_argument(
        "--compare", action="store_true", help="at the end, compare the metrics with a job without faults"
    )
    options = parser.parse_args()
    known: dict[str, Case | None] = {case.name: case for case in CASES} | {"no fault": None}
    if options.list or not set(options.case) <= set(known):
        print("\n".join(known))
        return int(not options.list)
    folder = options.folder.absolute()
    rows: dict[str, Row] = {}
    with contextlib.suppress(FileNotFoundError):
        rows = read_rows(folder)
    now, failed = [], False
    options.case = options.case or list(known)
    with _small_disk(folder / "checkpoints"):
        for name in [*options.case, *(["no fault"] if options.case[-1] != "no fault" else [])]:
            row, resumed = run(known[name], folder)
            for before in now[-1:]:
                before.resumed = resumed
            now.append(row)
            rows.pop(name, None)
            rows[name] = row
            _write(rows, folder)
            print(f"| {' | '.join(row.cells())} |", flush=True)
        steps = _saved(folder)
    for row in now:
        broken = row.violations(known[row.case])
        if broken:
            failed = True
            print(f"{row.case}: {'; '.join(broken)}")
    if options.compare:
        seen, largest, differ = compare(now, uninterrupted(folder, steps))
        print(f"{seen} numbers compared with those of a job without faults: largest relative difference {largest:.1e}")
        print(*differ, sep="\n")
        failed |= bool(differ) or not seen
    return int(failed)


def read_rows(folder: Path) -> dict[str, Row]:
    """Returns the rows of the cases that have been run, by name."""
    return {row["case"]: Row(**row) for row in json.loads((folder / "rows.json").read_text())}


def _write(rows: dict[str, Row], folder: Path) -> None:
    (folder / "rows.json").write_text(json.dumps([asdict(row) for row in rows.values()], indent=1))
    (folder / "table.md").write_text(markdown_table(HEAD, [row.cells() for row in rows.values()]) + "\n")


if __name__ == "__main__":
    sys.exit(main())
