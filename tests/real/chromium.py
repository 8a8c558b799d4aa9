"""A real browser without a window: Chromium, driven as a person would use it."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Generator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By

from real.packages import install
from waiting import wait_until

_PROGRAMS = "chromium", "chromedriver"
_OPTIONS = (
    "--headless=new",
    "--no-sandbox",  # root, as in a container, has none
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--hide-scrollbars",
)


class Chromium:
    """A browser, and what is asked of it in tests."""

    def __init__(self, driver: webdriver.Chrome) -> None:
        self.driver = driver
        self._problems: list[str] = []
        self._hosts: set[str] = set()

    def shape(self, width: int, height: int, *, dark: bool = False, scale: float = 1) -> None:
        """Be a window, or a phone, of that size in CSS pixels, and wish for dark or light pages."""
        size = {"width": width, "height": height, "deviceScaleFactor": scale, "mobile": width < 600}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        wish = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [wish]})

    def allow_scripts(self, *, allowed: bool) -> None:
        """Run scripts of pages, or do not."""
        self.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": not allowed})

    def open(self, address: str) -> None:
        """Open a page, and return when it is there."""
        self.driver.get(address)

    def run(self, script: str, *arguments: Any) -> Any:
        """Return what a function body in JavaScript returns."""
        return self.driver.execute_script(script, *arguments)

    def text(self, selector: str = "main") -> str:
        """The text that is visible in an element."""
        return self.driver.find_element(By.CSS_SELECTOR, selector).text

    def click(self, selector: str) -> None:
        """Click on the first such element."""
        self.driver.find_element(By.CSS_SELECTOR, selector).click()

    def wait_for(self, script: str, timeout: float, what: str) -> Any:
        """Return what a function body in JavaScript returns, once that is true."""
        found: list[Any] = []

        def holds() -> bool:
            found[:] = [self.run(script)]
            return bool(found[0])

        try:
            wait_until(holds, timeout, what)
        except AssertionError as error:
            raise AssertionError(f"{error}; there is: {self.text()[:1000]}") from None
        return found[0]

    def problems(self) -> list[str]:
        """What the console of the browser has complained of since it was started."""
        self._problems += [
            f"{entry['level']}: {entry['message']}" for entry in self.driver.get_log("browser")
        ]
        return self._problems

    def hosts(self) -> set[str]:
        """Hosts and ports that pages have asked for anything."""
        for entry in self.driver.get_log("performance"):
            message = json.loads(entry["message"])["message"]
            if message["method"] == "Network.requestWillBeSent":
                parts = urlsplit(message["params"]["request"]["url"])
                if parts.scheme not in ("data", "about"):
                    self._hosts.add(parts.netloc)
        return self._hosts

    def save(self, picture: Path) -> None:
        """Save what is on the screen as a PNG file."""
        picture.write_bytes(self.driver.get_screenshot_as_png())


@contextlib.contextmanager
def chromium() -> Generator[Chromium]:
    """A browser, installed if it is not there.

    Raises:
        Unavailable: It cannot be installed.
    """
    install(_is_there, "chromium", "chromium-driver", "fonts-dejavu-core")
    options = webdriver.ChromeOptions()
    options.binary_location = _path("chromium")
    for option in _OPTIONS:
        options.add_argument(option)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(_path("chromedriver")))
    try:
        yield Chromium(driver)
    finally:
        driver.quit()


def _is_there() -> bool:
    return all(shutil.which(program) for program in _PROGRAMS)


def _path(program: str) -> str:
    found = shutil.which(program)
    assert found is not None
    return found
