"""What a runner under ``dev`` tells, and that looking changes nothing."""

import asyncio
import functools
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import Route
from starlette.testclient import TestClient

from asgi_bridge import Bridge, PassOn
from asgi_bridge.dev_runner.runner import TellingRunner
from asgi_bridge.dev_runner.story import MAX_LINES, Story
from asgi_bridge.errors import PluginError
from asgi_bridge.testing import Gateway, gateway

from ..inspector.plugins import bridge
from ..inspector.requests import ROUTES, SENT

HERE = Path(__file__).parent


def test_no_other_runner_imports_it() -> None:
    code = (
        "import sys, asgi_bridge, asgi_bridge.cli, asgi_bridge.cli.run, asgi_bridge.server.serve\n"
        "print([name for name in sys.modules if name.startswith(('asgi_bridge.dev_runner', 'asgi_bridge.inspector'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "[]\n"


class Told:
    """Stands for the link to ``dev``: keeps what a runner tells."""

    def __init__(self, path: str) -> None:
        self.news: list[dict[str, Any]] = []
        told.append(self)

    async def start(self) -> None:
        """Do nothing."""

    def stop(self) -> None:
        """Do nothing."""

    def listens(self) -> bool:
        return True

    def tell(self, news: dict[str, Any]) -> None:
        self.news.append(json.loads(json.dumps(news)))


told: list[Told] = []


@pytest.fixture
def telling(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `Gateway` make telling runners."""
    told.clear()
    monkeypatch.setattr("asgi_bridge.dev_runner.runner.Link", Told)
    make = functools.partial(TellingRunner, path="/nowhere.sock", folder=str(HERE))
    monkeypatch.setattr(gateway, "Runner", make)


def answers() -> list[tuple[int, list[tuple[str, str]], bytes]]:
    """Return the answers to all the requests, but for what differs from one time to the next."""
    routes = yaml.safe_load(ROUTES.replace("#END", ""))["routes"]
    for route in routes:
        route.pop("upstream_id")
    found = []
    with TestClient(Gateway(bridge, routes, strict=False), raise_server_exceptions=False) as client:
        for sent in SENT:
            body = sent.body[:1000]
            response = client.request(sent.method, sent.target, headers=list(sent.headers), content=body)
            headers = [item for item in response.headers.items() if item[0] != "date"]
            found.append((response.status_code, headers, response.content))
    return found


def test_answers_are_the_same_with_and_without_it(request: pytest.FixtureRequest) -> None:
    without = answers()
    request.getfixturevalue("telling")
    assert answers() == without


def parts(news: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the last state of each part."""
    found: dict[tuple[int, int], dict[str, Any]] = {}
    for each in news:
        for part in each.get("parts", ()):
            found[each["call"], part["index"]] = part
    return list(found.values())


def routes_of(*plugins: str) -> list[dict[str, Any]]:
    conf = [{"name": name, "value": "{}"} for name in plugins]
    return [{"id": "r", "uri": "/*", "plugins": {"ext-plugin-pre-req": {"conf": conf}}}]


@pytest.mark.usefixtures("telling")
def test_each_part_has_its_times_and_both_sides_of_its_plugin() -> None:
    with TestClient(Gateway(bridge, routes_of("mark", "gate"))) as client:
        assert client.get("/x?y=z", headers={"x-key": "right"}).status_code == 200
    mark, gate = parts(told[0].news)
    assert (mark["plugin"], gate["plugin"], mark["index"], gate["index"]) == ("mark", "gate", 0, 1)
    times = [mark["entered"], mark["passed_at"], gate["entered"], gate["passed_at"]]
    times += [gate["back"], gate["done"], mark["back"], mark["done"]]
    assert times == sorted(times)
    assert mark["got"] == mark["passed"] == gate["got"]
    assert (gate["got"]["path"], gate["got"]["query"]) == ("/x", "y=z")
    assert ["x-key", "right"] in gate["got"]["headers"] and ["x-key", "right"] not in gate["passed"]["headers"]
    assert (gate["inside"], mark["sent"]) == (
        {"status": 200, "headers": []},
        {"status": 200, "headers": [["x-mark", "seen"]]},
    )
    assert told[0].news[0]["loaded"].keys() == bridge.plugins.keys()


@pytest.mark.usefixtures("telling")
def test_a_fault_belongs_to_the_plugin_that_it_came_out_of_first() -> None:
    with TestClient(Gateway(bridge, routes_of("mark", "broken"))) as client, pytest.raises(ZeroDivisionError):
        client.get("/x")
    mark, broken = parts(told[0].news)
    assert "fault" not in mark
    assert broken["fault"]["text"] == "ZeroDivisionError: division by zero"
    own, whole = broken["fault"]["own"], broken["fault"]["whole"]
    assert re.findall(r'File "(.*)", line \d+, in (\w+)', own) == [
        (str(HERE.parent / "inspector/plugins.py"), name) for name in ("alone", "broken", "share")
    ]
    assert "in watched" in whole
    lines = [line for each in told[0].news for line in each.get("lines", ())]
    assert [(line["level"], line["has_traceback"]) for line in lines] == [("error", True)]


@pytest.mark.usefixtures("telling")
def test_a_timeout_belongs_to_the_plugin_that_was_overdue() -> None:
    with TestClient(Gateway(bridge, routes_of("mark", "slow"))) as client, pytest.raises(PluginError):
        client.get("/x")
    mark, slow = parts(told[0].news)
    assert "fault" not in mark
    assert slow["fault"] == {"kind": "timeout", "text": "no answer in time (option timeout: 0.2 s)"}
    lines = [line["text"] for each in told[0].news for line in each.get("lines", ())]
    assert lines == ["plugin slow: request refused: no answer in time (option timeout: 0.2 s)"]


@pytest.mark.usefixtures("telling")
@pytest.mark.parametrize("plugins", [("reader",), ("mark", "reader"), ("reader", "mark"), ("reader", "second")])
def test_a_plugin_may_read_the_body_and_let_the_request_go_on(plugins: tuple[str, ...]) -> None:
    async def reader(request: Request) -> PassOn:
        assert await request.json() == {"a": 1}
        return PassOn(headers={"x-read": "yes"})

    reading = Bridge()
    for name in ("reader", "second"):
        reading.mount(name, Starlette(routes=[Route("/{path:path}", reader, methods=["POST"])]))
    reading.mount("mark", bridge.plugins["mark"].found)
    with TestClient(Gateway(reading, routes_of(*plugins))) as client:
        echo = client.post("/x", json={"a": 1}, headers={"content-type": "application/json"}).json()
    assert (echo["body"].replace(" ", ""), ["x-read", "yes"] in echo["headers"]) == ('{"a":1}', True)
    assert ["fault" in part for part in parts(told[0].news)] == [False] * len(plugins)


def test_output_is_cut_into_lines_and_bounded() -> None:
    story = Story(1, "request", None, ["a"])
    for content in ("one", " line\n", "two\nthree", "\n", "", "four"):
        story.write(1, content, "a")
    story.write(2, "other\n", "b")
    news = story.news()
    assert [(line["text"], line["plugin"]) for line in news["lines"]] == [
        ("one line", "a"), ("two", "a"), ("three", "a"), ("other", "b"), ("four", "a"),
    ]  # fmt: skip
    story.write(1, "x\n" * (2 * MAX_LINES), "a")
    assert len(story.news()["lines"]) == MAX_LINES - 5
    assert story.add_line("log", "late") is False


def test_without_a_listener_nothing_is_told_and_nothing_breaks(tmp_path: Path) -> None:
    async def run() -> None:
        from asgi_bridge.dev_runner.runner import Link

        link = Link(str(tmp_path / "nobody.sock"))
        await link.start()
        assert link.listens() is False
        link.tell({"a": 1})
        link.stop()

    asyncio.run(run())
