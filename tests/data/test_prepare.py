from __future__ import annotations

import csv
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from verl_rsim.data.prepare import prepare
from verl_rsim.data.prepare_models import prepare_tiny
from verl_rsim.utils.artifact_folders import locked_folder
from verl_rsim.utils.errors import ConfigError, DataError, RsimError


def test_generated_questions_become_verl_rows_and_a_second_run_does_nothing(tmp_path):
    assert prepare(tmp_path / "d", "arithmetic", train=20, test=5)
    rows = {split: pq.read_table(tmp_path / f"d/{split}.parquet").to_pylist() for split in ("train", "test")}
    assert (len(rows["train"]), len(rows["test"])) == (20, 5)
    row = rows["train"][0]
    left, sign, right = row["extra_info"]["question"].rsplit(":", 1)[1].replace("=", "").split()
    assert int(row["reward_model"]["ground_truth"]) == int(left) + int(right) * (1 if sign == "+" else -1)
    assert row["prompt"][0]["role"] == "user"
    texts = [r["extra_info"]["question"] for split in rows.values() for r in split]
    assert len(set(texts)) == len(texts), "no question is in both splits, or twice"
    assert not prepare(tmp_path / "d", "arithmetic", train=20, test=5)


@pytest.mark.parametrize("damage", ["remove", "shorten", "change"])
def test_a_damaged_folder_is_made_anew(tmp_path, damage):
    prepare(tmp_path / "d", "arithmetic", train=20, test=5)
    file = tmp_path / "d/train.parquet"
    whole = file.read_bytes()
    if damage == "remove":
        file.unlink()
    else:
        file.write_bytes(whole[:-10] if damage == "shorten" else whole[:-1] + bytes([whole[-1] ^ 1]))
    assert prepare(tmp_path / "d", "arithmetic", train=20, test=5)
    assert file.read_bytes() == whole


def test_other_settings_make_the_folder_anew(tmp_path):
    prepare(tmp_path / "d", "arithmetic", train=20, test=5)
    assert prepare(tmp_path / "d", "arithmetic", train=10, test=5)


def test_a_folder_with_other_files_is_left_alone(tmp_path):
    (tmp_path / "d").mkdir()
    (tmp_path / "d/mine.parquet").write_text("mine")
    with pytest.raises(ConfigError, match=r"out=.*holds files that verl-rsim did not build \(no manifest\.json\)"):
        prepare(tmp_path / "d", "arithmetic", train=20, test=5)
    assert [path.name for path in (tmp_path / "d").iterdir()] == ["mine.parquet"]


def test_a_folder_is_made_by_one_process_at_a_time(tmp_path):
    with locked_folder(tmp_path, ".d.lock"), pytest.raises(RsimError, match="another process is using this folder"):
        prepare(tmp_path / "d", "arithmetic", train=20, test=5)
    assert prepare(tmp_path / "d", "arithmetic", train=20, test=5)


def test_own_files(tmp_path):
    rows = [{"q": f"What is {i}?", "a": i} for i in range(10)]
    (tmp_path / "own.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "own.parquet")
    for name in ("own.jsonl", "own.parquet"):
        assert prepare(tmp_path / name[4:], str(tmp_path / name), train=8, test=2, question="q", answer="a")
        assert pq.read_metadata(tmp_path / name[4:] / "train.parquet").num_rows == 8


SOLUTION = "She adds.\n\nThen $4 + 4 = 8$, so the answer is $\\boxed{8}$."
ROWS = [
    {"problem": "4 + 4?", "solution": SOLUTION},
    {"problem": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "3 + 4?"}], "solution": "7"},
    {"problem": "1,000 + 72?", "solution": "We add.\n#### 1,072"},
    {"problem": "0 + 1?", "solution": ["1", "1.0"]},
    {"problem": "5 + 6?", "solution": {"value": "11"}},
    {"problem": "2 + 2?", "solution": None},
]


@pytest.mark.parametrize("kind", ["json", "jsonl", "bom", "csv", "parquet"])
def test_own_files_of_each_kind_and_answers_of_each_form(tmp_path, kind):
    path = tmp_path / f"own.{kind if kind != 'bom' else 'jsonl'}"
    texts = [
        {key: value if isinstance(value, str) else json.dumps(value) for key, value in row.items()} for row in ROWS
    ]
    if kind == "csv":
        with path.open("w", newline="", encoding="utf-8-sig") as file:
            writer = csv.DictWriter(file, ["problem", "solution"])
            writer.writeheader()
            writer.writerows(texts)
    elif kind == "parquet":
        pq.write_table(pa.Table.from_pylist(texts), path)
    else:
        text = json.dumps(ROWS) if kind == "json" else "\n".join(map(json.dumps, ROWS))
        path.write_text(("\ufeff" if kind == "bom" else "") + text, encoding="utf-8")
    prepare(tmp_path / "d", str(path), question="problem", answer="solution", instruction="")
    rows = [row for split in ("train", "test") for row in pq.read_table(tmp_path / f"d/{split}.parquet").to_pylist()]
    truths = {row["prompt"][-1]["content"]: row["reward_model"]["ground_truth"] for row in rows}
    assert truths == {"4 + 4?": "8", "3 + 4?": "7", "1,000 + 72?": "1072", "0 + 1?": "1", "5 + 6?": "11"}
    assert [row["prompt"][0]["content"] for row in rows if len(row["prompt"]) == 2] == ["Be brief."]
    assert [json.loads(line)["number"] for line in (tmp_path / "d/bad_rows.jsonl").read_text().splitlines()] == [5]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"question": "a"}', "needs the columns 'question' and 'answer', has ['question']"),
        ('{"question": "a", "answer": ""}', "own.jsonl, row 0: answer is '': is no answer"),
        ('{"question": "a", "answer": "So we add.\\nDone."}', "marks no answer with"),
        ('{"question": "a", "answer": ["1", "2"]}', "lists different answers, '1' and '2'"),
        ('{"question": "", "answer": "1"}', "row 0: question is '': the question is empty"),
        ("{", "line 1: is not JSON"),
        ("", "has no rows"),
    ],
)
def test_bad_files_are_refused_by_row(tmp_path, content, message):
    (tmp_path / "own.jsonl").write_text(content)
    with pytest.raises(DataError) as error:
        prepare(tmp_path / "d", str(tmp_path / "own.jsonl"))
    assert message in str(error.value)
    assert not (tmp_path / "d").exists()


def test_unknown_generators_and_families_are_refused(tmp_path):
    with pytest.raises(DataError, match="no generator 'nonsense'"):
        prepare(tmp_path / "d", "nonsense")
    with pytest.raises(DataError, match="choose llama or qwen2"):
        prepare_tiny(tmp_path / "m", "gpt")


def test_coding_tasks_of_a_package_and_of_a_file_carry_their_tests(tmp_path):
    assert prepare(tmp_path / "humaneval", "humaneval", train=100, test=20)
    rows = pq.read_table(tmp_path / "humaneval/train.parquet").to_pylist()
    assert len(rows) == 100
    assert all(row["ability"] == "code" and row["prompt"][0]["content"].endswith("code block.") for row in rows)
    tests = {"fn_name": "double", "inputs": [[1], [2]], "outputs": [2, 4]}
    lines = [{"question": f"Write double, version {i}.", "answer": tests} for i in range(4)]
    (tmp_path / "own.jsonl").write_text("\n".join(map(json.dumps, lines)))
    assert prepare(tmp_path / "own", str(tmp_path / "own.jsonl"), ability="code")
    row = pq.read_table(tmp_path / "own/train.parquet").to_pylist()[0]
    assert json.loads(row["reward_model"]["ground_truth"]) == tests


def test_questions_whose_truth_cannot_be_scored_are_dropped_and_named(tmp_path, capsys):
    good = {"question": "q", "answer": {"fn_name": "f", "inputs": [[1]], "outputs": [1]}}
    bad = {"question": "no tests", "answer": {"fn_name": "f", "inputs": [], "outputs": []}}
    (tmp_path / "own.jsonl").write_text("\n".join(json.dumps(line) for line in [good, good | {"question": "r"}, bad]))
    prepare(tmp_path / "own", str(tmp_path / "own.jsonl"), ability="code", seed=1)
    said = capsys.readouterr().out
    assert "1 rows are left out and listed in bad_rows.jsonl" in said
    (listed,) = map(json.loads, (tmp_path / "own/bad_rows.jsonl").read_text().splitlines())
    assert (listed["number"], listed["column"]) == (2, "answer")
    (tmp_path / "bad.jsonl").write_text(json.dumps(bad))
    with pytest.raises(DataError, match="none of 1 rows can be used"):
        prepare(tmp_path / "bad", str(tmp_path / "bad.jsonl"), ability="code")
