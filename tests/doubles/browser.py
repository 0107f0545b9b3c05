"""Debian's chromium, without a window."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service

__all__ = ["browser", "emulate", "needs_browser", "overflow"]

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
needs_browser = pytest.mark.skipif(
    CHROMIUM is None or DRIVER is None, reason="no chromium: apt-get install chromium chromium-driver"
)
_FLAGS = (
    "--headless=new --no-sandbox --disable-gpu --disable-dev-shm-usage --disable-quic --no-first-run "
    "--disable-background-networking --disable-component-update --disable-sync"
).split()


@contextmanager
def browser(folder: Path, width: int = 1280, height: int = 900, *, dark: bool = False) -> Iterator[Chrome]:
    """Start a browser.

    Args:
        folder: Where it keeps its data.
        width, height: Of the page.
        dark: True: the person prefers dark colours.
    """
    options = ChromeOptions()
    options.binary_location = CHROMIUM or ""
    for flag in (*_FLAGS, f"--user-data-dir={folder}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = Chrome(options=options, service=Service(DRIVER))
    try:
        emulate(driver, width, height, dark=dark)
        yield driver
    finally:
        driver.quit()


def emulate(driver: Chrome, width: int = 1280, height: int = 900, *, dark: bool = False) -> None:
    """Give a browser another size and another preference of colours. Below 500 pixels it is a telephone's."""
    driver.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500},
    )
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})


def overflow(driver: Chrome) -> list[str]:
    """Return what makes the page wider than the window: the page itself, and the elements that stand out of it.

    What stands in an element that scrolls, or that cuts it off, makes nothing wider.
    """
    found: list[str] = driver.execute_script(_OVERFLOW)
    return found


_OVERFLOW = """
const wide = document.scrollingElement.scrollWidth;
const isIn = each => each === null || each === document.body
  || getComputedStyle(each).overflowX === "visible" && isIn(each.parentElement);
const standsOut = ({width, right}) => width && right > innerWidth + 0.5;
const out = [...document.querySelectorAll("body *")].filter(each => standsOut(each.getBoundingClientRect())
  && each.checkVisibility() && isIn(each.parentElement));
return (wide > innerWidth ? [`the page has ${wide} pixels`] : []).concat(
  out.slice(0, 5).map(each => `${each.localName}.${each.className}: ${each.innerText?.slice(0, 40)}`));
"""
