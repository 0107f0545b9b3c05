"""What a start costs: from the start of the process to the first answer to a call.

``python -m benchmarks.start`` measures a runner with all ready-made plugins, and what its imports would cost alone: a
Python that imports uvicorn, pydantic and Starlette, and ends. Both in turns, and by time on the clock and by CPU time.
The first worker begins before the supervisor does anything else, so both start at the same time: the supervisor's own
start is over when its socket is there.

``python -m benchmarks.start --imports`` shows where the time of the worker's imports goes.
"""

import argparse
import os
import re
import resource
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from asgi_bridge.wire import PrepareConfReq, encode

from .servers import FRAMES, HERE

__all__ = ["TARGET", "measured"]

TARGET = "asgi_bridge_apps:bridge"
IMPORTS = "import uvicorn, pydantic, starlette"
CALL = (FRAMES / "req_forwarded.bin").read_bytes()
TOKEN = slice(32, 36)
"""Where the token stands in the call."""
FACTOR = 1.3
"""The start may take this many times as long as the imports, and what the supervisor's own start takes."""

USED = "import uvicorn, pydantic, starlette.applications; pydantic.TypeAdapter(int)"
"""What every runner uses of them. `IMPORTS` loads little of pydantic and nothing of Starlette, which load their parts
at the first use."""

ROWS = {
    "imports": f'python -c "{IMPORTS}"',
    "used": "the same, and one type checked by pydantic, and Starlette's application",
    "worker": "the supervisor, until its first worker begins",
    "supervisor": "the supervisor's own start, until it listens",
    "first answer": f"the first answer of {TARGET}",
}
"""What is measured → its name in the tables."""

CACHE = "PYTHONPYCACHEPREFIX"
"""The measured processes have their bytecode in a folder of their own, as an installed package has its own beside it.
Some machines keep Python from writing any, and then each start compiles everything."""

Times = dict[str, tuple[float, float]]
"""What was measured → seconds on the clock, and of CPU time."""


def cpu_seconds(pid: int) -> float:
    """Return the CPU time of a process so far."""
    return time.clock_gettime((~pid << 3) | 2)  # what clock_getcpuclockid(3) makes of a process id


def environment(cache: str) -> dict[str, str]:
    """Return the environment of the measured processes, with a folder for their bytecode."""
    return {**os.environ, "PYTHONDONTWRITEBYTECODE": "", CACHE: cache}


def imports(env: dict[str, str], code: str = IMPORTS) -> tuple[float, float]:
    """Return seconds of a process that imports packages and ends."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True, cwd=HERE.parent, env=env)
    seconds = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return seconds, after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def children(pid: int) -> list[int]:
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def ask(path: Path) -> None:
    """Prepare a chain and call it. The gateway does the same at the first request."""
    with socket.socket(socket.AF_UNIX) as sock, sock.makefile("rb") as answers:
        sock.settimeout(60)
        sock.connect(str(path))
        sock.sendall(encode(PrepareConfReq([(b"say", b'{"body":"hello"}')], b"route#1#ext-plugin-pre-req#1")))
        answer = answers.read(24)
        assert answer[0] == 1, answer
        sock.sendall(CALL[: TOKEN.start] + answer[20:24] + CALL[TOKEN.stop :])
        header = answers.read(4)
        assert header[0] == 2, header
        answers.read(int.from_bytes(header[1:], "big"))


def first_answer(env: dict[str, str], target: str = TARGET) -> Times:
    """Start a runner, call it, and stop it.

    Args:
        env: Environment of the runner.
        target: What it runs. It has to have the plugin ``say``.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "sock")
        options = ["--uds", str(path), "--log-level", "warning"]
        start = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, "-m", "asgi_bridge", "run", target, *options],
            cwd=HERE.parent, env=env,
        )  # fmt: skip
        try:
            found: Times = {}
            signs = {"worker": lambda: children(process.pid), "supervisor": path.exists}
            while len(found) < len(signs):
                assert process.poll() is None
                for name, is_there in signs.items():
                    if name not in found and is_there():
                        found[name] = time.perf_counter() - start, cpu_seconds(process.pid)
                time.sleep(0.0005)
            ask(path)
            seconds = time.perf_counter() - start
            cpu = sum(map(cpu_seconds, (process.pid, *children(process.pid))))
        finally:
            process.terminate()
            process.wait(10)
    return {**found, "first answer": (seconds, cpu)}


def measured(rounds: int) -> dict[str, Any]:
    """Measure all in turns, and return the figures: see :func:`figures_of`."""
    found: list[Times] = []
    with tempfile.TemporaryDirectory() as cache:
        env = environment(cache)
        imports(env, USED)  # these two write the bytecode
        first_answer(env)
        for _ in range(rounds):
            before = imports(env)
            times = {"used": imports(env, USED), **first_answer(env)}
            after = imports(env)
            found.append({"imports": ((before[0] + after[0]) / 2, (before[1] + after[1]) / 2), **times})
    return figures_of(found)


def figures_of(found: Sequence[Times]) -> dict[str, Any]:
    """Return the medians of all rounds.

    Returns:
        "measured": for each of `ROWS` its name, milliseconds on the clock, of CPU time, and both as multiples of the
        imports; "allowed": the multiples that the first answer may cost.
    """
    rows, ratios = [], {}
    for key, name in ROWS.items():
        ratios[key] = [statistics.median(times[key][n] / times["imports"][n] for times in found) for n in (0, 1)]
        wall, cpu = (statistics.median(times[key][n] for times in found) * 1e3 for n in (0, 1))
        row = {"name": name, "ms": round(wall, 1), "cpu_ms": round(cpu, 1)}
        rows.append({**row, "ratio": round(ratios[key][0], 2), "cpu_ratio": round(ratios[key][1], 2)})
    allowed = [round(FACTOR + ratios["supervisor"][n], 2) for n in (0, 1)]
    return {"rounds": len(found), "measured": rows, "allowed": allowed[0], "allowed_cpu": allowed[1]}


def import_times(target: str) -> Iterator[tuple[str, float]]:
    """Yield packages that a worker imports until it has its plugins, each with its milliseconds: the longest first."""
    code = f"import asgi_bridge.server.serve; from asgi_bridge.loading import load_bridge; load_bridge({target!r})"
    with tempfile.TemporaryDirectory() as cache:
        for _ in range(2):  # the first one writes the bytecode
            done = subprocess.run(
                [sys.executable, "-X", "importtime", "-c", code],
                cwd=HERE.parent, env=environment(cache), check=True, stderr=subprocess.PIPE, text=True,
            )  # fmt: skip
    totals: dict[str, float] = {}
    for own, name in re.findall(r"^import time: +(\d+) \| +\d+ \| +(\S+)$", done.stderr, re.MULTILINE):
        package = name.partition(".")[0]
        totals[package] = totals.get(package, 0) + int(own) / 1000
    yield from sorted(totals.items(), key=lambda item: -item[1])


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9, help="number of rounds (%(default)s)")
    parser.add_argument("--imports", action="store_true", help="show which packages take the time")
    args = parser.parse_args(arguments)
    if args.imports:
        for name, milliseconds in list(import_times(TARGET))[:25]:
            print(f"{name:<28} {milliseconds:>8.1f} ms")
        return
    found = measured(args.rounds)
    print(f"{'':<72} {'ms':>7} {'x':>6} {'CPU ms':>7} {'x':>6}")
    for row in found["measured"]:
        figures = f"{row['ms']:>7.0f} {row['ratio']:>6.2f} {row['cpu_ms']:>7.0f} {row['cpu_ratio']:>6.2f}"
        print(f"{row['name']:<72} {figures}")
    print(f"{'allowed for it':<72} {'':>7} {found['allowed']:>6.2f} {'':>7} {found['allowed_cpu']:>6.2f}")


if __name__ == "__main__":
    main()
