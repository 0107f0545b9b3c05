"""The inspector's page in a real browser: what a person sees after clicks."""

import asyncio
import itertools
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx2
import pytest
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select

from ..doubles.browser import emulate, needs_browser, overflow
from ..doubles.dev_process import SECONDS, Dev
from .page import Page
from .requests import SENT, Sent

pytestmark = needs_browser


def _joined(text: str) -> str:
    """Return the lines of a difference each with its sign."""
    return re.sub(r"^([-+])\n", r"\1 ", text, flags=re.MULTILINE)


def _row(name: str) -> str:
    return next(sent.row for sent in SENT if sent.name == name)


def _wait_for_rows(page: Page, rows: list[str]) -> None:
    page.wait_for(lambda: page.rows() == rows)


def test_the_list_has_all_requests_the_newest_first(page: Page) -> None:
    assert page.rows()[-len(SENT) :] == [sent.row for sent in reversed(SENT)]


@pytest.mark.parametrize("sent", SENT, ids=[sent.name for sent in SENT])
def test_a_request_shows_its_way_and_what_each_plugin_did(page: Page, sent: Sent) -> None:
    page.choose(sent.row)
    page.tab("Plugins")
    assert (page.lane("Request"), page.lane("Response")) == (sent.there, sent.back)
    nodes = [node for node in sent.there + sent.back if node.startswith(("pre-req", "post-resp"))]
    told = [node for node in nodes if not node.endswith(("not reached", "tells nothing of it"))]
    assert len(page.times()) == len(told)
    steps = page.steps()
    assert len(steps) == len(nodes)
    for plugin, texts in sent.steps.items():
        for text in texts:
            assert text in _joined(steps[plugin])
    for tab, texts in sent.tabs.items():
        shown = page.tab(tab)
        for text in texts:
            assert text in shown, tab
    assert page.driver.title == "Inspector of asgi-bridge"  # no markup of a request has run


def test_a_click_on_a_plugin_leads_to_its_difference(page: Page) -> None:
    page.choose(_row("two phases and four steps"))
    page.tab("Frames")
    next(each for each in page.all(".node") if "shout" in each.text).click()
    page.wait_for(lambda: page.driver.switch_to.active_element.text.startswith("shout"))
    assert page.texts("[role=tab][aria-selected=true]") == ["Plugins4"]


def test_a_shadow_stands_beside_the_way(page: Page, inspected: Dev) -> None:
    httpx2.get(inspected.url + "/beside", timeout=SECONDS)
    page.wait_for(lambda: page.rows()[0] == "200 GET /beside beside changed by mark")
    page.choose(page.rows()[0])
    page.wait_for(lambda: page.texts(".shadow"))  # its run may end after the request
    assert page.lane("Request") == ("Client GET request", "pre-req mark ✎ 1 change", "Upstream answered 200")
    assert page.texts(".lane:nth-child(3) h3") == ["BESIDE"]
    assert [" ".join(text.split()) for text in page.texts(".shadow")] == ["pre-req judge would: stop 401"]
    assert "shadow, would: stop 401" in page.tab("Plugins")


def test_a_body_is_shown_as_json_text_or_hex(page: Page) -> None:
    page.choose(_row("body"))
    page.tab("Client")
    shown = []
    for name in ("JSON", "Text", "Hex"):
        next(each for each in page.all("#detail-panel .choice button") if each.text == name).click()
        shown.append(page.text("#detail-panel .body pre"))
    assert shown[:2] == ['{\n  "size": "small",\n  "item": "book"\n}', '{"size": "small", "item": "book"}']
    assert shown[2].startswith('000000  7b 22 73 69 7a 65 22 3a  20 22 73 6d 61 6c 6c 22  {"size": "small"')


def test_filters_by_text_route_plugin_and_status(page: Page) -> None:
    whole = page.rows()
    for selector, choice, expected in (
        ("#by-route", "gate", [row for row in whole if " /gate" in row]),
        ("#by-plugin", "around", [row for row in whole if " /around" in row or " /both" in row]),
        ("#by-status", "4xx", [row for row in whole if row.startswith("4")]),
        ("#by-status", "faults", [row for row in whole if row.startswith("5")]),
    ):
        select = Select(page.all(selector)[0])
        select.select_by_visible_text(choice)
        assert expected != whole
        _wait_for_rows(page, expected)
        select.select_by_index(0)
    page.all("#search")[0].send_keys("post large", Keys.ENTER)
    assert page.text("#nothing") == "No request fits the filter."
    page.all("#search")[0].clear()
    page.all("#search")[0].send_keys("POST upload")
    assert page.rows() == [_row("upload of 5 MB")]
    page.all("#search")[0].send_keys(*[Keys.BACKSPACE] * 11)
    assert page.rows() == whole


def test_keys_choose_requests_tabs_and_actions(page: Page) -> None:
    page.open()
    ActionChains(page.driver).send_keys("j", "j").perform()
    page.wait_for(lambda: page.texts("#list [aria-selected=true] .line1") == [page.texts("#list .line1")[1]])
    page.wait_for(lambda: page.texts("#detail h2 .target"))
    page.all("[role=tab][aria-selected=true]")[0].send_keys(Keys.ARROW_RIGHT)
    assert page.texts("[role=tab][aria-selected=true]") == ["Client"]
    ActionChains(page.driver).send_keys("?").perform()
    assert "choose a request" in page.text("dialog")
    ActionChains(page.driver).send_keys(Keys.ESCAPE).perform()
    ActionChains(page.driver).send_keys(Keys.ESCAPE).perform()
    page.wait_for(lambda: page.texts("#detail") == page.texts("#detail .empty"))
    ActionChains(page.driver).send_keys("/").perform()
    assert page.driver.switch_to.active_element.get_attribute("id") == "search"


def test_a_request_is_sent_again_as_it_was(page: Page) -> None:
    page.choose(_row("headers"))
    number = page.driver.current_url.rpartition("#")[2]
    page.click("#send")
    page.wait_for(lambda: page.text("#detail .facts").endswith(f"sent again, as request {number}"))
    page.wait_for(lambda: page.rows()[0] == "200 GET /gate/key sent again gate changed by gate")
    page.wait_for(lambda: page.lane("Request") == next(each.there for each in SENT if each.name == "headers"))


def test_a_request_is_sent_again_edited(page: Page) -> None:
    page.choose(_row("stop"))
    page.click("#edit")
    method, target, headers, body = page.all("dialog input, dialog textarea")
    for field, text in ((method, "PUT"), (target, "/gate/edited?x=<b>")):
        field.clear()
        field.send_keys(text)
    headers.send_keys("\nX-Key: right")
    body.send_keys('{"edited": "yes"}')
    page.click("#send-edited")
    page.wait_for(lambda: page.rows()[0] == "200 PUT /gate/edited?x=<b> sent again gate changed by gate")
    page.wait_for(lambda: page.text("#detail h2 .target") == "/gate/edited?x=<b>")
    assert page.lane("Request") == ("Client PUT request", "pre-req gate ✎ 2 changes", "Upstream answered 200")
    shown = page.tab("Client")
    assert "content-length\t17" in shown and '"edited": "yes"' in shown
    assert "PUT /gate/edited?x=<b>" in page.tab("Upstream")


def test_what_cannot_be_sent_is_said(page: Page) -> None:
    page.choose(_row("upload of 5 MB"))
    page.click("#send")
    page.wait_for(lambda: page.texts("#failed") != [""])
    assert page.text("#failed") == (
        "the body has 5,000,000 bytes, and only the first 131,072 are kept: give another body"
    )
    page.choose(_row("stop"))
    page.click("#edit")
    target = page.all("dialog input")[1]
    target.clear()
    target.send_keys("no slash")
    page.click("#send-edited")
    page.wait_for(lambda: page.texts("dialog [role=alert]") != [""])
    assert page.text("dialog [role=alert]") == (
        "path and query have to begin with a slash, and have no blanks: write %20"
    )
    page.all("dialog button")[0].click()


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl (apt-get install curl; .ci/run does)")
def test_the_copied_curl_command_makes_the_same_request(page: Page) -> None:
    for row in (_row("body"), _row("binary body")):
        page.choose(row)
        page.click("#curl")
        page.wait_for(lambda: page.texts("#copied"))
        command = page.text("#copied")
        page.all("dialog button")[0].click()
        before = page.rows()
        subprocess.run(["bash", "-c", command], capture_output=True, timeout=SECONDS, check=True)
        _wait_for_rows(page, [row, *before])


def test_the_copied_tests_are_green(page: Page, inspected: Dev, tmp_path: Path) -> None:
    for path in ("gateway_plugins.py", "apisix.yaml"):
        shutil.copy(inspected.folder / path, tmp_path)
    names = ("stop", "body", "both phases", "fault")
    for number, name in enumerate(names):
        page.choose(_row(name))
        page.click("#test")
        page.wait_for(lambda: page.texts("#copied"))
        (tmp_path / f"test_copied_{number}.py").write_text(page.text("#copied") + "\n")
        page.all("dialog button")[0].click()
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error", str(tmp_path)],
        cwd=tmp_path, capture_output=True, text=True, timeout=3 * SECONDS,
    )  # fmt: skip
    assert (done.returncode, re.findall(r"\d+ passed", done.stdout)) == (0, ["4 passed"]), done.stdout


def test_it_pauses_and_goes_on(page: Page, inspected: Dev) -> None:
    page.open()
    before = page.rows()
    page.click("#pause")
    page.wait_for(lambda: page.text("#live") == "paused: requests are not kept")
    total = int(page.text("#total"))
    httpx2.get(inspected.url + "/open/paused", timeout=SECONDS)
    page.wait_for(lambda: int(page.text("#total")) > total)
    assert page.rows() == before
    page.choose(before[0])
    page.click("#send")  # what the page sends itself is kept
    page.wait_for(lambda: len(page.rows()) == len(before) + 1)
    page.click("#pause")
    page.wait_for(lambda: page.text("#live") == "live")
    httpx2.get(inspected.url + "/open/live", timeout=SECONDS)
    page.wait_for(lambda: page.rows()[0] == "200 GET /open/live open passed")


@pytest.fixture
def narrow(page: Page) -> Iterator[Page]:
    """The page on a telephone."""
    emulate(page.driver, 360, 740)
    page.open()
    yield page
    emulate(page.driver)
    page.open()


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_the_page_fits_a_telephone_in_light_and_dark(narrow: Page, dark: bool) -> None:
    emulate(narrow.driver, 360, 740, dark=dark)
    assert overflow(narrow.driver) == []
    narrow.choose(_row("two phases and four steps"))
    assert not narrow.all("#list")
    for tab in ("Plugins", "Client", "Upstream", "Asked", "Frames"):
        narrow.tab(tab)
        assert narrow.driver.execute_script("return document.getElementById('detail').scrollWidth") <= 360, tab
        assert overflow(narrow.driver) == [], tab
    colours = narrow.driver.execute_script(
        "const style = getComputedStyle(document.body); return [style.color, style.backgroundColor]"
    )
    light = [sum(map(int, re.findall(r"\d+", colour)[:3])) > 380 for colour in colours]
    assert light == [dark, not dark]
    narrow.click(".back")
    narrow.wait_for(lambda: narrow.all("#list"))
    assert narrow.complaints() == []


def test_nothing_was_refused_by_the_page_s_own_policy(page: Page) -> None:
    assert page.complaints() == []


def test_clear_forgets_all_requests(page: Page, inspected: Dev) -> None:
    page.open()
    page.click("#clear")
    page.wait_for(lambda: page.rows() == [])
    assert page.text("#nothing") == "No request yet. Send one to the gateway, and it shows up here."
    httpx2.get(inspected.url + "/open/after", timeout=SECONDS)
    page.wait_for(lambda: page.rows() == ["200 GET /open/after open passed"])


DRIVEN_SECONDS = float(os.environ.get("DRIVEN_SECONDS", "1"))
"""Seconds that the gateway is driven as hard as it goes."""
MAX_GROWTH = 32 * 1024 * 1024
"""Bytes that ``dev`` may grow by meanwhile, once it keeps as many requests as it ever does."""


async def _drive(url: str, over: Callable[[], bool]) -> int:
    """Send requests over 16 connections, one after the other on each. Returns how many were answered."""
    address = urlsplit(url)
    request = f"GET /gate/driven HTTP/1.1\r\nHost: {address.netloc}\r\nX-Key: right\r\n\r\n".encode()

    async def connection() -> int:
        reader, writer = await asyncio.open_connection(address.hostname, address.port)
        answered = 0
        while not over():
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200")
            found = re.search(rb"content-length: (\d+)", head.lower())
            assert found is not None
            await reader.readexactly(int(found[1]))
            answered += 1
        writer.close()
        await writer.wait_closed()
        return answered

    return sum(await asyncio.gather(*(connection() for _ in range(16))))


def _memory(process: int) -> int:
    return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_while_it_is_driven_hard_a_click_is_answered_and_it_keeps_its_memory(page: Page, inspected: Dev) -> None:
    page.open()
    counter = itertools.count()
    asyncio.run(_drive(inspected.url, lambda: next(counter) > 700))
    before = _memory(inspected.process.pid)
    answered: list[int] = []
    clicked = threading.Event()
    started = time.monotonic()

    def over() -> bool:
        return clicked.is_set() and time.monotonic() > started + DRIVEN_SECONDS

    driving = threading.Thread(target=lambda: answered.append(asyncio.run(_drive(inspected.url, over))))
    driving.start()
    try:
        page.click("#pause")
        page.wait_for(lambda: page.text("#live") == "paused: requests are not kept")
        page.click("#list [role=option]")
        page.wait_for(lambda: page.texts(".lane .node b") == ["gate"])
    finally:
        clicked.set()
    driving.join(SECONDS + DRIVEN_SECONDS)
    rate = answered[0] / (time.monotonic() - started)
    page.wait_for(lambda: page.rows()[0] == "200 GET /gate/driven gate changed by gate")
    page.click("#pause")
    page.wait_for(lambda: page.text("#live") == "live")
    assert len(page.rows()) == 500
    grown = _memory(inspected.process.pid) - before
    print(f"{rate:.0f} requests a second, {grown / 1048576:.1f} MiB grown")
    assert grown < MAX_GROWTH
