"""What prepared data leaves out, and what its manifest says of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from verl_rsim.data.filters import Filters, Split, hash_fraction, token_counter
from verl_rsim.data.overlap import EvaluationSet, question_of
from verl_rsim.data.prepare import prepare
from verl_rsim.data.question import Question
from verl_rsim.data.rows import read_rows, rows_digest
from verl_rsim.evaluation.dataset import load_questions
from verl_rsim.utils.artifact_folders import digest
from verl_rsim.utils.errors import ConfigError, DataError

LONG = "a train leaves the town at noon and drives sixty miles an hour to the sea how far is it"


def own_file(path: Path, *questions: str) -> str:
    lines = [json.dumps({"question": question, "answer": number}) for number, question in enumerate(questions)]
    path.write_text("\n".join(lines))
    return str(path)


def asked(folder: Path, split: str = "train") -> list[str]:
    return [row["extra_info"]["question"] for row in read_rows(folder / f"{split}.parquet")]


def manifest(folder: Path) -> dict:
    return json.loads((folder / "manifest.json").read_text())


@pytest.fixture
def evaluation(tmp_path):
    """A prepared set whose test split asks ``LONG`` and one other question."""
    prepare(tmp_path / "known", own_file(tmp_path / "known.jsonl", *[f"{LONG}, {n}" for n in range(5)]), seed=0)
    return tmp_path / "known/test.parquet"


def test_questions_of_an_evaluation_set_are_dropped_and_overlap_is_reported(tmp_path, evaluation, capsys):
    (known,) = asked(tmp_path / "known", "test")
    others = [f"What is {n}?" for n in range(20)]
    source = own_file(tmp_path / "mine.jsonl", *others, f"  {known.upper()}", f"By night, {LONG}?")
    prepare(tmp_path / "d", source, test=1, seed=1, filters=Filters(against=(str(evaluation),)))
    train = asked(tmp_path / "d")
    assert f"  {known.upper()}" not in train
    assert f"By night, {LONG}?" in train
    (overlap,) = manifest(tmp_path / "d")["overlap"]
    assert (overlap["rows"], overlap["ngram"]) == (1, 13)
    assert overlap["examples"][0]["shared"] == " ".join(LONG.split()[:13])
    said = capsys.readouterr().out
    assert f"1 also in {evaluation}" in said
    assert "1 training questions share 13 words in a row" in said
    dropping = Filters(against=(str(evaluation),), drop_overlap=True)
    prepare(tmp_path / "e", source, test=1, seed=1, filters=dropping)
    assert f"By night, {LONG}?" not in asked(tmp_path / "e")
    assert manifest(tmp_path / "e")["splits"]["train"][f"overlaps with {evaluation}"] == 1


@pytest.mark.parametrize(
    ("question", "ngram", "shared"),
    [
        (LONG, 13, True),
        (" ".join(LONG.split()[:13]).replace(" ", ", ").title(), 13, True),
        (" ".join(LONG.split()[:12]) + " no", 13, False),
        (" ".join(LONG.split()[:12]), 13, False),
        (" ".join(LONG.split()[4:8]), 4, True),
    ],
)
def test_a_shared_run_of_words(question, ngram, shared):
    assert bool(EvaluationSet("known", ["Hello.", LONG], ngram).find_shared_ngram(question)) is shared


def test_only_case_form_and_spacing_are_the_same_question():
    known = EvaluationSet("known", ["What is  3 - 2?"])
    assert known.contains("what is 3 - 2?\n")
    assert known.contains("What is \uff13 - 2?"), "full-width digits are digits"
    assert not known.contains("What is 3 + 2?")


def test_questions_of_verl_rows_without_ours_are_taken_from_the_prompt():
    assert question_of({"prompt": [{"role": "user", "content": "q"}], "extra_info": {"index": 0}}) == "q"


def test_a_training_question_of_the_own_test_split_is_dropped(tmp_path):
    source = own_file(tmp_path / "mine.jsonl", *["What is 1?", "What  is 1?"] * 5)
    with pytest.raises(DataError, match="nothing is left of train"):
        prepare(tmp_path / "d", source)


def test_long_prompts_are_dropped_by_characters_and_by_tokens(tmp_path, home):
    source = own_file(tmp_path / "mine.jsonl", *[f"What is {n}?" for n in range(8)], LONG * 9, LONG * 10)
    model = str(home / "models/tiny-llama")
    most = token_counter(model)("What is 1?\nThink step by step and put the final answer in \\boxed{}.") + 1
    for name, filters in (
        ("characters", Filters(max_prompt_chars=200)),
        ("tokens", Filters(max_prompt_tokens=most, tokenizer=model)),
    ):
        prepare(tmp_path / name, source, filters=filters)
        counts = manifest(tmp_path / name)["splits"]["train"]
        assert counts[f"over {filters.max_prompt_chars or most} {name}"] == 2
        assert len(asked(tmp_path / name)) + len(asked(tmp_path / name, "test")) == 8


def test_held_out_questions_are_the_same_in_any_order_and_process(tmp_path):
    questions = [f"What is {n}?" for n in range(200)]
    folders = []
    for name, order, hashing in (("a", questions, "1"), ("b", questions[::-1], "2")):
        source = own_file(tmp_path / f"{name}.jsonl", *order)
        code = (
            "from verl_rsim.data.prepare import prepare; from verl_rsim.data.filters import Filters; "
            f"from pathlib import Path; prepare(Path({str(tmp_path / name)!r}), {source!r}, test=1, "
            "filters=Filters(val_share=0.2))"
        )
        environment = {**os.environ, "PYTHONHASHSEED": hashing}
        subprocess.run([sys.executable, "-c", code], check=True, timeout=300, env=environment, capture_output=True)
        folders.append(tmp_path / name)
    tests = {question for folder in folders for question in asked(folder, "test")}
    val, other = (set(asked(folder, "val")) - tests for folder in folders)
    assert val == other
    assert 25 <= len(val) <= 55
    assert not val & set(asked(folders[0]))


def test_a_sample_depends_on_seed_and_text_alone_and_grows():
    questions = [Question(f"q{n}", "1") for n in range(100)]

    def sample(count: int, seed: int, order: int = 1) -> list[Question]:
        split = Split(questions[::order])
        split.keep_sample("over", count, seed)
        return split.questions

    assert sample(20, 0) == sample(20, 0, order=-1)[::-1]
    assert set(sample(10, 0)) < set(sample(20, 0)) != set(sample(20, 1))
    assert sorted(sample(20, 0), key=lambda q: hash_fraction(q, 0))[:10] == sorted(
        sample(10, 0), key=lambda q: hash_fraction(q, 0)
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_prompt_tokens": 5}, "name both"),
        ({"tokenizer": "x"}, "name both"),
        ({"val_share": 1.0}, "below 1"),
        ({"ngram": 0}, "at least 1"),
    ],
)
def test_bad_filters(options, message):
    with pytest.raises(ConfigError, match=message):
        Filters(**options)


def test_an_evaluation_set_that_is_not_there(tmp_path, monkeypatch):
    monkeypatch.setenv("RSIM_HOME", str(tmp_path))
    with pytest.raises(ConfigError, match=r"against='math500': there is no file .*prepare-data"):
        prepare(tmp_path / "d", "arithmetic", filters=Filters(against=("math500",)))


def test_the_manifest_and_an_evaluation_name_the_same_rows_by_the_same_hash(tmp_path):
    prepare(tmp_path / "d", "bool_synthetic", train=20, test=5)
    path, described = tmp_path / "d/test.parquet", manifest(tmp_path / "d")
    rows_sha = described["splits"]["test"]["rows_sha256"]
    assert load_questions(str(path)).sha256 == rows_sha == rows_digest(read_rows(path))
    before = digest(path)
    pq.write_table(pq.read_table(path), path, compression="gzip")
    assert digest(path) != before
    assert load_questions(str(path)).sha256 == rows_sha, "another file of the same rows"
    assert described["options"]["seed"] == 0
    assert {"python", "verl-rsim", "datasets", "pyarrow"} <= described["versions"].keys()
    assert described["splits"]["test"]["rows"] == 5
