"""Runs an evaluation: plays, scores and records every question under every condition, and resumes after a kill."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Awaitable, Callable, Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from rich.console import Console

from verl_rsim.core.episode_record import EpisodeRecord, record_of
from verl_rsim.core.strategies import count_by_keyword
from verl_rsim.evaluation import answers
from verl_rsim.evaluation.conditions import ConditionPlayer
from verl_rsim.evaluation.dataset import EvaluationDataset, EvaluationQuestion
from verl_rsim.evaluation.manifest import open_manifest, weights_digest
from verl_rsim.evaluation.models import LanguageModel
from verl_rsim.evaluation.records import Record, RecordFile, RecordKey
from verl_rsim.monitoring.episode_log import EPISODES_FOLDER, EpisodeLog
from verl_rsim.reward.scorer import Scorer
from verl_rsim.utils.artifact_folders import locked_folder
from verl_rsim.utils.progress import progress_bar

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class EpisodeJob:
    """Identifies an episode that is still to be played."""

    question: EvaluationQuestion
    condition: str
    sample: int


async def evaluate(
    player: ConditionPlayer,
    dataset: EvaluationDataset,
    scorer: Scorer,
    folder: Path,
    console: Console,
    samples: int = 1,
    concurrency: int = 32,
    title: str = "eval",
) -> list[Record]:
    """Plays all episodes that the folder does not hold yet.

    Args:
        player: models, controls and rules.
        dataset: the questions.
        scorer: scores the answers.
        folder: destination of records, episode log and manifest.
        console: shows the progress.
        samples: answers per question and condition.
        concurrency: episodes played at once.
        title: title of the progress bar.

    Returns:
        All records of the folder.

    Raises:
        ConfigError: the folder holds another evaluation.
        EngineError, SandboxError: a model or the sandbox failed. Recorded answers stay, and the same call continues.
        RsimError: another process is writing to this folder.
    """
    models = {"reasoner": player.reasoner, **player.planners}
    requested = {
        "models": {name: model.source for name, model in models.items()},
        "exact": True,  # engines that do not continue token ids exactly are refused
        "data": str(dataset.path),
        "conditions": list(player.conditions),
        "questions": [question.id for question in dataset.questions],
        "samples": samples,
    }
    open_manifest(folder, "eval", fixed_settings(player, dataset, scorer), requested)
    episodes = EpisodeLog(folder / EPISODES_FOLDER, continue_last=True)
    with locked_folder(folder), closing(RecordFile(folder)) as file:
        jobs = pending_jobs(player, dataset, samples, file.keys())
        if jobs:
            console.print(f"{title}: loading models", highlight=False)
            await player.start({job.condition for job in jobs})
        total = len(dataset.questions) * samples * len(player.conditions)
        with (
            # Scoring blocks its thread; twice as many threads as scoring workers keep the workers busy.
            ThreadPoolExecutor(2 * scorer.scoring.workers, thread_name_prefix="rsim-score") as threads,
            progress_bar(console, title, total, total - len(jobs)) as advance,
        ):

            async def play_and_record(job: EpisodeJob) -> None:
                record, episode = await _play_and_score(player, scorer, threads, job, f"evaluation/{folder.name}")
                episodes.append([episode])
                file.append(record)  # last: recorded answers are not played again, so their episode must be logged
                advance()

            await in_parallel(jobs, concurrency, play_and_record)
        return file.records


def pending_jobs(
    player: ConditionPlayer, dataset: EvaluationDataset, samples: int, recorded: Collection[RecordKey]
) -> list[EpisodeJob]:
    """Returns the episodes that are not recorded yet.

    Conditions are innermost, so that an unfinished evaluation has played all conditions on the same questions.
    """
    jobs = []
    for question in dataset.questions:
        for sample in range(samples):
            for condition in player.conditions:
                if (condition, question.id, sample) not in recorded:
                    jobs.append(EpisodeJob(question, condition, sample))
    return jobs


async def _play_and_score(
    player: ConditionPlayer, scorer: Scorer, threads: ThreadPoolExecutor, job: EpisodeJob, run: str
) -> tuple[Record, EpisodeRecord]:
    """Plays one episode and scores its answer; returns the evaluation's record and the episode log's."""
    question = job.question
    began = time.monotonic()
    played = await player.play(job.condition, question, job.sample)
    seconds = time.monotonic() - began
    loop = asyncio.get_running_loop()
    scored = await loop.run_in_executor(threads, answers.score_answer, played.text, question, scorer)
    record = Record(
        condition=job.condition,
        question=question.id,
        sample=job.sample,
        correct=scored.correct,
        reason=scored.reason,
        answer=scored.vote,
        stop=played.stop.value,
        strategies=tuple(turn.strategy for turn in played.turns if turn.strategy),
        keywords=tuple(count_by_keyword(played.reasoner_text)),
        planner_tokens=played.planner_tokens,
        planner_read=played.planner_read,
        reasoner_tokens=played.reasoner_tokens,
        reasoner_read=played.reasoner_read,
        planner_seconds=round(played.planner_seconds, 4),
        reasoner_seconds=round(played.reasoner_seconds, 4),
        seconds=round(seconds, 4),
        text=played.text,
    )
    episode = record_of(
        played.turns,
        played.stop,
        question.messages,
        kind="evaluation",
        step=0,
        sample=job.sample,
        truth=question.truth,
        data_source=question.data_source,
        uid=question.id,
        run=run,
        condition=job.condition,
    )
    return record, dataclasses.replace(episode, acc=scored.correct, reason=scored.reason)


async def in_parallel(items: Iterable[Item], workers: int, work: Callable[[Item], Awaitable[None]]) -> None:
    """Awaits ``work(item)`` for all items, ``workers`` at a time; the first error cancels the rest and is raised."""
    remaining = iter(items)  # shared: every worker takes the next item

    async def run_worker() -> None:
        for item in remaining:
            await work(item)

    tasks = [asyncio.create_task(run_worker()) for _ in range(workers)]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        # Cancelled tasks must have ended before the caller closes files and engines that they use.
        await asyncio.gather(*tasks, return_exceptions=True)


def fixed_settings(player: ConditionPlayer, dataset: EvaluationDataset, scorer: Scorer) -> dict[str, Any]:
    """Returns everything that an answer depends on, for the manifest's block ``fixed``."""
    return {
        "reasoner": model_identity(player.reasoner),
        **{name: model_identity(planner) for name, planner in player.planners.items()},
        "data": dataset.sha256,
        "rules": dataclasses.asdict(player.rules),
        "draw": dataclasses.asdict(player.sampling),
        "scoring": dataclasses.asdict(scorer.scoring),
    }


def model_identity(model: LanguageModel) -> dict[str, Any]:
    """Returns what identifies a model: the hash of its files on this machine or else its source, and its settings."""
    return {
        "model": weights_digest(model.folder) if model.folder else model.source,
        "context": model.engine.context,
        "template_kwargs": dict(model.codec.template_kwargs),
    }
