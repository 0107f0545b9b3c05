"""``--admin`` with several workers: one of them serves it, for all."""

import contextlib
import json
import os
import signal
import socket
from collections import Counter
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from ..doubles.connection import Connection
from ..doubles.runner_process import RunnerProcess
from ..doubles.waiting import until
from ..insight.stage import PLUGINS
from ..insight.test_metrics import samples
from .test_workers import Start

CALLS = {"passing": 40, "rewriting": 30, "stopping": 20}
"""Calls of each connection, by plugin."""
ACTIONS = {"passing": "pass", "rewriting": "rewrite", "stopping": "stop"}
CONNECTIONS = 12


class Admin:
    """The admin application on a unix socket."""

    def __init__(self, path: str) -> None:
        self.path = path

    def get(self, target: str) -> tuple[int, str]:
        """Return status and body. Raises OSError if nobody listens."""
        connection = HTTPConnection("localhost")
        connection.sock = socket.socket(socket.AF_UNIX)
        with contextlib.closing(connection):
            connection.sock.settimeout(60)
            connection.sock.connect(self.path)
            connection.request("GET", target)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()

    def wait(self, target: str = "/readyz") -> str:
        """Return the body as soon as the answer is a 200."""
        found: list[str] = []

        def asked() -> bool:
            with contextlib.suppress(OSError):
                status, body = self.get(target)
                if status == 200:
                    found.append(body)
            return bool(found)

        until(asked)
        return found[0]

    def counts(self) -> Counter[tuple[str, ...]]:
        """Calls by plugin and action."""
        return samples(self.wait("/metrics"), "asgi_bridge_plugin_calls_total", "plugin", "action")

    def status(self) -> Any:
        return json.loads(self.wait("/status"))


@pytest.fixture
def admin(folder: Path) -> Admin:
    (folder / "counted.py").write_text(PLUGINS)
    return Admin(str(folder / "admin.sock"))


def started(start: Start, folder: Path, admin: Admin, workers: int = 4) -> RunnerProcess:
    runner = start(
        "--workers", str(workers), "--admin", f"unix:{admin.path}", target="counted:bridge", app_dir=str(folder)
    )
    for _ in range(workers):
        runner.line_with("takes calls")
    return runner


def load(opened: list[Connection]) -> Counter[tuple[str, ...]]:
    """Make the calls. Returns their number by plugin and action."""
    counted: Counter[tuple[str, ...]] = Counter()
    for connection in opened:
        for plugin, number in CALLS.items():
            token = connection.token(plugin, {})
            for _ in range(number):
                connection.call(token)
            counted[plugin, ACTIONS[plugin]] += number
    return counted


def test_the_metrics_are_those_of_all_workers_also_of_those_that_have_ended(
    start: Start, folder: Path, admin: Admin
) -> None:
    runner = started(start, folder, admin)
    opened = [runner.connect() for _ in range(CONNECTIONS)]
    counted = load(opened)
    assert admin.counts() == counted
    assert {worker["pid"] for worker in admin.status()["workers"]} == {*runner.workers}
    assert admin.status()["calls"] == counted.total()
    # a worker that is killed: what it told last stays
    before = {*runner.workers}
    os.kill(runner.workers[0], signal.SIGKILL)
    runner.line_with("takes calls")
    assert admin.counts() == counted
    # all are replaced: they tell it before they end
    for connection in opened:
        connection.close()
    opened = [runner.connect() for _ in range(CONNECTIONS)]
    counted += load(opened)
    runner.process.send_signal(signal.SIGHUP)
    until(lambda: not before & {*runner.workers})
    until(lambda: len(runner.workers) == 4)
    assert admin.counts() == counted
    for connection in opened:
        connection.close()
    assert runner.log.count("cannot be had yet") == 0


def test_another_worker_serves_it_when_the_one_that_did_has_died(start: Start, folder: Path, admin: Admin) -> None:
    runner = started(start, folder, admin, 2)
    admin.wait()
    first = runner.log.split("Worker ")[1].split()[0]
    os.kill(int(first), signal.SIGKILL)
    runner.line_with("takes calls")
    assert admin.wait() == "ok\n"


def test_a_worker_recognizes_the_socket_that_its_supervisor_has_bound(
    start: Start, folder: Path, admin: Admin, path: str
) -> None:
    started(start, folder, admin, 1)
    assert admin.wait() == "ok\n"
    os.unlink(path)
    until(lambda: os.path.exists(path))
    assert admin.wait() == "ok\n"


def test_a_predecessor_leaves_the_address_to_its_successor(start: Start, folder: Path, admin: Admin) -> None:
    first = started(start, folder, admin, 2)
    admin.wait()
    pids = {worker["pid"] for worker in admin.status()["workers"]}
    second = started(start, folder, admin, 2)
    assert first.wait() == 0
    admin.wait()
    assert {worker["pid"] for worker in admin.status()["workers"]} == {*second.workers}
    assert not pids & {*second.workers}
