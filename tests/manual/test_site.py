"""The manual as a site, which ``make docs`` builds: what a person sees of it on a telephone."""

import functools
import os
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
from selenium.webdriver import Chrome

from ..doubles.browser import browser, emulate, needs_browser, overflow
from .blocks import PAGES, ROOT

SITE = ROOT / "build" / "docs"

pytestmark = [
    needs_browser,
    pytest.mark.skipif(not (SITE / "index.html").exists(), reason="make docs has not built the site"),
]

WIDE = [
    "comparison.html",
    "concepts.html",
    "operate/deploy.html",
    "options.html",
    "plugins/jwt-auth.html",
    "reference/api.html",
    "reference/command-line.html",
    "trouble.html",
]
"""The pages with the widest tables, pictures and code. SITE_PAGES=all looks at all pages."""
BROKEN = """
return [...document.images].filter(each => each.complete && !each.naturalWidth && each.checkVisibility())
  .map(each => each.src);
"""
"""The pictures that did not load."""
PALE = """
const drawing = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
const rgba = colour => {
  drawing.clearRect(0, 0, 1, 1); drawing.fillStyle = colour; drawing.fillRect(0, 0, 1, 1);
  return [...drawing.getImageData(0, 0, 1, 1).data];
};
const over = (front, back) => back.map((each, i) => each + (front[i] - each) * front[3] / 255);
const behind = each => {
  const own = each === null ? [255, 255, 255, 255] : rgba(getComputedStyle(each).backgroundColor);
  return own[3] === 255 ? own.slice(0, 3) : over(own, behind(each.parentElement));
};
const light = colour => colour.map(each => each / 255)
  .map(each => each <= 0.04045 ? each / 12.92 : ((each + 0.055) / 1.055) ** 2.4)
  .reduce((sum, each, i) => sum + each * [0.2126, 0.7152, 0.0722][i], 0);
const seen = new Map();
for (const each of document.querySelectorAll("article *")) {
  if (!each.checkVisibility() || each.closest(".headerlink, button")) continue;
  if (![...each.childNodes].some(child => child.nodeType === 3 && child.data.trim())) continue;
  const colour = getComputedStyle(each).color, back = behind(each), key = `${colour} on ${back.map(Math.round)}`;
  if (seen.has(key)) continue;
  const [one, other] = [light(over(rgba(colour), back)), light(back)].sort((a, b) => b - a);
  seen.set(key, [(one + 0.05) / (other + 0.05), each.innerText.slice(0, 30)]);
}
return [...seen].filter(([, [ratio]]) => ratio < arguments[0])
  .map(([key, [ratio, text]]) => `${ratio.toFixed(1)}: ${key}: ${text}`);
"""
"""The texts of the page whose contrast with what is behind them is less than `arguments[0]`."""
CONTRAST = 4.5
"""What WCAG 2 (AA) asks of texts."""


class Silent(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Silent, directory=str(SITE))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    with browser(tmp_path_factory.mktemp("browser"), 360) as found:
        found.execute_cdp_cmd("Network.enable", {})
        found.execute_cdp_cmd("Network.setBlockedURLs", {"urls": ["*/search*"]})  # each page would read the whole index
        yield found


def test_each_page_fits_a_telephone_and_has_its_pictures(url: str, driver: Chrome) -> None:
    every = sorted(str(page.relative_to(SITE)) for page in SITE.rglob("*.html") if page.name != "404.html")
    assert len(every) >= len(PAGES) and {*WIDE} <= {*every}
    emulate(driver, 360)
    found = {}
    for page in every if os.environ.get("SITE_PAGES") == "all" else WIDE:
        driver.get(url + page)
        found[page] = overflow(driver) + driver.execute_script(BROKEN)
    assert {page: wrong for page, wrong in found.items() if wrong} == {}


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_texts_can_be_read(url: str, driver: Chrome, dark: bool) -> None:
    emulate(driver, dark=dark)
    found = {}
    for page in ("start.html", "concepts.html", "options.html", "reference/api.html", "plugins/jwt-auth.html"):
        driver.get(url + page)
        found[page] = driver.execute_script(PALE, CONTRAST)
    assert {page: wrong for page, wrong in found.items() if wrong} == {}
