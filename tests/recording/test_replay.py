"""A recording that is replayed: the same plugins do the same, and a changed one differs where it changed."""

import asyncio
import contextlib
import json
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from click.testing import CliRunner

from asgi_bridge import Bridge
from asgi_bridge.cli import cli
from asgi_bridge.plugins import Plugin
from asgi_bridge.recording import RecordOptions, recorder
from asgi_bridge.replay import Reader, Replayed, Verdict, replay

from ..doubles.runner_thread import ThreadRunner
from ..doubles.waiting import SECONDS
from ..loops import LOOPS
from .traffic import TOKEN, make_bridge, send_mixed

RECORDED_CALLS = int(os.environ.get("RECORDED_CALLS", "400"))
"""Calls of a recording; `make long` has more."""


@contextlib.contextmanager
def recorded(path: Path, bridge: Bridge, loop: str = "asyncio", **options: Any) -> Iterator[ThreadRunner]:
    """Run a runner that records its calls in `path`."""
    # a busy machine may need longer than a runner has to write what waits
    patient = mock.patch.object(recorder, "CLOSE_SECONDS", SECONDS)
    with patient, tempfile.TemporaryDirectory(prefix="ab-", dir="/tmp") as folder:
        ask_origin = options.pop("ask_origin", False)
        record = RecordOptions(str(path), **options)
        runner = ThreadRunner(f"{folder}/r.sock", loop, bridge, record=record, ask_origin=ask_origin)
        try:
            yield runner
        finally:
            runner.stop()


def record_mixed(path: Path, number: int, seed: int, loop: str = "asyncio", **options: Any) -> dict[str, int]:
    """Record mixed calls, and return how many there were of each kind."""
    with recorded(path, make_bridge(), loop, **options) as runner, contextlib.ExitStack() as stack:
        connections = [stack.enter_context(runner.connect()) for _ in range(4)]
        return send_mixed(connections, number, seed)


def replayed(path: Path, plugins: Mapping[str, Plugin]) -> list[Replayed]:
    async def run() -> list[Replayed]:
        return [each async for each in replay(plugins, Reader(path))]

    return asyncio.run(run())


def verdicts(calls: list[Replayed]) -> Counter[str]:
    return Counter(call.verdict.value for call in calls)


@pytest.fixture(scope="module", params=LOOPS)
def kept(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, int]]:
    """A recording with its secrets, and what it holds."""
    path = tmp_path_factory.mktemp("recording") / "calls.jsonl"
    return path, record_mixed(path, RECORDED_CALLS, 1, request.param, secrets=True)


@pytest.fixture(scope="module")
def redacted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, int]]:
    """A recording without secrets, and what it holds."""
    path = tmp_path_factory.mktemp("recording") / "calls.jsonl"
    return path, record_mixed(path, RECORDED_CALLS, 2)


def test_the_same_plugins_do_the_same(kept: tuple[Path, dict[str, int]]) -> None:
    path, _ = kept
    calls = replayed(path, make_bridge().plugins)
    assert [(call.method, call.path, call.then, call.now) for call in calls if call.verdict is not Verdict.SAME] == []
    assert len(calls) >= RECORDED_CALLS
    assert {call.then["kind"] for call in calls} == {"pass", "rewrite", "stop", "response", "error"}


def test_without_secrets_only_the_calls_that_need_them_cannot_be_compared(
    redacted: tuple[Path, dict[str, int]],
) -> None:
    path, counts = redacted
    calls = replayed(path, make_bridge().plugins)
    assert [call for call in calls if call.verdict is Verdict.DIFFERS] == []
    unknown = [call for call in calls if call.verdict is Verdict.UNKNOWN]
    assert {(call.route, "header authorization" in call.why) for call in unknown} == {("guard", True)}
    assert len(unknown) == counts["good credentials"]


def test_no_secret_is_in_the_recording(redacted: tuple[Path, dict[str, int]]) -> None:
    text = redacted[0].read_bytes()
    assert TOKEN not in text
    assert b"t-1" not in text
    assert b"sid=redacted-" in text
    assert b"theme=dark" not in text
    assert b'"x-passed","Bearer redacted-' in text  # a plugin has handed it on, under another name


@pytest.mark.parametrize("secrets", [True, False])
def test_one_changed_line_differs_in_exactly_the_calls_that_it_concerns(
    secrets: bool, kept: tuple[Path, dict[str, int]], redacted: tuple[Path, dict[str, int]]
) -> None:
    path, _ = kept if secrets else redacted
    changed = replayed(path, make_bridge(lambda path: path.rpartition("/")[2].replace("7", "seven")).plugins)
    same = replayed(path, make_bridge().plugins)
    concerned = [
        call.line
        for call in same
        if "tag" in call.plugins
        and call.then["kind"] == "rewrite"
        and call.verdict is Verdict.SAME
        and call.phase == "request"
        and "7" in str(call.path).rpartition("/")[2]
    ]
    assert [call.line for call in changed if call.verdict is Verdict.DIFFERS] == concerned
    assert len(concerned) > 10
    print(f"{len(same)} calls recorded, {len(concerned)} differ after the change of one line")
    assert {call.route for call in changed if call.verdict is Verdict.DIFFERS} >= {"tag", "stamp"}
    assert verdicts(changed)["unknown"] == verdicts(same)["unknown"]


def test_a_plugin_that_refuses_everything_differs_also_where_secrets_are_redacted(
    redacted: tuple[Path, dict[str, int]],
) -> None:
    async def closed(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 403, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    changed = Bridge()
    changed.mount("vars", closed)
    path, counts = redacted
    calls = replayed(path, {**make_bridge().plugins, **changed.plugins})
    assert Counter(call.route for call in calls if call.verdict is Verdict.DIFFERS) == {"vars": counts["vars"]}


def test_the_command_shows_each_difference_and_ends_with_exit_code_1(
    redacted: tuple[Path, dict[str, int]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, counts = redacted
    import_line = "from tests.recording.traffic import make_bridge\nbridge = make_bridge({})\n"
    (tmp_path / "same_plugins.py").write_text(import_line.format(""))
    (tmp_path / "changed_plugins.py").write_text(import_line.format("lambda path: 'x'"))
    monkeypatch.setattr(sys, "path", [*sys.path])

    def run(target: str, *options: str) -> tuple[int, list[str]]:
        done = CliRunner().invoke(cli, ["replay", target, str(path), "--app-dir", str(tmp_path), *options])
        return done.exit_code, done.stdout.splitlines()

    number, good = len(Reader(path)), counts["good credentials"]
    last = f"{number} calls: {number - good} the same, 0 differ, {good} cannot be compared"
    code, lines = run("same_plugins:bridge", "--show", "1")
    assert (code, lines[-1]) == (0, last)
    assert " cannot be compared: today's plugins refuse it, and look at what is redacted: " in lines[1]
    assert lines[2:-1] == [
        "  - rewrite", f"  - header x-passed: {lines[3].rpartition(': ')[2]}", lines[4], "  + stop 401",
        "  + header content-type: text/plain", "  + body who are you?",
    ]  # fmt: skip
    assert run("same_plugins:bridge", "--strict", "--show", "1")[0] == 1
    code, lines = run("changed_plugins:bridge", "--show", "1")
    assert code == 1
    assert lines[0].startswith("POST /")
    assert " - request phase, route " in lines[0]
    assert lines[1].startswith("  - header x-tag: ")
    assert lines[2] == "  + header x-tag: x"
    assert sum(" - request phase, " in line for line in lines) == 2  # one that differs, one that cannot be compared
    code, lines = run("changed_plugins:bridge", "--json", "--show", "0")
    found = [json.loads(line) for line in lines]
    assert code == 1
    verdicts = Counter(each["verdict"] for each in found[:-1])
    assert verdicts == {"differs": found[-1]["differ"], "unknown": good}
    assert verdicts["differs"] >= counts["tag"]
    assert {each["diff"][1] for each in found[:-1] if each["verdict"] == "differs"} == {"+ header x-tag: x"}
