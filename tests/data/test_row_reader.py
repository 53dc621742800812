"""Rows in the forms that datasets have: what is read, what is converted, what is refused and how."""

from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from verl_rsim.data.dataset_survey import survey, write_usable_rows
from verl_rsim.data.ground_truths import TruthRules, answer_of_solution
from verl_rsim.data.messages import FormError
from verl_rsim.data.row_reader import RowError, RowReader, write_bad_rows
from verl_rsim.data.rows import read_rows
from verl_rsim.reward.math_grading.answer_types import AnswerTypes
from verl_rsim.utils.errors import ConfigError, DataError

READER = RowReader(TruthRules(AnswerTypes()))
QUESTION = [{"role": "user", "content": "2 + 2?"}]
PARTS = [{"role": "user", "content": [{"type": "text", "text": "2 + 2"}, {"type": "text", "text": "= ?"}]}]


def row(**changes) -> dict:
    block = {"style": "rule", "ground_truth": changes.pop("truth", "4")}
    made = {"data_source": "arithmetic", "prompt": QUESTION, "ability": "math", "reward_model": block}
    return {**made, **changes}


@pytest.mark.parametrize(
    ("prompt", "content"),
    [
        (QUESTION, "2 + 2?"),
        (PARTS, "2 + 2\n= ?"),
        (json.dumps(QUESTION), "2 + 2?"),
        ("2 + 2?", "2 + 2?"),
        ("[1, 2, 3]: which is the largest?", "[1, 2, 3]: which is the largest?"),
    ],
)
def test_a_question_is_read_in_each_form(prompt, content):
    assert READER.read(row(prompt=prompt)).messages[-1] == {"role": "user", "content": content}


@pytest.mark.parametrize(
    ("truth", "source", "read"),
    [
        ("4", "arithmetic", "4"),
        (4, "arithmetic", "4"),
        (4.0, "arithmetic", "4.0"),
        ({"target": ["4"]}, "arithmetic", "4"),
        ({"value": "11"}, "arithmetic", "11"),
        ('{"value": "11"}', "arithmetic", "11"),
        (["1"], "arithmetic", "1"),
        (["1", "1.0"], "arithmetic", "1"),
        ('["1", "1.0"]', "arithmetic", "1"),
        ([1, 2], "list_synthetic", "[1, 2]"),
        ("[1, 2]", "math", "[1, 2]"),
        ("none", "string_synthetic", "none"),
    ],
)
def test_a_ground_truth_is_read_in_each_form(truth, source, read):
    assert READER.read(row(truth=truth, data_source=source)).truth == read


@pytest.mark.parametrize(
    ("changes", "column", "value", "reason"),
    [
        ({"truth": ""}, "reward_model.ground_truth", "''", "is no answer"),
        ({"truth": None}, "reward_model.ground_truth", "None", "is no answer"),
        ({"truth": float("nan")}, "reward_model.ground_truth", "nan", "a missing answer"),
        ({"truth": "nan"}, "reward_model.ground_truth", "'nan'", "is no answer"),
        ({"truth": "a dozen or so"}, "reward_model.ground_truth", "'a dozen or so'", "it is not a number"),
        ({"truth": ["1", "2"]}, "reward_model.ground_truth", "['1', '2']", "lists different answers, '1' and '2'"),
        ({"truth": []}, "reward_model.ground_truth", "[]", "an empty list"),
        ({"truth": {"a": 1, "b": 2}}, "reward_model.ground_truth", "{'a': 1, 'b': 2}", "several keys"),
        ({"truth": "4", "ability": "code"}, "reward_model.ground_truth", "'4'", "write the tests as one JSON object"),
        ({"ability": 3}, "ability", "3", "must be a text"),
        ({"reward_model": "4"}, "reward_model", "'4'", 'must be an object such as {"style": "rule"'),
        ({"data_source": None}, "data_source", "None", "must name the dataset"),
        ({"prompt": []}, "prompt", "[]", "write a list of messages"),
        ({"prompt": "  "}, "prompt", "'  '", "the question is empty"),
        ({"prompt": str(QUESTION)}, "prompt", "\"[{'role'", "looks like messages, but is not JSON"),
        ({"prompt": [{"content": "2 + 2?"}]}, "prompt[0].role", "None", "needs a role"),
        ({"prompt": [{"role": "user", "content": None}]}, "prompt[0].content", "None", "needs a text"),
        (
            {"prompt": [{"role": "user", "content": [{"type": "image", "image": "x.png"}]}]},
            "prompt[0].content",
            "{'type': 'image', 'image': 'x.png'}",
            "only parts of type text",
        ),
        ({"prompt": [*QUESTION, {"role": "assistant", "content": "4"}]}, "prompt[1].role", "'assistant'", "the user's"),
    ],
)
def test_a_bad_row_is_refused_with_column_value_and_fix(changes, column, value, reason):
    with pytest.raises(RowError) as error:
        READER.read(row(**changes))
    assert (error.value.column, value in error.value.value, reason in error.value.reason) == (column, True, True)


def test_reward_models_as_text_are_read():
    read = READER.read(row(reward_model=json.dumps({"ground_truth": "4"})))
    assert (read.truth, read.converted) == ("4", {"reward_model": "JSON text"})


def test_a_missing_column_names_those_that_are_there():
    with pytest.raises(RowError) as error:
        READER.read({"question": "2 + 2?", "answer": "4"})
    assert "the rows have the columns question, answer; name the one of the questions" in error.value.reason


def test_truths_of_other_reward_managers_are_theirs():
    reader = RowReader(TruthRules(AnswerTypes(), "naive"))
    assert reader.read(row(truth={"target": ["4"]})).truth == {"target": ["4"]}
    with pytest.raises(RowError):
        reader.read(row(truth=""))


@pytest.mark.parametrize("kind", ["parquet", "jsonl", "json"])
def test_bad_rows_are_counted_listed_and_left_out(tmp_path, kind):
    rows = [row(), row(truth="nan"), row(), row(truth="?")]
    path = tmp_path / f"rows.{kind}"
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        text = json.dumps(rows) if kind == "json" else "\n".join(map(json.dumps, rows))
        path.write_text("\ufeff" + text, encoding="utf-8")
    found = survey("data.train_files", [path], READER)
    assert (found.rows, found.usable, [bad.number for bad in found.bad]) == (4, 2, [1, 3])
    found.check_bad_rows(2)
    with pytest.raises(ConfigError, match=r"data\.train_files=.*2 of 4 rows cannot be used; .*row 1: reward_mo.*'nan'.*"
                                          r"rsim\.max_bad_rows=2"):  # fmt: skip
        found.check_bad_rows(1)
    write_bad_rows(tmp_path / "run/bad_rows.jsonl", found.bad)
    assert [json.loads(line)["number"] for line in (tmp_path / "run/bad_rows.jsonl").read_text().splitlines()] == [1, 3]
    write_usable_rows(path, READER, tmp_path / "usable.parquet")
    assert read_rows(tmp_path / "usable.parquet") == [row(), row()]


def test_converted_rows_are_in_verls_form_and_said_so(tmp_path):
    rows = [row(prompt="2 + 2?", reward_model=json.dumps({"ground_truth": ["4", "4.0"]}), extra=n) for n in range(2)]
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    found = survey("data.train_files", [path], READER)
    assert found.changed == {path}
    assert "2 of 2 rows hold prompt as plain text; the job trains on a converted copy" in found.notes()
    assert "1 of 2 rows repeat the question of an earlier row" in found.notes()
    write_usable_rows(path, READER, tmp_path / "usable.parquet")
    assert read_rows(tmp_path / "usable.parquet")[1] == row(extra=1)


def test_a_dataset_without_rows_or_of_another_kind_is_refused(tmp_path):
    (tmp_path / "rows.jsonl").write_text("")
    with pytest.raises(ConfigError, match="has no rows"):
        survey("data.val_files", [tmp_path / "rows.jsonl"], READER).check_bad_rows(0)
    with pytest.raises(ConfigError, match="there is no such file"):
        survey("data.val_files", [tmp_path / "nothing.parquet"], READER)
    with pytest.raises(ConfigError, match=r"verl reads \.parquet, \.json, \.jsonl"):
        survey("data.val_files", [tmp_path / "rows.csv"], READER)
    (tmp_path / "rows.jsonl").write_text('["a"]')
    with pytest.raises(DataError, match="row 0: must be a JSON object"):
        survey("data.val_files", [tmp_path / "rows.jsonl"], READER)
    (tmp_path / "rows.jsonl").write_bytes(b'{"a": "\xff"}')
    with pytest.raises(DataError, match="no text in UTF-8"):
        survey("data.val_files", [tmp_path / "rows.jsonl"], READER)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("42", "42"),
        ("She sold 48/2 = 24.\nShe sold 72.\n#### 1,072", "1072"),
        ("So \\boxed{1}, and then $\\boxed{\\frac{1}{2}}$ is it.", "\\frac{1}{2}"),
    ],
)
def test_the_answer_of_a_worked_solution(text, answer):
    assert answer_of_solution(text) == answer


def test_a_solution_without_a_marked_answer_is_refused():
    with pytest.raises(FormError, match="marks no answer"):
        answer_of_solution("First we add.\nThen we have 4.")
