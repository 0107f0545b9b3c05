"""The calls that are measured, and what is compared with them."""

import os
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, replace

from asgi_bridge.wire import PrepareConfReq, TextEntry, encode

__all__ = ["CASES", "FLOOR", "GROUPS", "Case", "cases", "peers"]


@dataclass(frozen=True)
class Case:
    """A kind of call to measure.

    Attributes:
        name: Name in the tables.
        group: The table that it stands in.
        plugins: Names of the chain's plugins, outermost first.
        action: What every call has to get, by the load generator's name for it. "both": a request call gets none, and
            a response call is answered.
        server: "floor", "served" (the floor with an application), "limit", "runner", "pure" (a runner without the
            compiled core), "frameworks" (a runner that has imported these too), "recorder", "go" or "java"; or "bare",
            which has no server and no calls.
        calls: Name of the file of `frames/` with the calls.
        connections: Number of connections, each with one call at a time.
        pause: Microseconds between an answer and the next call of a connection, on the average.
        wrong_token: True: the calls have a token that the runner does not know.
        bare: Name of what `benchmarks.bare` has to do, for the server "bare".
    """

    name: str
    group: str
    plugins: tuple[str, ...] = ("bench-noop",)
    action: str = "none"
    server: str = "runner"
    calls: str = "req_forwarded"
    connections: int = 32
    pause: float = 0.0
    wrong_token: bool = False
    bare: str = ""

    @property
    def key(self) -> str:
        """What tells it from all other cases."""
        return f"{self.group}: {self.name}"

    @property
    def frames(self) -> int:
        """Number of calls of one request."""
        return 2 if self.action == "both" else 1

    def prepare(self) -> bytes:
        """Return the frame that prepares the chain."""
        configuration = {"say": b'{"body":"hello"}'}
        conf: list[TextEntry] = [(name.encode(), configuration.get(name, b'{"x":1}')) for name in self.plugins]
        phase = "post-resp" if self.action == "respcall" else "pre-req"
        return encode(PrepareConfReq(conf, f"route#{'+'.join(self.plugins)}#ext-plugin-{phase}#1".encode()))

    def floor(self) -> "Case":
        """Return the floor that it is compared with: the same load on a server that does the least."""
        pause = 0.0 if self.server == "bare" else self.pause
        connections = 32 if self.server == "bare" else self.connections
        return Case(FLOOR, "floor", action="stop", server="floor", connections=connections, pause=pause)


FLOOR = "floor"

_USUAL = {
    "stop": (("say",), "stop"),
    "rewrite": (("bench-rewrite",), "rewrite"),
    "no-op": (("bench-noop",), "none"),
    "2 variables, rewrite": (("bench-extra",), "rewrite"),
}
"""Name → plugins and action."""


def _usual(group: str, **load: object) -> Iterator[Case]:
    for name, (plugins, action) in _USUAL.items():
        yield Case(name, group, plugins, action, **load)  # type: ignore[arg-type]


def _variables(count: int) -> Case:
    return Case(f"{count} variable{'s' * (count > 1)}", "asked", (f"bench-ask-{count}",), "rewrite")


_APPLICATIONS = {
    "CORS": ("bench-cors", "rewrite", "cors"),
    "BaseHTTPMiddleware": ("bench-base", "rewrite", "base"),
    "Starlette, router": ("bench-router", "stop", "router"),
    "FastAPI, validation": ("bench-fastapi", "stop", "fastapi"),
    "Flask": ("bench-flask", "stop", "flask"),
}
"""Name → plugin, action, and what `benchmarks.bare` calls the application."""

_SERVED = {"CORS": "cors", "Starlette, router": "router", "FastAPI, validation": "fastapi", "no-op": "noop"}
"""Those that wait for nothing, and a no-op: name → what `benchmarks.bare` calls the application."""

GROUPS = {
    "one request": "the same request in all calls, 32 connections",
    "1,000 requests": "1,000 requests in turn, which differ in path, query, headers and lengths",
    "pure": "the same request as in the first group, without the compiled core",
    "light": "one call each 2 ms on the average, on 4 connections",
    "applications": "applications and middleware of frameworks",
    "bare": "the same without any server: awaited in a loop, Flask in a thread from that loop",
    "served": "the same in the floor's server, which awaits it and writes the canned answer",
    "parts": "parts of a call, by themselves",
    "layers": "a chain of plugins that do nothing",
    "asked": "plugins that ask the gateway during a call",
    "phases": "the response phase, and both phases",
    "refused": "calls that are refused",
    "1 connection": "the same request, 1 connection",
    "8 connections": "the same request, 8 connections",
    "256 connections": "the same request, 256 connections",
}
"""Group of cases → what its calls have in common."""

CASES: tuple[Case, ...] = (
    *_usual("one request"),
    *_usual("1,000 requests", calls="shapes"),
    *_usual("pure", server="pure"),
    *(Case(name, "applications", (plugin,), action, "frameworks", "req_cors" if name == "CORS" else "req_forwarded")
      for name, (plugin, action, _) in _APPLICATIONS.items()),
    *(Case(name, "bare", server="bare", bare=bare) for name, (_, _, bare) in _APPLICATIONS.items()),
    Case("no-op", "bare", server="bare", bare="noop"),
    *(Case(name, "served", (f"bench-{each}",), "stop", "served", "req_cors" if each == "cors" else "req_forwarded")
      for name, each in _SERVED.items()),
    Case("task around a no-op", "parts", server="bare", bare="task"),
    *(Case(f"codec, {name}", "parts", server="bare", bare=f"codec {name}") for name in ("stop", "rewrite", "no-op")),
    *(Case(f"{count} layer{'s' * (count > 1)}", "layers", ("bench-noop",) * count) for count in range(1, 6)),
    *map(_variables, (1, 2, 4)),
    Case("request body, 10 KiB", "asked", ("bench-body",), "rewrite", calls="req_body"),
    Case("response phase", "phases", ("bench-response",), "respcall", calls="resp"),
    Case("both phases", "phases", ("bench-both",), "both", calls="both"),
    Case("unknown token", "refused", action="err", wrong_token=True),
    Case("plugin raises", "refused", ("bench-panic",), "err"),
    Case("plugin answers 403", "refused", ("bench-forbid",), "stop"),
    *_usual("1 connection", connections=1),
    *_usual("8 connections", connections=8),
    *_usual("256 connections", connections=256),
    *_usual("light", connections=4, pause=8000),
)  # fmt: skip

RECORDED = tuple(
    Case(f"{name}, recorded", "one request", plugins, action, server="recorder")
    for name, (plugins, action) in _USUAL.items()
)
LIMIT = Case("server in C, canned answers", "one request", action="stop", server="limit")

PEERS = {"go": ("Go runner", "GO_RUNNER"), "java": ("Java runner", "JAVA_RUNNER")}
"""Server → its name in the tables, and the variable of the environment with its command."""


def peers() -> dict[str, list[str]]:
    """Return the commands of the other runners that are to be measured: server → command."""
    found = {server: shlex.split(os.environ.get(variable, "")) for server, (_, variable) in PEERS.items()}
    return {server: command for server, command in found.items() if command}


def cases(*, limit: bool = False, record: bool = False) -> list[Case]:
    """Return what is to be measured.

    Args:
        limit: True: a server in C too.
        record: True: a runner that records its calls too.
    """
    found = [*CASES, *(RECORDED if record else ()), *([LIMIT] if limit else ())]
    for server in peers():
        for group, load in (
            ("one request", {}),
            ("1,000 requests", {"calls": "shapes"}),
            ("1 connection", {"connections": 1}),
            ("light", {"connections": 4, "pause": 8000}),
        ):
            theirs = _usual(group, server=server, **load)
            found += [replace(case, name=f"{PEERS[server][0]}, {case.name}") for case in theirs]
    return found
