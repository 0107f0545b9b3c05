"""The page for people, in a real browser."""

import re
from pathlib import Path

from ..doubles.browser import needs_browser
from ..doubles.runner_process import RunnerProcess
from .page import looked_at
from .stage import Admin


@needs_browser
def test_a_person_sees_the_figures_of_the_runner(runner: RunnerProcess, admin: Admin, tmp_path: Path) -> None:
    markup = "<img src=x onerror=document.title=1>"
    with runner.connect() as connection:
        for plugin, calls in (("stopping", 1200), ("passing", 30), ("slow", 2)):
            token = connection.token(plugin, {}, key=f"route#{plugin}#ext-plugin-pre-req#1")
            for _ in range(calls):
                connection.call(token)
        token = connection.token("failing", {"text": markup}, key="route#failing#ext-plugin-pre-req#1")
        connection.call(token, path=b"/or<b>ders")
        connection.token("passing", {}, key="global_rule#g#ext-plugin-post-resp#1")

    seen = looked_at(admin.url + "/", tmp_path, 2)

    assert (seen.texts["readiness"], seen.texts["calls"]) == ("ready", "1,233")
    # it has looked again by itself
    assert int(seen.texts["looks"]) >= 2
    assert seen.texts["rate"] == "0.0"
    heads, worker = seen.tables["workers"]
    assert dict(zip(heads, worker, strict=True)) | {"up": "", "loop lag": ""} == {
        "process": str(runner.worker), "up": "", "calls": "1,233", "a second": "0.0", "in flight": "0", "parked": "0",
        "configurations": "5", "loop lag": "",
    }  # fmt: skip
    heads, *plugins = seen.tables["plugins"]
    shown = [dict(zip(heads, row, strict=True)) for row in plugins]
    assert shown[0]["plugin"] == "slow"  # the slowest comes first
    assert {(row["plugin"], row["phase"], row["calls"], row["actions"], row["faults"]) for row in shown} == {
        ("slow", "request", "2", "error 2", "2"),
        ("stopping", "request", "1,200", "stop 1,200", "0"),
        ("passing", "request", "30", "pass 30", "0"),
        ("failing", "request", "1", "error 1", "1"),
    }
    metrics = admin.get("/metrics")[2]
    (stops,) = re.findall(r'asgi_bridge_plugin_calls_total{action="stop".*plugin="stopping"} (\S+)', metrics)
    assert float(stops) == 1200
    heads, *routes = seen.tables["routes"]
    assert {tuple(row[:4]) for row in routes} == {
        ("route slow", "request", "slow", "2"),
        ("route stopping", "request", "stopping", "1,200"),
        ("route passing", "request", "passing", "30"),
        ("route failing", "request", "failing", "1"),
        ("global_rule g", "response", "passing", "0"),
    }
    _, newest, *_ = seen.tables["lines"]
    assert newest[1:] == [
        "error",
        f"plugin failing: request refused: RuntimeError: no database with {{'text': '{markup}'}}",
        "GET /or<b>ders, route failing",
    ]
    assert seen.overflow == []


@needs_browser
def test_a_runner_that_is_not_ready_says_why(runner: RunnerProcess, admin: Admin, tmp_path: Path) -> None:
    folder = Path(runner.path).parent
    moved = folder.rename(f"{folder}.moved")  # the runner cannot bind another socket there
    try:
        seen = looked_at(admin.url + "/", tmp_path, 1)
    finally:
        moved.rename(folder)
    assert seen.texts["readiness"] == f"not ready: the socket at {runner.path} is not this runner's any more"
    assert seen.overflow == []


def test_the_page_is_one_file_that_loads_nothing_of_others(admin: Admin) -> None:
    status, kind, text = admin.get("/")
    assert (status, kind) == (200, "text/html; charset=utf-8")
    assert re.findall(r"(?:src|href)=\"([^\"]*)\"", text) == ["data:,", "status"]
    assert "://" not in text and "innerHTML" not in text
