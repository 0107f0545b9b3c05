"""Several workers under a supervisor: real processes, and real connections of the gateway."""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from asgi_bridge.succession.gateway_master import master_of
from asgi_bridge.supervisor.cores import usable_cores
from asgi_bridge.wire import HTTPReqCallResp, Message, Stop

from ..doubles.connection import Connection, body_of
from ..doubles.runner_process import BIN, RunnerProcess
from ..doubles.waiting import until
from . import HERE

Start = Callable[..., RunnerProcess]

QUICK = "from asgi_bridge.supervisor import connections as n, crew as c, supervisor as s; "
QUICK += "s.LOOK_SECONDS = {}; c.HANG_LOOKS = {}; n.SLOW_LOOKS = 1000; "
QUICK += "from asgi_bridge.cli import main; main()"
"""The command as Python code, with another time after which a worker counts as hung."""


@pytest.fixture
def several(start: Start) -> Start:
    """Start a runner with workers, and wait until all of them serve."""

    def several(number: int, *arguments: str, **kwargs: Any) -> RunnerProcess:
        runner = start(
            "--workers", str(number), *arguments, **{"target": "several:bridge", "app_dir": str(HERE), **kwargs}
        )
        for _ in range(number):
            runner.line_with("takes calls")
        return runner

    return several


@pytest.fixture(scope="module")
def four() -> Iterator[RunnerProcess]:
    """A runner with four workers. Several tests share it; one of them kills two workers, which are replaced."""
    with tempfile.TemporaryDirectory(prefix="ab-", dir="/tmp") as folder:
        runner = RunnerProcess(f"{folder}/r.sock", "--workers", "4", target="several:bridge", app_dir=str(HERE))
        try:
            for _ in range(4):
                runner.line_with("takes calls")
            yield runner
        finally:
            runner.end()


def pids(runner: RunnerProcess) -> set[int]:
    """Process ids of the workers."""
    found = Path(f"/proc/{runner.pid}/task/{runner.pid}/children").read_text()
    return {int(pid) for pid in found.split()}


def connections(runner: RunnerProcess, number: int) -> list[Connection]:
    return [runner.connect() for _ in range(number)]


def who(answer: Message | None) -> tuple[int, str]:
    """The process that gave an answer, and the configuration that it had."""
    pid, conf = body_of(answer).decode().split(" ", 1)
    return int(pid), conf


def is_refused(answer: Message | None) -> bool:
    """Whether a plugin has answered in place of the upstream."""
    assert isinstance(answer, HTTPReqCallResp), answer
    return isinstance(answer.action, Stop)


def shares(opened: list[Connection], token: int) -> Counter[int]:
    """Process → the number of connections whose calls it answers."""
    return Counter(who(connection.call(token))[0] for connection in opened)


@contextlib.contextmanager
def closing(opened: list[Connection]) -> Iterator[list[Connection]]:
    yield opened
    for connection in opened:
        connection.close()


@contextlib.contextmanager
def calling(runner: RunnerProcess, number: int) -> Iterator[list[int]]:
    """Call again and again through some connections, each on a thread. Yields the processes that have answered.

    At the end all calls must have been answered.
    """
    answered: list[int] = []
    failed: list[BaseException] = []
    stop = threading.Event()

    def call(connection: Connection) -> None:
        try:
            token = connection.token("who", "x")
            while not stop.is_set():
                answered.append(who(connection.call(token))[0])
        except BaseException as exc:
            failed.append(exc)

    with closing(connections(runner, number)) as opened:
        threads = [threading.Thread(target=call, args=(connection,)) for connection in opened]
        for thread in threads:
            thread.start()
        try:
            yield answered
        finally:
            stop.set()
            for thread in threads:
                thread.join()
    assert failed == []


# shares


def test_each_worker_has_its_share_of_connections_also_after_two_were_killed(four: RunnerProcess) -> None:
    runner = four
    with closing(connections(runner, 64)) as opened:
        token = opened[0].token("who", "x")
        until(lambda: sorted(shares(opened, token).values()) == [16] * 4)
        # not the worker that has answered last: it may not have noted yet that the connection is idle
        killed = sorted(pids(runner) - {who(opened[-1].call(token))[0]})[:2]
        for pid in killed:
            os.kill(pid, signal.SIGKILL)
        until(lambda: len(pids(runner) - {*killed}) == 4)
        runner.logged(f"Worker {killed[0]} ended by signal 9, with 0 calls in flight; it is replaced")
        # no connection is lost, and each replaced worker gets its share
        until(lambda: len(found := shares(opened, token)) == 4 and max(found.values()) <= 24)
        assert not {*killed} & shares(opened, token).keys()


def test_the_routes_of_one_connection_are_known_to_all_workers(four: RunnerProcess) -> None:
    with closing(connections(four, 12)) as opened:
        first = opened[0].token("who", "x")
        until(lambda: len(shares(opened, first)) == 4)
        tokens = {}
        for number in range(200):
            token = opened[0].token("who", number, key=f"route#{number}#ext-plugin-pre-req#1")
            tokens[token] = str(number)
        assert len(tokens) == 200
        one_of_each = {who(connection.call(first))[0]: connection for connection in opened}.values()
        found = [(*who(connection.call(token)), conf) for token, conf in tokens.items() for connection in one_of_each]
        assert [answered for _, answered, _ in found] == [conf for _, _, conf in found]
        assert len({pid for pid, _, _ in found}) == 4


def test_limit_req_counts_for_all_workers_together(four: RunnerProcess) -> None:
    with closing(connections(four, 30)) as opened:
        who_token = opened[0].token("who", "x")
        until(lambda: len(shares(opened, who_token)) == 4)
        token = opened[0].token("limit-req", {"rate": 0.04, "burst": 0})
        burst = opened[0].token("limit-req", {"rate": 20, "burst": 12}, key="route#2#ext-plugin-pre-req#1")
        answers = [answer for _ in range(3) for answer in [connection.call(token) for connection in opened]]
        assert Counter(map(is_refused, answers)) == {False: 1, True: 89}
        begun = time.monotonic()
        for connection in opened:
            connection.begin(burst)
        admitted = sum(not is_refused(connection.receive()) for connection in opened)
        assert 13 <= admitted <= 13 + 20 * (time.monotonic() - begun)


def test_a_successor_goes_on_counting_where_its_predecessor_was(several: Start) -> None:
    first = several(2)
    with closing(connections(first, 1)) as (connection,):
        token = connection.token("limit-req", {"rate": 0.04, "burst": 0})
        assert [is_refused(connection.call(token)) for _ in range(2)] == [False, True]
        second = several(3)
        assert first.wait() == 0
        assert is_refused(connection.call(token))
        assert who(connection.call(connection.token("who", "x")))[0] in pids(second)


# the end of a worker


def test_a_killed_worker_costs_its_calls_in_flight_alone(several: Start) -> None:
    runner = several(2)
    with closing(connections(runner, 6)) as opened:
        token = opened[0].token("who", "x")
        until(lambda: sorted(shares(opened, token).values()) == [3, 3])
        homes: dict[int, list[Connection]] = {}
        for connection in opened:
            homes.setdefault(who(connection.call(token))[0], []).append(connection)
        (first, (busy, *idle)), (_, (witness, *others)) = homes.items()
        busy.begin(busy.token("sleeping", 600))
        # once the worker has answered a call that came later, it has read this one
        for connection in (*idle, *idle, witness):
            connection.call(token)
        os.kill(first, signal.SIGKILL)
        assert busy.receive() is None
        assert first not in shares([*idle[:-1], witness, *others], token)
        runner.logged(f"Worker {first} ended by signal 9, with ")


def test_whatever_ends_a_worker_others_go_on_with_its_connections(several: Start) -> None:
    runner = several(1)
    ways = {"import ctypes; ctypes.string_at(0)": "by signal 11", "import os; os._exit(0)": "with exit code 0"}
    with closing(connections(runner, 1)) as (connection,):
        token = connection.token("who", "x")
        for way, how in ways.items():
            before, _ = who(connection.call(token))
            with closing(connections(runner, 1)) as (other,):
                other.begin(other.token("fatal", way))
                assert other.receive() is None
            assert who(connection.call(token))[0] != before
            assert f"Worker {before} ended {how}, with 1 calls in flight; it is replaced" in runner.log


def test_a_worker_whose_event_loop_hangs_is_replaced(start: Start, path: str) -> None:
    command = [
        sys.executable,
        "-c",
        QUICK.format(0.3, 10),
        "run",
        "several:bridge",
        "--app-dir",
        str(HERE),
        "--uds",
        path,
    ]
    runner = start("--workers", "2", command=command)
    for _ in range(2):
        runner.line_with("takes calls")
    before = pids(runner)
    with closing(connections(runner, 8)) as opened:
        opened[0].begin(opened[0].token("blocking", 600))
        assert opened[0].receive() is None
        assert "its event loop has not turned for 3 s; it is replaced" in runner.log
        until(lambda: len(pids(runner)) == 2)
        (lost,) = before - pids(runner)
        token = opened[1].token("who", "x")
        assert lost not in shares(opened[1:], token)


def test_a_worker_is_replaced_after_so_many_calls_and_no_call_is_lost(several: Start) -> None:
    runner = several(1, "--limit-max-requests", "200")
    with calling(runner, 4) as answered:
        until(lambda: len({*answered}) >= 3)
    assert "ERROR" not in runner.log


def test_hup_replaces_the_workers_and_no_call_is_lost(several: Start, folder: Path) -> None:
    runner = several(2)
    before = pids(runner)
    with calling(runner, 6) as answered:
        until(lambda: {*answered} == before)
        runner.process.send_signal(signal.SIGHUP)
        until(lambda: not pids(runner) & before)
        del answered[:]
        until(lambda: {*answered} == pids(runner))
    assert "ERROR" not in runner.log


def test_a_call_that_runs_at_hup_is_answered_by_the_worker_that_has_it(several: Start) -> None:
    runner = several(1, "--limit-max-requests", "1000000")
    before = pids(runner)
    with closing(connections(runner, 1)) as (connection,):
        connection.begin(connection.token("sleeping", 1))
        runner.process.send_signal(signal.SIGHUP)
        runner.line_with("takes calls")
        assert {who(connection.receive())[0]} == before
        assert who(connection.call(connection.token("who", "x")))[0] not in before


def test_new_plugins_that_do_not_load_leave_the_present_workers(several: Start, folder: Path) -> None:
    module = folder / "gate.py"
    module.write_text((HERE / "several.py").read_text())
    runner = several(2, target="gate:bridge", app_dir=str(folder))
    before = pids(runner)
    module.write_text("raise RuntimeError('not today')\n")
    runner.process.send_signal(signal.SIGHUP)
    runner.logged("the present workers stay")
    assert pids(runner) == before
    assert "RuntimeError: not today" in runner.log


def test_ttin_starts_a_worker_and_ttou_ends_one(several: Start) -> None:
    runner = several(2)
    runner.process.send_signal(signal.SIGTTIN)
    runner.line_with("takes calls")
    assert len(pids(runner)) == 3
    for number in (2, 1):
        runner.process.send_signal(signal.SIGTTOU)
        until(lambda number=number: len(pids(runner)) == number)  # type: ignore[misc]
    with calling(runner, 2) as answered:
        until(lambda: len(answered) > 10)
    assert {*answered} == pids(runner)


# the end of all


def test_sigterm_ends_all_processes_and_answers_the_calls_in_flight(several: Start, path: str) -> None:
    runner = several(4, "--timeout-graceful-shutdown", "60")
    workers = pids(runner)
    with closing(connections(runner, 8)) as opened:
        token = opened[0].token("sleeping", 0.3)
        for connection in opened:
            connection.begin(token)
        runner.stop()
        assert {who(connection.receive())[1] for connection in opened} == {"0.3"}
        assert [connection.receive() for connection in opened] == [None] * 8
    assert runner.process.returncode == -signal.SIGTERM
    assert not any(os.path.exists(f"/proc/{pid}") for pid in workers) and not runner.left()
    assert not os.path.exists(path) and os.listdir(f"{path}.d") == ["tokens.sqlite"]


@pytest.mark.parametrize("plugin", ["sleeping", "blocking"])
def test_sigterm_ends_calls_that_would_run_for_minutes(several: Start, plugin: str) -> None:
    runner = several(2)
    with closing(connections(runner, 4)) as opened:
        token = opened[0].token(plugin, 600)
        for connection in opened:
            connection.begin(token)
        runner.stop()
    assert not runner.left()


def test_sigterm_ends_a_supervisor_whose_log_nobody_reads(start: Start, folder: Path) -> None:
    fifo = str(folder / "log")
    os.mkfifo(fifo)
    end = os.open(fifo, os.O_RDWR)
    filling = os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
    try:
        runner = start(target="several:bridge", app_dir=str(HERE), stderr=end)
        with closing(connections(runner, 1)) as (connection,):
            connection.call(connection.token("who", "x"))
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(filling, b"x")
        runner.process.send_signal(signal.SIGHUP)  # the supervisor waits until it can write a line about it
        runner.stop()
        until(lambda: not runner.left())
    finally:
        os.close(filling)
        os.close(end)


def test_sigint_of_a_terminal_ends_all(several: Start) -> None:
    runner = several(2)
    os.killpg(runner.pid, signal.SIGINT)
    assert runner.wait() == 0
    assert not runner.left() and "Traceback" not in runner.log


def test_workers_end_with_a_killed_supervisor_and_the_next_start_is_clean(several: Start, path: str) -> None:
    runner = several(2)
    runner.stop(signal.SIGKILL)
    until(lambda: not runner.left())
    following = several(2)
    with closing(connections(following, 2)) as opened:
        assert {who(each.call(each.token("who", "x")))[0] for each in opened} <= pids(following)
    assert "Another runner" not in following.log


# start


def test_a_connection_waits_while_plugins_load(start: Start, folder: Path) -> None:
    fifo = folder / "fifo"
    os.mkfifo(fifo)
    (folder / "gate.py").write_text(f"open({str(fifo)!r}).close()\n" + (HERE / "several.py").read_text())
    runner = start("--workers", "2", target="gate:bridge", app_dir=str(folder))
    with closing(connections(runner, 4)) as opened:
        assert "takes calls" not in runner.log
        for _ in range(2):  # one for each worker
            fifo.write_text("")
        assert who(opened[0].call(opened[0].token("who", "x")))[0] in pids(runner)
    assert runner.log.count("Runner listens on") == 1


def test_plugins_that_do_not_load_end_the_runner_with_one_message(start: Start, path: str) -> None:
    runner = start("--workers", "4", target="several:nothing", app_dir=str(HERE))
    assert runner.wait() == 2
    assert runner.log.count("has no attribute") == 1
    assert not os.path.exists(path) and not runner.left()


def test_the_supervisor_loads_nothing_heavy() -> None:
    code = "import sys; before = {*sys.modules}; import asgi_bridge.cli.run, asgi_bridge.supervisor.run; "
    code += "print(*{*sys.modules} - before)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert {*done.stdout.split()}.isdisjoint({"asyncio", "pydantic", "sqlite3", "starlette", "uvicorn"})


def test_the_soft_limit_of_open_files_is_raised_for_all(start: Start, path: str) -> None:
    command = ["sh", "-c", 'ulimit -Sn 64; ulimit -Hn 300; exec "$0" "$@"', BIN, "run", "several:bridge"]
    runner = start(command=[*command, "--app-dir", str(HERE), "--uds", path])
    runner.line_with("takes calls")
    for pid in (runner.pid, runner.worker):
        (line,) = [each for each in Path(f"/proc/{pid}/limits").read_text().splitlines() if "open files" in each]
        assert line.split()[3:5] == ["300", "300"]


def test_usable_cores_follow_the_container(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = folder / "cpu.max"
    monkeypatch.setattr("asgi_bridge.supervisor.cores.CPU_MAX", str(file))
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {*range(8)})
    found = []
    for text in ("max 100000", "150000 100000", "50000 100000", "900000 100000", "nonsense"):
        file.write_text(text)
        found.append(usable_cores())
    file.unlink()
    assert [*found, usable_cores()] == [8, 2, 1, 8, 8, 8]


# the gateway's master

MASTER = """
import os, signal, subprocess, sys
address = f"unix:{sys.argv[1]}/apisix-{os.getpid()}.sock"
subprocess.Popen(sys.argv[2:], env={**os.environ, "APISIX_LISTEN_ADDRESS": address})
signal.pause()
"""


@pytest.mark.parametrize("options", [[], ["--workers", "2"]])
def test_the_runner_ends_when_the_gateway_that_started_it_has_gone(
    start: Start, folder: Path, options: list[str]
) -> None:
    command = [sys.executable, "-c", MASTER, str(folder), BIN, "run", "several:bridge", "--app-dir", str(HERE)]
    master = start(*options, path=None, command=command)
    master.line_with("Runner listens on")
    assert os.path.exists(f"{folder}/apisix-{master.pid}.sock")
    master.stop(signal.SIGKILL)
    until(lambda: not master.left())
    assert "The gateway's process that started this runner has gone: the runner ends" in master.log
    assert not os.path.exists(f"{folder}/apisix-{master.pid}.sock")


def test_a_number_that_is_no_ancestor_is_no_master() -> None:
    assert master_of(f"/x/apisix-{os.getppid()}.sock") == os.getppid()
    others = (os.getpid(), 999_999_999, 0)
    assert [master_of(f"/x/apisix-{number}.sock") for number in others] == [None] * 3
    assert master_of("/x/runner.sock") is None
