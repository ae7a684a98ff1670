"""A headless Chromium for tests of the page: Debian's browser and driver, a profile of its own, no network of its own."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service

from tests.conftest import missing

CHROMIUM = Path("/usr/bin/chromium")
CHROMEDRIVER = Path("/usr/bin/chromedriver")
ARGUMENTS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-extensions",
    "--disable-sync",
    "--disable-features=OptimizationHints,MediaRouter,Translate,AutofillServerCommunication",
    "--force-color-profile=srgb",
    "--hide-scrollbars",
    "--metrics-recording-only",
    "--no-first-run",
    "--no-default-browser-check",
    "--no-proxy-server",
)


@contextmanager
def chromium(profile: Path, *, width: int = 1280, height: int = 800, dark: bool = True) -> Iterator[webdriver.Chrome]:
    """Start a browser with a fresh profile, and end it and its driver afterwards; skips where there is none."""
    for binary in (CHROMIUM, CHROMEDRIVER):
        if not binary.exists():
            missing(f"{binary} is not installed")
    options = Options()
    options.binary_location = str(CHROMIUM)
    for argument in (*ARGUMENTS, f"--user-data-dir={profile}", f"--window-size={width},{height}"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(str(CHROMEDRIVER)))
    try:
        driver.set_page_load_timeout(20)
        # The window includes borders; this sets the page itself.
        driver.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride", {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
        yield driver
    finally:
        driver.quit()
        shutil.rmtree(profile, ignore_errors=True)


def console_errors(driver: webdriver.Chrome) -> list[str]:
    """Return what the page complained about since the last call.

    Tests read pixels back, which the page itself never does; the browser's advice about that is not the page's fault.
    """
    entries = driver.get_log("browser")  # type: ignore[no-untyped-call]
    complaints = [entry["message"] for entry in entries if entry["level"] in {"SEVERE", "WARNING"}]
    return [message for message in complaints if "willReadFrequently" not in message]


def requested_urls(driver: webdriver.Chrome) -> set[str]:
    """Return every address the page asked for since the last call, WebSockets included."""
    urls = set()
    for entry in driver.get_log("performance"):  # type: ignore[no-untyped-call]
        message = json.loads(entry["message"])["message"]
        if message["method"] == "Network.requestWillBeSent":
            urls.add(message["params"]["request"]["url"])
        elif message["method"] == "Network.webSocketCreated":
            urls.add(message["params"]["url"])
    return urls
