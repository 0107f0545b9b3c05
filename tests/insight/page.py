"""What a person sees on the admin page, in Debian's chromium."""

from dataclasses import dataclass
from pathlib import Path

from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from ..doubles.browser import browser, emulate, overflow
from ..doubles.waiting import SECONDS

__all__ = ["Seen", "looked_at"]

TABLES = ("workers", "plugins", "routes", "lines")
TEXTS = ("readiness", "calls", "rate", "looks")
SHOWN = """
const table = id => [...document.querySelectorAll(`#${id} tr`)].map(row => [...row.cells].map(cell => cell.innerText));
const of = (ids, shown) => Object.fromEntries(ids.map(id => [id, shown(id)]));
return [of(arguments[0], table), of(arguments[1], id => document.getElementById(id).innerText)];
"""
"""Returns the visible texts of tables and of other elements."""


@dataclass
class Seen:
    """What a page shows.

    Attributes:
        overflow: what makes the page wider than a telephone of 360 pixels.
        tables: rows of cells, by the table's id. The first row has the heads.
        texts: other texts by the id of their element.
    """

    overflow: list[str]
    tables: dict[str, list[list[str]]]
    texts: dict[str, str]


def looked_at(url: str, folder: Path, looks: int) -> Seen:
    """Return what a browser shows.

    Args:
        url: of the page.
        folder: where the browser keeps its data.
        looks: number of times that the page has to have looked at the runner. It does so every two seconds.
    """
    with browser(folder) as driver:
        driver.get(url)
        WebDriverWait(driver, SECONDS).until(lambda _: int(driver.find_element(By.ID, "looks").text) >= looks)
        # at one moment: the page makes its tables anew while it is looked at
        tables, texts = driver.execute_script(SHOWN, TABLES, TEXTS)
        emulate(driver, 360)
        return Seen(overflow(driver), tables, texts)
