"""Runs a chain: evaluates, then trains, exports and evaluates each stage; finished parts are never repeated.

Training, ``verl-rsim export`` and ``verl-rsim transfer`` run as subprocesses, one at a time, so that each has the whole
machine and its memory is free when it ends.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from verl_rsim.continual.chain import Chain
from verl_rsim.continual.forgetting import ForgettingReport
from verl_rsim.continual.report import REASONER, write_forgetting_report
from verl_rsim.continual.stages import RunCommand, StageFailed, StageJob, find_data_folder, hydra_quoted, plan_jobs
from verl_rsim.core.policy_description import PolicyDescription, TrainedRules, find_description
from verl_rsim.evaluation.dataset import load_questions
from verl_rsim.evaluation.engines.http import is_url
from verl_rsim.evaluation.manifest import open_manifest, weights_digest
from verl_rsim.evaluation.matrix import Matrix, parse_matrix
from verl_rsim.evaluation.models import Planner, Reasoner, find_model_folder
from verl_rsim.evaluation.trained_rules import resolve_rules
from verl_rsim.training import launch
from verl_rsim.training.checkpoint.training_record import RULE_SETTINGS
from verl_rsim.utils.artifact_folders import locked_folder, write_atomically
from verl_rsim.utils.errors import ConfigError

TEMPLATE_KEY = "data.apply_chat_template_kwargs"
"""Key of training that holds the arguments of both chat templates."""


def run_chain(chain: Chain, folder: Path, console: Console, run_command: RunCommand) -> ForgettingReport:
    """Runs all unfinished parts of a chain, then writes, prints and returns the report.

    Args:
        chain: the chain.
        folder: folder of the chain's results.
        console: receives progress and tables.
        run_command: runs a command; see :func:`verl_rsim.training.launch.run`.

    Raises:
        ConfigError, DataError: the chain cannot work; raised before anything is started.
        StageFailed: a command failed; the same call resumes there.
    """
    description = find_description(local_model("planner", chain.planner, Planner.role), Planner.role)
    chain = with_planners_rules(chain, description.rules if description else None)
    jobs = plan_jobs(chain, folder)
    with locked_folder(folder):
        return _ChainRun(chain, description, jobs, folder, console, run_command).run()


def with_planners_rules(chain: Chain, trained: TrainedRules | None) -> Chain:
    """Returns the chain with the rules under which its first planner was trained, where it overrides none.

    Args:
        chain: as its file describes it.
        trained: None if the planner does not say how it was trained; the recipe's rules then hold.
    """
    if trained is None:
        return chain
    values = {f"rsim.{setting}": getattr(trained.rules, rule) for rule, setting in RULE_SETTINGS.items()}
    added = [f"{key}={hydra_quoted(value)}" for key, value in values.items()]
    overrides = [*chain.overrides, *(override for stage in chain.stages for override in stage.overrides)]
    # Hydra takes the last of several values of a key, but refuses to add a key that is already there.
    if not any(TEMPLATE_KEY in override for override in overrides):
        for name, value in trained.template_kwargs[Planner.role].items():
            added.append(f"++{TEMPLATE_KEY}.{name}={hydra_quoted(value)}")
    return dataclasses.replace(chain, overrides=(*added, *chain.overrides))


def local_model(key: str, source: str, role: str) -> str:
    """Returns a model's folder or Hugging Face id.

    Raises:
        ConfigError: the folder does not exist, or ``source`` is a URL, which gives no weights.
    """
    if is_url(source):
        raise ConfigError(key, source, "training needs the weights: name a Hugging Face folder or id")
    return str(find_model_folder(source, role) or source)


class _ChainRun:
    """Runs a chain once, from its first unfinished part to its end.

    Attributes:
        description: how the chain's planner was trained, if it says so.
        planner, reasoner: the chain's models: a folder or a Hugging Face id.
        template: the chat template's arguments of training, as a model's block of a transfer's file.
        block: the transfer's file without its planners.
        seed: seed of the evaluation.
    """

    def __init__(
        self,
        chain: Chain,
        description: PolicyDescription | None,
        jobs: Sequence[StageJob],
        folder: Path,
        console: Console,
        run_command: RunCommand,
    ):
        self.chain, self.description, self.jobs, self.folder = chain, description, jobs, folder
        self.console, self.run_command = console, run_command
        self.planner = local_model("planner", chain.planner, Planner.role)
        self.reasoner = local_model("reasoner", chain.reasoner, Reasoner.role)
        find_description(self.reasoner, Reasoner.role)  # refuses a trained planner in the reasoner's place

    def run(self) -> ForgettingReport:
        """Runs everything that is not finished, in order, and returns the newest report."""
        models = {"planner": _model_identity(self.planner), "reasoner": _model_identity(self.reasoner)}
        open_manifest(self.folder, "chain", models, {"planner": self.planner, "reasoner": self.reasoner})
        done = self._count_finished()
        # All stages are checked before the first one starts: an error in the last must not come up after hours.
        for job in self.jobs[done:]:
            job.check(self.planner, self.reasoner)
        self.block, self.seed = self._evaluation_block()
        report = self._evaluate(done)
        for number, job in enumerate(self.jobs[done:], done + 1):
            title = f"stage {number}/{len(self.jobs)} {job.stage.name}"
            if not job.is_trained():
                self._print(f"{title}: training from step {job.steps_done()} to {job.stage.steps}")
                job.train(self.run_command, self._planner_after(number - 1), self.reasoner)
            self._print(f"{title}: export")
            job.export(self.run_command)
            report = self._evaluate(number)
        return report

    def _print(self, text: str) -> None:
        self.console.print(text, style="bold", highlight=False)

    def _planner_after(self, stages: int) -> str:
        return str(self.jobs[stages - 1].planner) if stages else self.planner

    def _count_finished(self) -> int:
        """Returns the number of finished stages.

        Raises:
            ConfigError: a stage was trained with other settings, or its predecessor is missing.
        """
        for job in self.jobs:
            job.check_inputs()
        done = 0
        while done < len(self.jobs) and self.jobs[done].is_finished():
            done += 1
        for job in self.jobs[done + 1 :]:
            if job.steps_done() or job.is_finished():
                fix = f"exists without {self.jobs[done].stage.name} before it; choose another --out, or remove it"
                raise ConfigError(f"stages.{job.stage.name}", str(job.folder), fix)
        return done

    def _evaluation_block(self) -> tuple[dict[str, Any], int]:
        """Returns the transfer's file without its planners, and its seed; the rules are those of the first stage."""
        from omegaconf import OmegaConf

        config = self.jobs[0].compose(self.planner, self.reasoner)
        rsim: Any = OmegaConf.to_container(config.rsim, resolve=True)
        given = self.chain.evaluation
        template = OmegaConf.to_container(config.data.get("apply_chat_template_kwargs") or OmegaConf.create({}))
        self.template: dict[str, Any] = {"template_kwargs": template} if template else {}
        block = {
            **given,
            "rules": {**{rule: rsim[name] for rule, name in RULE_SETTINGS.items()}, **(given.get("rules") or {})},
            "scoring": {**rsim["scoring"], **(given.get("scoring") or {})},
            "fusion_url": given.get("fusion_url") or config.reward.sandbox_fusion.url,
            "reasoners": {REASONER: self._model(self.reasoner)},
            "datasets": test_files(self.chain),
        }
        resolve_rules({self.chain.planner: self.description}, block["rules"]).show(self.console)
        settings = self._matrix(block, 0).settings
        # Read here only to report a dataset that is missing or broken before anything runs.
        for source in block["datasets"].values():
            load_questions(source, settings.limit, settings.scoring)
        return block, settings.seed

    def _matrix(self, block: dict[str, Any], stages: int) -> Matrix:
        return parse_matrix({**block, "planners": self._planners(stages)})

    def _model(self, path: str) -> str | dict[str, Any]:
        """Returns a model's block of a transfer's file, with the chat template's arguments of training."""
        return {"path": path, **self.template} if self.template else path

    def _planners(self, stages: int) -> dict[str, str | dict[str, Any]]:
        """Returns the planners of a transfer's file: all states up to the one after ``stages`` stages."""
        states = enumerate(self.chain.states[: stages + 1])
        return {state: self._model(self._planner_after(number)) for number, state in states}

    def _evaluate(self, stages: int) -> ForgettingReport:
        """Evaluates every state so far on every dataset, as far as that is missing, and returns the report."""
        import yaml  # type: ignore[import-untyped]

        folder = self.folder / "evaluation"
        # matrix.yaml says what was evaluated to its end; until then its content has another name.
        finished, unfinished = folder / "matrix.yaml", folder / "matrix.unfinished.yaml"
        text = yaml.safe_dump({**self.block, "planners": self._planners(stages)}, sort_keys=False)
        states = self.chain.states[: stages + 1]
        if not finished.is_file() or finished.read_text() != text:
            self._print(f"evaluation of {states[-1]}")
            folder.mkdir(exist_ok=True)
            write_atomically(unfinished, text)
            status = self.run_command(launch.cli_command("transfer", str(unfinished), "--out", str(folder)), {})
            if status:
                raise StageFailed(
                    f"evaluation of {states[-1]}: exit status {status}; see above. Run the same command to continue"
                )
            os.replace(unfinished, finished)
        return write_forgetting_report(self.chain, states, self.folder, self.seed, self.console)


def test_files(chain: Chain) -> dict[str, str]:
    """Returns the evaluated data by name: the test rows of all tasks, and the additional datasets."""
    tests = {name: str(find_data_folder(name, source) / "test.parquet") for name, source in chain.tasks.items()}
    return {**tests, **chain.datasets}


def _model_identity(model: str) -> str:
    """Returns the digest of a model's files if they are on this machine, else its name."""
    return weights_digest(Path(model)) if Path(model).is_dir() else model
