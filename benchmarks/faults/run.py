"""Breaks a training job in every way of cases.py, with real processes, and looks at what comes of it.

    python benchmarks/faults/run.py FOLDER [CASE ...] [--list] [--compare]

A case is a job of two tiny models that resumes from the last checkpoint in ``FOLDER``, so each shows that the one
before left it intact; a last one, ``no fault``, shows it of the last fault. With ``--compare`` one more job does all
those steps from the beginning, without a fault: it must have the same numbers. Takes two to four minutes a case. Writes
``FOLDER/rows.json`` and ``FOLDER/table.md``; a case that is there already is run again. Exit status 1 if anything is
not as promised. Linux only; a full disk needs root, for a file system in memory.
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

from cases import CASES, INSIDE, Case  # noqa: E402
from support.job import Job, shared_memory  # noqa: E402

from verl_rsim.monitoring.report.tables import markdown_table  # noqa: E402
from verl_rsim.training.checkpoint.store import finished, read_state  # noqa: E402
from verl_rsim.utils.artifact_folders import home  # noqa: E402

START, STALL, END = 600, 30, 120
"""Seconds: for a job to reach its phase; without progress until the watchdog ends it; from the fault to the end."""
LITTLE = 0.05
"""Seconds after a phase's beginning at which the fault comes."""
LEFT = 20
"""Seconds after which no process may be left."""
PROMISED = 60
"""Seconds from the fault to the end, the stall's among them: TransferQueue gives up its storage ten later than the
watchdog, and a task runner is missed ten later than another process."""
SHARED = 1.0
"""MiB of shared memory that may be left."""
GOES_ON = ("stop driver",)
"""Faults that training survives; so it does a stop that ends."""
SAME = ("planner/loss", "reasoner/loss", "planner/grad_norm", "reasoner/grad_norm", "planner/reward",
        "reasoner/reward", "planner/entropy", "reasoner/entropy", "rsim/turns", "rsim/step_tokens")  # fmt: skip
TOLERANCE = 1e-4
"""Relative difference that numbers of two jobs may have."""
DISK = "400m"
LONG = 400
"""Characters of an error that are kept."""
OUTSIDE = (
    r"Raylet is terminated\. Termination is unexpected\.",
    r"the trainer's process .* has given no sign of life.*$",
    r"the trainer's process .* died.*$",
    r"^Ray's raylet is stopped .* it is ended with the job",
)
"""What is said by those who end a job from outside the trainer: it says more than the error that comes of it."""
OVERRIDES = (
    f"rsim.watchdog.stall_seconds={STALL}",
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
    """What came of a case.

    Attributes:
        began: the phase the job said it was in when the fault came; a phase of tenths of a second may have been missed.
        outcome: "ended with status N", "went on" or "hung".
        seconds: from the fault to the outcome.
        said: the error.
        named: whether it names the culprit; None where nobody is left to say it, or nothing went wrong.
        left: processes of the job that had not ended a while later.
        shared: MiB of shared memory left behind.
        saved: the last checkpoint's step when the job was gone.
        resumed: the step a job of afterwards resumed from; None until there was one.
        numbers: by step, what must be as in a job without faults.
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

    def unkept(self, case: Case | None) -> list[str]:
        """What is not as promised; of a job without a fault: that it ends well."""
        found = []
        if case is None:
            return [] if self.outcome == "ended with status 0" and not self.left else [self.outcome, *self.left]
        if self.outcome in ("hung", "did not start"):
            found.append(self.outcome)
        elif (self.outcome == "went on") != (case.fault in GOES_ON or case.thaw is not None):
            found.append(f"unexpected: {self.outcome}")
        elif self.outcome == "ended with status 0":
            found.append("as if nothing had happened")
        if self.seconds > PROMISED:
            found.append("late")
        if self.named is False:
            found.append("does not name it")
        if self.left:
            found.append(f"leaves {len(self.left)}")
        if self.shared > SHARED:
            found.append(f"leaves {self.shared:.0f} MiB")
        if self.resumed is None:
            found.append("not resumed")
        elif self.resumed != self.saved:
            found.append(f"resumed from {self.resumed} of {self.saved}")
        return found

    def cells(self) -> tuple[str, ...]:
        """As in the table."""
        named = {None: "-", True: "yes", False: "no"}[self.named]
        resumed = "?" if self.resumed is None else "yes" if self.resumed == self.saved else f"no: {self.resumed}"
        left, said = ", ".join(self.left) or "none", f"`{self.said}`" if self.said else "-"
        return (self.case, self.began or "-", self.outcome, f"{self.seconds:.0f}", named, left,
                 f"{self.shared:.0f}", str(self.saved), resumed, said)  # fmt: skip


HEAD = ("case", "came in", "outcome", "after s", "names the culprit", "processes left", "shared memory left, MiB",
        "last checkpoint", "resumed from it", "error")  # fmt: skip


def run(case: Case | None, folder: Path) -> tuple[Row, int | None]:
    """Run a case, or a job of one more step if there is none; its row, and the step it resumed from."""
    row = Row(case.name if case else "no fault")
    inside = folder / "inside"
    inside.mkdir(exist_ok=True)
    for path in inside.iterdir():
        path.unlink()
    before = _saved(folder)
    steps = 1000 if case else before + 1
    told = {"RSIM_FAULTS": str(inside)}
    shared = shared_memory()
    overrides = [*OVERRIDES, f"trainer.total_training_steps={steps}"]
    job = Job(folder, home(), "job", *overrides, environment=told, inside=HERE)
    try:
        if case is None:
            row.outcome = f"ended with status {job.wait(START)}"
        elif _reached(job, inside, case, before + 2):
            _break(job, case, inside, folder, row)
        ended = time.monotonic()
        if row.outcome.startswith("ended"):
            while job.processes() and time.monotonic() < ended + LEFT:
                time.sleep(0.5)
            row.left = tuple(sorted(_name(process) for process in job.processes()))
    finally:
        log = job.log()
        job.stop()
        (folder / "checkpoints/filler").unlink(missing_ok=True)
        (folder / f"{re.sub('[^a-z]+', '_', row.case.lower())}.log").write_text(log)
    row.said = _error(log)
    if case and case.says and row.outcome != "went on":
        row.named = bool(re.search(case.says, row.said))
    row.shared, row.saved = (shared_memory() - shared) / 2**20, _saved(folder)
    found = re.search(r"Resumed both policies.*\(step (\d+)\)", log)
    resumed = int(found[1]) if found else (0 if "step 1: rollout" in log else None)
    row.numbers = {step: numbers for step, numbers in _numbers(job).items() if int(step) > (resumed or 0)}  # its own
    return row, resumed


def uninterrupted(folder: Path, steps: int) -> dict[str, dict[str, float]]:
    """The numbers of a job of so many steps that nothing happens to."""
    whole = folder / "whole"
    job = Job(whole, home(), "whole", *OVERRIDES, "trainer.save_freq=-1", f"trainer.total_training_steps={steps}",
              environment={"RSIM_FAULTS": str(folder / "inside")}, inside=HERE)  # fmt: skip
    (folder / "inside/fault").unlink(missing_ok=True)
    try:
        status = job.wait(START + 60 * steps)
    finally:
        job.stop()
    if status:
        raise SystemExit(f"the job without faults ended with exit status {status}:\n{job.log()[-3000:]}")
    return _numbers(job)


def compare(rows: list[Row], whole: dict[str, dict[str, float]]) -> tuple[int, float, list[str]]:
    """How many numbers of ``rows`` are also in ``whole``, the largest relative difference, and what differs.

    What a fault made NaN is not compared: nothing of such a step is saved.
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
    return {str(step): {name: found[name] for name in SAME if name in found} for step, found in job.metrics().items()}


def _saved(folder: Path) -> int:
    complete = finished(folder / "checkpoints")
    return read_state(complete[-1]).step if complete else 0


def _phase(inside: Path) -> str:
    """The newest that the job has said."""
    path = inside / "phases"
    said = path.read_text().splitlines() if path.exists() else []
    return said[-1] if said else ""


def _reached(job: Job, inside: Path, case: Case, step: int) -> bool:
    """Wait until the job is in the case's phase, a little way; whether it got there."""
    end = time.monotonic() + START
    while time.monotonic() < end and job.process.poll() is None:
        found = re.fullmatch(r"step (\d+): (.*)", _phase(inside))
        if found and int(found[1]) >= step and found[2] == case.watched:
            time.sleep(LITTLE)
            return True
        time.sleep(0.01)
    return False


def _break(job: Job, case: Case, inside: Path, folder: Path, row: Row) -> None:
    began, row.began = time.monotonic(), _phase(inside)
    if case.signal:
        victim = _victim(job, case.victim, inside)
        row.began = _phase(inside)
        victim.send_signal(case.signal)
    elif case.fault == "full disk":
        _fill(folder / "checkpoints")
    else:
        (inside / "fault").write_text(INSIDE[case.fault][0])
    if case.thaw:
        time.sleep(case.thaw)
        victim.resume()
    reached = len(job.metrics())
    while time.monotonic() < began + END:
        if (status := job.process.poll()) is not None:
            row.outcome = f"ended with status {status}"
            break
        if len(job.metrics()) > reached + 2:
            row.outcome = "went on"
            break
        time.sleep(0.1)
    else:
        row.outcome = "hung"
    row.seconds = time.monotonic() - began


def _victim(job: Job, who: str, inside: Path) -> psutil.Process:
    if who == "driver":
        return psutil.Process(job.process.pid)
    if who == "raylet":
        return next(process for process in job.processes() if process.name() == "raylet")
    roles = json.loads((inside / "roles.json").read_text())
    classes = {"storage unit": "SimpleStorageUnit", "task runner": "TaskRunnerV1"}
    if who.endswith(" engine"):
        server = psutil.Process(roles[who.replace("engine", "server")])
        return next(child for child in server.children() if "EngineCore" in " ".join(child.cmdline()))
    return psutil.Process(roles[classes.get(who, who)])


def _fill(folder: Path) -> None:
    left = os.statvfs(folder)
    with contextlib.suppress(OSError), (folder / "filler").open("wb") as file:
        file.write(b"\0" * max(left.f_bavail * left.f_frsize - 2**20, 0))


def _name(process: psutil.Process) -> str:
    try:
        return f"{' '.join(process.cmdline())[:40] or process.name()} ({process.status()})"
    except psutil.Error:
        return str(process.pid)


def _error(log: str) -> str:
    """The last error of a log, in one line; before it, who said why the job is ended from outside the trainer."""
    plain = re.sub(r"\x1b\[[0-9;]*m|\(\w+ pid=\d+\) ?", "", log)
    for outside in OUTSIDE:
        if said := re.search(outside, plain, re.MULTILINE):
            return said[0]
    lines = re.findall(r"^(?:[\w.]+\.)?(\w*(?:Error|Died|Collapsed|Exception)\b.*)$", plain, re.MULTILINE)
    said = lines[-1].replace("|", "/") if lines else ""
    return said if len(said) < LONG else said[:LONG] + "..."


@contextlib.contextmanager
def _small_disk(folder: Path) -> Iterator[None]:
    """The checkpoints on a small file system of their own, if root may make one."""
    folder.mkdir(parents=True, exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", str(folder)]
    mounted = not os.path.ismount(folder) and subprocess.run(mount).returncode == 0
    try:
        yield
    finally:
        if mounted:
            subprocess.run(["umount", str(folder)], check=True)


def main() -> int:
    """The command above."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("case", nargs="*", help="as --list writes them; default: all")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--compare", action="store_true", help="at the end, with a job that nothing happens to")
    asked = parser.parse_args()
    known: dict[str, Case | None] = {case.name: case for case in CASES} | {"no fault": None}
    if asked.list or not set(asked.case) <= set(known):
        print("\n".join(known))
        return int(not asked.list)
    folder = asked.folder.absolute()
    rows: dict[str, Row] = {}
    with contextlib.suppress(FileNotFoundError):
        rows = read_rows(folder)
    now, failed = [], False
    asked.case = asked.case or list(known)
    with _small_disk(folder / "checkpoints"):
        for name in [*asked.case, *(["no fault"] if asked.case[-1] != "no fault" else [])]:
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
        if unkept := row.unkept(known[row.case]):
            failed = True
            print(f"{row.case}: {'; '.join(unkept)}")
    if asked.compare:
        seen, largest, differ = compare(now, uninterrupted(folder, steps))
        print(f"{seen} numbers compared with those of a job without faults: largest relative difference {largest:.1e}")
        print(*differ, sep="\n")
        failed |= bool(differ) or not seen
    return int(failed)


def read_rows(folder: Path) -> dict[str, Row]:
    """What came of the cases that have been run, by name."""
    return {row["case"]: Row(**row) for row in json.loads((folder / "rows.json").read_text())}


def _write(rows: dict[str, Row], folder: Path) -> None:
    (folder / "rows.json").write_text(json.dumps([asdict(row) for row in rows.values()], indent=1))
    (folder / "table.md").write_text(markdown_table(HEAD, [row.cells() for row in rows.values()]) + "\n")


if __name__ == "__main__":
    sys.exit(main())
