"""Measures how the cost of a call, and the memory, grow with configurations, idle connections and edits of routes.

The cost of a call is measured in processes of their own, with the calls of one turn of the event loop made without
sockets, so that only the runner's own work counts. Idle connections and edits are real ones, in a runner that another
process has started. Its day is shorter: the gateway keeps a configuration for the 24th part of it.

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
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from asgi_bridge.wire import FrameType, HTTPReqCallResp, PrepareConfReq, PrepareConfResp, Role, Stop, decode, encode

HERE = Path(__file__).resolve().parent
FRAMES = HERE / "frames"
OFFSETS = json.loads((FRAMES / "offsets.json").read_text())
CONNECTIONS = 32
CALLS = 40_000
EDITED_ROUTES = 100
"""Number of routes whose configurations are edited in turn."""
EDITS_OF_A_DAY = 1_000_000
EDITING_CONNECTIONS = 8


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


@contextlib.contextmanager
def started(loop: str, environment: Mapping[str, str] | None = None) -> Iterator[tuple[int, Path]]:
    """Start a runner in a process of its own. Gives its process id, and the path of its socket."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "runner.sock")
        process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.runner", str(path), loop],
            cwd=HERE.parent,
            env={**os.environ, **(environment or {})},
        )
        try:
            while not path.exists():
                time.sleep(0.05)
            yield process.pid, path
        finally:
            process.terminate()
            process.wait()


def connect(path: Path) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(60)
    sock.connect(str(path))
    return sock


def token_in(answer: bytes) -> int:
    """Return the token in an answer to PrepareConf."""
    message = decode(answer[0], answer[4:], Role.GATEWAY)
    if not isinstance(message, PrepareConfResp):
        raise SystemExit(f"a configuration was refused: {message}")
    return message.conf_token


def edits(marks: list[int], new: bool, day: float) -> list[dict[str, Any]]:
    """Measure the memory of a runner whose routes are edited, over real connections.

    Args:
        marks: Numbers of edits after which the memory is measured.
        new: True: each edit adds a route. False: a hundred routes are edited in turn.
        day: Seconds that the million edits of a day take here. The gateway keeps a configuration for an hour of it.
    """
    found: list[dict[str, Any]] = []
    refused = 0  # the runner has 4 s for each, and other programs may keep it from working for as long
    with (
        started("uvloop", {"APISIX_CONF_EXPIRE_TIME": str(day / 24)}) as (pid, path),
        contextlib.ExitStack() as stack,
    ):
        socks = [stack.enter_context(contextlib.closing(connect(path))) for _ in range(EDITING_CONNECTIONS)]
        began, cpu = time.monotonic(), cpu_seconds(pid)
        for first in range(0, max(marks), EDITING_CONNECTIONS):
            for number, sock in enumerate(socks, first):
                # a gateway with as many edits in a day
                ahead = began + number * day / EDITS_OF_A_DAY - time.monotonic()
                if ahead > 0.01:
                    time.sleep(ahead)
                key = b"route#%d#ext-plugin-pre-req#%d" % (number if new else number % EDITED_ROUTES, number)
                sock.sendall(encode(PrepareConfReq([(b"bench-noop", b'{"x":%d}' % number)], key)))
            for sock in socks:
                refused += sock.recv(4096)[0] == FrameType.ERROR
            done = first + EDITING_CONNECTIONS
            for mark in marks:
                if first < mark <= done:
                    seconds = cpu_seconds(pid) - cpu
                    line = {"edits": done, "routes": "new" if new else f"the same {EDITED_ROUTES}"}
                    found.append({**line, "us_per_edit": seconds / done * 1e6, "refused": refused, **memory(path, pid)})
    return found


def memory(path: Path, pid: int) -> dict[str, float]:
    """Return the memory of a runner, before and after a search for garbage, and the number of Python's blocks."""
    with contextlib.closing(connect(path)) as sock:
        sock.sendall(encode(PrepareConfReq([(b"bench-memory", b"{}")], b"route#memory#ext-plugin-pre-req#1")))
        frame, at = bytearray((FRAMES / "req_forwarded.bin").read_bytes()), OFFSETS["req_forwarded"]["token"]
        frame[at : at + 4] = token_in(sock.recv(4096)).to_bytes(4, "little")
        found: dict[str, float] = {"bytes_before": resident(pid)}
        sock.sendall(bytes(frame))
        answer = sock.recv(65536)
        message = decode(answer[0], answer[4:], Role.GATEWAY)
        assert isinstance(message, HTTPReqCallResp) and isinstance(message.action, Stop)
        return {**found, "bytes_after": resident(pid), **json.loads(message.action.body or b"")}


def cpu_seconds(pid: int) -> float:
    """Return the processor time of a process, in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def connections(count: int, loop: str) -> dict[str, float]:
    """Measure the memory of so many connections that have made one call each, and are idle now."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, count + 200)), hard))
    with started(loop) as (pid, path), contextlib.ExitStack() as stack:
        frame, at = bytearray((FRAMES / "req_forwarded.bin").read_bytes()), OFFSETS["req_forwarded"]["token"]

        def connected(number: int) -> None:
            for _ in range(number):
                sock = stack.enter_context(contextlib.closing(connect(path)))
                sock.sendall((FRAMES / "prepare_noop.bin").read_bytes())
                frame[at : at + 4] = sock.recv(4096)[-4:]
                sock.sendall(bytes(frame))
                sock.recv(4096)

        connected(50)
        before = resident(pid)
        connected(count)
        return {"connections": count, "loop": loop, "bytes_each": (resident(pid) - before) / count}  # type: ignore[dict-item]


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
    parser.add_argument("--edits", type=numbers, default=[10_000], help="after how many edits; a day has 1000000")
    parser.add_argument("--day", type=float, default=900.0, help="seconds that the edits of a day take (%(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="number of rounds of calls, in turns (%(default)s)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(asyncio.run(configurations(int(args.one)))))
        return
    found: dict[str, list[dict[str, Any]]] = {"configurations": [], "connections": [], "edits": []}
    runs = [[in_process("--one", str(count)) for count in args.configurations] for _ in range(args.rounds)]
    for each in zip(*runs, strict=True):
        ratios = [run["us_per_call"] / one[0]["us_per_call"] for run, one in zip(each, runs, strict=True)]
        medians = {key: statistics.median(run[key] for run in each) for key in each[0]}
        found["configurations"].append({**medians, "ratio": statistics.median(ratios)})
    for loop in ("uvloop", "asyncio"):
        found["connections"] += [connections(count, loop) for count in args.connections]
    if args.edits:
        found["edits"] = [*edits(args.edits, False, args.day), *edits(args.edits, True, args.day)]
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
