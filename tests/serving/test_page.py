"""The page in a browser: steps appear as they are written, can be stopped, and a model's text stays text."""

from __future__ import annotations

import re
from contextlib import ExitStack
from importlib.resources import files
from itertools import pairwise

import httpx
import pytest
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait
from support.browser import emulate_scheme, headless
from support.http_server import serving, until
from support.rule_engine import TypingEngine, rule_models

from verl_rsim.core.strategies import STRATEGIES
from verl_rsim.evaluation import Rules
from verl_rsim.serving.service import Service

pytestmark = pytest.mark.browser

RULES = Rules(max_turns=4, max_step_tokens=200, max_answer_tokens=80)
MARKUP = "<img src=x onerror=alert(1)> 40 x 3 = 120.\n\n"


def rule(prompt: str, seed: int) -> str:
    return MARKUP if "markup" in prompt else f"Take the tens first: 40 x 3 = 120, say {seed}.\n\n"


# What the first turn says after each change, as the page sees it: a test that looks from outside may come too late.
WATCH = """
window.written = [];
new MutationObserver(() => {
  const text = document.querySelector("#turns li:first-child p")?.textContent.trimEnd();
  if (text && text !== window.written.at(-1)) window.written.push(text);
}).observe(document.body, {subtree: true, childList: true, characterData: true});
"""


@pytest.fixture(scope="module")
def service(letters):
    return Service(*rule_models(letters, rule, TypingEngine, pace=0.005), RULES)


@pytest.fixture(scope="module")
def browser(service):
    with ExitStack() as stack:
        url = stack.enter_context(serving(service, key="s3cret"))
        driver = stack.enter_context(headless(1000, 900))
        driver.get(url)
        WebDriverWait(driver, 60).until(lambda d: d.execute_script("return document.documentElement.dataset.ready"))
        yield driver


@pytest.fixture
def page(browser):
    """The page, its fields filled in; no test may leave an error in the console."""
    browser.get_log("browser")
    for field, text in (("question", "What is 46 x 3?"), ("key", "s3cret"), ("seed", "3")):
        found = browser.find_element(By.ID, field)
        found.clear()
        found.send_keys(text)
    yield browser
    assert browser.get_log("browser") == []


def status(page) -> str:
    return page.find_element(By.ID, "status").text


def ask(page, question: str = "") -> list[str]:
    """Ask, wait for the end; the turns."""
    field = page.find_element(By.ID, "question")
    if question:
        field.clear()
        field.send_keys(question)
    ActionChains(page).click(field).key_down(Keys.CONTROL).send_keys(Keys.ENTER).key_up(Keys.CONTROL).perform()
    WebDriverWait(page, 30).until(lambda _: status(page).startswith("Ended by"))
    return [turn.text for turn in page.find_elements(By.CLASS_NAME, "turn")]


def test_steps_are_shown_with_their_strategies_as_they_are_written(page, service):
    page.execute_script(WATCH)
    page.find_element(By.ID, "send").click()
    WebDriverWait(page, 30).until(lambda _: status(page).startswith("Ended by"))
    turns = page.find_elements(By.CLASS_NAME, "turn")
    assert turns
    written = page.execute_script("return window.written")
    assert len(written) > 3
    assert all(text.startswith(before) for before, text in pairwise(written))
    assert written[-1] == turns[0].find_element(By.TAG_NAME, "p").text
    assert not page.find_elements(By.CSS_SELECTOR, ".turn[aria-busy]")
    for number, turn in enumerate(turns, 1):
        title = turn.find_element(By.TAG_NAME, "b").text.partition(". ")
        strategy = next(s for s in STRATEGIES if s.title == title[2])
        assert title[0] == str(number)
        assert turn.find_element(By.TAG_NAME, "q").text == strategy.instruction
        assert "Take the tens first" in turn.text
    asked = service.reasoner.engine.requests[-1][1]
    assert asked["temperature"] == 0.7


def test_the_same_seed_gives_the_same_steps(page):
    assert ask(page) == ask(page)


def test_a_models_markup_is_shown_and_not_obeyed(page):
    turns = ask(page, "markup")
    assert MARKUP.strip() in turns[0]
    assert not page.find_elements(By.TAG_NAME, "img")


def test_escape_stops_the_work(page, service):
    engine = service.reasoner.engine
    cancelled, pace, engine.pace = engine.cancelled, engine.pace, 1.0
    page.find_element(By.ID, "send").click()
    WebDriverWait(page, 10).until(lambda d: d.find_elements(By.CLASS_NAME, "turn"))
    page.find_element(By.TAG_NAME, "body").send_keys(Keys.ESCAPE)
    WebDriverWait(page, 10).until(lambda _: status(page) == "Stopped.")
    engine.pace = pace
    until(lambda: engine.cancelled > cancelled)
    assert page.find_element(By.ID, "send").is_enabled()


def test_errors_are_said(page, service):
    service.reasoner.engine.breaks_after = 3
    page.find_element(By.ID, "send").click()
    WebDriverWait(page, 10).until(lambda _: status(page) == "A model's engine failed or cannot be reached.")
    service.reasoner.engine.breaks_after = None
    page.find_element(By.ID, "key").send_keys("wrong")
    page.find_element(By.ID, "send").click()
    WebDriverWait(page, 10).until(lambda _: status(page).startswith("Missing or wrong API key"))
    (logged,) = page.get_log("browser")  # Chromium notes every 401
    assert "401" in logged["message"]


def test_every_field_has_a_name_and_is_reached_with_the_keyboard(page):
    page.find_element(By.ID, "question").click()
    reached = []
    for _ in range(5):
        focused = page.switch_to.active_element
        reached.append(focused.get_attribute("id"))
        assert focused.accessible_name
        focused.send_keys(Keys.TAB)
    assert reached == ["question", "key", "temperature", "seed", "send"]
    assert page.find_element(By.ID, "status").aria_role == "status"


def test_it_follows_the_colour_scheme_and_fits_a_small_screen(page):
    assert emulate_scheme(page, "dark") == "rgb(20, 23, 27)"
    emulate_scheme(page, "light")
    page.set_window_size(500, 800)
    assert page.execute_script("return document.documentElement.scrollWidth <= innerWidth")
    page.set_window_size(1000, 900)


def test_the_page_loads_nothing_from_elsewhere_and_asks_no_key_where_there_is_none(letters):
    with serving(Service(*rule_models(letters, rule))) as url:
        answer = httpx.get(url)
        assert 'id="key"' not in answer.text
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert answer.headers["x-content-type-options"] == "nosniff"
    script = files("verl_rsim.serving").joinpath("page.js").read_text()
    assert not re.search(r"innerHTML|insertAdjacentHTML|document\.write|eval\(|https?://", script)
