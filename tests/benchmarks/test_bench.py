"""Each kind of call that the benchmarks measure gets what it should, and each program starts."""

import gzip
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from asgi_bridge.wire import FrameReader, HTTPReqCallReq, Role, decode
from benchmarks import chart, frames, report, shapes, start
from benchmarks.cases import CASES, FLOOR, GROUPS, Case
from benchmarks.rounds import Steadiness

from ..doubles.untraced import untraced

ROOT = Path(__file__).parents[2]
KINDS = ("applications", "bare", "served", "asked", "phases", "refused", "parts")
MEASURED = [case.key for case in CASES if case.group in KINDS] + [
    *("one request: no-op", "1,000 requests: no-op", "layers: 5 layers", "256 connections: no-op", "light: no-op"),
    "pure: no-op",
]
"""All kinds of calls, and of the loads one each."""


def run(module: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{module}", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def figures() -> dict[str, Any]:
    """One short measurement of every kind of call; of the loads, those that differ in kind."""
    only = [f"^{re.escape(name)}$" for name in MEASURED]
    found: dict[str, Any] = json.loads(
        run("bench", "--quick", "--json", *(word for each in only for word in ("--only", each)))
    )
    return found


def test_what_was_named_is_measured(figures: dict[str, Any]) -> None:
    names = [f"{case['group']}: {case['name']}" for case in figures["cases"] if case["group"] != FLOOR]
    assert sorted(names) == sorted(MEASURED)


def test_each_load_has_a_floor(figures: dict[str, Any]) -> None:
    floors = [case["name"] for case in figures["cases"] if case["group"] == FLOOR]
    assert sorted(floors) == ["256 connections", "32 connections", "4 connections, a pause of 8 ms"]
    assert all(case["ratio"] > 0 and case["cpu_us_req"] > 0 for case in figures["cases"])


def test_a_plugin_asks_for_what_its_name_says(figures: dict[str, Any]) -> None:
    asked = {(case["group"], case["name"]): case["asked"] for case in figures["cases"] if "asked" in case}
    assert [asked["asked", name] for name in ("1 variable", "2 variables", "4 variables")] == [1, 2, 4]
    assert asked["one request", "no-op"] == asked["layers", "5 layers"] == asked["refused", "unknown token"] == 0


def test_the_figures_can_be_shown(figures: dict[str, Any]) -> None:
    shown = list(report.lines(figures))
    assert all(any(case["name"] in line for line in shown) for case in figures["cases"])
    page = (
        "<!-- figures: refused -->\nold\n<!-- end of figures -->\n<!-- figures: compared -->\n<!-- end of figures -->\n"
    )
    made = report.page_with(page, figures)
    assert "| unknown token |" in made and "| FastAPI, validation |" in made and "old" not in made
    assert report.page_with(made, figures) == made
    for name, content in chart.charts(figures):
        assert name.endswith(".svg") and content.count("<rect") > 10


def test_a_page_that_wants_other_figures_is_an_error(figures: dict[str, Any]) -> None:
    with pytest.raises(KeyError, match="weather"):
        report.page_with("<!-- figures: weather -->\n<!-- end of figures -->", figures)


def test_the_frames_are_up_to_date() -> None:
    frames.main()
    assert gzip.decompress(shapes.FILE.read_bytes()) == shapes.shapes()


def test_the_shapes_differ() -> None:
    reader = FrameReader()
    reader.receive_data(gzip.decompress(shapes.FILE.read_bytes()))
    found = [decode(kind, payload, Role.RUNNER) for kind, payload in iter(reader.next_frame, None)]
    calls = [call for call in found if isinstance(call, HTTPReqCallReq)]
    assert len(calls) == len(found) == shapes.COUNT
    assert len({(call.method, call.path, str(call.args), str(call.headers)) for call in calls}) > 950
    lengths = [sum(len(name or b"") + len(value or b"") for name, value in call.headers or ()) for call in calls]
    assert min(lengths) < 200 and max(lengths) > 900


@pytest.mark.parametrize(
    ("before", "after", "others", "disturbed"),
    [
        (4.0, 4.2, 0.0, False),
        (4.0, 4.5, 0.0, True),
        (4.5, 4.0, 0.0, True),
        (4.0, 4.0, 0.04, False),
        (4.0, 4.0, 0.06, True),
    ],
)
def test_what_counts_as_disturbed(before: float, after: float, others: float, disturbed: bool) -> None:
    assert (Steadiness().disturbance(before, after, others) > 1) is disturbed


def test_keys_of_cases_differ() -> None:
    assert len({case.key for case in CASES}) == len(CASES)
    assert {case.group for case in CASES} <= GROUPS.keys()


def test_cases_are_compared_with_a_floor_under_the_same_load() -> None:
    light = next(case for case in CASES if case.group == "light")
    assert (light.floor().connections, light.floor().pause) == (light.connections, light.pause)
    assert Case("x", "parts", server="bare").floor().connections == 32


def test_a_process_without_children_has_none() -> None:
    sleeper = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        assert start.children(sleeper.pid) == []
    finally:
        sleeper.kill()
        sleeper.communicate()


def test_a_start_is_measured() -> None:
    times = start.first_answer(untraced())
    assert times.keys() == {"worker", "supervisor", "first answer"}
    assert all(0 < times["worker"][n] <= times["supervisor"][n] < times["first answer"][n] for n in (0, 1))


def test_a_start_is_compared_with_the_imports() -> None:
    times = {"imports": (0.1, 0.1), "used": (0.15, 0.14), "worker": (0.02, 0.01), "supervisor": (0.05, 0.04)}
    times["first answer"] = 0.25, 0.2
    found = start.figures_of([times, {name: (2 * wall, 2 * cpu) for name, (wall, cpu) in times.items()}, times])
    assert [(row["ms"], row["ratio"], row["cpu_ratio"]) for row in found["measured"]] == [
        (100.0, 1.0, 1.0),
        (150.0, 1.5, 1.4),
        (20.0, 0.2, 0.1),
        (50.0, 0.5, 0.4),
        (250.0, 2.5, 2.0),
    ]
    assert (found["rounds"], found["allowed"], found["allowed_cpu"]) == (3, 1.8, 1.7)
    assert report.table_of("start", {"start": found}).count("\n") == 6
