"""A headless Chromium, Debian's or any other that chromedriver finds."""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .processes import Unavailable
from .roots import fresh

# As root, in a container and without a network beyond this machine.
ARGUMENTS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--disable-quic"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars"),
)


@contextmanager
def browser(*, width: int = 1280, height: int = 1000, dark: bool = False) -> Iterator[Any]:
    """Start a browser of this window size with a fresh profile; raise ``Unavailable`` where there is none."""
    driver = shutil.which("chromedriver")
    binary = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if importlib.util.find_spec("selenium") is None or driver is None or binary is None:
        raise Unavailable("no browser: install chromium, chromium-driver and selenium")
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for argument in (*ARGUMENTS, f"--user-data-dir={fresh('chromium')}", f"--window-size={width},{height}"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    started = webdriver.Chrome(options=options, service=Service(driver))
    try:
        media = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        started.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": media})
        if width < 500:
            # A window cannot be made as narrow as a phone.
            metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": True}
            started.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        yield started
    finally:
        started.quit()


def complaints(driver: Any) -> list[str]:
    """Return what the browser's console said of errors and refused content since it was last asked."""
    entries = [entry["message"] for entry in driver.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]
    # Nobody's page asks for it: the browser does.
    return [message for message in entries if "/favicon.ico" not in message]


def accessibility(driver: Any) -> list[str]:
    """Return the serious and critical findings of axe-core on the page that is open."""
    found = importlib.util.find_spec("axe_core_python")
    if found is None or not found.submodule_search_locations:
        raise Unavailable("no axe-core: install axe-core-python")
    driver.execute_script((Path(found.submodule_search_locations[0]) / "axe.min.js").read_text())
    driver.set_script_timeout(60)
    result = driver.execute_async_script("axe.run().then(arguments[arguments.length - 1])")
    return [
        f"{each['impact']}: {each['id']}: {json.dumps([node['html'][:200] for node in each['nodes']])}"
        for each in result["violations"]
        if each["impact"] in ("serious", "critical")
    ]
