"""Takes the documentation's screenshots with headless Chromium: ``make screenshots``.

Writes ``docs/images/report.png`` and ``docs/images/serving.png``, in the light colour scheme. No model runs: the report
is that of the invented run of ``tests/support/episode_records.py``, and the served reasoner is an engine that writes
fixed steps.
"""

from __future__ import annotations

import base64
import sys
import tempfile
from io import BytesIO
from pathlib import Path

from PIL import Image
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait
from typer.testing import CliRunner

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from conftest import LetterTokenizer  # noqa: E402
from support.browser import emulate_scheme, headless  # noqa: E402
from support.episode_records import run_of  # noqa: E402
from support.http_server import serving  # noqa: E402
from support.rule_engine import RuleEngine  # noqa: E402

from verl_rsim.cli import app  # noqa: E402
from verl_rsim.core.episode import Generation  # noqa: E402
from verl_rsim.core.prompts import Codec  # noqa: E402
from verl_rsim.core.strategies import STRATEGIES, strategy_index  # noqa: E402
from verl_rsim.evaluation import Planner, Reasoner, Rules  # noqa: E402
from verl_rsim.serving.service import Service  # noqa: E402

IMAGES = ROOT / "docs/images"
WIDTH, ZOOM = 1280, 1.28
"""Width of the pictures in pixels, and pixels for one of the page: the zoom keeps text readable in a narrow column."""
MARGIN = 10
MAX_BYTES = 300_000
EPISODES = 960
QUESTION = "A shop sells 46 pens. Each costs 3 coins. How much do all pens cost together?"
STEPS = {
    "decomposition": "First the tens, 40 x 3, then the ones, 6 x 3, then their sum.",
    "deliberative_thinking": "40 x 3 = 120 and 6 x 3 = 18. Together that is 120 + 18 = 138.",
    "validation": "138 / 3 = 46, so the product is right.",
    "termination": "All pens cost \\boxed{138} coins.",
}
"""The strategies that the served page shows, in their order, and the step under each."""


class ScriptedPlanner(RuleEngine):
    """Chooses the strategies of :data:`STEPS` one after the other."""

    async def generate(self, prompt_ids, params, **_) -> Generation:
        """Returns the label of the next strategy."""
        name = list(STEPS)[len(self.requests)]
        self.requests.append((tuple(prompt_ids), dict(params)))
        return Generation((params["allowed_token_ids"][strategy_index(name)],), (-0.5,))


def write_step(prompt: str, _seed: int) -> str:
    """Returns the step of the strategy whose instruction stands last in the prompt."""
    latest = max(STRATEGIES, key=lambda strategy: prompt.rfind(strategy.instruction))
    return f"{STEPS[latest.name]}\n\n"


def screenshot_report(driver: webdriver.Chrome) -> None:
    """Writes a report of the invented run and saves its section on strategies, down to the win rates."""
    with tempfile.TemporaryDirectory() as folder:
        run = run_of(Path(folder), EPISODES)
        CliRunner().invoke(app, ["report", str(run)], catch_exceptions=False)
        open_page(driver, (run / "report.html").as_uri())
        charts = driver.find_elements(By.CSS_SELECTOR, "#strategies figure")
        win_rates = next(chart for chart in charts if chart.text.startswith("Win rate"))
        save(driver, IMAGES / "report.png", driver.find_element(By.CSS_SELECTOR, "#strategies h2"), win_rates)


def screenshot_serving(driver: webdriver.Chrome) -> None:
    """Serves the fixed steps, asks one question on the page, and saves the page once the episode has ended."""
    letters = Codec(LetterTokenizer(), frozenset({0}))
    planner = Planner("scripted planner", None, letters, ScriptedPlanner(letters, write_step))
    reasoner = Reasoner("scripted reasoner", None, letters, RuleEngine(letters, write_step))
    with serving(Service(planner, reasoner, Rules(max_step_tokens=200))) as url:
        open_page(driver, url)
        driver.find_element(By.ID, "question").send_keys(QUESTION)
        driver.find_element(By.ID, "send").click()
        status = driver.find_element(By.ID, "status")
        WebDriverWait(driver, 30).until(lambda _: status.text.startswith("Ended by"))
        driver.execute_script("document.activeElement.blur()")
        heading, turns = driver.find_element(By.TAG_NAME, "h1"), driver.find_element(By.ID, "turns")
        save(driver, IMAGES / "serving.png", heading, turns)


def open_page(driver: webdriver.Chrome, url: str) -> None:
    """Opens a page in the light colour scheme and waits for its script."""
    # The window's size does not do: a window is wider than its viewport, and scrollbars would take more of it.
    viewport = {"width": round(WIDTH / ZOOM), "height": 1000, "deviceScaleFactor": ZOOM, "mobile": False}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", viewport)
    driver.execute_cdp_cmd("Emulation.setScrollbarsHidden", {"hidden": True})
    driver.get(url)
    emulate_scheme(driver, "light")
    WebDriverWait(driver, 60).until(lambda d: d.execute_script("return document.documentElement.dataset.ready"))


def save(driver: webdriver.Chrome, path: Path, first: WebElement, last: WebElement) -> None:
    """Saves the page from one element down to another, in full width, as a PNG of at most 256 colours.

    Raises:
        RuntimeError: the file is larger than the repository should carry.
    """
    top = max(first.rect["y"] - MARGIN, 0)
    height = last.rect["y"] + last.rect["height"] + MARGIN - top
    clip = {"x": 0, "y": top, "width": round(WIDTH / ZOOM), "height": height, "scale": 1}
    shot = driver.execute_cdp_cmd("Page.captureScreenshot", {"clip": clip, "captureBeyondViewport": True})
    picture = Image.open(BytesIO(base64.b64decode(shot["data"]))).convert("RGB")
    picture.quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise RuntimeError(f"{path} has {size:,} bytes, more than {MAX_BYTES:,}: show less of the page")
    print(f"Wrote {path.relative_to(ROOT)} ({size / 1000:.0f} kB)")


def main() -> None:
    """Takes both screenshots."""
    IMAGES.mkdir(exist_ok=True)
    with headless(WIDTH) as driver:
        screenshot_report(driver)
        screenshot_serving(driver)


if __name__ == "__main__":
    main()
