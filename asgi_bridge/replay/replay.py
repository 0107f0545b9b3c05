"""Runs the calls of a recording on today's plugins, one after the other, and compares the actions.

The runner is a real one; what it asks the gateway is answered from the recording. Nothing listens, and no upstream is
called. Request halves of ``phase="both"`` are parked, and resumed by the response call of their request, as they were.
"""

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from ..adapter import Answer, Call, Host, ParkedCalls, RequestCall, ResponseCall
from ..adapter.parked_calls import Parkable
from ..adapter.stage import PARKED
from ..errors import ConfigurationError, PluginError
from ..plugins import MAX_CONFIGURATION_BYTES, Chain, Plugin
from ..plugins.key import route_id_of
from ..recording.lines import Json, action_of, ask_of, message_of, raw
from ..recording.redact import Redactor
from ..server.runner import Runner, RunnerOptions
from ..wire import HTTPReqCallReq, HTTPRespCallReq, Info, TextEntry
from .reader import Reader
from .redacted import Watch

__all__ = ["Replayed", "Verdict", "replay", "replay_all"]

AFTERWARDS_SECONDS = 1.0
"""Seconds that what a plugin does after its answer gets, before the next call begins."""
_REFUSALS = (400, 401, 403, 407)
"""Statuses of a Stop with which a plugin refuses credentials that it cannot check."""


class Verdict(StrEnum):
    """What came of a replayed call."""

    SAME = "same"
    DIFFERS = "differs"
    UNKNOWN = "unknown"


@dataclass(slots=True)
class Replayed:
    """A replayed call.

    Attributes:
        line: Number of its line in the recording.
        verdict: Whether its action differs.
        why: Why it cannot be compared; empty: it can. Of one that differs: why it may differ only here.
        phase: ``"request"`` or ``"response"``.
        method: Of the request; None: the recording does not say it.
        path: Of the request; None: the recording does not say it.
        route: Id of the route; None: it is not known.
        plugins: Names of the plugins of the list.
        then: The recorded action. Secrets are masked.
        now: Today's action. Secrets are masked.
        faults: What went wrong in today's plugins.
    """

    line: int
    verdict: Verdict
    why: str
    phase: str
    method: str | None
    path: str | None
    route: str | None
    plugins: list[str]
    then: Json
    now: Json
    faults: list[str] = field(default_factory=list)


async def replay(plugins: Mapping[str, Plugin], recording: Reader) -> AsyncIterator[Replayed]:
    """Run the calls of a recording, and give what came of each.

    Args:
        plugins: Today's plugins, by name.
        recording: The calls.

    Raises:
        ConfigurationError: A line cannot be read.
    """
    longest = max((len(raw(value) or b"") for each in recording.preparations.values() for _, value in each["plugins"]),
                  default=0)  # fmt: skip
    runner = Runner(plugins, RunnerOptions(
        ask_origin=recording.asks_origin, limit_configuration_size=max(longest, MAX_CONFIGURATION_BYTES),
        otel=False,
    ))  # fmt: skip
    parked = _AsRecorded()
    faults: list[str] = []

    def note(exc: BaseException) -> None:
        faults.append(f"{exc}" if isinstance(exc, PluginError) else f"{type(exc).__name__}: {exc}")

    runner.host = dataclasses.replace(runner.host, parked=parked, on_fault=note)
    replaying = _Replay(runner, recording.preparations, parked)
    await runner.start()
    try:
        for number, line in recording:
            faults.clear()
            replayed = await replaying.run(number, line)
            replayed.faults = list(dict.fromkeys(faults))
            yield replayed
    finally:
        await runner.stop()


def replay_all(plugins: Mapping[str, Plugin], recording: Reader, take: Callable[[Replayed], None]) -> None:
    """Do what `replay` does, in an event loop of its own.

    Args:
        plugins: Today's plugins, by name.
        recording: The calls.
        take: Called with what came of each call.

    Raises:
        ConfigurationError: A line cannot be read.
    """

    async def run() -> None:
        async for replayed in replay(plugins, recording):
            take(replayed)

    asyncio.run(run())


class _AsRecorded(ParkedCalls):
    """Parks the calls that were parked when they were recorded.

    Attributes:
        next: Whether the next call was; None: today's plugins decide.
    """

    next: bool | None = None

    def admits(self, call: Parkable) -> bool:
        return True if self.next is None else self.next


class _Connection:
    """What answers a call's questions from the recording, and takes its action.

    Args:
        extra: What the gateway was asked for, and its answers.
        watch: Of the redacted values.

    Attributes:
        watch: Of the redacted values.
        answered: The action.
        missing: What today's plugins asked for, and the recording does not have.
    """

    def __init__(self, extra: Sequence[Sequence[str | None]], watch: Watch) -> None:
        self._known = {str(ask): raw(answer) for ask, answer in extra}
        self.watch = watch
        self.answered: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self.missing: list[str] = []

    def ask(self, infos: Sequence[Info]) -> "asyncio.Future[list[bytes | None]]":
        future: asyncio.Future[list[bytes | None]] = asyncio.get_running_loop().create_future()
        asks = [ask_of(info) for info in infos]
        missing = [ask for ask in asks if ask not in self._known]
        if self.answered.done():
            future.set_exception(PluginError("the call has been answered: the gateway cannot be asked any more"))
        elif missing:
            self.missing += missing
            future.set_exception(PluginError(f"the recording does not have {', '.join(missing)}"))
        else:
            future.set_result([self.watch.answer(ask, self._known[ask]) for ask in asks])
        return future

    def answer(self, message: Answer, outcome: str) -> None:
        if not self.answered.done():
            self.answered.set_result(message)


class _WatchedCall(RequestCall):
    """A call of the request phase whose query string is watched."""

    __slots__ = ("_watch", "_watched_scope")

    def __init__(
        self, message: HTTPReqCallReq, chain: Chain, connection: _Connection, host: Host, watch: Watch
    ) -> None:
        self._watch = watch
        super().__init__(message, chain, connection, host)

    @property
    def _scope(self) -> dict[str, Any] | None:
        return self._watched_scope

    @_scope.setter
    def _scope(self, scope: dict[str, Any] | None) -> None:
        if scope is not None and "query_string" in scope:
            scope["query_string"] = self._watch.query(scope["query_string"])
        self._watched_scope = scope


def _with_request_line(line: Json, extra: list[Any]) -> list[Any]:
    """Return `extra` with ``$request``, for which earlier versions asked in three parts."""
    found = {ask: answer for ask, answer in extra}  # noqa: C416
    method = line.get("request", {}).get("method") or found.get("$request_method")
    target, protocol = found.get("$real_request_uri"), found.get("$server_protocol")
    if "$request" in found or not (method and target and protocol):
        return extra
    return [*extra, ("$request", f"{method} {target} {protocol}")]


class _Replay:
    def __init__(self, runner: Runner, preparations: Mapping[str, Json], parked: _AsRecorded) -> None:
        self._runner = runner
        self._preparations = preparations
        self._parked = parked
        self._tokens: dict[str, int | str] = {}
        self._requests: dict[str, tuple[str | None, str | None]] = {}

    def _about(
        self, message: HTTPReqCallReq | HTTPRespCallReq, line: Json, variables: Mapping[str, str | None]
    ) -> tuple[str | None, str | None]:
        """Return method and path of a call. Of a response call that resumed another, it is that one's."""
        request_id = variables.get("$request_id") or ""
        if isinstance(message, HTTPReqCallReq):
            about = message.method, line["request"]["path"]
            if line.get("parked"):
                self._requests[request_id] = about
            return about
        method = (variables.get("$request") or "").partition(" ")[0]
        return (method, variables.get("$uri")) if method else self._requests.get(request_id, (None, None))

    async def run(self, number: int, line: Json) -> Replayed:
        preparation = self._preparations.get(line["preparation"])
        if preparation is None:
            raise ConfigurationError(
                f"line {number}: the recording has no preparation {line['preparation']!r}; is its beginning missing?"
            )
        extra = _with_request_line(line, line.get("extra") or [])
        variables = {ask: answer for ask, answer in extra if ask.startswith("$")}
        message = message_of(line)
        is_request = isinstance(message, HTTPReqCallReq)
        masked = line.get("redacted") is not None
        replayed = Replayed(
            number,
            Verdict.SAME,
            "",
            "request" if is_request else "response",
            *self._about(message, line, variables),
            route_id_of(raw(preparation["key"])),
            [name for name, _ in preparation["plugins"]],
            _masked(line["action"]) if masked else line["action"],
            {},
        )
        redacted = list(line.get("redacted") or [])
        chain = await self._chain(line["preparation"], preparation)
        if isinstance(chain, str):
            replayed.now = {"kind": "error", "code": "BAD_REQUEST", "reason": chain}
            replayed.verdict = Verdict.DIFFERS
            fields = [path for path in preparation.get("redacted", ()) if path.partition(".")[0] in chain]
            if fields:
                replayed.why = f"configuration {', '.join(fields)} is redacted"
                replayed.verdict = Verdict.UNKNOWN
            return replayed
        redacted += [f"configuration {path}" for path in preparation.get("redacted", ())]
        watch = Watch(redacted)
        connection = _Connection(extra, watch)
        message.headers = watch.headers(message.headers)
        halves = len(self._parked.of(variables.get("$request_id")))
        call = await self._call(message, chain, connection, line.get("parked"))
        now = action_of(await connection.answered, None)
        await self._afterwards(call)
        replayed.now = _masked(now) if masked else now
        if replayed.now == replayed.then:
            return replayed
        replayed.verdict = Verdict.DIFFERS
        if not is_request and line.get("halves", 0) > halves:
            replayed.why = "its request half is not in the recording"
        elif connection.missing:
            replayed.why = f"today's plugins ask for {', '.join(connection.missing)}, which the recording does not have"
        elif _refuses(replayed.now) and not (replayed.now["kind"] == replayed.then["kind"] == "error"):
            configured = any(each.startswith("configuration ") for each in redacted)
            if redacted and (watch.looked_at or configured):
                replayed.why = f"today's plugins refuse it, and look at what is redacted: {', '.join(redacted)}"
        if replayed.why:
            replayed.verdict = Verdict.UNKNOWN
        elif watch.looked_at:
            replayed.why = f"today's plugins look at what is redacted: {', '.join(redacted)}"
        return replayed

    async def _chain(self, id: str, preparation: Json) -> Chain | str:
        """Return the chain of a preparation; or why it cannot be built."""
        token = self._tokens.get(id)
        store = self._runner.store
        if token is None:
            conf: list[TextEntry] = [(raw(name), raw(value)) for name, value in preparation["plugins"]]
            try:
                token = await store.prepare(raw(preparation["key"]), conf)
            except ConfigurationError as exc:
                token = str(exc)
            self._tokens[id] = token
        if isinstance(token, str):
            return token
        chain = store.find(token) or await store.restore(token)
        assert chain is not None, "the store of this process keeps its tokens for an hour"
        return chain

    async def _call(
        self, message: HTTPReqCallReq | HTTPRespCallReq, chain: Chain, connection: _Connection, parked: bool | None
    ) -> Call:
        runner = self._runner
        self._parked.next = parked
        call: Call
        if isinstance(message, HTTPReqCallReq):
            call = _WatchedCall(message, chain, connection, runner.host, connection.watch)
        else:
            call = ResponseCall(message, chain, connection, runner.host)
        runner.calls.add(call)
        call.task = asyncio.get_running_loop().create_task(call.run())
        try:
            await connection.answered
        finally:
            runner.calls.discard(call)
        return call

    async def _afterwards(self, call: Call) -> None:
        """Let what a plugin does after its answer happen before the next call."""
        task = call.task
        if task is not None and call.stage is not PARKED:
            await asyncio.wait([task], timeout=AFTERWARDS_SECONDS)


def _refuses(action: Json) -> bool:
    return action["kind"] == "error" or (action["kind"] == "stop" and action["status"] in _REFUSALS)


def _masked(action: Json) -> Json:
    """Return an action with the same word for each secret."""
    redactor = Redactor(None)
    masked = dict(action)
    for name in ("headers", "resp_headers", "args"):
        if name in action:
            entries: list[TextEntry] = [(raw(each), raw(value)) for each, value in action[name]]
            found = redactor.args(entries) if name == "args" else redactor.headers(entries)
            masked[name] = [
                [each and each.decode("latin-1"), value and value.decode("latin-1")] for each, value in found or ()
            ]
    if "body" in action:
        masked["body"] = redactor.body(raw(action["body"]) or b"", "body").decode("latin-1")
    return masked
