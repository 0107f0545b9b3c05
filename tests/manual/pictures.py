"""Draws the pictures of the manual: ``python -m tests.manual.pictures`` writes them into docs/pictures/."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from html import escape

from .blocks import DOCS

__all__ = ["FOLDER", "pictures"]

FOLDER = DOCS / "pictures"
FONT = "system-ui, 'Segoe UI', Roboto, sans-serif"


@dataclass(frozen=True)
class Colours:
    """The colours of a picture: text, weak text, lines, boxes, and those of the runner and its plugins."""

    text: str
    weak: str
    line: str
    box: str
    room: str
    plugin: str
    accent: str


COLOURS = {
    "light": Colours("#1b1f24", "#57606a", "#57606a", "#f3f4f6", "#e8edff", "#ffffff", "#3949ab"),
    "dark": Colours("#e6e8eb", "#a0a8b4", "#8b949e", "#262a33", "#262f52", "#1c2133", "#9fa8ff"),
}


@dataclass
class Drawing:
    """A picture in the making. Lengths are in pixels, at the picture's natural size."""

    width: int
    height: int
    colours: Colours
    parts: list[str] = field(default_factory=list)

    def box(self, x: int, y: int, width: int, height: int, label: str, *, fill: str, note: str = "") -> None:
        """Draw a box with a label in its middle, and a note under the label."""
        colours = self.colours
        self.parts.append(
            f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="8" fill="{fill}" stroke="{colours.line}"/>'
        )
        middle = y + height // 2 + (0 if note else 5)
        self.text(x + width // 2, middle, label, weight=600)
        if note:
            self.text(x + width // 2, middle + 18, note, weak=True)

    def text(self, x: int, y: int, text: str, *, weak: bool = False, weight: int = 400, anchor: str = "middle") -> None:
        """Write one line."""
        fill, size = (self.colours.weak, 13) if weak else (self.colours.text, 15)
        self.parts.append(
            f'<text x="{x}" y="{y}" fill="{fill}" font-size="{size}" font-weight="{weight}" text-anchor="{anchor}">'
            f"{escape(text)}</text>"
        )

    def arrow(self, x: int, y: int, to_x: int, to_y: int, *, accent: bool = False, dashed: bool = False) -> None:
        """Draw an arrow."""
        name, stroke = ("a", self.colours.accent) if accent else ("l", self.colours.line)
        dash = ' stroke-dasharray="5 4"' if dashed else ""
        self.parts.append(
            f'<line x1="{x}" y1="{y}" x2="{to_x}" y2="{to_y}" stroke="{stroke}" stroke-width="2"{dash} '
            f'marker-end="url(#{name})"/>'
        )

    def svg(self) -> str:
        """Return the picture."""
        markers = "".join(
            f'<marker id="{name}" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
            f'<path d="M0 0 8 4 0 8z" fill="{colour}"/></marker>'
            for name, colour in (("l", self.colours.line), ("a", self.colours.accent))
        )
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self.width} {self.height}" width="{self.width}" '
            f'height="{self.height}" font-family="{FONT}">\n<defs>{markers}</defs>\n'
            + "\n".join(self.parts)
            + "\n</svg>\n"
        )


def way(colours: Colours) -> Drawing:
    """The way of a request through gateway, runner and plugins."""
    drawing = Drawing(640, 420, colours)
    drawing.box(20, 30, 110, 64, "client", fill=colours.box)
    drawing.box(240, 20, 160, 84, "APISIX", fill=colours.box, note="finds the route")
    drawing.box(510, 30, 110, 64, "upstream", fill=colours.box)
    drawing.arrow(130, 52, 238, 52)
    drawing.text(184, 43, "request", weak=True)
    drawing.arrow(238, 78, 132, 78, dashed=True)
    drawing.text(184, 96, "response", weak=True)
    drawing.arrow(400, 52, 508, 52)
    drawing.text(454, 43, "unless Stop", weak=True)
    drawing.arrow(508, 78, 402, 78, dashed=True)

    drawing.parts.append(
        f'<rect x="20" y="190" width="600" height="210" rx="12" fill="{colours.room}" stroke="{colours.accent}"/>'
    )
    drawing.text(40, 384, "the runner: asgi-bridge run", weight=600, anchor="start")
    drawing.arrow(290, 104, 290, 188, accent=True)
    drawing.text(278, 150, "call: method, path, query, headers", weak=True, anchor="end")
    drawing.arrow(350, 188, 350, 106, accent=True)
    drawing.text(362, 150, "Stop, Rewrite, no-op or error", weak=True, anchor="start")
    for x, name, note in (
        (58, "plugin 1", "outermost"),
        (258, "plugin 2", "inside of it"),
        (458, "upstream", "innermost"),
    ):
        drawing.box(x, 230, 124, 100, name, fill=colours.plugin, note=note)
    for x in (182, 382):
        drawing.arrow(x, 262, x + 74, 262, accent=True)
        drawing.arrow(x + 74, 300, x + 2, 300, accent=True, dashed=True)
    drawing.text(220, 252, "scope", weak=True)
    drawing.text(420, 252, "scope", weak=True)
    drawing.text(220, 320, "response", weak=True)
    drawing.text(420, 320, "response", weak=True)
    drawing.text(320, 358, "each plugin answers, or awaits the next one", weak=True)
    return drawing


def phases(colours: Colours) -> Drawing:
    """When plugins of each phase run."""
    drawing = Drawing(640, 330, colours)
    drawing.text(250, 26, "before the upstream", weak=True)
    drawing.text(520, 26, "after it", weak=True)
    drawing.parts.append(
        f'<rect x="342" y="40" width="96" height="270" rx="8" fill="{colours.box}" stroke="{colours.line}"/>'
    )
    drawing.text(390, 180, "upstream", weight=600)
    for y, name, note in ((50, '"request"', "looks at the request"), (140, '"response"', "looks at the response")):
        drawing.text(20, y + 30, name, weight=600, anchor="start")
        drawing.text(20, y + 48, note, weak=True, anchor="start")
    drawing.box(190, 55, 120, 60, "plugin", fill=colours.room)
    drawing.arrow(310, 85, 340, 85)
    drawing.arrow(438, 85, 620, 85, dashed=True)
    drawing.arrow(190, 175, 340, 175)
    drawing.arrow(438, 175, 458, 175)
    drawing.box(460, 145, 120, 60, "plugin", fill=colours.room)
    drawing.arrow(580, 175, 620, 175, dashed=True)
    drawing.text(20, 260, '"both"', weight=600, anchor="start")
    drawing.text(20, 278, "one run around both", weak=True, anchor="start")
    drawing.box(190, 235, 120, 60, "plugin", fill=colours.room, note="then waits")
    drawing.arrow(310, 265, 340, 265)
    drawing.arrow(438, 265, 458, 265)
    drawing.box(460, 235, 120, 60, "plugin", fill=colours.room, note="goes on")
    drawing.arrow(580, 265, 620, 265, dashed=True)
    drawing.parts.append(
        f'<path d="M250 297 C 250 326, 520 326, 520 299" fill="none" stroke="{colours.accent}" stroke-width="2" '
        'stroke-dasharray="5 4" marker-end="url(#a)"/>'
    )
    return drawing


DRAWN: dict[str, Callable[[Colours], Drawing]] = {"way": way, "phases": phases}


def pictures() -> Iterator[tuple[str, str]]:
    """Give the name and the content of each file."""
    for name, draw in DRAWN.items():
        for scheme, colours in COLOURS.items():
            yield f"{name}-{scheme}.svg", draw(colours).svg()


if __name__ == "__main__":
    for name, content in pictures():
        (FOLDER / name).write_text(content)
