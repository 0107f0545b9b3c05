"""Reload and take-over with several workers: one supervisor hands over to the next, and no call is lost."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from ..doubles.reloading_gateway import ReloadingGateway
from ..doubles.waiting import until
from ..succession.test_reloads import CALLS, FAILING, RELOADS, SLOW, SLOWNESS, TAKE_OVERS


@pytest.fixture(params=[1, 4])
def gateway(folder: Path, path: str, request: pytest.FixtureRequest) -> Iterator[ReloadingGateway]:
    """A gateway whose runner has so many workers. The plugin says which supervisor its worker belongs to."""
    (folder / "slow.py").write_text(SLOW.replace("IMPORT_SECONDS", "0.6").replace("getpid", "getppid"))
    (folder / "failing.py").write_text(FAILING)
    (folder / "fail").touch()
    options = ["--workers", str(request.param)]
    with ReloadingGateway(path, "slow:bridge", str(folder), slowness=SLOWNESS, options=options) as gateway:
        yield gateway


def test_reloads_lose_no_call(gateway: ReloadingGateway) -> None:
    gateway.await_calls(CALLS)
    for _ in range(RELOADS):
        old = gateway.reload()
        gateway.await_calls(CALLS, gateway.runner)
        assert old.wait() in (-signal.SIGTERM, 128 + signal.SIGTERM), old.log  # the latter on a very slow machine
        assert not old.left()
    assert gateway.lost == []
    print(f"{RELOADS} reloads, {gateway.calls} calls, longest {gateway.longest:.3f} s")


def test_take_overs_lose_no_call(gateway: ReloadingGateway) -> None:
    gateway.await_calls(CALLS)
    for _ in range(TAKE_OVERS):
        old = gateway.take_over()
        gateway.await_calls(CALLS, gateway.runner)
        assert not old.left()
    assert gateway.lost == []
    print(f"{TAKE_OVERS} take-overs, {gateway.calls} calls, longest {gateway.longest:.3f} s")


def test_a_successor_that_does_not_come_up_costs_the_owner_nothing(gateway: ReloadingGateway) -> None:
    owner = gateway.runner
    gateway.await_calls(10)
    assert gateway.start("failing:bridge").wait() != 0
    for sig in (signal.SIGKILL, signal.SIGTERM):
        successor = gateway.start()
        until(lambda: "A successor has started" in owner.log)
        successor.process.send_signal(sig)
        assert successor.wait() != 0
        until(lambda: not successor.left())  # noqa: B023  # called at once
    gateway.await_calls(100, owner)
    assert gateway.lost == []
