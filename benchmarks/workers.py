"""What a supervisor and several workers cost: calls for each second of processor time, and calls a second.

``python -m benchmarks.workers [--workers 1 2 4] [--rounds 5]`` measures each number of workers in turn, in the same
rounds, and one process that serves alone as well. The load generator shares the cores with all of them, and is niced.

A core is quicker while its neighbour idles, so one worker alone would look better than it is. Therefore a loop of
lowest priority keeps each core busy all the time. And one virtual core may be slower than another: if there are fewer
workers than cores, each round puts them on other ones.
"""

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from .servers import FRAMES, HERE, compiled

ALONE = 0
"""Stands for one process that serves alone."""
TICK = 1 / os.sysconf("SC_CLK_TCK")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4], help="numbers of workers (%(default)s)")
    parser.add_argument("--rounds", type=int, default=10, help="number of rounds (%(default)s)")
    parser.add_argument("--seconds", type=float, default=1.0, help="seconds of one measurement (%(default)s)")
    parser.add_argument("--connections", type=int, default=64, help="number of connections (%(default)s)")
    parser.add_argument("--request", default="noop", choices=["noop", "stop"], help="what is called (%(default)s)")
    parser.add_argument("--nice", type=int, default=10, help="niceness of the load generator (%(default)s)")
    parser.add_argument("--json", action="store_true", help="print all numbers as JSON")
    return parser.parse_args()


def command(workers: int, socket: Path) -> list[str]:
    """Return the command that starts a runner."""
    if workers == ALONE:
        return [sys.executable, "-m", "benchmarks.runner", str(socket), "uvloop"]
    options = ["--workers", str(workers), "--log-level", "warning", "--uds", str(socket)]
    return [sys.executable, "-m", "asgi_bridge", "run", "benchmarks.plugins:bridge", *options]


@contextlib.contextmanager
def running(workers: int, socket: Path) -> Iterator[list[int]]:
    """Start a runner, and yield its processes: itself, and its workers."""
    process = subprocess.Popen(command(workers, socket), cwd=HERE.parent)
    try:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        deadline = time.monotonic() + 30
        while not socket.exists() or len(children.read_text().split()) < workers:
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"{workers} workers did not start")
            time.sleep(0.05)
        time.sleep(1.0)  # the last worker imports the plugins
        yield [process.pid, *map(int, children.read_text().split())]
    finally:
        process.terminate()
        process.wait(10)


@contextlib.contextmanager
def busy_cores() -> Iterator[None]:
    """Keep each core busy with a loop that gives way to everything else."""
    loops = [
        subprocess.Popen([sys.executable, "-c", "while True: pass"], preexec_fn=lambda: os.nice(19) and None)
        for _ in os.sched_getaffinity(0)
    ]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def spread(processes: Sequence[int], number: int) -> None:
    """Put processes on other cores than in the last round, if there are more cores than processes.

    Args:
        processes: The processes that serve.
        number: Of the round.
    """
    cores = sorted(os.sched_getaffinity(0))
    if len(processes) >= len(cores):
        return
    for place, pid in enumerate(processes, number):
        for thread in os.listdir(f"/proc/{pid}/task"):
            os.sched_setaffinity(int(thread), {cores[place % len(cores)]})


def used(pids: Sequence[int]) -> float:
    """Return the processor time that processes have used, in seconds."""
    ticks = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks * TICK


def measure(socket: Path, pids: Sequence[int], args: argparse.Namespace) -> dict[str, float]:
    """Call for some seconds. Returns calls a second, and calls for each second of processor time."""
    prepare = {"noop": "prepare_noop", "stop": "prepare_say"}[args.request]
    program = [compiled("load"), socket, args.connections, args.seconds, FRAMES / f"{prepare}.bin"]
    program += [FRAMES / "req_forwarded.bin", "--warmup", 0.3, "--json"]
    before = used(pids)
    done = subprocess.run(
        list(map(str, program)), stdout=subprocess.PIPE, preexec_fn=lambda: os.nice(args.nice) and None, check=True
    )
    spent = used(pids) - before
    run: dict[str, Any] = json.loads(done.stdout)
    calls = run["rps"] * (args.seconds + 0.3)  # those of the warm-up cost processor time too
    return {"rps": run["rps"], "calls": calls, "spent": spent}


def rates(found: Sequence[dict[str, float]]) -> tuple[float, float]:
    """Return calls a second, and calls for each second of processor time, over all rounds."""
    per_cpu_second = sum(run["calls"] for run in found) / sum(run["spent"] for run in found)
    return statistics.fmean(run["rps"] for run in found), per_cpu_second


def main() -> None:
    args = arguments()
    runs: dict[int, list[dict[str, float]]] = {workers: [] for workers in (ALONE, *args.workers)}
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        sockets = {workers: Path(folder, f"{workers}.sock") for workers in runs}
        pids = {workers: stack.enter_context(running(workers, socket)) for workers, socket in sockets.items()}
        memory = {
            workers: int(Path(f"/proc/{each[0]}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE") / 2**20
            for workers, each in pids.items()
        }
        stack.enter_context(busy_cores())
        for number in range(args.rounds):
            for workers, found in runs.items():
                spread(pids[workers][1:] or pids[workers], number)
                found.append(measure(sockets[workers], pids[workers], args))
    if args.json:
        print(json.dumps({"runs": runs, "supervisor_mib": memory}, indent=2))
        return
    first = args.workers[0]
    print(f"{'':<10} {'calls/s':>9} {'x':>6} {'calls/CPU s':>12} {'x':>6} {'first process, MiB':>19}")
    for workers, found in runs.items():
        rps, per = rates(found)
        rps_ratio, per_ratio = rps / rates(runs[first])[0], per / rates(runs[first])[1]
        name = "alone" if workers == ALONE else f"{workers} worker{'s' * (workers > 1)}"
        print(f"{name:<10} {rps:>9,.0f} {rps_ratio:>6.2f} {per:>12,.0f} {per_ratio:>6.2f} {memory[workers]:>19.1f}")


if __name__ == "__main__":
    main()
