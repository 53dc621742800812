"""Trains one stage of a chain: mixes its rows, composes its job, runs it, and exports the planner."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from verl_rsim.continual.chain import Chain, ChainStage
from verl_rsim.data.replay_mixing import TRAIN_FILE, check_replay, mix
from verl_rsim.training import launch
from verl_rsim.training.checkpoint.store import complete_checkpoints, read_state, write_atomically
from verl_rsim.utils.artifact_folders import MANIFEST, build_folder, digest, home
from verl_rsim.utils.errors import ConfigError, RsimError

INPUTS = "inputs.json"
"""File in a stage's folder that says what it was trained on."""
RunCommand = Callable[[Sequence[str], Mapping[str, str]], int]
"""Runs a command with additional environment variables and returns its exit status, as training.launch.run does."""


class StageFailed(RsimError, RuntimeError):
    """Raised when a command of a chain fails; finished parts stay, and the same call resumes."""


def find_data_folder(key: str, source: str) -> Path:
    """Returns the folder of prepared data, which ``source`` names as a path or below ``$RSIM_HOME/data``.

    Args:
        key: configuration key, for the error.
        source: path or name.

    Raises:
        ConfigError: the folder does not exist, or lacks a split.
    """
    places = (Path(source).expanduser(), home() / "data" / source)
    for place in places:
        if all((place / name).is_file() for name in (TRAIN_FILE, "test.parquet")):
            return place.absolute()
    fix = (
        f"there is no train.parquet and test.parquet in {places[1]}; make them with: verl-rsim prepare-data {source} "
        "(for an evaluation set, with --train N)"
    )
    raise ConfigError(key, source, fix)


@dataclass(frozen=True, slots=True)
class StageJob:
    """Holds a stage and its files on this machine.

    Attributes:
        stage: the stage as the chain's file describes it.
        recipe: recipe of its training.
        overrides: the user's hydra overrides.
        folder: folder of checkpoints, episodes, metrics and the exported planner; made when training starts.
        data: folder of the stage's data.
        earlier: parquet files of earlier tasks' training rows, by task; empty without replay.
        mixed: folder of the mixed rows.
        seed: seed of the mix.
        after: name of the planner's state that the stage starts from.
    """

    stage: ChainStage
    recipe: str
    overrides: tuple[str, ...]
    folder: Path
    data: Path
    earlier: Mapping[str, Path]
    mixed: Path
    seed: int
    after: str

    @property
    def planner(self) -> Path:
        """Folder of the planner after this stage."""
        return self.folder / "exported/planner"

    def is_finished(self) -> bool:
        """Returns True if the planner of this stage is exported; an export is written atomically, after training."""
        return (self.folder / "exported" / MANIFEST).is_file()

    def inputs(self) -> dict[str, Any]:
        """Returns everything that the stage's planner depends on, except the chain's first planner and the reasoner."""
        return {
            "after": self.after,
            "steps": self.stage.steps,
            "recipe": self.recipe,
            "overrides": list(self.overrides),
            "replay": self.stage.replay,
            "rows": digest(self.data / TRAIN_FILE),
            "earlier rows": {name: digest(path) for name, path in self.earlier.items()},
            "seed": self.seed if self.earlier else None,
        }

    def check_inputs(self) -> None:
        """Checks that a stage with a checkpoint was trained with the settings of now.

        Raises:
            ConfigError: the settings or the data differ.
        """
        if not (self.is_finished() or self.steps_done()):
            return
        if not (self.folder / INPUTS).is_file():
            fix = f"has no {INPUTS}, so its settings are unknown; choose another --out, or remove it"
            raise ConfigError(f"stages.{self.stage.name}", str(self.folder), fix)
        old = json.loads((self.folder / INPUTS).read_text())
        changes = []
        for key, value in self.inputs().items():
            if old.get(key) != value:
                changes.append(f"{key} {old.get(key)!r} before, {value!r} now")
        if changes:
            fix = f"was trained with other settings ({', '.join(changes)}); choose another --out, or change them back"
            raise ConfigError(f"stages.{self.stage.name}", str(self.folder), fix)

    def train_file(self) -> Path:
        """Returns the parquet file to train on; with replay the rows are mixed at the first call."""
        if not self.earlier:
            return self.data / TRAIN_FILE
        return mix(self.mixed, self.data / TRAIN_FILE, self.earlier, self.stage.replay, self.seed)

    def settings(self, planner: str, reasoner: str) -> list[str]:
        """Returns all hydra overrides of the recipe."""
        set_by_chain = {
            "data.train_files": self.train_file(),
            "data.val_files": self.data / "test.parquet",
            "planner.model.path": planner,
            "actor_rollout_ref.model.path": reasoner,
            "trainer.total_training_steps": self.stage.steps,
            "trainer.total_epochs": self.stage.steps,  # never the limit: an epoch has at least one step
            "trainer.resume_mode": "auto",
            "trainer.default_local_dir": self.folder,
            "trainer.experiment_name": self.stage.name,
        }
        return [
            *self.overrides,
            "rsim.train=[planner]",
            *(f"{key}={hydra_quoted(value)}" for key, value in set_by_chain.items()),
        ]

    def compose(self, planner: str, reasoner: str) -> DictConfig:
        """Composes the job's configuration.

        Raises:
            ConfigError: the recipe does not exist, or an override does not fit it.
        """
        from hydra.errors import HydraException
        from omegaconf.errors import OmegaConfBaseException

        from verl_rsim.config.recipes import compose_recipe

        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # verl warns about engines that are not installed and not used here
                return compose_recipe(self.recipe, self.settings(planner, reasoner))
        except (HydraException, OmegaConfBaseException) as error:
            reason = " ".join(str(error).split())
            fix = f"do not fit the recipe {self.recipe} ({reason}); check the overrides"
            raise ConfigError(f"stages.{self.stage.name}", list(self.overrides), fix) from None

    def check(self, planner: str, reasoner: str) -> None:
        """Checks the job's settings before anything is started.

        Args:
            planner: any planner with the tokenizer and the architecture of the one that the stage will start from.
            reasoner: the reasoner.

        Raises:
            ConfigError: a setting cannot work.
        """
        config = self.compose(planner, reasoner)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from verl_rsim.training.preflight.validate_job import validate_job

            validate_job(config)
        if config.trainer.save_freq < 1:
            fix = "a stage ends with a checkpoint: set trainer.save_freq to the steps between two checkpoints"
            raise ConfigError(f"stages.{self.stage.name}: trainer.save_freq", config.trainer.save_freq, fix)

    def train(self, run_command: RunCommand, planner: str, reasoner: str) -> None:
        """Trains up to the stage's last step, from its newest checkpoint if there is one.

        Raises:
            StageFailed: the job failed, or ended without its last checkpoint.
        """
        starts = self.folder / "starts"
        starts.mkdir(parents=True, exist_ok=True)
        write_atomically(self.folder / INPUTS, json.dumps(self.inputs(), indent=1))
        # One metrics file per start: verl truncates its file when a job resumes. export() joins them.
        metrics = starts / f"{len(list(starts.iterdir())) + 1:03}.jsonl"
        command = launch.train_command(self.recipe, self.settings(planner, reasoner))
        status = run_command(command, {"VERL_FILE_LOGGER_PATH": str(metrics)})
        if status or not self.is_trained():
            raise StageFailed(
                f"stage {self.stage.name}: training ended with exit status {status} and "
                f"{self.steps_done()} of {self.stage.steps} steps saved; see above. Run the same command to continue"
            )

    def steps_done(self) -> int:
        """Returns the training steps of the newest complete checkpoint; 0 without one."""
        complete = complete_checkpoints(self.folder)
        return read_state(complete[-1]).step if complete else 0

    def is_trained(self) -> bool:
        """Returns True if the checkpoint of the last step exists."""
        return self.steps_done() >= self.stage.steps

    def export(self, run_command: RunCommand) -> None:
        """Writes the planner as a Hugging Face folder, and the metrics of all starts as one file.

        Raises:
            StageFailed: verl's merger failed.
        """
        metrics = [path.read_text() for path in sorted((self.folder / "starts").iterdir())]
        write_atomically(self.folder / "metrics.jsonl", "".join(metrics))
        checkpoint = complete_checkpoints(self.folder)[-1]

        def write(target: Path) -> None:
            status = run_command(launch.cli_command("export", str(checkpoint), "--out", str(target)), {})
            if status:
                raise StageFailed(f"stage {self.stage.name}: export ended with exit status {status}; see above")

        build_folder(self.planner.parent, f"{self.stage.name} {json.dumps(self.inputs())}", write)


def plan_jobs(chain: Chain, folder: Path) -> list[StageJob]:
    """Returns the jobs of all stages, after checking their data.

    Raises:
        ConfigError, DataError: data is missing, or there is too little for the requested replay.
    """
    sources = {name: find_data_folder(f"learned.{name}", source) for name, source in chain.learned.items()}
    for stage in chain.stages:
        sources[stage.name] = find_data_folder(f"stages.{stage.name}.data", stage.data)
    jobs: list[StageJob] = []
    for stage in chain.stages:
        earlier = {name: sources[name] / TRAIN_FILE for name in chain.tasks_before(stage)} if stage.replay else {}
        check_replay(sources[stage.name] / TRAIN_FILE, earlier, stage.replay)
        jobs.append(
            StageJob(
                stage=stage,
                recipe=stage.recipe or chain.recipe,
                overrides=(*chain.overrides, *stage.overrides),
                folder=folder / "stages" / stage.name,
                data=sources[stage.name],
                earlier=earlier,
                mixed=folder / "mixes" / stage.name,
                seed=chain.seed,
                after=chain.states[len(jobs)],
            )
        )
    return jobs


def hydra_quoted(value: object) -> str:
    """Returns a value as hydra's override grammar needs it: paths with ``=`` or spaces would be parsed otherwise."""
    if value is None:
        return "null"
    if isinstance(value, int | float):
        return str(value).lower()  # booleans as YAML writes them
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{hydra_quoted(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(hydra_quoted, value)) + "]"
    # Hydra reads a backslash as an escape only in front of a quote.
    escaped = re.sub(r"(\\+)(?='|$)", r"\1\1", str(value)).replace("'", "\\'")
    return f"'{escaped}'"
