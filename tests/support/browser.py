"""Starts headless Chromium for tests."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from selenium import webdriver


@contextmanager
def headless(width: int = 1400, height: int = 1000) -> Iterator[webdriver.Chrome]:
    """Yields a browser with an empty profile; ``get_log("browser")`` reads its console."""
    paths = {name: shutil.which(name) for name in ("chromium", "chromedriver")}
    assert all(paths.values()), f"this test needs a browser: sudo apt-get install chromium chromium-driver ({paths})"
    options = webdriver.ChromeOptions()
    options.binary_location = paths["chromium"]
    for flag in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", f"--window-size={width},{height}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(paths["chromedriver"]))
    try:
        yield driver
    finally:
        driver.quit()


def emulate_scheme(driver: webdriver.Chrome, scheme: str) -> str:
    """Sets the preferred color scheme, "light" or "dark"; returns the page's background color."""
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    return driver.execute_script("return getComputedStyle(document.body).backgroundColor")
