"""What one call tells: the part of each of its plugins, and the lines that were written meanwhile.

All times are monotonic seconds. On Linux all processes of a machine have the same clock for them.
"""

import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

from starlette.types import Message, Scope

from .body import Body

__all__ = ["MAX_LINE", "MAX_LINES", "Part", "Story", "text"]

MAX_LINES = 200
"""Maximum number of lines of one call that are kept."""
MAX_LINE = 4096
"""Maximum length of a line that is kept, in characters."""


def text(data: bytes | bytearray | str) -> str:
    """Return bytes as text. What is not UTF-8 is shown as ``\\xNN``."""
    return data if isinstance(data, str) else bytes(data).decode("utf-8", "backslashreplace")


def _headers(headers: Any) -> list[list[str]]:
    return [[text(name).lower(), text(value)] for name, value in headers or ()]


@dataclass(slots=True)
class Seen:
    """A request or a response that a plugin gets or gives.

    Attributes:
        head: All but the body; None: it is not there.
        body: The body, as far as somebody has read or sent it; None: nobody has.
    """

    head: dict[str, Any] | None = None
    body: Body | None = None

    def request(self, scope: Scope) -> None:
        """Note a request."""
        path = scope.get("path")
        self.head = {
            "method": str(scope.get("method")),
            "path": path if isinstance(path, str) else repr(path),
            "query": text(scope.get("query_string") or b""),
            "headers": _headers(scope.get("headers")),
        }

    def receive(self, message: Message) -> None:
        """Note an ASGI message of the request body."""
        if message["type"] == "http.request":
            self.body = self.body or Body()
            self.body.add(message.get("body", b""))

    def send(self, message: Message) -> bool:
        """Note an ASGI message of the response. Returns whether it is the last one."""
        if message["type"] == "http.response.start":
            self.head = {"status": message.get("status"), "headers": _headers(message.get("headers"))}
            self.body = Body()
        elif message["type"] == "http.response.body" and self.body is not None:
            self.body.add(message.get("body", b""))
            return not message.get("more_body", False)
        return False


@dataclass(slots=True)
class Part:
    """The part of one plugin in a call.

    Attributes:
        plugin: Name of the plugin.
        index: Its place in the list, from 0.
        phase: ``"request"`` or ``"response"``: in which the call entered it.
        entered: When the call entered it.
        passed_at: When it passed the request on; None: it has not.
        back: When the response from inside was complete.
        done: When its response was complete, or it ended without one.
        ended: Whether its application has returned.
        got: The request as it got it.
        passed: The request as it passed it on.
        inside: The response that it got from inside.
        sent: The response that it sent.
        fault: What it raised: ``kind``, ``text``, and the tracebacks ``own`` and ``whole``; ``late`` where its response
            was complete before.
        passed_over: The request went on without it, after a fault.
    """

    plugin: str
    index: int
    phase: str
    entered: float = field(default_factory=monotonic)
    passed_at: float | None = None
    back: float | None = None
    done: float | None = None
    ended: bool = False
    got: Seen = field(default_factory=Seen)
    passed: Seen = field(default_factory=Seen)
    inside: Seen = field(default_factory=Seen)
    sent: Seen = field(default_factory=Seen)
    fault: dict[str, str] | None = None
    passed_over: bool = False

    def as_json(self) -> dict[str, Any]:
        """Return it as values that JSON has. A body that is there has a field of its own, such as ``got_body``."""
        found: dict[str, Any] = {}
        for name in self.__slots__:
            value = getattr(self, name)
            if isinstance(value, Seen):
                if value.body is not None:
                    found[name + "_body"] = value.body.as_json()
                value = value.head
            if value is not None:
                found[name] = value
        return found


class Story:
    """What is known of one call, and has not been told yet.

    Args:
        number: Of the call, as in its frames.
        phase: Of the call.
        route_id: Id of the route, if it is known.
        plugins: The plugins of its list, without shadows, outermost first.

    Attributes:
        number: Of the call.
        parts: The parts of its plugins, by the identity of their layers. One that has ended goes once it is told.
    """

    def __init__(self, number: int, phase: str, route_id: str | None, plugins: Sequence[str]) -> None:
        self.number = number
        self._plugins = list(plugins)
        self.parts: dict[int, Part] = {}
        self._route_id = route_id
        self._phase = phase
        self._changed: set[int] = set()
        self._shadows: list[dict[str, str]] = []
        self._lines: deque[dict[str, Any]] = deque()
        self._left = MAX_LINES
        self._partial: dict[int, tuple[str, str]] = {}
        self._lock = threading.Lock()

    def changed(self, key: int) -> None:
        """Note that the part of a layer has changed."""
        self._changed.add(key)

    def add_shadow(self, plugin: str, outcome: str, content: str) -> None:
        """Add what a shadow would have done.

        Args:
            plugin: Its name.
            outcome: In a word or two.
            content: What the log says about it; empty: nothing, because it would have changed nothing.
        """
        self._shadows.append({"plugin": plugin, "outcome": outcome, "text": content[:MAX_LINE]})

    def add_line(self, kind: str, content: str, **more: Any) -> bool:
        """Add a line. Any thread may do that. Returns False if there are too many already.

        Args:
            kind: ``"log"`` or ``"print"``.
            content: The line.
            more: What else is known of it.
        """
        with self._lock:
            if self._left <= 0:
                return False
            self._left -= 1
        if not self._left:
            content = "(further lines are not kept)"
        self._lines.append({"at": monotonic(), "kind": kind, "text": content[:MAX_LINE], **more})
        return True

    def write(self, stream: int, content: str, plugin: str) -> None:
        """Add what a plugin writes to stdout or stderr, line by line. Any thread may do that.

        Args:
            stream: Tells the two apart.
            content: What it writes: a part of a line, or several lines.
            plugin: Its name.
        """
        with self._lock:
            *lines, rest = (self._partial.pop(stream, ("", ""))[0] + content).split("\n")
            if rest:
                self._partial[stream] = rest[: MAX_LINE + 1], plugin
        for line in lines:
            self.add_line("print", line, plugin=plugin)

    def _end_lines(self) -> None:
        """Add lines that have no end yet."""
        with self._lock:
            partial, self._partial = self._partial, {}
        for line, plugin in partial.values():
            self.add_line("print", line, plugin=plugin)

    def news(self) -> dict[str, Any]:
        """Return what has not been told yet, as values that JSON has."""
        changed, self._changed = self._changed, set()
        if all(part.ended for part in self.parts.values()):
            self._end_lines()
        shadows, self._shadows = self._shadows, []
        lines = [self._lines.popleft() for _ in range(len(self._lines))]
        parts = sorted((self.parts[key] for key in changed), key=lambda part: part.index)
        for key in changed:
            if self.parts[key].ended:
                del self.parts[key]
        return {
            "call": self.number,
            "phase": self._phase,
            "route": self._route_id,
            "plugins": self._plugins,
            "parts": [part.as_json() for part in parts],
            "shadows": shadows,
            "lines": lines,
        }
