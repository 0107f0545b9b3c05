"""The page for people with several workers: load generator, ``/metrics`` and a real browser agree."""

import socket
from collections import Counter
from pathlib import Path

import pytest

from ..doubles.browser import CHROMIUM, DRIVER
from ..insight.page import looked_at
from ..insight.stage import PLUGINS, admin_of
from ..insight.test_metrics import samples
from .test_worker_admin import CONNECTIONS, load
from .test_workers import Start

WORKERS = 4


def test_metrics_and_page_show_what_all_workers_have_served(start: Start, folder: Path, tmp_path: Path) -> None:
    (folder / "counted.py").write_text(PLUGINS)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
    runner = start("--workers", str(WORKERS), "--admin", address, target="counted:bridge", app_dir=str(folder))
    for _ in range(WORKERS):
        runner.line_with("takes calls")
    admin = admin_of(runner)
    opened = [runner.connect() for _ in range(CONNECTIONS)]
    counted = load(opened)

    assert samples(admin.get("/metrics")[2], "asgi_bridge_plugin_calls_total", "plugin", "action") == counted

    if CHROMIUM is None or DRIVER is None:
        pytest.skip("no chromium: apt-get install chromium chromium-driver")
    seen = looked_at(admin.url + "/", tmp_path, 1)
    assert (seen.texts["readiness"], seen.texts["calls"]) == ("ready", f"{counted.total():,}")
    heads, *rows = seen.tables["plugins"]
    plugins = [dict(zip(heads, row, strict=True)) for row in rows]
    assert {(each["plugin"], each["calls"], each["actions"]) for each in plugins} == {
        (plugin, f"{number:,}", f"{action} {number:,}") for (plugin, action), number in counted.items()
    }
    heads, *rows = seen.tables["workers"]
    workers = [dict(zip(heads, row, strict=True)) for row in rows]
    assert {int(each["process"]) for each in workers} == {*runner.workers}
    calls = Counter({each["process"]: int(each["calls"].replace(",", "")) for each in workers})
    assert calls.total() == counted.total() and 0 not in calls.values()
    for connection in opened:
        connection.close()
