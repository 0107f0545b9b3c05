"""Draws the chart of the manual: what calls cost, in multiples of the floor."""

from collections.abc import Iterator
from html import escape
from typing import NamedTuple

from .report import Results

__all__ = ["charts"]

FONT = "system-ui, 'Segoe UI', Roboto, sans-serif"
WIDTH = 680
NAMES = 250
"""Pixels for the names at the left."""
ROW, BAR, TOP = 26, 14, 46


class Colours(NamedTuple):
    """Of text, weak text, lines, and the bars of the runner and of what it is compared with."""

    text: str
    weak: str
    line: str
    bar: str
    other: str


COLOURS = {
    "light": Colours("#1b1f24", "#57606a", "#d0d7de", "#3949ab", "#9fa8da"),
    "dark": Colours("#e6e8eb", "#a0a8b4", "#3d444d", "#9fa8ff", "#4d5690"),
}
SHOWN = {
    "one request": "",
    "1,000 requests": ", 1,000 requests",
    "applications": "",
    "asked": "",
    "phases": "",
}
"""Groups of the chart → what is put behind the names of their cases."""


def charts(found: Results) -> Iterator[tuple[str, str]]:
    """Yield the name and the content of each file, for both colour schemes."""
    for scheme, colours in COLOURS.items():
        yield f"performance-{scheme}.svg", chart(found, colours)


def chart(found: Results, colours: Colours) -> str:
    """Return a bar chart as SVG. Beside the bar of an application is the part that it costs without a server."""
    bare = {case["name"]: case["ratio"] for case in found["cases"] if case["group"] == "bare"}
    rows = [case for case in found["cases"] if case["group"] in SHOWN]
    longest = max(case["ratio"] for case in rows)
    scale = (WIDTH - NAMES - 60) / longest
    height = TOP + ROW * len(rows) + 12
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        f'font-family="{FONT}" font-size="13">',
        f'<text x="{NAMES}" y="18" fill="{colours.weak}">CPU time of a request, in multiples of the floor</text>',
        f'<rect x="{NAMES}" y="24" width="{BAR}" height="{BAR - 3}" rx="2" fill="{colours.other}"/>',
        f'<text x="{NAMES + BAR + 6}" y="34" fill="{colours.weak}">of that: the application alone, no server</text>',
    ]
    step = next(each for each in (1, 2, 5, 10, 20, 50, 100, 200, 500) if longest / each <= 8)
    for tick in range(0, int(longest) + 1, step):
        x = NAMES + tick * scale
        ends = f'x1="{x:.1f}" y1="{TOP - 6}" x2="{x:.1f}" y2="{height - 8}"'
        parts.append(f'<line {ends} stroke="{colours.line}" stroke-width="1"/>')
    for number, case in enumerate(rows):
        y = TOP + ROW * number
        middle = y + BAR - 3
        name = case["name"] + SHOWN[case["group"]]
        width = case["ratio"] * scale
        parts += [
            f'<text x="{NAMES - 8}" y="{middle}" fill="{colours.text}" text-anchor="end">{escape(name)}</text>',
            _bar(y, width, colours.bar),
        ]
        if case["group"] == "applications" and case["name"] in bare:
            alone = min(bare[case["name"]], case["ratio"]) * scale
            parts.append(
                f'<rect x="{NAMES}" y="{y}" width="{alone:.1f}" height="{BAR}" rx="2" fill="{colours.other}"/>'
            )
        parts.append(f'<text x="{NAMES + width + 6:.1f}" y="{middle}" fill="{colours.weak}">{case["ratio"]:.2f}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def _bar(y: int, width: float, fill: str) -> str:
    return f'<rect x="{NAMES}" y="{y}" width="{width:.1f}" height="{BAR}" rx="2" fill="{fill}"/>'
