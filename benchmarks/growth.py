"""Measures how the cost of a call, and the memory, grow with configurations, idle connections and edits of routes.

Each table is made in processes of their own, with the calls of one turn of the event loop made without sockets, so that
only the runner's own work counts. Idle connections are real ones, in a runner that another process has started.

``python -m benchmarks.growth [--configurations 1,1000,20000] [--connections 10,5000] [--edits 10000,1000000] [--json]``
"""

import argparse
import asyncio
import contextlib
import gc
import json
import os
import resource
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

HERE = Path(__file__).resolve().parent
FRAMES = HERE / "frames"
OFFSETS = json.loads((FRAMES / "offsets.json").read_text())
CONNECTIONS = 32
CALLS = 40_000
EDITED_ROUTES = 100
"""Number of routes whose configurations are edited in turn."""


def resident(pid: int | str = "self") -> int:
    """Return the resident memory of a process, in bytes."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class Sink(asyncio.Transport):
    """A transport that counts what is written."""

    written = 0

    def is_closing(self) -> bool:
        return False

    def write(self, data: Any) -> None:
        self.written += 1


async def runner_with(count: int) -> tuple[Any, list[int], float]:
    """Return a runner with so many configurations, their tokens, and the bytes that each takes."""
    from asgi_bridge.server.runner import Runner
    from benchmarks.plugins import bridge

    runner = Runner(bridge.plugins)
    await runner.start()
    conf = [(b"bench-noop", b'{"x":1}')]
    for number in range(100):  # what only the first ones take does not count
        await runner.store.prepare(b"route#warm-%d#ext-plugin-pre-req#1" % number, conf)
    gc.collect()
    before = resident()
    tokens = [await runner.store.prepare(b"route#%d#ext-plugin-pre-req#1" % number, conf) for number in range(count)]
    gc.collect()
    return runner, tokens, (resident() - before) / count


async def configurations(count: int) -> dict[str, float]:
    """Measure calls that go through so many configurations in turn."""
    from uvicorn.server import ServerState

    from asgi_bridge.server.garbage import GARBAGE
    from asgi_bridge.server.protocol import RunnerProtocol

    runner, tokens, size = await runner_with(count)
    GARBAGE.search_less()
    protocols, sink = [], Sink()
    for _ in range(CONNECTIONS):
        protocol = RunnerProtocol(SimpleNamespace(loaded_app=runner), ServerState())  # type: ignore[arg-type]
        protocol.connection_made(sink)
        protocols.append(protocol)
    frame, at = bytearray((FRAMES / "req_forwarded.bin").read_bytes()), OFFSETS["req_forwarded"]["token"]
    # tokens in an order that no cache of the processor foresees
    tokens = [tokens[number * 7919 % count] for number in range(count)]
    place, costs = 0, []
    for _ in range(9):
        began = time.process_time()
        for _ in range(CALLS // 8 // CONNECTIONS):
            wanted = sink.written + CONNECTIONS
            for protocol in protocols:
                frame[at : at + 4] = tokens[place].to_bytes(4, "little")
                place = (place + 1) % count
                protocol.data_received(bytes(frame))
            while sink.written < wanted:  # noqa: ASYNC110  # nothing else says so
                await asyncio.sleep(0)
        costs.append((time.process_time() - began) / (CALLS // 8 // CONNECTIONS * CONNECTIONS) * 1e6)
    found = {"configurations": count, "us_per_call": statistics.median(costs), "bytes_each": size}
    await runner.stop()
    return found


async def edits(count: int) -> dict[str, float]:
    """Measure the memory after so many edits of a hundred routes: each makes one configuration obsolete."""
    from asgi_bridge.plugins import ConfigurationStore
    from benchmarks.plugins import bridge

    now = 0.0
    # an edit every 86 milliseconds: a million are a day's worth, and APISIX forgets a configuration after an hour
    store = ConfigurationStore(bridge.plugins, clock=lambda: 1e9 + now)
    began, after = time.process_time(), {}
    for number in range(count):
        now += 0.0864
        key = b"route#%d#ext-plugin-pre-req#%d" % (number % EDITED_ROUTES, number)
        await store.prepare(key, [(b"bench-noop", b'{"x":%d}' % number)])
        if number + 1 in (10_000, 100_000, count):
            gc.collect()
            after[number + 1] = resident()
    cost = (time.process_time() - began) / count * 1e6
    found = {"edits": count, "us_per_edit": cost, "chains": store.size}
    await store.close()
    return {**found, **{f"bytes_after_{edits}": size for edits, size in after.items()}}


def connections(count: int, loop: str) -> dict[str, float]:
    """Measure the memory of so many connections that have made one call each, and are idle now."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, count + 200)), hard))
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        path = Path(folder, "runner.sock")
        process = subprocess.Popen([sys.executable, "-m", "benchmarks.runner", str(path), loop], cwd=HERE.parent)
        stack.callback(process.wait)
        stack.callback(process.terminate)
        while not path.exists():
            time.sleep(0.05)
        frame, at = bytearray((FRAMES / "req_forwarded.bin").read_bytes()), OFFSETS["req_forwarded"]["token"]

        def connected(number: int) -> None:
            for _ in range(number):
                sock = stack.enter_context(contextlib.closing(socket.socket(socket.AF_UNIX)))
                sock.settimeout(20)
                sock.connect(str(path))
                sock.sendall((FRAMES / "prepare_noop.bin").read_bytes())
                frame[at : at + 4] = sock.recv(4096)[-4:]
                sock.sendall(bytes(frame))
                sock.recv(4096)

        connected(50)
        before = resident(process.pid)
        connected(count)
        return {"connections": count, "loop": loop, "bytes_each": (resident(process.pid) - before) / count}  # type: ignore[dict-item]


def in_process(*words: str) -> dict[str, float]:
    """Measure in a process of its own."""
    done = subprocess.run([sys.executable, "-m", "benchmarks.growth", *words], cwd=HERE.parent, stdout=subprocess.PIPE)
    if done.returncode:
        raise SystemExit(f"{' '.join(words)}: it failed")
    found: dict[str, float] = json.loads(done.stdout)
    return found


def numbers(text: str) -> list[int]:
    return [int(word) for word in text.split(",") if word]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--configurations", type=numbers, default=[1, 1000, 20_000], help="how many, such as 1,1000")
    parser.add_argument("--connections", type=numbers, default=[10, 1000, 5000], help="how many idle ones")
    parser.add_argument("--edits", type=numbers, default=[10_000], help="how many edits of routes; a day has 1000000")
    parser.add_argument("--rounds", type=int, default=3, help="number of rounds of calls, in turns (%(default)s)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--one", nargs=2, metavar=("WHAT", "COUNT"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        what = {"configurations": configurations, "edits": edits}[args.one[0]]
        print(json.dumps(asyncio.run(what(int(args.one[1])))))
        return
    found: dict[str, list[dict[str, Any]]] = {"configurations": [], "connections": [], "edits": []}
    runs = [
        [in_process("--one", "configurations", str(count)) for count in args.configurations] for _ in range(args.rounds)
    ]
    for each in zip(*runs, strict=True):
        ratios = [run["us_per_call"] / one[0]["us_per_call"] for run, one in zip(each, runs, strict=True)]
        medians = {key: statistics.median(run[key] for run in each) for key in each[0]}
        found["configurations"].append({**medians, "ratio": statistics.median(ratios)})
    for loop in ("uvloop", "asyncio"):
        found["connections"] += [connections(count, loop) for count in args.connections]
    found["edits"] = [in_process("--one", "edits", str(count)) for count in args.edits]
    if args.json:
        print(json.dumps(found, indent=2))
        return
    for lines in found.values():
        if lines:
            names = list(dict.fromkeys(name for line in lines for name in line))
            print("  ".join(f"{name:>20}" for name in names))
            for line in lines:
                print("  ".join(f"{shown(line.get(name, '')):>20}" for name in names))
            print()


def shown(value: Any) -> str:
    if isinstance(value, str):
        return value
    return f"{value:,.2f}" if value < 1000 and value != int(value) else f"{value:,.0f}"


if __name__ == "__main__":
    main()
