"""Rows in unusual forms: those that a job converts, and those at which its start is refused, with the message."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

Rows = list[dict[str, Any]]


def _truths(value: Any) -> Callable[[Rows], None]:
    def change(rows: Rows) -> None:
        for row in rows:
            row["reward_model"]["ground_truth"] = value

    return change


def _column(name: str, value: Callable[[Any], Any]) -> Callable[[Rows], None]:
    def change(rows: Rows) -> None:
        for row in rows:
            row[name] = value(row.get(name))

    return change


def _without(name: str) -> Callable[[Rows], None]:
    def change(rows: Rows) -> None:
        for row in rows:
            del row[name]

    return change


def _one_nan(rows: Rows) -> None:
    rows[3]["reward_model"]["ground_truth"] = float("nan")


def _parts(prompt: Any) -> Any:
    return [{"role": message["role"], "content": [{"type": "text", "text": message["content"]}]} for message in prompt]


def _pictures(prompt: Any) -> Any:
    return [{"role": "user", "content": [{"type": "image", "image": "x.png"}]}]


CONVERTED: dict[str, Callable[[Rows], None]] = {
    "target": _truths({"target": ["7"]}),
    "list": _truths(["1"]),
    "spellings": _truths(["1", "1.0"]),
    "value": _truths({"value": "11"}),
    "text": _column("prompt", lambda prompt: prompt[0]["content"]),
    "json": _column("prompt", json.dumps),
    "parts": _column("prompt", _parts),
    "reward": _column("reward_model", json.dumps),
}
"""Changes of rows after which a job still trains on them."""

REFUSED: dict[str, tuple[Callable[[Rows], None], str]] = {
    "truth": (
        _truths("many"),
        "row 0: reward_model.ground_truth is 'many': ground truth 'many' of type 'number' cannot",
    ),
    "answers": (_truths(["1", "2"]), "lists different answers, '1' and '2'"),
    "nan": (_one_nan, "1 of 8 rows cannot be used; HOME/rows/nan.jsonl, row 3: reward_model.ground_truth is nan"),
    "code": (_column("ability", lambda _: "code"), "write the tests as one JSON object (so are 7 more)"),
    "repr": (_column("prompt", str), "looks like messages, but is not JSON"),
    "pictures": (_column("prompt", _pictures), "only parts of type text can be used"),
    "noprompt": (_without("prompt"), "name the one of the questions with data.prompt_key"),
    "noreward": (_without("reward_model"), "reward_model is None: must be an object such as"),
    "nosource": (_without("data_source"), "data_source is None: must name the dataset"),
}
"""Changes of rows at which the start is refused, and a part of the message."""


def write_unusual_rows(home: Path, rows: Rows) -> None:
    """Writes the files ``rows/NAME.jsonl`` with eight rows each."""
    (home / "rows").mkdir(exist_ok=True)
    changes = CONVERTED | {name: change for name, (change, _) in REFUSED.items()}
    for name, change in changes.items():
        changed = json.loads(json.dumps(rows[:8]))
        change(changed)
        (home / f"rows/{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in changed))
