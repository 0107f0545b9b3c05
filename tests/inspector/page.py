"""The inspector's page, as a person uses it: clicks, keys, and the texts on the screen."""

import re
from collections.abc import Callable
from typing import Any

from selenium.common.exceptions import StaleElementReferenceException, WebDriverException
from selenium.webdriver import Chrome
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

from ..doubles.dev_process import SECONDS

__all__ = ["Page"]

_TIME = re.compile(r"\n?\b[\d.]+ (?:ms|s)$", re.MULTILINE)


class Page:
    """The page in a browser.

    Args:
        driver: The browser.
        url: Of the inspector.
    """

    def __init__(self, driver: Chrome, url: str) -> None:
        self.driver = driver
        self.url = url

    def open(self) -> None:
        """Open the page anew."""
        self.driver.get("about:blank")
        self.driver.get(self.url)
        self.wait_for(lambda: self.text("#live") == "live")

    def wait_for(self, what: Callable[[], Any]) -> None:
        """Wait until `what` is true. What the page draws anew meanwhile is looked at again."""
        ignored = (StaleElementReferenceException, WebDriverException)
        WebDriverWait(self.driver, SECONDS, 0.05, ignored_exceptions=ignored).until(lambda driver: what())

    def all(self, selector: str) -> list[WebElement]:
        """Return all elements that a person sees."""
        found: list[WebElement] = self.driver.execute_script(_SEEN, selector)
        return found

    def text(self, selector: str) -> str:
        """Return the text of the first such element."""
        return self.all(selector)[0].text

    def click(self, selector: str) -> None:
        """Click on the first such element. If the page draws it anew at this moment, click again."""

        def click() -> bool:
            self.all(selector)[0].click()
            return True

        self.wait_for(click)

    def texts(self, selector: str, *parts: str) -> list[str]:
        """Return what each element says that a person sees: the text of its `parts`, or all of it; without times."""
        found: list[str] = self.driver.execute_script(_TEXTS, selector, parts)
        return [_TIME.sub("", text) for text in found]

    def rows(self) -> list[str]:
        """Return what the rows of the list say, without times; the newest first."""
        return [" ".join(text.split()) for text in self.texts("#list [role=option]", ".status", ".line1", ".line2")]

    def choose(self, row: str) -> None:
        """Click on the row that says `row`, and wait for its request."""
        found = self.all("#list [role=option]")[self.rows().index(row)]
        found.click()
        number = found.get_attribute("data-id")
        self.wait_for(lambda: self.driver.execute_script("return document.body.dataset.shown") == number)

    def complaints(self) -> list[str]:
        """Return what the browser's console has got since the last call; but for what the inspector refused to send."""
        found: list[dict[str, str]] = self.driver.execute("getLog", {"type": "browser"})["value"]
        return [entry["message"] for entry in found if "400 (Bad Request)" not in entry["message"]]

    def lane(self, name: str) -> tuple[str, ...]:
        """Return the nodes of a lane of the picture, without their times."""
        number = {"Request": 1, "Response": 2}[name]
        assert self.texts(f".lane:nth-child({number}) h3") == [name.upper()]
        found = self.texts(f".lane:nth-child({number}) :is(.node, .end)")
        return tuple(" ".join(text.split()) for text in found)

    def times(self) -> list[str]:
        """Return the times that the plugins' nodes show."""
        return [text for text in self.driver.execute_script(_TEXTS, ".node .ms", []) if text]

    def tab(self, name: str) -> str:
        """Choose a tab. Returns what its panel shows."""
        self.all("[role=tab]")[[text.rstrip("0123456789,\n ") for text in self.texts("[role=tab]")].index(name)].click()
        return "\n".join(self.texts("#detail-panel"))

    def steps(self) -> dict[str, str]:
        """Return what is shown of each plugin; of the second of a name, under ``NAME 2``."""
        found: dict[str, str] = {}
        for text in self.texts("article.step"):
            name = text.split()[0]
            found[f"{name} 2" if name in found else name] = text
        return found


_SEEN = """
return [...document.querySelectorAll(arguments[0])].filter(each => each.checkVisibility());
"""
"""The elements that a person sees."""
_TEXTS = """
const seen = element => element.checkVisibility() ? element.innerText : "";
return [...document.querySelectorAll(arguments[0])].filter(each => each.checkVisibility()).map(each =>
  arguments[1].length ? arguments[1].map(part => seen(each.querySelector(part))).join(" ") : seen(each));
"""
"""The texts of elements that a person sees, as they are on the screen."""
