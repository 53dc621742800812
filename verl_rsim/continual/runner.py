"""Runs a chain: evaluate, then for each stage train, export, evaluate; a finished part is never done again.

All work is done by commands in processes of their own, one at a time, so that each has the whole machine: training,
``verl-rsim export`` and ``verl-rsim transfer``.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from verl_rsim.continual.chain import Chain
from verl_rsim.continual.forgetting import Forgetting
from verl_rsim.continual.report import REASONER, write_forgetting_report
from verl_rsim.continual.stages import Job, Run, StageFailed, data_folder, plan
from verl_rsim.evaluation.dataset import load_questions
from verl_rsim.evaluation.engines.http import is_url
from verl_rsim.evaluation.manifest import open_manifest, weights_digest
from verl_rsim.evaluation.matrix import Matrix, parse_matrix
from verl_rsim.evaluation.models import Planner, Reasoner, resolve
from verl_rsim.training import launch
from verl_rsim.utils.artifact_folders import only_one, write_atomically
from verl_rsim.utils.errors import ConfigError

RULES = {"max_turns": "max_turns", "max_step_tokens": "max_step_tokens", "max_answer_tokens": "max_answer_tokens",
         "injection": "injection", "delimiter": "step_delimiter",
         "planner_decoding": "planner_decoding"}  # fmt: skip
"""The evaluation's rules, by the settings in ``rsim`` that training plays by."""


def run_chain(chain: Chain, folder: Path, console: Console, run: Run) -> Forgetting:
    """Do what the folder lacks, write and print the report.

    Args:
        run: runs a command; see :func:`verl_rsim.training.launch.run`.

    Raises:
        ConfigError, DataError: something cannot be as asked; raised before anything is started.
        StageFailed: a command failed; the same call goes on where it stopped.
    """
    jobs = plan(chain, folder)
    with only_one(folder):
        return _ChainRun(chain, jobs, folder, console, run).go()


def local_model(key: str, source: str, role: str) -> str:
    """A model's folder or Hugging Face id.

    Raises:
        ConfigError: no such folder, or a URL, which cannot be trained or serve training.
    """
    if is_url(source):
        raise ConfigError(key, source, "training needs the weights: name a Hugging Face folder or id")
    found = resolve(source, role)
    return str(found or source)


class _ChainRun:
    """One start of a chain."""

    def __init__(self, chain: Chain, jobs: Sequence[Job], folder: Path, console: Console, run: Run):
        self.chain, self.jobs, self.folder, self.console, self.run = chain, jobs, folder, console, run
        self.planner = local_model("planner", chain.planner, Planner.role)
        self.reasoner = local_model("reasoner", chain.reasoner, Reasoner.role)

    def go(self) -> Forgetting:
        """Everything that is not done yet, in order."""
        models = {"planner": _identity(self.planner), "reasoner": _identity(self.reasoner)}
        open_manifest(self.folder, "chain", models, {"planner": self.planner, "reasoner": self.reasoner})
        done = self._finished()
        for job in self.jobs[done:]:
            job.check(self.planner, self.reasoner)
        self.block, self.seed = self._evaluation_block()
        report = self._evaluate(done)
        for number, job in enumerate(self.jobs[done:], done + 1):
            title = f"stage {number}/{len(self.jobs)} {job.stage.name}"
            if not job.is_trained():
                self._say(f"{title}: training from step {job.steps_done()} to {job.stage.steps}")
                job.train(self.run, self._planner_after(number - 1), self.reasoner)
            self._say(f"{title}: export")
            job.export(self.run)
            report = self._evaluate(number)
        return report

    def _say(self, text: str) -> None:
        self.console.print(text, style="bold", highlight=False)

    def _planner_after(self, stages: int) -> str:
        return str(self.jobs[stages - 1].planner) if stages else self.planner

    def _finished(self) -> int:
        """How many stages are.

        Raises:
            ConfigError: one that was trained otherwise, or whose predecessor is missing.
        """
        for job in self.jobs:
            job.check_inputs()
        done = next((number for number, job in enumerate(self.jobs) if not job.is_finished()), len(self.jobs))
        for job in self.jobs[done + 1 :]:
            if job.steps_done() or job.is_finished():
                fix = f"is there without {self.jobs[done].stage.name} before it; choose another --out, or remove it"
                raise ConfigError(f"stages.{job.stage.name}", str(job.folder), fix)
        return done

    def _evaluation_block(self) -> tuple[dict[str, Any], int]:
        """The file of the evaluation without its planners, and its seed; the rules are those of the first stage."""
        from omegaconf import OmegaConf

        config = self.jobs[0].compose(self.planner, self.reasoner)
        rsim: Any = OmegaConf.to_container(config.rsim, resolve=True)
        given = self.chain.evaluation
        template = OmegaConf.to_container(config.data.get("apply_chat_template_kwargs") or OmegaConf.create({}))
        self.template: dict[str, Any] = {"template_kwargs": template} if template else {}
        block = {
            **given,
            "rules": {**{rule: rsim[name] for rule, name in RULES.items()}, **(given.get("rules") or {})},
            "scoring": {**rsim["scoring"], **(given.get("scoring") or {})},
            "fusion_url": given.get("fusion_url") or config.reward.sandbox_fusion.url,
            "reasoners": {REASONER: self._model(self.reasoner)},
            "datasets": test_files(self.chain),
        }
        settings = self._matrix(block, 0).settings
        for source in block["datasets"].values():
            load_questions(source, settings.limit)
        return block, settings.seed

    def _matrix(self, block: dict[str, Any], stages: int) -> Matrix:
        return parse_matrix({**block, "planners": self._planners(stages)})

    def _model(self, path: str) -> str | dict[str, Any]:
        """A model with the chat template's arguments that it is trained with."""
        return {"path": path, **self.template} if self.template else path

    def _planners(self, stages: int) -> dict[str, str | dict[str, Any]]:
        states = enumerate(self.chain.states[: stages + 1])
        return {state: self._model(self._planner_after(number)) for number, state in states}

    def _evaluate(self, stages: int) -> Forgetting:
        """Play every state so far on every dataset, as far as it has not been, and report."""
        import yaml  # type: ignore[import-untyped]

        folder = self.folder / "evaluation"
        done, wanted = folder / "matrix.yaml", folder / "matrix.unfinished.yaml"
        text = yaml.safe_dump({**self.block, "planners": self._planners(stages)}, sort_keys=False)
        states = self.chain.states[: stages + 1]
        if not done.is_file() or done.read_text() != text:
            self._say(f"evaluation of {states[-1]}")
            folder.mkdir(exist_ok=True)
            write_atomically(wanted, text)
            status = self.run(launch.own_command("transfer", str(wanted), "--out", str(folder)), {})
            if status:
                raise StageFailed(
                    f"evaluation of {states[-1]}: exit status {status}; see above. The same command goes on"
                )
            os.replace(wanted, done)
        return write_forgetting_report(self.chain, states, self.folder, self.seed, self.console)


def test_files(chain: Chain) -> dict[str, str]:
    """What is evaluated: the test rows of all tasks, and the further datasets."""
    tests = {name: str(data_folder(name, source) / "test.parquet") for name, source in chain.tasks.items()}
    return {**tests, **chain.datasets}


def _identity(model: str) -> str:
    """What tells a model apart: what its files hold if they are on this machine, else its name."""
    return weights_digest(Path(model)) if Path(model).is_dir() else model
