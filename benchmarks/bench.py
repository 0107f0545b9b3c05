"""Measures what a call costs, with our runner and with the floor, in turns in one run.

The floor is the least that a server of this protocol costs in Python. It is measured before and after each case. Where
the two floors differ, or other programs used the servers' core meanwhile, the measurement is repeated. The exit status
is 1 if a call failed or got another action than expected. With ``--max-ratio`` it is also 1 if a call cost more than
this multiple of the floor.

GO_RUNNER and JAVA_RUNNER in the environment are the commands of other runners, which are measured in the same run. They
need plugins with the names and effects of those in benchmarks/plugins.py.
"""

import argparse
import json
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

from . import chart, start
from .cases import GROUPS, Case, cases
from .report import lines, page_with, results
from .rounds import Bench, Steadiness
from .servers import HERE

DOCS = HERE.parent / "docs"
PAGE = DOCS / "performance.md"
FIGURES = DOCS / "performance.json"
CHARTS = DOCS / "figures"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bench", description=__doc__)
    # Many short rounds: other work on a shared machine comes and goes within seconds, and disturbs only some of them.
    parser.add_argument("--rounds", type=int, default=9, help="each measures all cases in turn (%(default)s)")
    parser.add_argument("--seconds", type=float, default=0.5, help="seconds of one measurement (%(default)s)")
    parser.add_argument("--warmup", type=float, default=0.1, help="seconds of load before each (%(default)s)")
    parser.add_argument("--loop", choices=["uvloop", "asyncio"], default="uvloop", help="event loop (%(default)s)")
    parser.add_argument("--limit", action="store_true", help="also measure a server in C")
    parser.add_argument("--record", action="store_true", help="also measure a runner that records its calls")
    parser.add_argument(
        "--only", metavar="REGEX", action="append",
        help='measure only cases like this; a case is "GROUP: NAME"; may be repeated',
    )  # fmt: skip
    parser.add_argument("--tries", type=int, default=4, help="how often a disturbed measurement is tried (%(default)s)")
    parser.add_argument(
        "--max-ratio", type=float, help="fail if stop, rewrite or no-op cost more than this multiple of the floor"
    )
    parser.add_argument("--quick", action="store_true", help="one round of 0.03 s each, without repetition")
    parser.add_argument("--list", action="store_true", help="list the cases, and measure nothing")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.add_argument("--runs", metavar="FILE", type=Path, help="write the results of each round as JSON too")
    parser.add_argument("--page", action="store_true", help="write the manual's page anew from its figures, no more")
    parser.add_argument("--docs", action="store_true", help="write the manual's figures, and measure the start too")
    args = parser.parse_args()
    if args.quick:
        args.rounds, args.seconds, args.warmup, args.tries = 1, 0.03, 0.01, 1
    if args.docs and args.only:
        parser.error("the manual has the figures of all cases: --docs goes without --only")
    return args


def chosen(args: argparse.Namespace) -> list[Case]:
    """Return the cases to measure."""
    found = cases(limit=args.limit, record=args.record)
    return [case for case in found if not args.only or any(re.search(each, case.key) for each in args.only)]


def measured(args: argparse.Namespace, found: list[Case]) -> dict[str, Any]:
    """Measure all cases in all rounds, and return the figures."""
    steadiness = Steadiness(tries=args.tries)
    with (
        tempfile.TemporaryDirectory() as folder,
        Bench(found, args.seconds, args.warmup, args.loop, Path(folder), steadiness) as bench,
    ):
        for number in range(args.rounds):
            for each in bench.round():
                if sys.stderr.isatty():
                    print(f"\r\033[Kround {number + 1} of {args.rounds}: {each.case.key}", end="", file=sys.stderr)
        if sys.stderr.isatty():
            print("\r\033[K", end="", file=sys.stderr)
        if args.runs is not None:
            args.runs.write_text(json.dumps({each.case.key: each.runs for each in bench.measured}, indent=1) + "\n")
        load = {"rounds": args.rounds, "seconds": args.seconds, "a core each": bench.is_pinned}
        return results(bench.measured, bench.floors, args.loop, load)


def write_docs(found: dict[str, Any]) -> None:
    """Write the manual's figures: the JSON, the tables of the page, and the charts."""
    FIGURES.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", "utf-8")
    write_page(found)


def write_page(found: dict[str, Any]) -> None:
    """Write the tables of the manual's page, and the charts."""
    PAGE.write_text(page_with(PAGE.read_text("utf-8"), found), "utf-8")
    for name, content in chart.charts(found):
        (CHARTS / name).write_text(content, "utf-8")


def main() -> None:
    args = arguments()
    if args.page:
        write_page(json.loads(FIGURES.read_text("utf-8")))
        return
    selected = chosen(args)
    if not selected:
        raise SystemExit("no case is like that; --list lists them")
    if args.list:
        for group in GROUPS:
            print(f"{group}: {GROUPS[group]}")
            print("".join(f"    {case.name}\n" for case in selected if case.group == group), end="")
        return
    found = measured(args, selected)
    if args.docs:
        found["start"] = start.measured(args.rounds)
        write_docs(found)
    print(json.dumps(found, indent=1, ensure_ascii=False) if args.json else "\n".join(lines(found)))
    slow = [
        case["name"]
        for case in found["cases"]
        if case["group"] == "one request" and case["name"] in ("stop", "rewrite", "no-op")
        and args.max_ratio is not None and case["ratio"] > args.max_ratio
    ]  # fmt: skip
    if slow:
        raise SystemExit(f"more than {args.max_ratio:g} times the floor: {', '.join(slow)}")


if __name__ == "__main__":
    main()
