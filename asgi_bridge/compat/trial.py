"""Runs the probes on a plugin, and notes what it does.

The plugin runs as in the runner, as the one plugin of a chain, around an upstream that notes what it was called with.
First come the different requests, then one request with different responses, then the same request again and again: a
plugin may act on the request, on the response, or on what it has seen before.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

from starlette.applications import Starlette
from starlette.types import Message, Receive, Scope, Send

from ..adapter.answer import lost_in_request_phase
from ..errors import ConfigurationError, PluginError
from ..plugins import Chain, MountedLifespans, PlainCall, Plugin, build_chain
from ..plugins.replay import Replay
from .findings import Findings
from .probes import KEYS, PAGE, PROBES, RESPONSES, Probe, Response
from .reading import noting

__all__ = ["examine_plugin"]

PROBE_SECONDS = 10.0
"""Seconds within which the plugin has to answer a probe."""
SHUTDOWN_SECONDS = 5.0
"""Seconds that a lifespan gets to shut down."""
REPEATS = 120
"""How many times the same request is sent, to find limits."""
REPEAT_SECONDS = 2.0
"""Seconds after which no further repeat is sent."""
_COMMON = [(b"host", b"probe.test"), (b"user-agent", b"probe"), (b"accept", b"*/*")]
"""Headers of all probes."""


async def examine_plugin(plugin: Plugin, conf: str) -> Findings:
    """Run all probes on a plugin.

    Args:
        plugin: The plugin.
        conf: Its configuration, JSON.

    Raises:
        ConfigurationError: The plugin cannot be built, or its lifespan fails to start.
    """
    findings = Findings()
    async with _started(plugin, conf, findings) as chain:
        trial = _Trial(chain, findings)
        for probe in PROBES:
            try:
                trial.note_probe(probe, await trial.send(probe))
            except Exception as exc:
                findings.errors[probe.name] = _error(exc)
        await _vary(trial)
        await _repeat(trial)
    return findings


@asynccontextmanager
async def _started(plugin: Plugin, conf: str, findings: Findings) -> AsyncIterator[Chain]:
    mounted = MountedLifespans()
    try:
        lifespan = await mounted.start(plugin, PROBE_SECONDS)
    except PluginError as exc:
        raise ConfigurationError(f"plugin {plugin.name}: {exc}") from None
    if lifespan is not None:
        findings.lifespan = lifespan.own
    try:
        chain = await build_chain(
            {plugin.name: plugin.acting()}, None, [(plugin.name.encode(), conf.encode())], mounted
        )
        try:
            if chain.layers[0].lifespan is not None:
                findings.lifespan = chain.layers[0].lifespan.own
            yield chain
        finally:
            await chain.close(SHUTDOWN_SECONDS)
    finally:
        await mounted.stop(SHUTDOWN_SECONDS)


class _NoAnswer(Exception):
    """The plugin has not answered a probe in time."""

    def __init__(self) -> None:
        super().__init__(f"no answer within {PROBE_SECONDS:g} s")


def _error(exc: Exception) -> str:
    """Return what the report says about an exception."""
    return str(exc) if isinstance(exc, _NoAnswer) else f"{type(exc).__name__}: {exc}"


class _Upstream:
    """The application that the plugin wraps. It notes how it is called, and answers as a server does."""

    def __init__(self, response: Response, number: int) -> None:
        self.scope: Scope | None = None
        self.body = b""
        self.status = response.status
        self.content = response.body
        typed = [(b"content-type", response.content_type)] if response.body else []
        length = [(b"content-length", b"%d" % len(response.body))] if response.length else []
        self.headers = [*typed, *length, (b"vary", b"accept-language"), (b"x-upstream", b"%d" % number)]
        self.headers += response.headers
        self._seconds = response.seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scope = dict(scope)
        self.scope["headers"] = [(bytes(name).lower(), bytes(value)) for name, value in scope["headers"]]
        more = True
        while more:
            message = await receive()
            self.body += message.get("body", b"")
            more = message.get("more_body", False)
        await asyncio.sleep(self._seconds)
        if scope["method"] == "HEAD":  # a server sends the headers alone
            self.content = b""
        await send({"type": "http.response.start", "status": self.status, "headers": list(self.headers)})
        await send({"type": "http.response.body", "body": self.content})


@dataclass
class _Outcome:
    """The result of one probe: the upstream that may have been called, and the response."""

    upstream: _Upstream
    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes

    @property
    def changed(self) -> set[str]:
        """Names of the response headers that differ from the upstream's."""
        return {name.decode("latin-1") for name, _ in set(self.headers) ^ set(self.upstream.headers)}

    def added(self, name: str) -> list[bytes]:
        """Return the values of a response header that the plugin set."""
        own = [entry for entry in self.headers if entry not in self.upstream.headers]
        return [value for each, value in own if each == name.encode("latin-1")]


class _Trial:
    """Sends probes through a chain, and collects the findings and the outcome of each of PROBES."""

    def __init__(self, chain: Chain, findings: Findings) -> None:
        self.findings = findings
        self.outcomes: dict[str, _Outcome] = {}
        self._chain = chain
        self._number = 0

    async def send(self, probe: Probe, response: Response = PAGE) -> _Outcome:
        """Send a probe, with `response` as the upstream's. Raises whatever the plugin raises."""
        headers = [*_COMMON, *probe.headers]
        if probe.body:
            headers.append((b"content-length", b"%d" % len(probe.body)))
        scope: dict[str, Any] = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": "1.1",
            "method": probe.method,
            "scheme": "http",
            "path": probe.path,
            "raw_path": probe.path.encode(),
            "query_string": probe.query,
            "root_path": "",
            "headers": noting(headers, self.findings.reads),
            "client": ("203.0.113.7", 40000),
            "server": ("probe.test", 80),
            "extensions": {},
            "app": Starlette(),
        }
        messages: list[Message] = []
        taken = False
        ended = asyncio.Event()

        async def receive() -> Message:
            nonlocal taken
            if taken:
                await ended.wait()
                return {"type": "http.disconnect"}
            await asyncio.sleep(0)
            taken = True
            return {"type": "http.request", "body": probe.body, "more_body": False}

        async def send(message: Message) -> None:
            messages.append(message)
            if message["type"] == "http.response.body" and not message.get("more_body", False):
                ended.set()

        self._number += 1
        upstream = _Upstream(response, self._number)
        call = PlainCall("request", self._chain, upstream, {}, {})
        try:
            async with asyncio.timeout(PROBE_SECONDS) as limit:
                await self._chain.enter(call, scope, Replay(receive), send)
        except TimeoutError:
            if limit.expired():
                raise _NoAnswer from None
            raise
        outcome = _Outcome(upstream, *_response(messages))
        if upstream.scope is not None:
            self.findings.passed = True
            self.findings.wraps_send = self.findings.wraps_send or call.wrapped_send
            self.findings.wraps_receive = self.findings.wraps_receive or call.changed_body
            self._compare_request(probe, headers, upstream)
            self._compare_response(probe, outcome)
        return outcome

    def note_probe(self, probe: Probe, outcome: _Outcome) -> None:
        """Keep the outcome of one of PROBES."""
        self.outcomes[probe.name] = outcome
        if outcome.upstream.scope is None:
            if self.is_replay(outcome):
                self.findings.replays = True
            else:
                self.findings.answers[probe.name] = outcome.status

    def is_replay(self, outcome: _Outcome) -> bool:
        """Whether a response that did not come from the upstream repeats an earlier one that did."""
        return any(name == b"x-upstream" for name, _ in outcome.headers)

    def passed(self, name: str) -> _Outcome | None:
        """Return the outcome of a probe; None if it did not reach the upstream."""
        outcome = self.outcomes.get(name)
        return None if outcome is None or outcome.upstream.scope is None else outcome

    def _compare_request(self, probe: Probe, headers: list[tuple[bytes, bytes]], upstream: _Upstream) -> None:
        findings, scope = self.findings, upstream.scope
        assert scope is not None
        for part, value in {
            "method": probe.method, "path": probe.path, "query": probe.query, "client": ("203.0.113.7", 40000),
            "scheme": "http", "server": ("probe.test", 80),
        }.items():  # fmt: skip
            found = scope["query_string" if part == "query" else part]
            if (tuple(found) if isinstance(found, list) else found) != value:
                findings.request.add(part)
                if part in ("method", "client", "scheme", "server"):
                    findings.unmappable.add(part)
        if upstream.body != probe.body:
            findings.request.add("body")
            if not upstream.body:
                findings.unmappable.add("an empty body")
        for name, _ in set(headers) ^ set(scope["headers"]):
            findings.request.add(f"header {name.decode('latin-1')}")

    def _compare_response(self, probe: Probe, outcome: _Outcome) -> None:
        found, upstream = self.findings.response, outcome.upstream
        found.status = found.status or outcome.status != upstream.status
        if probe.method != "HEAD" and outcome.body != upstream.content:  # no client gets a body with HEAD
            found.body = True
            found.recodes = found.recodes and "content-encoding" in outcome.changed
        for name in outcome.changed:
            raw = name.encode("latin-1")
            found.headers.add(name)
            if lost_in_request_phase(raw) or not outcome.added(name) or raw in dict(upstream.headers):
                found.lost.add(name)


def _response(messages: list[Message]) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
    status, headers, body = 0, [], b""
    for message in messages:
        if message["type"] == "http.response.start":
            status = message["status"]
            headers = [(bytes(name).lower(), bytes(value)) for name, value in message.get("headers", ())]
        elif message["type"] == "http.response.body":
            body += bytes(message.get("body", b""))
    if not status:
        raise RuntimeError("no response")
    return status, headers, body


async def _vary(trial: _Trial) -> None:
    """Send the first probe again, once for each of RESPONSES."""
    probe, page = PROBES[0], trial.passed(PROBES[0].name)
    if page is None:
        return
    findings = trial.findings
    outcomes = [page]
    for response in RESPONSES:
        try:
            outcome = await trial.send(probe, response)
        except Exception:  # the plugin can deal with PAGE, but not with this response
            findings.response.reacts.add(response.name)
            continue
        if outcome.upstream.scope is None:
            if trial.is_replay(outcome):
                findings.replays = True
            elif findings.limit is None:
                findings.limit = (len(outcomes) + 1, outcome.status)
            break
        outcomes.append(outcome)
        kept_status = outcome.status == response.status or page.status != PAGE.status
        kept_body = outcome.body == response.body or page.body != PAGE.body
        if outcome.changed != page.changed or not (kept_status and kept_body):
            findings.response.reacts.add(response.name)
    if len(outcomes) < 3:  # too few of them reached the upstream: take the outcomes of the other requests
        outcomes = [each for each in trial.outcomes.values() if each.upstream.scope is not None]
    known = {value for outcome in outcomes for _, value in outcome.upstream.scope["headers"]}  # type: ignore[index]
    for name in page.changed:
        values = [tuple(outcome.added(name)) for outcome in outcomes]
        if len(set(values)) > 1 and not all(value in known for each in values for value in each):
            findings.response.varying.add(name)


async def _repeat(trial: _Trial) -> None:
    """Send equal requests, to find a plugin that repeats kept responses, and one that limits requests."""
    findings = trial.findings
    for probe in _with_keys(trial):
        for _ in range(2):
            try:
                outcome = await trial.send(probe)
            except Exception:  # the plugin may refuse such a key
                break
            if outcome.upstream.scope is None:
                findings.replays = findings.replays or trial.is_replay(outcome)
                break
    if trial.passed(PROBES[0].name) is None or findings.limit is not None or findings.replays:
        return
    loop = asyncio.get_running_loop()
    until = loop.time() + REPEAT_SECONDS
    for number in range(1, REPEATS + 1):
        if loop.time() > until:
            return
        try:
            outcome = await trial.send(PROBES[0])
        except Exception as exc:
            findings.errors.setdefault(f"repeat {number}", _error(exc))
            return
        if outcome.upstream.scope is None:
            if trial.is_replay(outcome):
                findings.replays = True
            else:
                findings.limit = (number, outcome.status)
            return


def _with_keys(trial: _Trial) -> Iterator[Probe]:
    for probe in PROBES:
        if probe.method == "POST" and trial.passed(probe.name) is not None:
            for key in KEYS:
                yield replace(probe, headers=(*probe.headers, key))
