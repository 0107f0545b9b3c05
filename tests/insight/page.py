"""What a person sees on the admin page, in Debian's chromium."""

from dataclasses import dataclass
from pathlib import Path

from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from ..doubles.browser import browser
from ..doubles.waiting import SECONDS

__all__ = ["Seen", "looked_at"]

LOOKS = 3
"""Number of times that the page has to have looked at the runner. It does so every two seconds."""
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
        tables: rows of cells, by the table's id. The first row has the heads.
        texts: other texts by the id of their element.
    """

    tables: dict[str, list[list[str]]]
    texts: dict[str, str]


def looked_at(url: str, folder: Path) -> Seen:
    """Return what a browser shows once the page has refreshed itself.

    Args:
        url: of the page.
        folder: where the browser keeps its data.
    """
    with browser(folder) as driver:
        driver.get(url)
        WebDriverWait(driver, SECONDS).until(lambda _: int(driver.find_element(By.ID, "looks").text) >= LOOKS)
        # at one moment: the page makes its tables anew while it is looked at
        tables, texts = driver.execute_script(SHOWN, TABLES, TEXTS)
        return Seen(tables, texts)
