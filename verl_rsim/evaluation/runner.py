"""One evaluation: every question, under every condition, k times; played, scored, recorded, taken up again."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Awaitable, Callable, Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any, TypeVar

from rich.console import Console

from verl_rsim.core.episode_record import EpisodeRecord, record_of
from verl_rsim.core.strategies import count_by_keyword
from verl_rsim.evaluation import answers
from verl_rsim.evaluation.conditions import Table
from verl_rsim.evaluation.dataset import EvaluationDataset, EvaluationQuestion
from verl_rsim.evaluation.manifest import open_manifest, weights_digest
from verl_rsim.evaluation.models import Player
from verl_rsim.evaluation.records import Key, Record, RecordFile
from verl_rsim.monitoring.episode_log import FOLDER, EpisodeLog
from verl_rsim.reward.scorer import Scorer
from verl_rsim.utils.artifact_folders import only_one
from verl_rsim.utils.progress import shown

Job = TypeVar("Job")


async def evaluate(
    table: Table,
    dataset: EvaluationDataset,
    scorer: Scorer,
    folder: Path,
    console: Console,
    samples: int = 1,
    concurrency: int = 32,
    title: str = "eval",
) -> list[Record]:
    """Play what the folder does not hold yet.

    Args:
        samples: answers to each question under each condition.
        concurrency: answers under way at once.

    Returns:
        All records of the folder.

    Raises:
        ConfigError: the folder holds another evaluation.
        EngineError, SandboxError: a model or the sandbox failed; what was recorded stays, and the same call goes on.
        RsimError: another process plays into this folder.
    """
    asked = {
        "models": {name: p.source for name, p in {"reasoner": table.reasoner, **table.planners}.items()},
        "exact": True,  # engines that would not continue token ids exactly are refused
        "data": str(dataset.path),
        "conditions": list(table.conditions),
        "questions": [question.id for question in dataset.questions],
        "samples": samples,
    }
    open_manifest(folder, "eval", fixed(table, dataset, scorer), asked)
    episodes = EpisodeLog(folder / FOLDER, goes_on=True)
    with only_one(folder), closing(RecordFile(folder)) as file:
        jobs = missing(table, dataset, samples, file.keys())
        if jobs:
            console.print(f"{title}: loading what is not loaded yet", highlight=False)
            await table.start({condition for _, condition, _ in jobs})
        total = len(dataset.questions) * samples * len(table.conditions)
        with (
            ThreadPoolExecutor(2 * scorer.scoring.workers, thread_name_prefix="rsim-score") as threads,
            shown(console, title, total, total - len(jobs)) as advance,
        ):

            async def answer(job: tuple[EvaluationQuestion, str, int]) -> None:
                record, episode = await _answer(table, scorer, threads, *job, run=f"evaluation/{folder.name}")
                episodes.append([episode])
                file.append(record)  # last: what is recorded is not played again
                advance()

            await in_parallel(jobs, concurrency, answer)
        return file.records


def missing(
    table: Table, dataset: EvaluationDataset, samples: int, done: Collection[Key]
) -> list[tuple[EvaluationQuestion, str, int]]:
    """What is still to be played, question by question, so that an unfinished evaluation compares like with like."""
    return [
        (question, condition, sample)
        for question in dataset.questions
        for sample in range(samples)
        for condition in table.conditions
        if (condition, question.id, sample) not in done
    ]


async def _answer(
    table: Table,
    scorer: Scorer,
    threads: ThreadPoolExecutor,
    question: EvaluationQuestion,
    condition: str,
    sample: int,
    run: str,
) -> tuple[Record, EpisodeRecord]:
    """Play and score one answer: its line for the tables, and the episode as it went."""
    began = time.monotonic()
    played = await table.play(condition, question, sample)
    seconds = time.monotonic() - began
    loop = asyncio.get_running_loop()
    scored = await loop.run_in_executor(threads, answers.score, played.text, question, scorer)
    record = Record(
        condition=condition,
        question=question.id,
        sample=sample,
        correct=scored.correct,
        reason=scored.reason,
        answer=scored.vote,
        stop=played.stop.value,
        strategies=tuple(turn.strategy for turn in played.turns if turn.strategy),
        keywords=tuple(count_by_keyword(played.written)),
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
        sample=sample,
        truth=question.truth,
        data_source=question.data_source,
        uid=question.id,
        run=run,
        condition=condition,
    )
    return record, dataclasses.replace(episode, acc=scored.correct, reason=scored.reason)


async def in_parallel(jobs: Iterable[Job], workers: int, do: Callable[[Job], Awaitable[None]]) -> None:
    """Do all jobs, ``workers`` at a time; the first error cancels the rest and is raised."""
    waiting = iter(jobs)

    async def work() -> None:
        for job in waiting:
            await do(job)

    tasks = [asyncio.create_task(work()) for _ in range(workers)]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def fixed(table: Table, dataset: EvaluationDataset, scorer: Scorer) -> dict[str, Any]:
    """What an answer depends on."""
    return {
        "reasoner": identity(table.reasoner),
        **{name: identity(player) for name, player in table.planners.items()},
        "data": dataset.sha256,
        "rules": dataclasses.asdict(table.rules),
        "draw": dataclasses.asdict(table.draw),
        "scoring": dataclasses.asdict(scorer.scoring),
    }


def identity(player: Player) -> dict[str, Any]:
    """What tells a model apart: what its files hold if they are on this machine, else where it is."""
    return {
        "model": weights_digest(player.folder) if player.folder else player.source,
        "context": player.engine.context,
        "template_kwargs": dict(player.codec.template_kwargs),
    }
