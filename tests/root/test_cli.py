"""The commands a user types, up to the training itself (see tests/e2e)."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
from support.paths import ROOT
from typer.testing import CliRunner

from verl_rsim.cli import app
from verl_rsim.monitoring.metrics_file import metrics_file, metrics_until, read_metrics
from verl_rsim.training.checkpoint.export import export_policies
from verl_rsim.utils.errors import DataError


def run(*arguments: str):
    return CliRunner().invoke(app, list(arguments))


def test_prepare_twice(tmp_path, monkeypatch):
    monkeypatch.setenv("RSIM_HOME", str(tmp_path))
    for expected in ("Wrote", "Already there"):
        data, model = (
            run("prepare-data", "arithmetic", "--train", "20", "--test", "5"),
            run("prepare-model", "tiny-llama"),
        )
        assert expected in data.output
        assert expected in model.output
    assert (tmp_path / "data/arithmetic/train.parquet").is_file()
    assert (tmp_path / "models/tiny-llama/config.json").is_file()


def test_the_summary_of_a_run(tmp_path, monkeypatch):
    monkeypatch.setenv("RSIM_HOME", str(tmp_path))
    run_dir = tmp_path / "runs/mine"
    run_dir.mkdir(parents=True)
    metrics = tmp_path / "metrics/rsim/mine.jsonl"
    metrics.parent.mkdir(parents=True)
    steps = [{"step": step, "data": {"timing_s/step": 2.0, "reasoner/acc": step / 4}} for step in (1, 2)]
    metrics.write_text("\n".join(map(json.dumps, steps)) + '\n{"st')
    shown = run("summary", str(run_dir)).output
    for text in ("25% in step 1, 50% in 2", "verl-rsim replay", "verl-rsim export"):
        assert text in shown
    assert "default_local_dir" in str(run("summary", str(metrics)).exception)


def test_bad_input_is_an_error_with_a_remedy(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        read_metrics(tmp_path / "none.jsonl")
    with pytest.raises(DataError, match="no complete checkpoint"):
        export_policies(tmp_path, tmp_path / "out")


def test_the_readme_names_only_targets_that_exist():
    readme = (ROOT / "README.md").read_text()
    for target in re.findall(r"^make (?:\w+=\S+ )*(\w+)|`make (?:\w+=\S+ )*(\w+)", readme, re.MULTILINE):
        name = "".join(target)
        assert re.search(rf"^{name}:", (ROOT / "Makefile").read_text(), re.MULTILINE), name


def test_a_resumed_run_keeps_the_steps_before_it(tmp_path, monkeypatch):
    monkeypatch.delenv("VERL_FILE_LOGGER_PATH", raising=False)
    monkeypatch.setenv("VERL_FILE_LOGGER_ROOT", str(tmp_path))
    path = metrics_file(SimpleNamespace(project_name="rsim", experiment_name="run"))
    assert path == tmp_path / "rsim/run.jsonl"
    assert metrics_until(path, 2) == b""
    path.parent.mkdir()
    path.write_text("".join(json.dumps({"step": step, "data": {}}) + "\n" for step in range(5)) + '{"step": 1, "da')
    assert [json.loads(line)["step"] for line in metrics_until(path, 2).splitlines()] == [0, 1, 2]
    assert metrics_until(path, 0) == b"", "a run that begins anew"
    monkeypatch.setenv("VERL_FILE_LOGGER_PATH", "elsewhere.jsonl")
    assert metrics_file(None) == Path("elsewhere.jsonl")
