"""What the measurements come to: lines for the terminal, JSON, and the tables of docs/performance.md."""

import os
import platform
import re
import statistics
import sysconfig
import time
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from asgi_bridge.compiled import core_in_use

from .cases import FLOOR, GROUPS
from .rounds import Measured

__all__ = ["Results", "lines", "machine", "page_with", "results", "table_of"]

Results = Mapping[str, Any]
"""What is written as JSON: "date", "machine", "load" and "cases"; "start" too where that was measured."""

Floors = Mapping[tuple[int, float], Sequence[Mapping[str, Any]]]

KEYS = ("cpu_us_req", "rps", "p50", "p99")


def machine(loop: str) -> dict[str, Any]:
    """Return what the figures depend on."""
    model = "unknown"
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        found = re.search(r"^model name\s*: (.+)$", cpuinfo.read_text(), re.MULTILINE)
        model = found[1] if found else model
    try:
        uvloop = version("uvloop") if loop == "uvloop" else None
    except PackageNotFoundError:
        uvloop = None
    return {
        "processor": model,
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.release().split('-')[0]}",
        "python": platform.python_version(),
        "compiler": platform.python_compiler(),
        "pgo": "--enable-optimizations" in str(sysconfig.get_config_var("CONFIG_ARGS")),
        "loop": loop if uvloop is None else f"uvloop {uvloop}",
        "core": core_in_use().partition(":")[0],
    }


def results(measured: Sequence[Measured], floors: Floors, loop: str, load: Mapping[str, Any]) -> dict[str, Any]:
    """Return the figures, rounded to what they are worth."""
    cases = []
    for (connections, pause), runs in floors.items():
        medians = {key: statistics.median(run[key] for run in runs) for key in KEYS}
        name = f"{connections} connections" + (f", a pause of {pause / 1000:g} ms" if pause else "")
        cases.append({"group": FLOOR, "name": name, "ratio": 1.0, **_rounded(medians)})
    for each in measured:
        case = each.case
        entry: dict[str, Any] = {"group": case.group, "name": case.name, "ratio": round(each.ratio, 2)}
        if case.server == "bare":
            entry["cpu_us_req"] = round(each.median("cpu_us_req"), 2)
        else:
            entry |= {"latency_ratio": round(each.latency_ratio, 2), **_rounded({k: each.median(k) for k in KEYS})}
            entry["asked"] = round(each.median("extra") / max(each.median("n"), 1) * case.frames, 1)
            if case.frames > 1:
                entry["cpu_us_req"] = round(entry["cpu_us_req"] * case.frames, 2)
                entry["rps"] = round(entry["rps"] / case.frames)
        entry |= {"repeated": each.repeated, "disturbed": each.disturbed}
        cases.append(entry)
    date = time.strftime("%Y-%m-%d", time.gmtime())
    return {"date": date, "machine": machine(loop), "load": dict(load), "cases": cases}


def _rounded(figures: Mapping[str, float]) -> dict[str, float]:
    digits = {"cpu_us_req": 2, "rps": None, "p50": 1, "p99": 1}
    return {key: round(value, digits[key]) for key, value in figures.items()}


def lines(found: Results) -> Iterator[str]:
    """Yield the lines for the terminal."""
    about = found["machine"]
    yield f"Python {about['python']}{_optimized(about)}; core: {about['core']}"
    yield f"{about['loop']}; {about['processor']}"
    yield f"{'':<34} {'CPU µs':>8} {'x floor':>8} {'per s':>9} {'p50 µs':>8} {'p99 µs':>8} {'again':>6}"
    group = None
    for case in found["cases"]:
        if case["group"] != group:
            group = case["group"]
            yield f"{group}: {GROUPS[group]}" if group in GROUPS else group
        shown = f"  {case['name']:<32} {case['cpu_us_req']:>8.2f} {case['ratio']:>8.2f}"
        if "rps" in case:
            shown += f" {case['rps']:>9,} {case['p50']:>8,.0f} {case['p99']:>8,.0f}"
        else:
            shown += " " * 28
        yield shown + (f" {case['repeated']:>6}" if case.get("repeated") else "")
    disturbed = sum(case.get("disturbed", 0) for case in found["cases"])
    if disturbed:
        yield f"{disturbed} measurements were disturbed by other programs in every try. Measure on a quiet machine."


# the tables of the page

_TABLE = re.compile(r"(<!-- figures: ([^>]+?) -->\n).*?(<!-- end of figures -->)", re.DOTALL)
"""A table of the page, which is made of the figures."""


def page_with(text: str, found: Results) -> str:
    """Return a page with its tables made anew.

    A table stands between ``<!-- figures: GROUP -->`` and ``<!-- end of figures -->``.

    Raises:
        KeyError: The page wants a group that was not measured.
    """
    return _TABLE.sub(lambda match: f"{match[1]}\n{table_of(match[2], found)}\n\n{match[3]}", text)


def table_of(name: str, found: Results) -> str:
    """Return a table of the page: "machine", "start", "compared", or that of a group of cases."""
    if name == "machine":
        return _about(found)
    if name == "start":
        return _start(found["start"])
    if name == "compared":
        return _compared(found)
    cases = [case for case in found["cases"] if case["group"] == name]
    if not cases:
        raise KeyError(name)
    rows = ["| | CPU µs | floors | requests/s | p50 µs | p99 µs |", "| --- | ---: | ---: | ---: | ---: | ---: |"]
    if "rps" not in cases[0]:
        rows = ["| | CPU µs | floors |", "| --- | ---: | ---: |"]
    for case in cases:
        row = f"| {case['name']} | {case['cpu_us_req']:.1f} | {case['ratio']:.2f} |"
        rows.append(row + (f" {case['rps']:,} | {case['p50']:,.0f} | {case['p99']:,.0f} |" if "rps" in case else ""))
    return "\n".join(rows)


def _about(found: Results) -> str:
    about, load = found["machine"], found["load"]
    return (
        f"Measured on {found['date']}: Python {about['python']} ({about['compiler']}{_optimized(about)}), the core is "
        f"{about['core']}, {about['loop']}, {about['system']}, {about['processor']}, {load['rounds']} rounds of "
        f"{load['seconds']:g} s.{_disturbed(found)}"
    )


def _optimized(about: dict[str, Any]) -> str:
    """Return how Python was built, if it says so. The steps of a distribution may leave no sign."""
    return ", built with profile-guided optimization" if about["pgo"] else ""


def _disturbed(found: Results) -> str:
    """Return a sentence about measurements that stayed disturbed; empty: there were none."""
    disturbed = sum(case.get("disturbed", 0) for case in found["cases"])
    if not disturbed:
        return ""
    total = found["load"]["rounds"] * sum("disturbed" in case for case in found["cases"])
    return f" Other programs disturbed {disturbed} of {total} measurements, so take these figures for rough ones."


def _compared(found: Results) -> str:
    """Return the table of applications without any server, in the floor's, and in the runner."""
    ratios = {(case["group"], case["name"]): case["ratio"] for case in found["cases"]}
    rows = [
        "| | without a server | in the floor's server | in the runner | difference of first and last |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    measured = [name for group, name in ratios if group == "applications"]
    for name in (*measured, "no-op"):
        alone, served = ratios["bare", name], ratios.get(("served", name))
        ratio = ratios["one request" if name == "no-op" else "applications", name]
        shown = "" if served is None else f"{served:.2f}"
        rows.append(f"| {name} | {alone:.2f} | {shown} | {ratio:.2f} | {ratio - alone:.2f} |")
    return "\n".join(rows)


def _start(found: Mapping[str, Any]) -> str:
    rows = ["| | ms | of the imports |", "| --- | ---: | ---: |"]
    rows += [f"| {entry['name']} | {entry['ms']:.0f} | {entry['ratio']:.2f} |" for entry in found["measured"]]
    return "\n".join(rows)
