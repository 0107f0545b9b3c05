"""A gateway that calls without a pause, reloads its runner and replaces it, and loses no call."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ..doubles.reloading_gateway import ReloadingGateway
from ..doubles.runner_process import RunnerProcess

RELOADS = int(os.environ.get("RELOADS", "2"))
TAKE_OVERS = int(os.environ.get("TAKE_OVERS", "2"))
CALLS = int(os.environ.get("HANDOVER_CALLS", "200"))
"""Number of calls before and after each of these."""
SLOWNESS = float(os.environ.get("SLOWNESS", "8"))
"""The tests run beside others: a process may need seconds to start."""
IMPORT_SECONDS = os.environ.get("IMPORT_SECONDS", "0.3")
"""What the plugins take to import; `make long` has 0.6."""

SLOW = f"""
import os, time
from asgi_bridge import Bridge

async def pid(scope, receive, send):
    await send({{"type": "http.response.start", "status": 200, "headers": []}})
    await send({{"type": "http.response.body", "body": b"%d" % os.getpid()}})

bridge = Bridge()
bridge.mount("pid", pid)
time.sleep({IMPORT_SECONDS})
"""

FAILING = """
import os, time
while not os.path.exists(os.path.join(os.path.dirname(__file__), "fail")):
    time.sleep(0.01)
raise ImportError("no such luck")
"""


@pytest.fixture
def gateway(folder: Path, path: str, request: pytest.FixtureRequest) -> Iterator[ReloadingGateway]:
    """A gateway with a runner whose plugins take a while to import. Its parameter is another slowness."""
    slowness = getattr(request, "param", SLOWNESS)
    (folder / "slow.py").write_text(SLOW)
    (folder / "endless.py").write_text("print('importing', flush=True)\nimport time\ntime.sleep(600)\n")
    (folder / "failing.py").write_text(FAILING)
    with ReloadingGateway(path, "slow:bridge", str(folder), slowness=slowness, alone=True) as gateway:
        yield gateway


def importing(runner: RunnerProcess) -> None:
    """Wait until the runner imports its plugins."""
    assert runner.process.stdout is not None
    assert runner.process.stdout.readline() == b"importing\n"


def test_reloads_lose_no_call(gateway: ReloadingGateway) -> None:
    gateway.await_calls(CALLS)
    for _ in range(RELOADS):
        old = gateway.reload()
        gateway.await_calls(CALLS, gateway.runner)
        old.wait()
    assert gateway.lost == [], gateway.logs()
    assert len(gateway.answered_by) == RELOADS + 1
    print(f"{RELOADS} reloads, {gateway.calls} calls, 0 lost, longest {gateway.longest:.3f} s")


def test_take_overs_lose_no_call(gateway: ReloadingGateway) -> None:
    gateway.await_calls(CALLS)
    for _ in range(TAKE_OVERS):
        gateway.take_over()
        gateway.await_calls(CALLS, gateway.runner)
    assert gateway.lost == [], gateway.logs()
    assert len(gateway.answered_by) == TAKE_OVERS + 1
    print(f"{TAKE_OVERS} take-overs, {gateway.calls} calls, 0 lost, longest {gateway.longest:.3f} s")


def test_reloads_in_quick_succession_lose_no_call(gateway: ReloadingGateway) -> None:
    gateway.await_calls(100)
    for seconds in (0.1, 0.3, 0.6):
        gateway.reload()
        time.sleep(seconds)  # this is what is tested: at any time of the next runner's start
    gateway.reload()
    gateway.await_calls(100, gateway.runner)
    assert gateway.lost == [], gateway.logs()


@pytest.mark.parametrize("gateway", [1.0], indirect=True, ids=["quick"])  # no process of it has to be in time
def test_a_successor_that_does_not_come_up_costs_the_owner_nothing(gateway: ReloadingGateway, folder: Path) -> None:
    (folder / "fail").touch()
    owner = gateway.runner
    gateway.await_calls(10)
    assert gateway.start("failing:bridge").wait() != 0
    for sig in (signal.SIGKILL, signal.SIGTERM):
        successor = gateway.start("endless:bridge")
        importing(successor)
        successor.process.send_signal(sig)
        assert successor.wait() != 0
    owner.logged("This runner goes on")
    gateway.await_calls(100)
    assert gateway.lost == [], gateway.logs()
    assert {*gateway.answered_by} == {owner.pid}
    gateway.take_over()
    gateway.await_calls(100, gateway.runner)
    assert gateway.lost == [], gateway.logs()


def test_a_successor_that_fails_after_a_dying_owner_has_handed_over_says_so_and_removes_the_path(
    gateway: ReloadingGateway, path: str, folder: Path
) -> None:
    gateway.await_calls(10)
    old = gateway.reload("failing:bridge")
    old.wait()
    assert gateway.lost == [], gateway.logs()  # the calls wait in the successor
    (folder / "fail").touch()
    assert gateway.runner.wait() == 2
    assert gateway.runner.log.splitlines()[-1].startswith("asgi-bridge: cannot import 'failing:bridge'")
    assert not os.path.exists(path)
