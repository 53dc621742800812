"""Public sets by name: rows in each one's published layout, read by the code that reads the hub, and scored.

The rows are written by hand; where their columns are known from is said in docs/data.md.
"""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.paths import ROOT

from verl_rsim.data.prepare import prepare
from verl_rsim.data.published import PUBLISHED
from verl_rsim.data.rows import read_rows
from verl_rsim.data.synthetic import SYNTHETIC
from verl_rsim.reward.config import parse_scoring
from verl_rsim.reward.math_grading.answer_types import AnswerTypes
from verl_rsim.reward.math_grading.compare import AnswerType
from verl_rsim.reward.scorer import Scorer
from verl_rsim.utils.errors import ConfigError, DataError

THEOREM = {"Picture": None, "Question": "Is every group of order 5 abelian?", "Answer": "True", "Answer_type": "bool"}
FINANCE = {
    "id": "XYZ/2009/page_1.pdf-1",
    "filename": "XYZ/2009/page_1.pdf",
    "pre_text": ["revenue grew .", "see the table ."],
    "post_text": ["amounts in millions ."],
    "table": [["", "2009", "2008"], ["revenue", "150", "120"]],
    "table_ori": [["", "2009", "2008"], ["Revenue", "150", "120"]],
    "question": "by how much did revenue grow?",
    "answer": "25%",
    "exe_ans": "0.25",
    "explanation": "",
    "ann_table_rows": [1],
    "ann_text_rows": [],
    "program": "subtract(150, 120), divide(#0, 120)",
    "program_re": "divide(subtract(150, 120), 120)",
    "gold_inds": "{}",
}
ROWS = {
    "math": {"problem": "Halve 3.", "level": "Level 1", "type": "Algebra", "solution": "So $\\boxed{\\frac{3}{2}}$."},
    "math500": {
        "problem": "Halve 3.",
        "solution": "So $\\boxed{\\frac{3}{2}}$.",
        "answer": "\\frac{3}{2}",
        "subject": "Algebra",
        "level": 1,
        "unique_id": "test/algebra/1.json",
    },
    "gsm8k": {
        "question": "Tom has 1200 eggs and buys 34.",
        "answer": "He has 1200+34=<<1200+34=1234>>1234.\n#### 1,234",
    },
    "aqua": {
        "question": "Which is even?",
        "options": ["A)1", "B)2", "C)3", "D)5", "E)7"],
        "rationale": "2. Answer is B.",
        "correct": "B",
    },
    "mmlu_pro": {
        "question_id": 70,
        "question": "Which is a vowel?",
        "options": ["k", "l", "m", "n", "p", "q", "r", "s", "t", "e"],
        "answer": "J",
        "answer_index": 9,
        "cot_content": "",
        "category": "other",
        "src": "ori_mmlu-x",
    },
    "theoremqa": THEOREM,
    "humaneval": {
        "task_id": "HumanEval/0",
        "prompt": "def double(x):\n    '''Twice x.'''\n",
        "canonical_solution": "    return 2 * x\n",
        "test": "def check(candidate):\n    assert candidate(2) == 4\n",
        "entry_point": "double",
    },
    "mbpp": {
        "task_id": 1,
        "text": "Write a function double.",
        "code": "def double(x):\n    return 2 * x",
        "test_list": ["assert double(2) == 4", "assert double(0) == 0"],
        "test_setup_code": "",
        "challenge_test_list": [],
    },
    "finqa": FINANCE,
}
RIGHT = {
    "math": r"\boxed{1.5}",
    "math500": r"\boxed{\frac{3}{2}}",
    "gsm8k": "#### 1234",
    "aqua": r"\boxed{B}",
    "mmlu_pro": "The answer is (J).",
    "theoremqa": r"\boxed{True}",
    "humaneval": "```python\ndef double(x):\n    return 2 * x\n```",
    "mbpp": "```python\ndef double(x):\n    return x + x\n```",
    "finqa": r"\boxed{25\%}",
}
WRONG = {
    "math": r"\boxed{2}",
    "math500": r"\boxed{\frac{2}{3}}",
    "gsm8k": "#### 1235",
    "aqua": r"\boxed{2}",
    "mmlu_pro": "The answer is (I).",
    "theoremqa": r"\boxed{False}",
    "humaneval": "```python\ndef double(x):\n    return x\n```",
    "mbpp": "```python\ndef double(x):\n    return 4\n```",
    "finqa": r"\boxed{30\%}",
}


@pytest.fixture(scope="module")
def scorer():
    scorer = Scorer(parse_scoring({}))
    yield scorer
    scorer.close()


def copy_of(folder: Path, name: str, *rows: dict) -> Path:
    """The set as a folder of parquet files, named as on the hub, the same rows in each split."""
    folder.mkdir()
    for number, split in enumerate(PUBLISHED[name].rows):
        first = next(key for key in ("question", "problem", "Question", "text", "prompt") if key in rows[0])
        shown = [{**row, first: f"{'# ' if name == 'humaneval' else ''}{number}\n{row[first]}"} for row in rows]
        pq.write_table(pa.Table.from_pylist(shown), folder / f"{split}-00000-of-00001.parquet")
    return folder


def test_all_sets_have_rows_here():
    assert ROWS.keys() == RIGHT.keys() == WRONG.keys() == PUBLISHED.keys()


def test_the_page_lists_them():
    page = (ROOT / "docs/data.md").read_text()
    for name, published in PUBLISHED.items():
        (line,) = (line for line in page.splitlines() if line.startswith(f"| `{name}` |"))
        assert f"`{published.hub}`" in line
        assert all(str(rows) in line for rows in published.rows.values())
    assert all(f"`{name}`" in page for name in SYNTHETIC)


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_row_as_published_becomes_one_that_is_scored(name, tmp_path, scorer):
    copy = copy_of(tmp_path / "copy", name, ROWS[name])
    assert prepare(tmp_path / "d", name, copy=copy)
    for split in PUBLISHED[name].rows:
        (row,) = read_rows(tmp_path / f"d/{split}.parquet")
        truth = row["reward_model"]["ground_truth"]
        scores = [scorer.score(text[name], truth, row["data_source"], row["ability"]) for text in (RIGHT, WRONG)]
        assert [score.accuracy for score in scores] == [1, 0]
        assert row["data_source"] == name
        assert row["extra_info"]["split"] == split


@pytest.mark.parametrize(
    ("kind", "answer", "type_of_answer"),
    [
        ("bool", "False", AnswerType.BOOL),
        ("integer", "11760", AnswerType.INTEGER),
        ("float", "1.42", AnswerType.FLOAT),
        ("float", "3", AnswerType.FLOAT),
        ("list of integer", "[4, 1, 2]", AnswerType.LIST),
        ("list of float", "[0.333, 0.25]", AnswerType.LIST),
        ("option", "(c)", AnswerType.OPTION),
    ],
)
def test_types_of_theoremqa(kind, answer, type_of_answer):
    question = PUBLISHED["theoremqa"].question({**THEOREM, "Answer": answer, "Answer_type": kind})
    assert AnswerTypes().check_truth(question.answer, "theoremqa") is type_of_answer


@pytest.mark.parametrize(
    ("value", "written", "right", "wrong"),
    [
        ("0.93464", "93.5%", ["93.46%", "93.5", "0.9346"], ["9.35%", "935"]),
        ("380.0", "380", ["380", "$380 million"], ["308"]),
        ("-0.032", "3.2%", ["-3.2%", "-0.032"], ["3.2%"]),
        ("yes", "yes", ["yes", "Yes"], ["no", "1"]),
    ],
)
def test_answers_of_finqa(value, written, right, wrong, scorer):
    truth = PUBLISHED["finqa"].question({**FINANCE, "exe_ans": value, "answer": written}).answer
    given = {text: scorer.score(f"\\boxed{{{text}}}", truth, "finqa", None).accuracy for text in [*right, *wrong]}
    assert given == {**dict.fromkeys(right, 1.0), **dict.fromkeys(wrong, 0.0)}


def test_a_multiple_choice_shows_its_options_and_asks_for_the_letter(tmp_path):
    for name, option in (("aqua", "B) 2"), ("mmlu_pro", "J) e")):
        prepare(tmp_path / name, name, copy=copy_of(tmp_path / f"{name}_copy", name, ROWS[name]))
        (row,) = read_rows(tmp_path / f"{name}/test.parquet")
        assert option in row["prompt"][0]["content"].splitlines()
        assert "letter" in row["prompt"][0]["content"].splitlines()[-1]


def test_a_finance_question_shows_text_table_text_question(tmp_path):
    prepare(tmp_path / "d", "finqa", copy=copy_of(tmp_path / "copy", "finqa", FINANCE))
    (row,) = read_rows(tmp_path / "d/test.parquet")
    text = row["extra_info"]["question"]
    parts = ("revenue grew . see", "revenue | 150 | 120", "amounts in millions", "by how much")
    assert sorted(parts, key=text.index) == list(parts)


def test_questions_that_need_a_picture_are_left_out_and_counted(tmp_path):
    seen = {**THEOREM, "Question": "What does the figure show?", "Picture": {"bytes": b"x", "path": "x.png"}}
    prepare(tmp_path / "d", "theoremqa", copy=copy_of(tmp_path / "copy", "theoremqa", THEOREM, seen))
    counts = json.loads((tmp_path / "d/manifest.json").read_text())["splits"]["test"]
    assert (counts["read"], counts["no text, or no answer"], counts["rows"]) == (2, 1, 1)


def test_a_clone_with_configurations_is_read_by_that_of_the_set(tmp_path):
    copy = tmp_path / "copy"
    for config, answer in (("main", "1"), ("socratic", "2")):
        (copy / config).mkdir(parents=True)
        for split in ("train", "test"):
            row = {"question": f"{split}?", "answer": f"#### {answer}"}
            pq.write_table(pa.Table.from_pylist([row]), copy / config / f"{split}.parquet")
    configs = "".join(
        f"- config_name: {name}\n  data_files:\n  - split: train\n    path: {name}/train*\n  - split: test\n"
        f"    path: {name}/test*\n"
        for name in ("main", "socratic")
    )
    (copy / "README.md").write_text(f"---\nconfigs:\n{configs}---\n")
    prepare(tmp_path / "d", "gsm8k", copy=copy)
    assert read_rows(tmp_path / "d/test.parquet")[0]["reward_model"]["ground_truth"] == "1"


def test_one_file_of_an_evaluation_set(tmp_path):
    (tmp_path / "math500.jsonl").write_text(json.dumps(ROWS["math500"]))
    assert prepare(tmp_path / "d", "math500", copy=tmp_path / "math500.jsonl")
    assert not (tmp_path / "d/train.parquet").exists()
    with pytest.raises(DataError, match="gsm8k has the splits train, test: name a folder"):
        prepare(tmp_path / "e", "gsm8k", copy=tmp_path / "math500.jsonl")


def test_train_takes_questions_of_an_evaluation_set(tmp_path):
    rows = [{**ROWS["math500"], "problem": f"Halve {number}."} for number in range(10)]
    copy = copy_of(tmp_path / "copy", "math500", *rows)
    prepare(tmp_path / "d", "math500", train=6, copy=copy)
    train, test = (
        {r["extra_info"]["question"] for r in read_rows(tmp_path / f"d/{s}.parquet")} for s in ("train", "test")
    )
    assert (len(train), len(test), train & test) == (6, 4, set())


def test_another_layout_is_refused_with_the_columns(tmp_path):
    copy = copy_of(tmp_path / "copy", "gsm8k", {"question": "q", "solution": "#### 1"})
    with pytest.raises(DataError, match=r"gsm8k needs \['answer'\], has \['question', 'solution'\]"):
        prepare(tmp_path / "d", "gsm8k", copy=copy)


def test_without_internet_the_message_names_the_set_and_the_way_out(tmp_path, monkeypatch):
    import datasets

    def unreachable(*_, **__):
        raise ConnectionError("Couldn't reach 'openai/gsm8k' on the Hub")

    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    with pytest.raises(DataError, match=r"gsm8k cannot be loaded .*openai/gsm8k.* prepare-data gsm8k --source"):
        prepare(tmp_path / "d", "gsm8k")
    assert not (tmp_path / "d").exists()


def test_bad_copies(tmp_path):
    with pytest.raises(DataError, match="there is no such file or folder"):
        prepare(tmp_path / "d", "gsm8k", copy=tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"gsm8k \(train\) cannot be read"):
        prepare(tmp_path / "d", "gsm8k", copy=tmp_path / "empty")
    with pytest.raises(ConfigError, match="arithmetic is no published dataset"):
        prepare(tmp_path / "d", "arithmetic", copy=tmp_path)
    with pytest.raises(DataError, match=r"no generator 'gsm9k'.*choose math, math500, gsm8k"):
        prepare(tmp_path / "d", "gsm9k")
