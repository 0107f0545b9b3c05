"""Measures what a call costs, with our runner and with the floor, in turns in one run.

The floor is the least that a server of this protocol costs in Python. The exit status is 1 if a call failed or got
another action than expected. With ``--max-ratio`` it is also 1 if a call cost more than this multiple of the floor.
"""

import argparse
import contextlib
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
BUILD = HERE / ".build"
FRAMES = HERE / "frames"
OFFSETS = json.loads((FRAMES / "offsets.json").read_text())


@dataclass
class Case:
    """A kind of call to measure.

    Attributes:
        name: Name in the table.
        server: "floor", "limit", "runner" or "recorder".
        prepare: Name of the frame that prepares the chain.
        action: The action that every call has to get, by the load generator's name for it.
        request: Name of the frame of a call.
        asks: Whether the runner asks the gateway for variables in a call.
        runs: The load generator's results, one for each round.
    """

    name: str
    server: str
    prepare: str
    action: str
    request: str = "req_forwarded"
    asks: bool = False
    runs: list[dict[str, Any]] = field(default_factory=list)

    def median(self, key: str) -> float:
        """Return the median of one number of the results, over all rounds."""
        return statistics.median(float(run[key]) for run in self.runs)


CASES = [
    Case("floor", "floor", "prepare_noop", "stop"),
    Case("stop", "runner", "prepare_say", "stop"),
    Case("rewrite", "runner", "prepare_rewrite", "rewrite"),
    Case("no-op", "runner", "prepare_noop", "none"),
    Case("2 variables, rewrite", "runner", "prepare_extra", "rewrite", asks=True),
]
RECORDED = [
    Case("rewrite, recorded", "recorder", "prepare_rewrite", "rewrite"),
    Case("2 variables, recorded", "recorder", "prepare_extra", "rewrite", asks=True),
]
LIMIT = Case("limit (C)", "limit", "prepare_noop", "stop")


def compiled(name: str) -> Path:
    """Compile the C program `name`, unless its source is unchanged, and return its path."""
    source, program = HERE / f"{name}.c", BUILD / name
    if not program.exists() or program.stat().st_mtime < source.stat().st_mtime:
        BUILD.mkdir(exist_ok=True)
        compiler = os.environ.get("CC") or next(filter(shutil.which, ("cc", "gcc", "clang")), None)
        if compiler is None:
            raise SystemExit("no C compiler for the load generator: apt-get install gcc")
        subprocess.run([compiler, "-O2", "-o", program, source], check=True)
    return program


def on_core(core: int | None) -> Callable[[], None] | None:
    """Return a `preexec_fn` that keeps a process on one core; None if `core` is None."""
    return None if core is None else lambda: os.sched_setaffinity(0, {core})


def cores() -> tuple[int | None, int | None]:
    """Return the core for the servers and the core for the load generator; None twice if there is only one core."""
    usable = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    return (usable[0], usable[1]) if len(usable) >= 2 else (None, None)


def command(server: str, socket: Path, loop: str) -> list[str]:
    """Return the command that starts a server."""
    if server == "limit":
        return list(map(str, (compiled("limit"), socket, FRAMES / "pc_resp.bin", FRAMES / "stop_resp.bin")))
    if server == "recorder":
        return [*command("runner", socket, loop), "--record", f"{socket}.jsonl"]
    return [sys.executable, "-m", f"benchmarks.{server}", str(socket), loop]


@contextlib.contextmanager
def server(command: list[str], socket: Path, core: int | None) -> Iterator[int]:
    """Run a server, and yield its process id once its socket exists."""
    process = subprocess.Popen(command, cwd=HERE.parent, preexec_fn=on_core(core))
    try:
        deadline = time.monotonic() + 20
        while not socket.exists():
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"{' '.join(command)} did not start")
            time.sleep(0.05)
        yield process.pid
    finally:
        process.terminate()
        process.wait(5)


def measure(case: Case, socket: Path, pid: int, args: argparse.Namespace, core: int | None) -> dict[str, Any]:
    """Run the load generator once, and return its results.

    Raises:
        SystemExit: A call failed, or got another action than expected.
    """
    offsets = OFFSETS[case.request]
    program = [
        *(compiled("load"), socket, args.connections, args.seconds),
        *(FRAMES / f"{case.prepare}.bin", FRAMES / f"{case.request}.bin", offsets["token"]),
        *("--pid", pid, "--warmup", args.warmup, "--json"),
        # With a core of its own the load generator never sleeps. Otherwise our runner would pay for waking it up at
        # each answer, but the floor, which keeps it busy, would not.
        *(["--spin"] if core is not None else []),
        # the floor always answers with the same id
        *(["--id-off", offsets["id"]] if case.server in ("runner", "recorder") else []),
        *(["--extra", FRAMES / "extra.bin"] if case.asks else []),
    ]
    done = subprocess.run(list(map(str, program)), stdout=subprocess.PIPE, preexec_fn=on_core(core), timeout=120)
    if done.returncode:
        raise SystemExit(f"{case.name}: the load generator failed")
    run: dict[str, Any] = json.loads(done.stdout)
    faults = {key: run[key] for key in ("err", "badid", "badtype", "closed") if run[key]}
    if faults or not run["n"] or run[case.action] != run["n"]:
        raise SystemExit(f"{case.name}: {run['n']} calls, {run[case.action]} answered with {case.action}; {faults}")
    return run


def table(cases: list[Case]) -> Iterator[str]:
    """Yield the lines of the table of medians."""
    yield f"{'':<22} {'CPU µs/call':>11} {'x floor':>8} {'calls/s':>9} {'p50 µs':>8} {'p99 µs':>8}"
    for case in cases:
        yield (
            f"{case.name:<22} {case.median('cpu_us_req'):>11.1f} {ratio(case, cases[0]):>8.2f} "
            f"{case.median('rps'):>9,.0f} {case.median('p50'):>8,.0f} {case.median('p99'):>8,.0f}"
        )


def ratio(case: Case, floor: Case) -> float:
    """Return the CPU time of a call in multiples of the floor of the same round: the median of all rounds."""
    return statistics.median(
        float(run["cpu_us_req"]) / float(base["cpu_us_req"]) for run, base in zip(case.runs, floor.runs, strict=True)
    )


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    # Many short rounds: other work on a shared machine comes and goes within seconds, and disturbs only some of them.
    parser.add_argument(
        "--rounds", type=int, default=15, help="number of rounds; each measures all cases in turn (%(default)s)"
    )
    parser.add_argument("--seconds", type=float, default=0.6, help="seconds of one measurement (%(default)s)")
    parser.add_argument(
        "--warmup", type=float, default=0.1, help="seconds of warm-up before each measurement (%(default)s)"
    )
    parser.add_argument(
        "--connections", type=int, default=32, help="number of connections, each with one call at a time (%(default)s)"
    )
    parser.add_argument("--loop", choices=["uvloop", "asyncio"], default="uvloop", help="event loop (%(default)s)")
    parser.add_argument("--limit", action="store_true", help="also measure a server in C")
    parser.add_argument("--record", action="store_true", help="also measure a runner that records its calls")
    parser.add_argument(
        "--only", metavar="NAME", action="append", help="measure only this case and the floor; may be repeated"
    )
    parser.add_argument(
        "--max-ratio", type=float, help="fail if stop, rewrite or no-op cost more than this multiple of the floor"
    )
    parser.add_argument("--json", action="store_true", help="print all numbers of all runs as JSON")
    return parser.parse_args()


def main() -> None:
    args = arguments()
    cases = [case for case in CASES if not args.only or case.name in ("floor", *args.only)]
    cases += RECORDED if args.record else []
    cases += [LIMIT] if args.limit else []
    server_core, load_core = cores()
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        sockets = {name: Path(folder, name) for name in sorted({case.server for case in cases})}
        pids = {
            name: stack.enter_context(server(command(name, socket, args.loop), socket, server_core))
            for name, socket in sockets.items()
        }
        for _ in range(args.rounds):
            for case in cases:
                case.runs.append(measure(case, sockets[case.server], pids[case.server], args, load_core))
    if args.json:
        results = {case.name: {"ratio": ratio(case, cases[0]), "runs": case.runs} for case in cases}
        print(json.dumps({"python": platform.python_version(), "loop": args.loop, "cases": results}, indent=2))
    else:
        pinned = "on a core each" if load_core is not None else "on the same core"
        print(f"Python {platform.python_version()}, {args.loop}, {args.connections} connections, "
              f"{args.rounds} rounds of {args.seconds:g} s, server and load {pinned}")  # fmt: skip
        print("\n".join(table(cases)))
        share = min(run["cpu_s"] for case in cases for run in case.runs) / args.seconds
        if share < 0.8:
            print(f"In one run the server got only {share:.0%} of its core. Other programs were busy: measure again.")
    slow = [case.name for case in cases if case.name in ("stop", "rewrite", "no-op")
            and args.max_ratio is not None and ratio(case, cases[0]) > args.max_ratio]  # fmt: skip
    if slow:
        raise SystemExit(f"more than {args.max_ratio:g} times the floor: {', '.join(slow)}")


if __name__ == "__main__":
    main()
