"""What ``asgi-bridge dev`` prints about requests: a block for each, once the runner has told what its plugins did."""

import asyncio
import os
import shutil
import sys
import time
from collections.abc import Iterable, Iterator
from typing import Any

import click

from ..dev_runner.story import text
from ..inspector import Record
from ..inspector.steps import Lane, Step, lanes
from ..inspector.view import outcome_of
from ..logs import one_line

__all__ = ["Screen", "block", "later", "say"]

NEWS_SECONDS = 0.4
"""Seconds that a block waits for what the runner tells."""
BLOCKS_A_SECOND = 25
"""Maximum number of blocks in a second. Further requests are counted only: nobody could read them."""
MAX_CHANGES = 12
"""Maximum number of changes that are shown of one plugin."""
_COLOURS = {"answered": "yellow", "failed": "red", "changed": "green", "unknown": "bright_black"}


def say(lines: Iterable[str], *, err: bool = False) -> None:
    """Print lines: with colours on a terminal unless NO_COLOR is set, and no wider than the terminal.

    Args:
        lines: With colours, without their ends.
        err: True: to stderr.
    """
    stream = sys.stderr if err else sys.stdout
    width = shutil.get_terminal_size().columns if stream.isatty() else 0
    colour = False if os.environ.get("NO_COLOR") else None
    click.echo("\n".join(_fitted(line, width) for line in lines), err=err, color=colour)


def _fitted(line: str, width: int) -> str:
    """Cut a line that is wider than the terminal."""
    plain = click.unstyle(line)
    if not width or len(plain) <= width or plain.startswith(_COMMANDS):
        return line
    shown, found, position = 0, [], 0
    while position < len(line) and shown < width - 1:
        if line[position] == "\x1b":
            end = line.index("m", position) + 1
            found.append(line[position:end])
            position = end
        else:
            found.append(line[position])
            position += 1
            shown += 1
    return "".join(found) + "…" + ("\x1b[0m" if "\x1b" in line else "")


_COMMANDS = ("curl ", "for ", "# ")
"""Begins of lines that people copy, so they are never cut."""


class Screen:
    """Prints a block for each request.

    Args:
        tells: Whether the runner tells what its plugins do.
    """

    def __init__(self, tells: bool) -> None:
        self._tells = tells
        self._printed: dict[int, int] = {}
        self._waiting: set[int] = set()
        self._second = 0
        self._blocks = 0
        self._left_out = 0

    def changed(self, record: Record) -> None:
        """Take a change of a record, and print its block if it is complete. Call it in the event loop."""
        number = record.number
        if record.finished is None:
            return
        if number in self._printed:
            self._later(record)
        elif not (self._tells and record.waits_for_news):
            self._print(record)
        elif number not in self._waiting:
            self._waiting.add(number)
            asyncio.get_running_loop().call_later(NEWS_SECONDS, self._give_up, record)

    def _give_up(self, record: Record) -> None:
        if record.number not in self._printed:
            self._print(record)

    def _print(self, record: Record) -> None:
        self._waiting.discard(record.number)
        self._printed[record.number] = len(record.lines)
        while len(self._printed) > 1000:
            del self._printed[next(iter(self._printed))]
        second = int(time.monotonic())
        if second != self._second:
            self.tell_left_out()
            self._second, self._blocks = second, 0
        self._blocks += 1
        if self._blocks > BLOCKS_A_SECOND:
            if not self._left_out:
                asyncio.get_running_loop().call_later(1.0, self.tell_left_out)
            self._left_out += 1
        else:
            say(block(record))

    def tell_left_out(self) -> None:
        """Print how many requests were only counted."""
        if self._left_out:
            say([click.style(f"… and {self._left_out:,} more requests", dim=True)])
            self._left_out = 0

    def _later(self, record: Record) -> None:
        known = self._printed[record.number]
        self._printed[record.number] = len(record.lines)
        lines = list(later(record, record.lines[known:]))
        if lines and self._blocks <= BLOCKS_A_SECOND:
            say(lines)


def block(record: Record) -> Iterator[str]:
    """Write what became of a request: a line for it, and for each plugin a line and its changes.

    Args:
        record: The request.

    Returns:
        The lines, without their ends, with colours for a terminal.
    """
    client = record.client
    ways = lanes(record)
    route = record.about.get("route")
    status = str(client.status or "no answer")
    taken = f"{record.milliseconds(record.finished) or 0.0:.1f} ms"
    where = f"route {one_line(route)}" if route is not None else outcome_of(record)
    line = f"{one_line(client.method)} {one_line(text(client.target))}"
    if not ways and record.error is None:
        yield click.style(f"{line}  {status}  {taken}  {where}{_again(record)}", dim=True)
        yield from _lines(record, record.lines)
        return
    yield (
        click.style(line, bold=True)
        + "  "
        + click.style(status, fg=_colour(client.status), bold=True)
        + click.style(f"  {taken}  {where}{_again(record)}", dim=True)
    )
    shown_upstream = False
    for lane in ways:
        if lane.phase == "response" and not shown_upstream:
            shown_upstream = True
            yield from _upstream(record)
        yield from _lane(lane)
    if not shown_upstream:
        yield from _upstream(record)
    if record.error is not None:
        yield "  " + click.style(one_line(record.error), fg="red")
    yield from _lines(record, record.lines)


def later(record: Record, lines: list[dict[str, Any]]) -> Iterator[str]:
    """Write log lines of a request whose block is printed already."""
    found = list(_lines(record, lines, faults=True))
    if found:
        yield click.style(f"{one_line(record.client.method)} {one_line(text(record.client.target))}, later:", bold=True)
        yield from found
        for part in record.parts():
            if "late" in part.get("fault", {}):
                yield from _traceback(part["fault"])


def _again(record: Record) -> str:
    return "" if record.again is None else "  sent by the inspector"


def _colour(status: int) -> str:
    return "red" if status >= 500 or not status else "yellow" if status >= 400 else "green"


def _lane(lane: Lane) -> Iterator[str]:
    head = f"{lane.listed:<10}"
    width = max((len(step.plugin) for step in lane.steps), default=0)
    for step in lane.steps:
        yield "  " + click.style(head, dim=True) + _step(step, width)
        head = " " * 10
        for change in step.changes[:MAX_CHANGES]:
            yield " " * 12 + click.style(" " * width + "  " + one_line(change), dim=True)
        if len(step.changes) > MAX_CHANGES:
            yield " " * 12 + click.style(" " * width + f"  and {len(step.changes) - MAX_CHANGES} more", dim=True)
        if step.fault is not None and "late" not in step.fault:
            yield from _traceback(step.fault)
    call = lane.call.call
    if call is not None and call.error is not None and not any(step.state == "failed" for step in lane.steps):
        what = "; the request goes on without the plugins" if call.degraded else ""
        yield "  " + click.style(f"{head}the runner failed: {one_line(call.error)}{what}", fg="red")


def _traceback(fault: dict[str, str]) -> Iterator[str]:
    """Write the user's frames of what a plugin raised."""
    for line in fault.get("own", "").rstrip("\n").split("\n"):
        if line:
            yield " " * 12 + click.style(one_line(line), fg="red")


def _step(step: Step, width: int) -> str:
    words = click.style(one_line(step.words), fg=_COLOURS.get(step.state), dim=step.state in ("skipped", "passed"))
    taken = "" if step.milliseconds is None else click.style(f"  {step.milliseconds:.1f} ms", dim=True)
    name = step.plugin.ljust(width)
    return f"{click.style(one_line(name), bold=step.state != 'skipped', dim=step.state == 'skipped')}  {words}{taken}"


def _upstream(record: Record) -> Iterator[str]:
    for each in record.upstreams:
        if each.error is not None:
            what = click.style(f"failed: {one_line(each.error)}", fg="red")
        else:
            what = click.style(str(each.status or "no answer"), fg=_colour(each.status))
        taken = "" if each.head is None else click.style(f"  {(each.head - each.sent) * 1000:.1f} ms", dim=True)
        yield "  " + click.style(f"{'upstream':<10}", dim=True) + f"{one_line(each.to)}  {what}{taken}"


def _lines(record: Record, lines: list[dict[str, Any]], *, faults: bool = False) -> Iterator[str]:
    """Write log lines of this package. Those of plugins, and what they print, are on the terminal already.

    Args:
        record: The request.
        lines: Of it.
        faults: True: those about faults too, which the steps show otherwise.
    """
    known = [part["fault"]["text"] for part in record.parts() if part.get("fault")]
    for line in lines:
        ours = line["kind"] == "log" and line.get("logger", "").startswith("asgi_bridge.")
        if not ours or line.get("level") not in ("warning", "error", "critical"):
            continue
        if not faults and (line.get("has_traceback") or any(fault in line["text"] for fault in known)):
            continue
        if not faults and line.get("logger") == "asgi_bridge.gateway" and _is_error_of_call(record, line["text"]):
            continue
        colour = "yellow" if line["level"] == "warning" else "red"
        yield "  " + click.style(f"{'log':<10}", dim=True) + click.style(one_line(line["text"]), fg=colour)


def _is_error_of_call(record: Record, content: str) -> bool:
    """Whether a line says once more why a call has failed."""
    return any(
        each.call is not None and each.call.error is not None and content.endswith(each.call.error)
        for each in record.calls
    )
