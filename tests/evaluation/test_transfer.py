"""The matrix without weights: cells, failures, resuming, table and heat map."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import xml.etree.ElementTree as ElementTree

import pytest
from rich.console import Console
from support.rule_engine import rule_models
from typer.testing import CliRunner

from verl_rsim.cli import app
from verl_rsim.core.controls import CONTROLS
from verl_rsim.evaluation.config import ModelConfig
from verl_rsim.evaluation.matrix import cells, read_matrix
from verl_rsim.evaluation.models import Planner
from verl_rsim.evaluation.records import RECORDS, read_records
from verl_rsim.evaluation.reports.heatmap import HeatMapCell, heat_map_svg
from verl_rsim.evaluation.reports.transfer import write_transfer_report
from verl_rsim.evaluation.transfer import ERRORS, run_transfer
from verl_rsim.utils.errors import ConfigError, EngineError

FILE = """
planners: {{one: p1, two: p2}}
reasoners: {{small: r1, large: r2}}
datasets: {{easy: {data}, again: {data}}}
controls: [alone, random]
limit: 3
seed: 4
rules: {{max_turns: 2, max_step_tokens: 20, max_answer_tokens: 20, max_prompt_tokens: 2000}}
"""


@pytest.fixture
def matrix(home, tmp_path):
    path = tmp_path / "matrix.yaml"
    path.write_text(FILE.format(data=home / "data/arithmetic/test.parquet"))
    return read_matrix(path)


class Models:
    """Hands out rule players instead of loading models, and breaks those it is told to."""

    def __init__(self, letters, monkeypatch, missing=(), dying=None):
        self.letters, self.missing, self.dying = letters, missing, dying or {}
        self.players: dict[str, object] = {}
        monkeypatch.setattr(ModelConfig, "load", lambda model, cls: self.load(model.path, cls))

    def load(self, path, cls):
        if path in self.missing:
            raise ConfigError(cls.role, path, "there is no model here")
        pair = rule_models(
            self.letters, lambda prompt, seed: f"\\boxed{{{seed % 30}}}␄", dies_after=self.dying.get(path)
        )
        self.players[path] = player = pair[0] if cls is Planner else pair[1]
        player.engine.name = path
        return player

    def requests(self) -> int:
        return sum(len(player.engine.requests) for player in self.players.values())


def run(matrix, folder):
    console = Console(file=io.StringIO(), width=200)
    return asyncio.run(run_transfer(matrix, folder, console)), console.file


def test_every_cell_is_played_once_and_controls_once_a_column(letters, matrix, monkeypatch, tmp_path):
    models = Models(letters, monkeypatch)
    failed, shown = run(matrix, tmp_path / "out")
    assert failed == {}
    assert len(cells(matrix)) == 12
    counts = {cell.path: len(read_records(tmp_path / "out" / cell.path)) for cell in cells(matrix)}
    assert counts == {cell.path: 3 if cell.planner else 6 for cell in cells(matrix)}
    assert "cell 12/12 large/again/two: 3/3" in shown.getvalue()
    assert all(player.engine.closes for player in models.players.values())
    again = Models(letters, monkeypatch)
    run(matrix, tmp_path / "out")
    assert again.requests() == 0


def test_a_kill_at_any_point_costs_nothing_that_was_recorded(letters, matrix, monkeypatch, tmp_path):
    Models(letters, monkeypatch)
    run(matrix, tmp_path / "out")
    whole = tmp_path / "out/small/easy/controls" / RECORDS
    half = tmp_path / "out/large/again/two" / RECORDS
    half.write_bytes(half.read_bytes()[:-9])
    (tmp_path / "out/large/easy/two" / RECORDS).unlink()
    before = whole.read_bytes(), half.read_bytes().splitlines()[:2]
    models = Models(letters, monkeypatch)
    assert run(matrix, tmp_path / "out")[0] == {}
    assert (whole.read_bytes(), half.read_bytes().splitlines()[:2]) == before
    assert len(read_records(half.parent)) == 3
    assert models.players["p1"].engine.requests == models.players["r1"].engine.requests == []


def test_one_failing_cell_does_not_lose_the_others(letters, matrix, monkeypatch, tmp_path):
    Models(letters, monkeypatch, missing=("p2",), dying={"r2": 7})
    failed, _ = run(matrix, tmp_path / "out")
    assert {path for path in failed if path.endswith("two")} == {
        f"{r}/{d}/two" for r in ("small", "large") for d in ("easy", "again")
    }
    assert "large/again/controls" in failed
    assert "engine failed" in failed["large/again/controls"]
    assert json.loads((tmp_path / "out" / ERRORS).read_text()) == failed
    assert len(read_records(tmp_path / "out/small/again/one")) == 3
    console = Console(file=io.StringIO(), width=200)
    rows = {(e.row, e.reasoner, e.dataset): e for e in write_transfer_report(tmp_path / "out", console)}
    assert "there is no model here" in rows["two", "small", "easy"].error
    assert (tmp_path / "out/table.md").read_text().count("| two | failed") == 3
    Models(letters, monkeypatch)
    assert run(matrix, tmp_path / "out")[0] == {}
    assert json.loads((tmp_path / "out" / ERRORS).read_text()) == {}


def test_the_command_says_by_its_exit_code_that_a_cell_failed(letters, home, monkeypatch, tmp_path):
    path = tmp_path / "m.yaml"
    path.write_text(FILE.format(data=home / "data/arithmetic/test.parquet"))
    monkeypatch.setenv("RSIM_HOME", str(tmp_path))
    Models(letters, monkeypatch, missing=("p2",))
    done = CliRunner().invoke(app, ["transfer", str(path)])
    assert done.exit_code == 1
    assert "4 cells failed" in done.output
    Models(letters, monkeypatch)
    assert CliRunner().invoke(app, ["transfer", str(path)]).exit_code == 0
    files = {p.name: p.read_bytes() for p in (tmp_path / "transfers/m").iterdir() if p.is_file()}
    assert CliRunner().invoke(app, ["results", str(tmp_path / "transfers/m")]).exit_code == 0
    assert files == {p.name: p.read_bytes() for p in (tmp_path / "transfers/m").iterdir() if p.is_file()}
    rows = list(csv.DictReader(io.StringIO(files["table.csv"].decode())))
    assert len(rows) == 4 * 4
    assert {row["row"] for row in rows} == {"alone", "random", "one", "two"}
    assert all(bool(row["gain"]) is (row["row"] != "alone") for row in rows)
    assert all(bool(row["best_control"]) is (row["row"] in ("one", "two")) for row in rows)
    for row in rows:
        column = [other for other in rows if (other["reasoner"], other["dataset"]) == (row["reasoner"], row["dataset"])]
        best = max(float(other["accuracy"]) for other in column if not other["best_control"])
        if row["best_control"]:
            assert float(row["over_best"]) == pytest.approx(float(row["accuracy"]) - best)
    assert b"each column's best control" in files["table.md"]
    assert len(json.loads(files["table.json"])) == 16
    svg = ElementTree.fromstring(files["heatmap.svg"].decode())
    texts = [text.text for text in svg.iter("{http://www.w3.org/2000/svg}text")]
    assert {"alone", "two", "small", "easy"} <= set(texts)


def test_the_heat_map_is_well_formed_whatever_the_names_and_gaps():
    heat_map_cells = [
        HeatMapCell("a <b> & c", "x / y", 0.5, 0.4, 0.6, -0.1),
        HeatMapCell("none", "x / y", None, None, None, None),
    ]
    svg = ElementTree.fromstring(heat_map_svg(heat_map_cells, "Accuracy"))
    texts = [text.text for text in svg.iter("{http://www.w3.org/2000/svg}text")]
    assert "50.0 (-10.0)" in texts
    assert "[40.0, 60.0]" in texts
    assert "no result" in texts


def test_one_word_names_controls_in_a_matrix(tmp_path):
    (tmp_path / "m.yaml").write_text("{planners: {a: p}, reasoners: {r: x}, datasets: {d: x}, controls: all}")
    assert read_matrix(tmp_path / "m.yaml").controls == CONTROLS


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1]", "must hold the keys planners, reasoners and datasets"),
        ("{", "is not valid YAML"),
        ("{planners: {a: p}, datasets: {d: x}}", "reasoners=None: must map names to models"),
        ("{planners: {a: p}, reasoners: {r: x}, datasets: {d: 5}}", "datasets.d=5"),
        ("{planners: {alone: p}, reasoners: {r: x}, datasets: {d: x}}", "is the name of a control"),
        ("{planners: {a/b: p}, reasoners: {r: x}, datasets: {d: x}}", "a name becomes a folder"),
        ("{planners: {a: {pth: p}}, reasoners: {r: x}, datasets: {d: x}}", "planners.a=.*must be a path"),
        ("{planners: {a: p}, reasoners: {r: x}, datasets: {d: x}, sampels: 3}", "sampels=3: unknown key"),
        ("{planners: {a: p}, reasoners: {r: x}, datasets: {d: x}, rules: {turns: 3}}", "rules.turns=3: unknown key"),
        ("{planners: {a: p}, reasoners: {r: x}, datasets: {d: x}, controls: [lone]}", "controls='lone'"),
        ("{planners: {a: p}, reasoners: {r: x}, datasets: {d: x}, controls: 3}", "controls=3: must be all, none or a"),
        ("{planners: {a: p}, reasoners: {r: x}, datasets: {d: x}, samples: 2}", "temperature 0 all are equal"),
    ],
)
def test_a_matrix_that_cannot_be_meant(text, message, tmp_path):
    (tmp_path / "m.yaml").write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_matrix(tmp_path / "m.yaml")


def test_a_matrix_that_is_not_there(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        read_matrix(tmp_path / "none.yaml")


def test_eval_says_what_is_wrong_before_it_loads_a_model(home, monkeypatch, tmp_path):
    monkeypatch.setenv("RSIM_HOME", str(home))
    base = ["eval", "--reasoner", "tiny-llama", "--data", "arithmetic", "--out", str(tmp_path)]
    cases = [
        (["--controls", "lone"], ConfigError, "there is no such control"),
        (["--planner", "/no/where"], ConfigError, "there is no model here"),
        (["--planner", "http://127.0.0.1:9"], EngineError, "cannot be reached"),
        (["--max-prompt-tokens", "2000"], ConfigError, "of the reasoner's 2048 tokens for the prompt"),
        (["--template", "{"], ConfigError, "must be a JSON object"),
        (["--controls", "none"], ConfigError, "nothing is left to evaluate"),
        (["--samples", "3"], ConfigError, "temperature 0 all are equal"),
    ]
    for extra, kind, message in cases:
        done = CliRunner().invoke(app, [*base, *extra])
        assert isinstance(done.exception, kind), (extra, done.exception)
        assert message in str(done.exception)
        assert "\n" not in str(done.exception)
    assert list(tmp_path.iterdir()) == []
