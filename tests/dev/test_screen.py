"""What ``asgi-bridge dev`` prints: a block for each request, the opening, what a reload has changed."""

import asyncio
from pathlib import Path
from typing import Any

import click
import pytest

from asgi_bridge.dev.opening import Loaded, changed_routes, opening
from asgi_bridge.dev.screen import BLOCKS_A_SECOND, Screen, block, later, say
from asgi_bridge.gateway import Call, parse_routes
from asgi_bridge.inspector import Record
from asgi_bridge.inspector.record import Exchanged, Upstreamed
from asgi_bridge.wire import HTTPReqCallReq, HTTPReqCallResp


def request(target: str = "/x", status: int = 200, route: str | None = "r") -> Record:
    record = Record(1, Exchanged("GET", target.encode(), [], status=status))
    record.about = {"route": route}
    record.finished = record.started + 0.0125
    return record


def part(index: int, plugin: str, **more: Any) -> dict[str, Any]:
    got = {"method": "GET", "path": "/x", "query": "", "headers": [["host", "h"]]}
    return {"index": index, "plugin": plugin, "phase": "request", "entered": 1.0, "got": got, "ended": True, **more}


def with_call(record: Record, plugins: list[str], parts: list[dict[str, Any]], **more: Any) -> Record:
    record.add_frame(HTTPReqCallReq(7), 20, sent=True)
    answer = None if "error" in more else HTTPReqCallResp(7, None)
    record.add_call(Call("r", "ext-plugin-pre-req", tuple(plugins), "GET /x", answer, 1.25, **more))
    news = {"at": record.calls[0].ended + 1, "plugins": plugins, "parts": parts, "shadows": [], "lines": []}
    record.add_news(record.calls[0], news)
    return record


def lines(record: Record) -> list[str]:
    return [click.unstyle(line) for line in block(record)]


PASSED = {"method": "GET", "path": "/new", "query": "", "headers": [["host", "h"], ["x-a", "1"]]}


def test_a_request_without_plugins_is_one_dim_line() -> None:
    assert list(block(request())) == [click.style("GET /x  200  12.5 ms  route r", dim=True)]
    assert lines(request("/a\x1b[31m\nb", 404, None)) == ["GET /a\\x1b[31m\\nb  404  12.5 ms  no route"]


def test_each_plugin_has_a_line_and_its_changes() -> None:
    record = with_call(
        request(status=403),
        ["auth", "stop", "more"],
        [
            part(0, "auth", passed=PASSED, passed_at=1.001, done=1.004, back=1.003),
            part(1, "stop", sent={"status": 403, "headers": []}, done=1.0005),
        ],
    )
    assert lines(record) == [
        "GET /x  403  12.5 ms  route r",
        "  pre-req   auth  changed the request  2.0 ms",
        "                  request path /x → /new",
        "                  request header + x-a: 1",
        "            stop  answered 403  0.5 ms",
        "            more  not reached",
    ]


def test_a_fault_is_one_block_with_the_user_s_frames() -> None:
    fault = {"kind": "exception", "text": "ValueError: no", "own": "Traceback:\n  File gate.py\nValueError: no\n"}
    record = with_call(request(status=503), ["gate"], [part(0, "gate", done=1.001, fault={**fault, "whole": "…"})])
    line = {"at": record.started, "kind": "log", "logger": "asgi_bridge.adapter", "level": "error", "plugin": "gate"}
    record.add_line({**line, "text": "plugin gate: request refused: ValueError: no", "has_traceback": True})
    record.add_line({**line, "text": "plugin gate: another thing", "level": "warning"})
    assert lines(record) == [
        "GET /x  503  12.5 ms  route r",
        "  pre-req   gate  failed: ValueError: no  1.0 ms",
        "            Traceback:",
        "              File gate.py",
        "            ValueError: no",
        "  log       plugin gate: another thing",
    ]
    assert [click.unstyle(each) for each in later(record, [{**line, "text": "a fault after its answer"}])] == [
        "GET /x, later:",
        "  log       a fault after its answer",
    ]
    record.calls[0].parts[0]["fault"]["late"] = "yes"
    assert [click.unstyle(each) for each in later(record, [{**line, "text": "a fault after its answer"}])][2:] == [
        "            Traceback:",
        "              File gate.py",
        "            ValueError: no",
    ]
    assert list(later(record, [{**line, "logger": "shop", "text": "it is on the terminal already"}])) == []


def test_what_the_upstream_and_the_runner_did_is_said() -> None:
    record = with_call(request(status=502), ["gate"], [part(0, "gate", passed=PASSED, passed_at=1.001)])
    record.upstreams.append(Upstreamed("GET", b"/new", [], to="http://u:1", error="refused"))
    assert lines(record)[-1] == "  upstream  http://u:1  failed: refused"
    record = request(status=503)
    record.add_call(Call("r", "ext-plugin-pre-req", ("gate",), "GET /x", None, 1.0, "closed", status=503))
    assert lines(record)[1:] == [
        "  pre-req   gate  the runner tells nothing of it",
        "            the runner failed: closed",
    ]


def test_lines_fit_the_terminal_and_colours_can_be_switched_off(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    wide = [click.style("a" * 30, fg="red") + "b" * 30, "curl " + "c" * 40]
    monkeypatch.setenv("COLUMNS", "20")
    say(wide)
    assert capsys.readouterr().out.splitlines() == ["a" * 30 + "b" * 30, "curl " + "c" * 40]  # it is piped
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    say(wide)
    first, second = capsys.readouterr().out.splitlines()
    assert (click.unstyle(first), second) == ("a" * 19 + "…", "curl " + "c" * 40)
    assert first.endswith("\x1b[0m")
    monkeypatch.setenv("NO_COLOR", "1")
    say(wide)
    assert capsys.readouterr().out.splitlines()[0] == "a" * 19 + "…"


def test_of_a_flood_only_the_first_blocks_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    async def run() -> None:
        screen = Screen(tells=False)
        screen._second = 10**9  # the clock stands still
        for number in range(BLOCKS_A_SECOND + 100):
            record = request()
            record.number = number
            screen.changed(record)
            screen._second = int(__import__("time").monotonic())
        screen.tell_left_out()

    asyncio.run(run())
    printed = capsys.readouterr().out.splitlines()
    assert printed[-1].startswith("… and ") and printed[-1].endswith(" more requests")
    blocks, left = len(printed) - 1, int(printed[-1].split()[2])
    assert blocks + left == BLOCKS_A_SECOND + 100 and blocks < BLOCKS_A_SECOND + 100


def test_a_block_waits_for_what_the_runner_tells_but_not_for_ever(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("asgi_bridge.dev.screen.NEWS_SECONDS", 0.01)

    async def run() -> None:
        screen = Screen(tells=True)
        record = with_call(request(), ["gate"], [part(0, "gate", passed=PASSED, passed_at=1.001)])
        told, record.calls[0].told = record.calls[0].told, 0.0
        screen.changed(record)
        assert capsys.readouterr().out == ""
        record.calls[0].told = told
        screen.changed(record)
        assert "gate  changed the request" in capsys.readouterr().out
        silent = with_call(request(), ["gate"], [])
        silent.number, silent.calls[0].told = 2, 0.0
        screen.changed(silent)
        await asyncio.sleep(0.1)
        assert "gate  not reached" in capsys.readouterr().out

    asyncio.run(run())


ROUTES = """
global_rules:
  - {id: g, plugins: {ext-plugin-post-resp: {conf: [{name: shout, value: "{}"}]}}}
routes:
  - id: shop
    uris: [/shop, /shop/*]
    methods: [GET]
    plugins:
      ext-plugin-pre-req: {conf: [{name: gate, value: "{}"}, {name: mark, value: "{}"}]}
    upstream: {type: roundrobin, nodes: {"a:1": 1}}
  - {id: rest, uri: /*, upstream: {type: roundrobin, nodes: {"a:1": 1}}}
#END
"""


def test_the_opening_says_what_is_mounted_listed_and_watched(tmp_path: Path) -> None:
    file = tmp_path / "apisix.yaml"
    file.write_text(ROUTES)
    found = opening(["gate", "mark"], parse_routes(ROUTES), file, "http://127.0.0.1:9081", "/shop")
    assert [click.unstyle(line) for line in found] == [
        "Plugins    gate, mark",
        "Routes     apisix.yaml",
        "           shop  GET /shop /shop/*  pre-req gate, mark",
        "           rest  /*                 no plugins",
        "           global rules  post-resp shout",
        "Inspector  http://127.0.0.1:9081",
        "Watched    *.py in /shop, apisix.yaml",
        "",
    ]


def test_what_a_reload_of_routes_has_changed_is_said() -> None:
    old = parse_routes(ROUTES)
    assert changed_routes(old, parse_routes(ROUTES)) == ""
    assert changed_routes(old, parse_routes(ROUTES.replace("name: mark", "name: body"))) == "changed shop"
    assert changed_routes(old, parse_routes(ROUTES.replace("id: rest", "id: other"))) == "new other; gone rest"
    assert changed_routes(old, parse_routes(ROUTES.replace("shout", "mark"))) == "changed global rules"


def test_what_a_reload_of_code_has_changed_is_said() -> None:
    loaded = Loaded()
    assert loaded.reloaded({"loaded": {"a": "1", "b": "1"}, "modules": {"gate.py": 1, "x.py": 1}}) is None
    assert loaded.first.is_set()
    news = {"loaded": {"a": "2", "c": "1"}, "modules": {"gate.py": 2, "x.py": 1}}
    assert loaded.reloaded(news) == "gate.py changed; new: c; gone: b; other options or configuration: a"
    assert loaded.reloaded(news) == "no plugin has changed"
