"""Checks every recipe: composes and validates it, estimates its memory, and trains it for two steps on the CPU.

    python benchmarks/every_recipe.py [RECIPE ...] [--again]

A recipe runs by its name through `verl-rsim train`, with the overrides of :func:`support.recipe_models.small` only:
tiny models of the same family, the CPU's settings, small sizes. A recipe that has run before is skipped without
`--again`; a recipe that fails does not stop the others. Results go to `$RSIM_HOME/recipes`: `table.md`, and for each
recipe its log, metrics and row. Takes about three minutes per recipe on two cores.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import shlex
import shutil
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))  # for the package support

TIMEOUT = 900
"""Seconds that a recipe may take."""
MARK = "RSIM_EVERY_RECIPE"
"""Environment variable that all processes of a job inherit; identifies them."""


@dataclass(slots=True)
class Row:
    """Holds the results of a recipe's checks: "yes", "-" (not reached), or the reason for the failure."""

    recipe: str
    hardware: str = ""
    composed: str = "-"
    validated: str = "-"
    fits: str = "-"
    ran: str = "-"
    seconds: float = 0.0
    command: str = ""

    def line(self) -> str:
        ran = f"{self.ran}, {self.seconds:.0f} s" if self.seconds else self.ran
        cells = (f"`{self.recipe}`", self.hardware, self.composed, self.validated, self.fits, ran)
        return f"| {' | '.join(cells)} |"


def check(name: str, home: Path) -> Row:
    """Composes, validates and estimates an unchanged recipe, for the hardware that it declares."""
    from support.recipe_hardware import declared, on, peak
    from support.recipe_models import use_architectures
    from verl.trainer.ppo.utils import need_critic, need_reference_policy
    from verl.utils.config import validate_config

    from verl_rsim.config.recipes import compose_recipe
    from verl_rsim.training.preflight.validate_job import validate_job

    hardware = declared()[name]
    machine = f"{hardware.gpus} x {hardware.gigabytes} GB" if hardware.gpus else f"CPU, {hardware.gigabytes} GB"
    row = Row(name, f"{hardware.nodes} x {machine}" if hardware.nodes > 1 else machine)
    config = compose_recipe(name, [])
    use_architectures(config, home / "architectures")
    row.composed = "yes"
    with on(hardware):
        validate_config(config, need_reference_policy(config), need_critic(config))
        if "planner" in config:
            validate_job(config)
        row.validated = "yes"
        needed = peak(config, hardware)
    gpus = config.trainer.nnodes * config.trainer.n_gpus_per_node
    pool = config.rsim.planner_pool if "rsim" in config else None
    gpus += pool.nnodes * pool.n_gpus_per_node if pool and pool.enable else 0
    if hardware.gpus and gpus != hardware.nodes * hardware.gpus:
        row.fits = f"no: it needs {gpus} GPUs"
    else:
        share = f"{needed / 2**30:.1f} of {hardware.size / 2**30:.1f} GiB"
        row.fits = share if needed < hardware.size else f"no: {share}"
    return row


def run(row: Row, home: Path, folder: Path) -> None:
    """Trains for two steps and fills in the rest of the row."""
    from support.recipe_models import small

    from verl_rsim.config.recipes import compose_recipe

    overrides = small(compose_recipe(row.recipe, []), home)
    row.command = shlex.join(["verl-rsim", "train", row.recipe, *overrides])
    metrics = folder / "metrics.jsonl"
    metrics.unlink(missing_ok=True)
    name = f"{os.getpid()}-{row.recipe}"
    environment = {"VERL_PLATFORM": "cpu", "RSIM_HOME": str(home), "VERL_FILE_LOGGER_PATH": str(metrics), MARK: name}
    command = [sys.executable, "-m", "verl_rsim", "train", row.recipe, *overrides]
    started = time.monotonic()
    with (folder / "log").open("w") as log:
        job = subprocess.Popen(
            command,
            env=os.environ | environment,
            cwd=folder,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            status = f"exit status {job.wait(TIMEOUT)}"
        except subprocess.TimeoutExpired:
            status = f"still running after {TIMEOUT} s"
        finally:
            kill_marked(f"{MARK}={name}")
    row.seconds = time.monotonic() - started
    problem = metrics_problem(metrics) if status == "exit status 0" else status
    row.ran = f"no: {problem}" if problem else "yes"


def metrics_problem(metrics: Path) -> str:
    """Returns the first problem in the metrics of two steps; empty if there is none."""
    lines = [json.loads(line) for line in metrics.read_text().splitlines()] if metrics.exists() else []
    if max((line["step"] for line in lines), default=0) != 2:
        return "it logged no second step"
    values = {}
    for line in lines:
        for key, value in line["data"].items():
            if "loss" in key or "grad_norm" in key:
                values[key] = value
    bad = sorted(key for key, value in values.items() if not math.isfinite(value))
    return f"not finite: {', '.join(bad)}" if bad or not values else ""


def kill_marked(mark: str) -> None:
    """Kills all processes that have this entry in their environment, Ray's detached ones included."""
    for environment in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if mark.encode() in environment.read_bytes().split(b"\0"):
                os.kill(int(environment.parent.name), 9)


def main() -> int:
    """Runs the chosen recipes, writes the table, and returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", nargs="*", help="names of recipes; default: all")
    parser.add_argument("--again", action="store_true", help="run recipes again that have run before")
    options = parser.parse_args()
    os.environ.setdefault("VERL_PLATFORM", "cpu")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")

    from support.recipe_models import architectures, stock_home

    from verl_rsim.config.recipes import recipes
    from verl_rsim.data.prepare_models import prepare_smollm2
    from verl_rsim.utils.artifact_folders import home as rsim_home

    out = rsim_home() / "recipes"
    home = out / "home"
    os.environ["RSIM_HOME"] = str(home)
    stock_home(home)
    architectures(home, home / "architectures")
    prepare_smollm2(home / "models/smollm2")
    (home / "exported/quickstart").mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        (home / "exported/quickstart/planner").symlink_to(home / "models/smollm2")
    for name in options.recipe or recipes():
        folder = out / name.replace("/", "_")
        folder.mkdir(parents=True, exist_ok=True)
        result = folder / "row.json"
        if result.exists() and json.loads(result.read_text())["ran"] == "yes" and not options.again:
            continue
        row = check(name, home)
        run(row, home, folder)
        shutil.rmtree(home / "runs", ignore_errors=True)
        result.write_text(json.dumps(asdict(row), indent=1))
        print(row.line(), flush=True)
    rows = [Row(**json.loads(path.read_text())) for path in sorted(out.glob("*/row.json"))]
    head = (
        "| recipe | hardware | composed | validated | estimated memory | two steps on a CPU |\n" + "| --- " * 6 + "|\n"
    )
    (out / "table.md").write_text(head + "\n".join(row.line() for row in rows) + "\n")
    (out / "table.json").write_text(json.dumps([asdict(row) for row in rows], indent=1))
    return int(any(row.ran != "yes" or row.fits.startswith("no") for row in rows))


if __name__ == "__main__":
    sys.exit(main())
