"""A runner with several workers: all of them record into one file."""

import contextlib
import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from asgi_bridge.replay import Reader, Verdict

from ..doubles.runner_process import RunnerProcess
from ..doubles.waiting import until
from .test_replay import RECORDED_CALLS, replayed
from .traffic import LISTS, make_bridge, send_mixed

ROOT = Path(__file__).parents[2]
PLUGINS = f"import sys; sys.path.append({str(ROOT)!r}); from tests.recording.traffic import make_bridge\n"
PLUGINS += "bridge = make_bridge()\n"
WORKERS = 4

Record = Callable[..., contextlib.AbstractContextManager[RunnerProcess]]


@pytest.fixture
def record(tmp_path: Path) -> Record:
    """Run a runner whose workers record into one file, and wait until all of them serve."""

    @contextlib.contextmanager
    def record(path: Path, *options: str) -> Iterator[RunnerProcess]:
        (tmp_path / "mixed.py").write_text(PLUGINS)
        runner = RunnerProcess(
            str(tmp_path / "r.sock"), "--workers", str(WORKERS), "--record", str(path), *options,
            target="mixed:bridge", app_dir=str(tmp_path),
        )  # fmt: skip
        try:
            for _ in range(WORKERS):
                runner.line_with("takes calls")
            yield runner
        finally:
            runner.end()

    return record


def sent(runner: RunnerProcess, number: int) -> dict[str, int]:
    with contextlib.ExitStack() as stack:
        return send_mixed([stack.enter_context(runner.connect()) for _ in range(4 * WORKERS)], number, 3)


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def test_what_several_workers_have_recorded_is_one_recording(record: Record, tmp_path: Path) -> None:
    path = tmp_path / "calls.jsonl"
    with record(path) as runner:
        counts = sent(runner, RECORDED_CALLS)
        # a worker that ends has a moment to write what waits, and on a busy machine that may be too short
        until(lambda: path.read_bytes().count(b'"action":') >= RECORDED_CALLS)
        runner.stop()
    lines = lines_of(path)
    assert sum("recording" in line for line in lines) == WORKERS
    # the same secret has the same placeholder in all workers
    (placeholder,) = {*re.findall(r'"x-passed","(.*?)"', path.read_text())}
    assert placeholder.startswith("Bearer redacted-")

    same = replayed(path, make_bridge().plugins)
    assert len(same) == len(Reader(path)) >= RECORDED_CALLS
    # each worker counted for itself, a replay counts once
    found = {verdict: Counter(call.route for call in same if call.verdict is verdict) for verdict in Verdict}
    assert {*found[Verdict.DIFFERS]} == {"count"}
    assert {*found[Verdict.SAME]} == {*LISTS}
    assert found[Verdict.UNKNOWN] == {"guard": counts["good credentials"]}
    counted = [dict(call.then["headers"])["x-count"] for call in same if call.route == "count"]
    assert counted.count("2") == WORKERS  # the lifespan counts too

    changed = replayed(path, make_bridge(lambda path: path.rpartition("/")[2].replace("7", "seven")).plugins)
    concerned = [
        call.line
        for call in same
        if "tag" in call.plugins
        and call.then["kind"] == "rewrite"
        and (call.verdict, call.phase) == (Verdict.SAME, "request")
        and "7" in str(call.path).rpartition("/")[2]
    ]
    differing = [call.line for call in changed if call.verdict is Verdict.DIFFERS and call.route != "count"]
    assert differing == concerned != []
    print(f"{len(same)} calls recorded by {WORKERS} workers, {len(concerned)} differ after the change of one line")


def test_the_size_is_that_of_the_file_of_all_workers(record: Record, tmp_path: Path) -> None:
    path, size = tmp_path / "calls.jsonl", 30_000
    with record(path, "--record-size", str(size), "--record-secrets") as runner:
        sent(runner, 100)
        until(lambda: runner.log.count(f"has ended: it has reached {size} bytes") == WORKERS)
    assert size - 3000 < os.stat(path).st_size <= size
    assert sum("action" in line for line in lines_of(path)) > 10
