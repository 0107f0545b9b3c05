"""Measures cases in rounds, each between two floors, and again where the machine was disturbed."""

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .cases import Case
from .servers import FRAMES, HERE, calls_file, command, compiled, cores, environment, on_core, server

__all__ = ["Bench", "Measured", "Steadiness"]

TICK = 1 / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Steadiness:
    """What counts as an undisturbed measurement.

    Attributes:
        floors: Maximum difference of the floors before and after it, as a share.
        others: Maximum share of the servers' core that other programs, or other virtual machines, got meanwhile.
        tries: Number of tries. The least disturbed one counts.
    """

    floors: float = 0.1
    others: float = 0.05
    tries: int = 4

    def disturbance(self, before: float, after: float, others: float) -> float:
        """Return how disturbed a measurement was; up to 1: it was not."""
        return max(abs(before - after) / max(min(before, after), 1e-9) / self.floors, others / self.others)


@dataclass
class Measured:
    """A case, and what the rounds found.

    Attributes:
        case: The case.
        runs: The load generator's results, one for each round. `floor` is the CPU time of the floor around it, in
            microseconds, and `floor_p50` its latency.
        repeated: Number of measurements that were taken again.
        disturbed: Number of rounds in which every try was disturbed.
    """

    case: Case
    runs: list[dict[str, Any]] = field(default_factory=list)
    repeated: int = 0
    disturbed: int = 0

    def median(self, key: str) -> float:
        """Return the median of one number of the results, over all rounds."""
        return statistics.median(float(run.get(key, 0)) for run in self.runs)

    @property
    def ratio(self) -> float:
        """CPU time of a request in multiples of the floor around it: the median of all rounds."""
        return statistics.median(float(run["cpu_us_req"]) * self.case.frames / float(run["floor"]) for run in self.runs)

    @property
    def latency_ratio(self) -> float:
        """The same of the latency's median."""
        return statistics.median(float(run.get("p50", 0)) / float(run["floor_p50"]) for run in self.runs)


class Bench:
    """The servers, and the load.

    Args:
        found: The cases.
        seconds: Seconds of one measurement.
        warmup: Seconds of load before each measurement.
        loop: "uvloop" or "asyncio".
        folder: Path of a folder for sockets and logs.
        steadiness: What counts as undisturbed.
    """

    def __init__(
        self, found: list[Case], seconds: float, warmup: float, loop: str, folder: Path, steadiness: Steadiness
    ) -> None:
        self.measured = [Measured(case) for case in found]
        self.floors: dict[tuple[int, float], list[dict[str, Any]]] = {}
        self._seconds, self._warmup, self._loop = seconds, warmup, loop
        self._folder = folder
        self._steadiness = steadiness
        self._core, self._load_core = cores()
        self._stack = ExitStack()
        self._pids: dict[str, int] = {}
        self._bare: subprocess.Popen[str] | None = None
        self._last: tuple[Case, dict[str, Any]] | None = None

    @property
    def is_pinned(self) -> bool:
        """Whether server and load generator have a core each."""
        return self._load_core is not None

    def __enter__(self) -> "Bench":
        with ExitStack() as stack:
            names = {each.case.server for each in self.measured} - {"bare"} | {"floor"}
            for name in sorted(names):
                socket = self._folder / name
                self._pids[name] = stack.enter_context(
                    server(command(name, socket, self._loop), socket, self._core, environment(name, socket))
                )
            if any(each.case.server == "bare" for each in self.measured):
                self._bare = stack.enter_context(
                    subprocess.Popen(
                        [sys.executable, "-m", "benchmarks.bare", self._loop],
                        cwd=HERE.parent, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                        preexec_fn=on_core(self._core),
                    )
                )  # fmt: skip
            self._stack = stack.pop_all()
        for each in self.measured:
            if each.case.server == "java":  # it compiles what runs often
                self._run(each.case, self._seconds, 5.0)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def round(self) -> Iterator[Measured]:
        """Measure all cases once, and yield each when it is done."""
        for each in self.measured:
            best: tuple[float, dict[str, Any]] | None = None
            for number in range(self._steadiness.tries):
                each.repeated += number > 0
                disturbance, run = self._between_floors(each.case)
                if best is None or disturbance < best[0]:
                    best = disturbance, run
                if disturbance <= 1:
                    break
            else:
                each.disturbed += 1
            assert best is not None
            each.runs.append(best[1])
            yield each

    def _between_floors(self, case: Case) -> tuple[float, dict[str, Any]]:
        """Measure the floor, unless the last measurement has, then the case, then the floor again."""
        floor = case.floor()
        before = self._last[1] if self._last is not None and self._last[0] == floor else self._run(floor)
        busy, total = self._core_seconds()
        run = self._run(case)
        after = self._run(floor)
        busy_after, total_after = self._core_seconds()
        self._last = floor, after
        self.floors.setdefault((floor.connections, floor.pause), []).append(after)
        used = run["cpu_s"] + after["cpu_s"]
        # the warm-up before each measurement is the server's too
        used *= (self._seconds + self._warmup) / self._seconds
        others = max(0.0, busy_after - busy - used) / max(total_after - total, TICK)
        run["floor"] = (before["cpu_us_req"] + after["cpu_us_req"]) / 2
        run["floor_p50"] = (before["p50"] + after["p50"]) / 2
        return self._steadiness.disturbance(before["cpu_us_req"], after["cpu_us_req"], others), run

    def _core_seconds(self) -> tuple[float, float]:
        """Return the seconds that the servers' core was busy for anybody, also outside of this machine, and all."""
        if self._core is None:
            return 0.0, 1.0
        with open("/proc/stat") as lines:
            fields = next(line for line in lines if line.startswith(f"cpu{self._core} ")).split()[1:9]
        user, nice, system, idle, iowait, irq, softirq, steal = (int(each) * TICK for each in fields)
        # interrupts work for whoever is measured
        return user + nice + system + steal, user + nice + system + idle + iowait + irq + softirq + steal

    def _run(self, case: Case, seconds: float | None = None, warmup: float | None = None) -> dict[str, Any]:
        """Measure once.

        Raises:
            SystemExit: A call failed, or got another action than expected.
        """
        seconds = self._seconds if seconds is None else seconds
        if case.server == "bare":
            assert self._bare is not None and self._bare.stdin is not None and self._bare.stdout is not None
            self._bare.stdin.write(f"{seconds} {case.bare}\n")
            self._bare.stdin.flush()
            run: dict[str, Any] = json.loads(self._bare.stdout.readline())
            return {**run, "cpu_s": run["cpu_us_req"] * run["n"] / 1e6}
        prepare = self._folder / f"{'+'.join(case.plugins)}.bin"
        if not prepare.exists():
            prepare.write_bytes(case.prepare())
        program = [
            *(compiled("load"), self._folder / case.server, case.connections, seconds),
            *(prepare, calls_file(case.calls, self._folder), "--answers", FRAMES / "answers.bin"),
            *("--pid", self._pids[case.server], "--warmup", self._warmup if warmup is None else warmup, "--json"),
            # With a core of its own the load generator never sleeps. Otherwise our runner would pay for waking it up
            # at each answer, but the floor, which keeps it busy, would not.
            *(["--spin"] if self.is_pinned else []),
            *(["--canned"] if case.server in ("floor", "served", "limit") else []),
            *(["--pause", case.pause] if case.pause else []),
            *(["--wrong-token"] if case.wrong_token else []),
        ]
        done = subprocess.run(
            list(map(str, program)), stdout=subprocess.PIPE, preexec_fn=on_core(self._load_core), timeout=120
        )
        if done.returncode:
            raise SystemExit(f"{case.key}: the load generator failed")
        run = json.loads(done.stdout)
        expected = ("none", "respcall") if case.action == "both" else (case.action,)
        faults = {key: run[key] for key in ("err", "badid", "badtype", "closed") if run[key] and key not in expected}
        if faults or not run["n"] or sum(run[key] for key in expected) != run["n"]:
            counts = {key: run[key] for key in ("n", "none", "stop", "rewrite", "respcall") if run[key]}
            log = (self._folder / f"{case.server}.log").read_text("utf-8", "replace")[-2000:]
            raise SystemExit(f"{case.key}: {counts}, expected {' and '.join(expected)} only; {faults}\n{log}")
        return run
