"""All that is known of one request: the client's side, the calls of the runner, the upstream's side, and the lines.

Times are monotonic seconds, as in :mod:`..dev_runner.story`; what is shown is milliseconds from the request's start.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..dev_runner.body import Body
from ..gateway import Call
from ..wire.messages import HTTPReqCallReq, HTTPRespCallReq, Message
from .frames import fields_of, name_of

__all__ = ["MAX_FRAMES", "CallRecord", "Exchanged", "Frame", "Headers", "Record", "Upstreamed"]

MAX_FRAMES = 200
"""Maximum number of frames of one request that are kept."""

YOUNG_SECONDS = 0.2
"""Seconds after which a request that is not finished is worth to be shown."""

Headers = Sequence[tuple[bytes, bytes]]


@dataclass(slots=True)
class Exchanged:
    """A request and its response, as they crossed the wire.

    Attributes:
        method: Of the request.
        target: Path and query, as they were written.
        headers: Of the request.
        body: Of the request, as far as it was read.
        status: Of the response; 0: there is none.
        response_headers: Of the response.
        response_body: Of the response, as far as it has come.
    """

    method: str
    target: bytes
    headers: Headers
    body: Body = field(default_factory=Body)
    status: int = 0
    response_headers: Headers = ()
    response_body: Body = field(default_factory=Body)


@dataclass(slots=True)
class Upstreamed(Exchanged):
    """A request to the upstream, and its response.

    Attributes:
        to: The server: host and port.
        fetch: ext-plugin-post-resp has sent it.
        sent: When it was sent.
        head: When the response's head came; None: it has not.
        error: Why there is no response; None: there is one.
    """

    to: str = ""
    fetch: bool = False
    sent: float = field(default_factory=time.monotonic)
    head: float | None = None
    error: str | None = None


@dataclass(slots=True)
class Frame:
    """A frame between gateway and runner.

    Attributes:
        at: When it crossed.
        sent: True: the gateway has sent it; False: the runner has.
        name: Of its message.
        size: In bytes.
        fields: Of its message.
    """

    at: float
    sent: bool
    name: str
    size: int
    fields: dict[str, Any]


@dataclass(slots=True)
class CallRecord:
    """One call of the runner.

    Attributes:
        number: Of the call; None: no frame of the call was sent.
        call: As the gateway saw it; None: it still runs.
        ended: When it ended.
        plugins: Those of its list without shadows, as the runner tells; None: it has told nothing.
        parts: The parts of its plugins, by their place.
        shadows: What its shadows would have done: ``plugin``, ``outcome`` and ``text``.
        told: When the runner has told something last.
    """

    number: int | None
    call: Call | None = None
    ended: float = 0.0
    plugins: list[str] | None = None
    parts: dict[int, dict[str, Any]] = field(default_factory=dict)
    shadows: list[dict[str, str]] = field(default_factory=list)
    told: float = 0.0


class Record:
    """One request of a client, and what became of it.

    Args:
        number: Of the record; later requests have greater numbers.
        client: The client's side.

    Attributes:
        number: Of the record.
        client: The client's side.
        at: When the request came, in seconds since 1970.
        started: When the request came.
        finished: When the response was complete, or the client gone; None: neither.
        error: Why the client has no whole response; None: nothing is known to be wrong.
        about: What the gateway found: ``route``, ``route_name``, ``own`` (APISIX's own plugins), ``websocket``,
            ``request_id``.
        again: Number of the record that this request repeats; None: the client has sent it.
        calls: Of the runner, in their order.
        frames: In their order.
        upstreams: The requests to the upstream.
        lines: Log lines and output, in the order in which they came.
        size: Bytes that it holds, about.
        dropped: It made room for later ones.
    """

    def __init__(self, number: int, client: Exchanged, again: int | None = None) -> None:
        self.number = number
        self.client = client
        self.at = time.time()
        self.started = time.monotonic()
        self.finished: float | None = None
        self.error: str | None = None
        self.about: dict[str, Any] = {}
        self.again = again
        self.calls: list[CallRecord] = []
        self.frames: list[Frame] = []
        self.upstreams: list[Upstreamed] = []
        self.lines: list[dict[str, Any]] = []
        self.size = 2000
        self.dropped = False
        self._bodies: dict[Body, Body] = {}

    def keep(self, body: Body | bytes) -> Body:
        """Return what is kept of a body: of equal ones always the same object."""
        made = body if isinstance(body, Body) else Body(body)
        kept = self._bodies.setdefault(made, made)
        if kept is made:
            self.size += len(made.kept)
        return kept

    def add_frame(self, message: Message, size: int, *, sent: bool) -> None:
        """Add a frame. With that of a call, the call begins."""
        if isinstance(message, HTTPReqCallReq | HTTPRespCallReq) and sent:
            self.calls.append(CallRecord(message.id))
        if len(self.frames) < MAX_FRAMES:
            fields = fields_of(message, self.keep)
            self.frames.append(Frame(time.monotonic(), sent, name_of(message), size, fields))
            self.size += 200 + min(size, 4096)

    def add_call(self, call: Call) -> None:
        """Add what the gateway knows of a call that has ended."""
        if not self.calls or self.calls[-1].call is not None:  # it has failed before its frame was sent
            self.calls.append(CallRecord(None))
        self.calls[-1].call = call
        self.calls[-1].ended = time.monotonic()

    def add_news(self, call: CallRecord, news: dict[str, Any]) -> None:
        """Add what the runner tells of one of its calls."""
        call.told = news["at"]
        call.plugins = news["plugins"]
        for part in news["parts"]:
            for name in ("got_body", "passed_body", "inside_body", "sent_body"):
                if name in part:
                    part[name] = self.keep(Body.of_json(part[name]))
            call.parts[part["index"]] = part
            self.size += 2000
        for shadow in news["shadows"]:
            call.shadows.append(shadow)
            self.size += 200 + len(shadow["text"])
        for line in news["lines"]:
            self.add_line(line)

    def add_line(self, line: dict[str, Any]) -> None:
        """Add a log line, or a line of output."""
        self.lines.append(line)
        self.size += 200 + len(line["text"])

    @property
    def is_young(self) -> bool:
        """Whether it has come just now, and is not finished."""
        return self.finished is None and time.monotonic() - self.started < YOUNG_SECONDS

    @property
    def waits_for_news(self) -> bool:
        """Whether the runner may still tell something of its answers. It tells nothing of those without a plugin."""
        return any(each.number is not None and each.told < each.ended for each in self.calls if each.call is not None)

    @property
    def plugins(self) -> list[str]:
        """The names of all plugins in the lists of its calls, each once."""
        lists = [each.call.plugins for each in self.calls if each.call is not None]
        return list(dict.fromkeys(name for names in lists for name in names))

    def parts(self) -> Iterator[dict[str, Any]]:
        """Return the parts of all plugins, call by call."""
        for call in self.calls:
            yield from (call.parts[index] for index in sorted(call.parts))

    def milliseconds(self, at: float | None) -> float | None:
        """Return a time as milliseconds since the request came."""
        return None if at is None else round((at - self.started) * 1000, 3)
