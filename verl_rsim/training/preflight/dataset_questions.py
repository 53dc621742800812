"""Reads the questions of a job's datasets for the checks before the start."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from verl_rsim.core.prompts import Message, check_content
from verl_rsim.utils.errors import ConfigError

DATASETS = ("data.train_files", "data.val_files")


def local_parquet_files(files: str | Sequence[str]) -> list[Path] | None:
    """Returns the files of a dataset; None if verl alone can read them (json, remote)."""
    names = [files] if isinstance(files, str) else list(files)
    if any("://" in name or not name.endswith(".parquet") for name in names):
        return None
    return [Path(name).expanduser() for name in names]


def questions_by_roles(config: DictConfig) -> dict[str, list[Sequence[Message]]]:
    """Returns the first question of each sequence of roles in each dataset, by the dataset's key.

    Datasets that verl alone can read are left out.

    Raises:
        ConfigError: a question is no list of messages, or a message has no role or no text.
    """
    column = config.data.get("prompt_key", "prompt")
    found: dict[str, list[Sequence[Message]]] = {}
    for key in DATASETS:
        first: dict[tuple[str, ...], Sequence[Message]] = {}
        for file in local_parquet_files(config.data[key.removeprefix("data.")]) or ():
            for number, question in enumerate(_questions(file, column, key)):
                first.setdefault(_roles(question, key, f"{file}, row {number}"), question)
        found[key] = list(first.values())
    return found


def _questions(file: Path, column: str, key: str) -> Iterator[Any]:
    import pyarrow.parquet as pq

    parquet = pq.ParquetFile(file)
    if column not in parquet.schema_arrow.names:
        fix = f"its rows have no column {column} with the question's messages; name it with data.prompt_key"
        raise ConfigError(key, str(file), fix)
    for batch in parquet.iter_batches(columns=[column]):
        yield from batch.column(0).to_pylist()


def _roles(question: Any, key: str, place: str) -> tuple[str, ...]:
    """Returns the roles of a question's messages.

    Raises:
        ConfigError: it is no list of messages with a role and a text.
    """
    is_chat = isinstance(question, list) and question and all(isinstance(message, Mapping) for message in question)
    if not is_chat or not all(isinstance(message.get("role"), str) for message in question):
        fix = f'a question must be a list of messages like {{"role": "user", "content": "..."}}, not {question!r:.80}'
        raise ConfigError(key, place, fix)
    try:
        check_content(question)
    except ValueError as error:
        raise ConfigError(key, place, str(error)) from error
    return tuple(message["role"] for message in question)
