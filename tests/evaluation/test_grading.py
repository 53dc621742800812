"""``verl-rsim grade``: rows of every form, bad rows by name, explanations, agreement and other scorers."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from verl_rsim.cli import app
from verl_rsim.evaluation.grading_rows import read_grading_rows
from verl_rsim.evaluation.other_scorers import OtherScorers
from verl_rsim.reward.math_grading.answer_types import AnswerTypes
from verl_rsim.reward.math_grading.compare import AnswerType
from verl_rsim.utils.errors import ConfigError

GOOD = [
    {"type": "number", "truth": "18", "text": "The answer is 18 eggs.", "right": True},
    {"data_source": "openai/gsm8k", "ground_truth": 18, "response": "no idea"},
    {"input": "2 + 3?", "output": "The answer is 5 (or 6).", "gts": "5", "score": 0.0, "step": 1},
    {"reward_model": {"ground_truth": "B"}, "data_source": "aqua_rat", "completion": "**B**"},
    {"type": "math", "truth": "(x+1)^2", "text": "\\boxed{x^2+2x+1}", "right": False},
]
BAD = [
    ({"type": "numbr", "truth": "18", "text": "18"}, "type: must be one of math, number"),
    ({"type": "number", "truth": "a dozen or so", "text": "18"}, "truth: .*not a number"),
    ({"type": "number", "ground_truth": None, "text": "18"}, "truth: is missing; give the row one of truth, ground_"),
    ({"type": "number", "truth": "18"}, "text: is missing; give the row one of text, output"),
    ({"type": "number", "truth": "18", "text": ["18"]}, "text: must be text"),
    ({"type": "number", "truth": "18", "text": "18", "right": "yes"}, "right: must be true or false, not 'yes'"),
]


def write(path, rows):
    path.write_text("\n\n".join(json.dumps(row) for row in rows))
    return path


def read(path):
    return read_grading_rows(path, AnswerTypes(), AnswerType.MATH)


def test_rows_in_the_names_of_datasets_dumps_and_our_own(tmp_path):
    rows, problems = read(write(tmp_path / "rows.jsonl", GOOD))
    assert problems == []
    assert [row.truth for row in rows] == ["18", "18", "5", "B", "(x+1)^2"]
    assert [AnswerTypes().of(row.data_source) for row in rows[:4]] == ["number", "number", "math", "option"]
    assert rows[1].place.endswith("rows.jsonl, line 3")


@pytest.mark.parametrize(("row", "problem"), BAD)
def test_a_bad_row_is_named_with_line_key_and_fix(tmp_path, row, problem):
    rows, problems = read(write(tmp_path / "rows.jsonl", [GOOD[0], row]))
    assert len(rows) == 1
    assert re.search(f"rows.jsonl, line 3: {problem}", problems[0])


def test_the_command_explains_counts_and_writes(tmp_path):
    rows = write(tmp_path / "rows.jsonl", [*GOOD, BAD[0][0]])
    done = CliRunner().invoke(app, ["grade", str(rows), "--out", str(tmp_path / "out.jsonl")])
    assert done.exit_code == 1, done.output
    assert "'18 eggs' (sentence that states it) against '18', compared as numbers" in done.output
    assert "'x^2+2x+1' (box) against '(x+1)^2', compared by algebra" in done.output
    assert "1 rows were not graded" in done.output
    graded = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [row["graded"]["reason"] for row in graded] == ["right", "no_answer", "ambiguous", "right", "right"]
    assert graded[2]["step"] == 1


def test_a_file_without_usable_rows_is_an_error(tmp_path):
    done = CliRunner().invoke(app, ["grade", str(write(tmp_path / "rows.jsonl", [BAD[3][0]]))])
    assert "text: is missing" in str(done.exception)
    done = CliRunner().invoke(app, ["grade", str(tmp_path / "none.jsonl")])
    assert "there is no such file" in str(done.exception)


def test_an_unknown_scorer_or_type_is_refused():
    with pytest.raises(ConfigError, match="write one or more of verl, math_verify"):
        OtherScorers(["vrl"])
    done = CliRunner().invoke(app, ["grade", "x.jsonl", "--type", "maths"])
    assert "--type='maths'" in str(done.exception)


@pytest.mark.slow
def test_verdicts_of_other_scorers(tmp_path):
    rows = [
        {"type": "math", "truth": "x+1", "text": "\\boxed{1+x}"},
        {"type": "math", "truth": "x+1", "text": "\\boxed{2+x}"},
        {"data_source": "openai/gsm8k", "truth": "7", "text": "The answer is 7."},
    ]
    out = tmp_path / "out.jsonl"
    arguments = ["grade", str(write(tmp_path / "rows.jsonl", rows)), "--against", "verl,math_verify", "--out", str(out)]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    graded = [json.loads(line)["graded"] for line in out.read_text().splitlines()]
    assert [(row["reason"], row["verl"], row["math_verify"]) for row in graded] == [
        ("right", True, True),
        ("wrong", False, False),
        ("right", False, True),  # verl's scorer of GSM8K asks for ####
    ]
    assert "Judged otherwise by a person or by another scorer: 1" in done.output


def test_grading_loads_neither_torch_nor_verl():
    code = "import sys, verl_rsim.evaluation.grading, verl_rsim.evaluation.reports.grading as r; r.Console"
    code += "; print([name for name in ('torch', 'verl', 'ray', 'vllm', 'transformers') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
