"""Tests the report of an invented run: the written files, and the page in a browser."""

from __future__ import annotations

import contextlib
import csv
import json
import re
from importlib.resources import files
from pathlib import Path

import pytest
from selenium.common.exceptions import TimeoutException
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select, WebDriverWait
from support.browser import emulate_scheme, headless
from support.episode_records import STEPS, episode, run_of
from typer.testing import CliRunner

from verl_rsim.cli import app
from verl_rsim.monitoring.episode_log import EpisodeLog, read_log
from verl_rsim.monitoring.report.charts import ticks
from verl_rsim.monitoring.report.episode_archive import snippets
from verl_rsim.monitoring.report.report_data import ReportData, find_metrics
from verl_rsim.utils.errors import ConfigError, DataError

pytestmark = pytest.mark.browser

EPISODES = 960


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory) -> Path:
    """Returns the folder of a run with its report in all formats."""
    folder = run_of(tmp_path_factory.mktemp("invented"), EPISODES)
    result = CliRunner().invoke(app, ["report", str(folder), "--format", "html,md,png,csv"])
    assert result.exit_code == 0, result.output
    assert "Wrote" in result.output
    return folder


@pytest.fixture(scope="module")
def browser(run_dir):
    """Opens the page in headless Chromium and waits until its episodes are unpacked."""
    with headless() as driver:
        open_page(driver, run_dir / "report.html")
        yield driver


def open_page(driver, path: Path) -> None:
    """Opens a report and waits for its episodes."""
    driver.get(path.as_uri())
    WebDriverWait(driver, 60).until(lambda d: d.execute_script("return document.documentElement.dataset.ready"))


@pytest.fixture
def page(browser):
    """Clears the page's filters, and after the test checks that the browser's console has no errors."""
    browser.find_element(By.CSS_SELECTOR, "#filters [type=reset]").click()
    wait_for(browser, f"{EPISODES} of {EPISODES} episodes")
    yield browser
    assert browser.get_log("browser") == []


def wait_for(page, status: str) -> None:
    element = page.find_element(By.ID, "status")
    with contextlib.suppress(TimeoutException):
        WebDriverWait(page, 10).until(lambda _: element.text == status)
    assert element.text == status


def choose(page, name: str, text: str) -> None:
    Select(page.find_element(By.NAME, name)).select_by_visible_text(text)


def shown(page) -> list[str]:
    return [button.get_attribute("aria-label") for button in page.find_elements(By.CSS_SELECTOR, "#list button")]


def test_filters_agree_with_the_log(page, run_dir):
    records = list(read_log(run_dir))
    wanted = [
        record
        for record in records
        if record.step == STEPS
        and record.kind == "validation"
        and not record.right
        and record.stop == "termination"
        and any(turn.strategy == "sub_planning" for turn in record.turns)
    ]
    for name, text in (("kind", "validation"), ("step", str(STEPS)), ("right", "wrong"), ("stop", "termination"),
                       ("strategy", "sub-planning")):  # fmt: skip
        choose(page, name, text)
    wait_for(page, f"{len(wanted)} of {EPISODES} episodes")
    assert 0 < len(wanted) <= 25
    assert len(shown(page)) == len(wanted)
    assert all(
        text.startswith(f"wrong, validation at step {STEPS}, ") and "sub-planning" in text for text in shown(page)
    )


def test_search_looks_into_the_texts_and_marks_what_it_finds(page, run_dir):
    word = "sells 17 pens"
    count = sum(word in record.question for record in read_log(run_dir))
    page.find_element(By.NAME, "text").send_keys(word.upper())
    wait_for(page, f"{count} of {EPISODES} episodes")
    page.find_element(By.CSS_SELECTOR, "#list button").click()
    WebDriverWait(page, 20).until(lambda d: d.find_elements(By.CSS_SELECTOR, "#shown mark"))
    assert page.find_element(By.CSS_SELECTOR, "#shown mark").text == word


def test_pages_turn_and_the_list_is_walked_with_the_keyboard(page):
    assert page.find_element(By.ID, "page").text == f"page 1 of {-(-EPISODES // 25)}"
    first = shown(page)
    page.find_element(By.ID, "next").click()
    assert page.find_element(By.ID, "page").text.startswith("page 2 of ")
    assert shown(page) != first
    page.find_element(By.ID, "previous").click()
    buttons = page.find_elements(By.CSS_SELECTOR, "#list button")
    buttons[0].send_keys(Keys.ARROW_DOWN)
    assert page.switch_to.active_element == buttons[1]
    page.switch_to.active_element.send_keys(Keys.ENTER)
    WebDriverWait(page, 20).until(lambda _: buttons[1].get_attribute("aria-current") == "true")


def test_two_episodes_of_a_question_stand_side_by_side(page, run_dir):
    choose(page, "kind", "validation")
    page.find_element(By.CSS_SELECTOR, "#list button").click()
    WebDriverWait(page, 20).until(lambda d: len(d.find_elements(By.CSS_SELECTOR, "#shown article")) == 2)
    before, after = page.find_elements(By.CSS_SELECTOR, "#shown article")
    assert "validation at step 0" in before.text
    assert f"validation at step {STEPS}" in after.text
    assert before.find_element(By.CLASS_NAME, "question").text == after.find_element(By.CLASS_NAME, "question").text
    assert before.rect["y"] == after.rect["y"]

    record = next(record for record in read_log(run_dir) if record.kind == "validation")
    turn = before.find_element(By.CLASS_NAME, "turn")
    assert f"{record.turns[0].log_prob_mean:.3f}".replace("-", "\u2212") in turn.get_attribute("title")
    assert record.turns[0].text.strip() in turn.text

    Select(page.find_element(By.ID, "other")).select_by_visible_text("none")
    WebDriverWait(page, 20).until(lambda d: len(d.find_elements(By.CSS_SELECTOR, "#shown article")) == 1)


def test_the_page_follows_the_colour_scheme(page):
    assert emulate_scheme(page, "light") == "rgb(251, 251, 250)"
    assert emulate_scheme(page, "dark") == "rgb(20, 23, 27)"
    emulate_scheme(page, "light")


def test_the_page_asks_no_network_and_fits_a_small_screen(page):
    assert page.execute_script("return performance.getEntriesByType('resource').length") == 0
    page.set_window_size(500, 900)
    assert page.execute_script("return document.documentElement.scrollWidth <= window.innerWidth")
    page.set_window_size(1400, 1000)


@pytest.fixture
def evaluation(tmp_path) -> Path:
    """Returns an evaluation of three questions under three conditions; only the planner's answers are right."""
    for condition, strategies in (("alone", [""]), ("random", ["summarization"]), ("planner", ["validation"])):
        EpisodeLog(tmp_path / "episodes", continue_last=True).append(
            episode(
                *strategies,
                kind="evaluation",
                condition=condition,
                question=f"What is {number} + 1?",
                acc=float(condition == "planner"),
                reasoner_reward=None,
                planner_reward=None,
            )
            for number in range(3)
        )
    return tmp_path


def test_an_evaluation_compares_the_planner_with_a_control(evaluation):
    result = CliRunner().invoke(app, ["report", str(evaluation), "--format", "html,md,csv"])
    assert result.exit_code == 0, result.output
    assert not (evaluation / "report.md").exists(), "the evaluation's own"
    text = (evaluation / "episodes.md").read_text()
    assert "9 logged episodes: alone 3, random 3, planner 3." in text
    assert "## Control and planner" in text
    assert "|  | evaluation, alone | evaluation, planner |" in text
    assert "reward" not in text
    assert "| validation | 3 | 100.0% |" in text, "the planner's strategies alone"
    assert "| summarization | 0 | 0.0% |" in text
    assert '<p class="note">' not in (evaluation / "episodes.html").read_text(), "no stages"


def test_an_evaluations_answers_stand_beside_the_planners(browser, evaluation, run_dir):
    CliRunner().invoke(app, ["report", str(evaluation)])
    open_page(browser, evaluation / "episodes.html")
    hidden = {name: not browser.find_element(By.NAME, name).is_displayed() for name in ("condition", "step", "kind")}
    assert hidden == {"condition": False, "step": True, "kind": True}, "what there is to choose from"
    choose(browser, "condition", "alone")
    wait_for(browser, "3 of 9 episodes")
    browser.find_element(By.CSS_SELECTOR, "#list button").click()
    WebDriverWait(browser, 20).until(
        lambda d: [e.text for e in d.find_elements(By.CSS_SELECTOR, "#shown h3")]
        == ["evaluation, alone: wrong", "evaluation, planner: right"]
    )
    assert "1. without a strategy" in browser.find_element(By.ID, "shown").text
    assert "reward" not in browser.find_element(By.ID, "shown").text
    assert browser.get_log("browser") == []
    open_page(browser, run_dir / "report.html")


def test_a_question_cannot_break_out_of_the_page(tmp_path):
    from verl_rsim.monitoring.report.episode_archive import EpisodeArchive
    from verl_rsim.monitoring.report.page import write_page

    archive, data = EpisodeArchive(), ReportData("<b>run</b>", [])
    evil = episode("validation", question="</script><script>alert(1)</script>")
    archive.add(evil)
    data.add(evil)
    write_page(tmp_path / "page.html", data, archive)
    text = (tmp_path / "page.html").read_text()
    assert "alert(1)" not in text
    assert "<b>run</b>" not in text


def test_the_other_formats_hold_the_same_numbers(run_dir):
    last = [r for r in read_log(run_dir) if (r.kind, r.step) == ("validation", STEPS)]
    accuracy = sum(record.acc for record in last) / len(last)
    assert f"{accuracy:.1%} (" in (run_dir / "report.md").read_text()
    with (run_dir / "report.csv").open() as file:
        rows = list(csv.DictReader(file))
    (row,) = [r for r in rows if (r["table"], r["group"], r["step"]) == ("episodes", "validation", str(STEPS))]
    assert float(row["value"]) == pytest.approx(accuracy)
    assert float(row["low"]) < accuracy < float(row["high"])
    assert (run_dir / "report.png").read_bytes().startswith(b"\x89PNG")


def test_a_run_of_one_step_without_a_log_has_its_report(tmp_path):
    line = {"step": 1, "data": {"planner/reward": 0.5, "reasoner/entropy": None, "timing_s/step": 2.0}}
    (tmp_path / "metrics.jsonl").write_text(json.dumps(line) + "\n")
    result = CliRunner().invoke(app, ["report", str(tmp_path), "--format", "html,md,csv"])
    assert result.exit_code == 0, result.output
    assert "This run has no episode log." in (tmp_path / "report.html").read_text()
    assert "| Reward: planner | 1 | 1 | 0.5 | 0.5 |" in (tmp_path / "report.md").read_text()


def test_the_stages_become_bands():
    weights = [(1.0, 0.0), (1.0, 0.0), (0.5, 0.5), (1.0, 0.0)]
    steps = [{"step": i, "planner/weight": p, "reasoner/weight": r} for i, (p, r) in enumerate(weights, 1)]
    assert [(band.first, band.last, band.reasoner) for band in ReportData("", steps).bands()] == [
        (1, 2, 0.0),
        (3, 3, 0.5),
        (4, 4, 0.0),
    ]


def test_the_list_shows_where_questions_differ():
    assert snippets(["Solve this: 7 + 5", "Solve this: 71 - 3"]) == ["… 7 + 5", "… 71 - 3"]
    assert snippets(["Solve this: 7 + 5", "Why?"]) == ["Solve this: 7 + 5", "Why?"]
    assert snippets(["Alone"]) == ["Alone"]


def test_the_alarms_are_named_with_their_steps():
    on = {2: "ppo_kl", 3: "ppo_kl", 4: "ppo_kl", 6: "ppo_kl", 7: "zero_groups"}
    quiet = {"alarm/ppo_kl": 0.0, "alarm/zero_groups": 0.0}
    steps = [{"step": step, **quiet, f"alarm/{on.get(step, 'ppo_kl')}": float(step in on)} for step in range(1, 8)]
    assert ReportData("", steps).alarms() == "ppo_kl at steps 2 to 4, 6; zero_groups at step 7"
    assert ReportData("", steps[:1]).alarms() == "none"
    assert ReportData("", [{"step": 1}]).alarms() is None, "no alarm was configured"


def test_the_metrics_are_found_where_training_puts_them(tmp_path, monkeypatch):
    monkeypatch.delenv("VERL_FILE_LOGGER_ROOT", raising=False)
    monkeypatch.chdir(tmp_path)
    run, file = tmp_path / "home/runs/first", tmp_path / "home/metrics/rsim/first.jsonl"
    run.mkdir(parents=True)
    with pytest.raises(DataError, match=r"no metrics file; name it with --metrics FILE\.jsonl \(looked for "):
        find_metrics(run, "", tmp_path / "elsewhere")
    file.parent.mkdir(parents=True)
    file.write_text("")
    assert find_metrics(run, "rsim/first", tmp_path / "elsewhere") == file
    assert find_metrics(run, "", tmp_path / "home") == file
    for name in ("a", "b"):
        (run / f"{name}.jsonl").write_text("")
    with pytest.raises(DataError, match="holds 2 files"):
        find_metrics(run, "rsim/first", tmp_path / "home")


def test_what_cannot_be_reported_is_refused(tmp_path):
    for arguments, error in ((["--format", "pdf"], ConfigError), ([], DataError)):
        result = CliRunner().invoke(app, ["report", str(tmp_path / "none"), *arguments])
        assert isinstance(result.exception, error)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0, 1, [0, 0.5, 1]), (0, 0.9, [0, 0.5, 1]), (3, 3, [2.5, 3, 3.5]), (-0.02, 0.03, [-0.02, 0, 0.02, 0.04])],
)
def test_ticks_are_round(low, high, expected):
    assert ticks(low, high) == pytest.approx(expected)


def test_colours_have_contrast_in_both_schemes():
    """WCAG 2: 4.5 for text, 3 for marks."""
    style = files("verl_rsim.monitoring.report").joinpath("page.css").read_text()
    for block in re.findall(r":root \{(.*?)\}", style, re.DOTALL):
        colours = dict(re.findall(r"--(\w+): (#\w+)", block))
        light = {name: luminance(value) for name, value in colours.items()}
        for ground in ("card", "ground", "band"):
            for name in ("ink", "soft", "right", "wrong"):
                assert contrast(light[name], light[ground]) >= 4.5, (name, ground)
        for name in ("planner", "reasoner", "other", "focus", *(f"s{i}" for i in range(9))):
            assert contrast(light[name], light["card"]) >= 3, name
        assert contrast(light["reasoner"], light["card"]) >= 4.5, "numbers on a dark cell of a matrix"


def luminance(colour: str) -> float:
    digits = colour[1:] if len(colour) == 7 else "".join(2 * digit for digit in colour[1:])
    parts = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(a: float, b: float) -> float:
    return (max(a, b) + 0.05) / (min(a, b) + 0.05)
