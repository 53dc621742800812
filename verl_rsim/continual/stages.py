"""One stage of a chain: its rows, its job's settings, its training up to the exported planner."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from verl_rsim.continual.chain import Chain, ChainStage
from verl_rsim.data.replay_mixing import TRAIN, check_replay, mix
from verl_rsim.training import launch
from verl_rsim.training.checkpoint.store import finished, read_state, write_atomically
from verl_rsim.utils.artifact_folders import MANIFEST, build_folder, digest, home
from verl_rsim.utils.errors import ConfigError, RsimError

INPUTS = "inputs.json"
Run = Callable[[Sequence[str], Mapping[str, str]], int]
"""Runs a command with additions to the environment and returns its exit status, as training.launch.run does."""


class StageFailed(RsimError, RuntimeError):
    """A command of a chain ended with an error; what was finished stays, and the same call goes on."""


def data_folder(key: str, source: str) -> Path:
    """The folder of prepared data: named as a path, or below ``$RSIM_HOME/data``.

    Raises:
        ConfigError: there is none, or it lacks a split.
    """
    places = (Path(source).expanduser(), home() / "data" / source)
    for place in places:
        if all((place / name).is_file() for name in (TRAIN, "test.parquet")):
            return place.absolute()
    fix = (
        f"there is no train.parquet and test.parquet in {places[1]}; make them with: verl-rsim prepare-data {source} "
        "(of an evaluation set with --train N)"
    )
    raise ConfigError(key, source, fix)


@dataclass(frozen=True, slots=True)
class Job:
    """A stage with its places on this machine.

    Attributes:
        recipe: of training.
        overrides: the user's.
        folder: made when training starts; gets checkpoints, episodes, metrics and the exported planner.
        data: of the stage.
        earlier: training rows of earlier tasks, by task; empty without replay.
        mixed: folder of the mix.
        seed: of the mix.
        after: name of the state that it starts from.
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
        """The planner after this stage."""
        return self.folder / "exported/planner"

    def is_finished(self) -> bool:
        """Whether the planner of this stage is there; it is written in one step, after training."""
        return (self.folder / "exported" / MANIFEST).is_file()

    def inputs(self) -> dict[str, Any]:
        """What the stage's planner depends on, beside the chain's first planner and the reasoner."""
        return {
            "after": self.after,
            "steps": self.stage.steps,
            "recipe": self.recipe,
            "overrides": list(self.overrides),
            "replay": self.stage.replay,
            "rows": digest(self.data / TRAIN),
            "earlier rows": {name: digest(path) for name, path in self.earlier.items()},
            "seed": self.seed if self.earlier else None,
        }

    def check_inputs(self) -> None:
        """Refuse to go on with, or from, a stage that was trained on something else.

        Raises:
            ConfigError: it was; one without a checkpoint yet is not refused.
        """
        if not (self.is_finished() or self.steps_done()):
            return
        if not (self.folder / INPUTS).is_file():
            fix = f"has no {INPUTS}: nothing says what it was trained on; choose another --out, or remove it"
            raise ConfigError(f"stages.{self.stage.name}", str(self.folder), fix)
        old = json.loads((self.folder / INPUTS).read_text())
        changed = [key for key, value in self.inputs().items() if old.get(key) != value]
        if changed:
            was = ", ".join(f"{key} {old.get(key)!r} before, {self.inputs()[key]!r} now" for key in changed)
            fix = f"was trained otherwise ({was}); choose another --out, or change it back"
            raise ConfigError(f"stages.{self.stage.name}", str(self.folder), fix)

    def train_file(self) -> Path:
        """The rows to train on, mixed at the first call."""
        if not self.earlier:
            return self.data / TRAIN
        return mix(self.mixed, self.data / TRAIN, self.earlier, self.stage.replay, self.seed)

    def settings(self, planner: str, reasoner: str) -> list[str]:
        """All overrides of the recipe."""
        set_here = {
            "data.train_files": self.train_file(),
            "data.val_files": self.data / "test.parquet",
            "planner.model.path": planner,
            "actor_rollout_ref.model.path": reasoner,
            "trainer.total_training_steps": self.stage.steps,
            "trainer.total_epochs": self.stage.steps,  # an epoch has a step at least
            "trainer.resume_mode": "auto",
            "trainer.default_local_dir": self.folder,
            "trainer.experiment_name": self.stage.name,
        }
        return [*self.overrides, "rsim.train=[planner]", *(f"{key}={_quoted(v)}" for key, v in set_here.items())]

    def compose(self, planner: str, reasoner: str) -> DictConfig:
        """The job's whole configuration.

        Raises:
            ConfigError: no such recipe, or an override that does not fit it.
        """
        from hydra.errors import HydraException
        from omegaconf.errors import OmegaConfBaseException

        from verl_rsim.config.recipes import compose_recipe

        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # verl's, of engines that nobody asked for
                return compose_recipe(self.recipe, self.settings(planner, reasoner))
        except (HydraException, OmegaConfBaseException) as error:
            why = " ".join(str(error).split())
            fix = f"does not go with {self.recipe} ({why}); check the overrides"
            raise ConfigError(f"stages.{self.stage.name}", list(self.overrides), fix) from None

    def check(self, planner: str, reasoner: str) -> None:
        """Refuse what cannot work, before anything is started.

        Args:
            planner: any with the tokenizer and the architecture of the one that the stage will start from.

        Raises:
            ConfigError: a setting cannot work.
        """
        config = self.compose(planner, reasoner)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from verl_rsim.training.preflight.validate_job import validate_job

            validate_job(config)
        if config.trainer.save_freq < 1:
            fix = "a stage ends with a checkpoint: set trainer.save_freq to how often one is saved"
            raise ConfigError(f"stages.{self.stage.name}: trainer.save_freq", config.trainer.save_freq, fix)

    def train(self, run: Run, planner: str, reasoner: str) -> None:
        """Train up to the stage's last step, from the newest checkpoint that is there.

        Raises:
            StageFailed: the job ended with an error or without its last checkpoint.
        """
        starts = self.folder / "starts"
        starts.mkdir(parents=True, exist_ok=True)
        write_atomically(self.folder / INPUTS, json.dumps(self.inputs(), indent=1))
        metrics = starts / f"{len(list(starts.iterdir())) + 1:03}.jsonl"  # verl starts its file anew when it resumes
        command = launch.train_command(self.recipe, self.settings(planner, reasoner))
        status = run(command, {"VERL_FILE_LOGGER_PATH": str(metrics)})
        if status or not self.is_trained():
            raise StageFailed(
                f"stage {self.stage.name}: training ended with exit status {status} and "
                f"{self.steps_done()} of {self.stage.steps} steps saved; see above. The same command goes on"
            )

    def steps_done(self) -> int:
        """Training steps in the newest complete checkpoint."""
        complete = finished(self.folder)
        return read_state(complete[-1]).step if complete else 0

    def is_trained(self) -> bool:
        """Whether the last checkpoint is there."""
        return self.steps_done() >= self.stage.steps

    def export(self, run: Run) -> None:
        """Write the planner as a Hugging Face folder, and the metrics of all starts as one file.

        Raises:
            StageFailed: verl's merger failed.
        """
        parts = [path.read_text() for path in sorted((self.folder / "starts").iterdir())]
        write_atomically(self.folder / "metrics.jsonl", "".join(parts))
        checkpoint = finished(self.folder)[-1]

        def write(target: Path) -> None:
            status = run(launch.own_command("export", str(checkpoint), "--out", str(target)), {})
            if status:
                raise StageFailed(f"stage {self.stage.name}: export ended with exit status {status}; see above")

        build_folder(self.planner.parent, f"{self.stage.name} {json.dumps(self.inputs())}", write)


def plan(chain: Chain, folder: Path) -> list[Job]:
    """The jobs of all stages, after a look at their data.

    Raises:
        ConfigError, DataError: data is missing, or too little of it for the replay asked for.
    """
    sources = {name: data_folder(f"learned.{name}", source) for name, source in chain.learned.items()}
    for stage in chain.stages:
        sources[stage.name] = data_folder(f"stages.{stage.name}.data", stage.data)
    jobs: list[Job] = []
    for stage in chain.stages:
        earlier = {name: sources[name] / TRAIN for name in chain.earlier(stage)} if stage.replay else {}
        check_replay(sources[stage.name] / TRAIN, earlier, stage.replay)
        jobs.append(
            Job(
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


def _quoted(value: object) -> str:
    """A value of an override that hydra takes as it stands."""
    if isinstance(value, int):
        return str(value)
    return "'" + str(value).replace("'", "\\'") + "'"
