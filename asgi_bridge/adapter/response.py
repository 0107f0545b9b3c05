"""A response-phase call, of ``ext-plugin-post-resp``: the upstream's response goes through the chain to the client.

The request is rebuilt from variables, asked for in one round trip. Plugins that ran in the request half and are parked
(``phase="both"``) are resumed where they stand; the others run the response form, in which the innermost upstream
answers with the real response. The first listed is outermost, so the last one changes the response first::

    client ◀── answer ◀── half of pre-req ◀── response form ◀── half of post-req ◀── the upstream's response
    listed:               "a"                  "b", "c"          "d"

Each of these is a *step*: a run of plugins in the response form, or one half.
"""

import asyncio
from time import monotonic
from typing import cast

from starlette.types import Receive, Scope, Send

from ..errors import PluginError, RemoteProtocolError
from ..plugins import Apart, Chain, Layer, State
from ..wire import HTTPRespCallReq, HTTPRespCallResp, RespBody
from .answer import answer_response, upstream_headers
from .call import Call, Host
from .exchange import Exchange
from .request import RequestCall
from .scope import RESPONSE_VARIABLES, Headers, response_scope
from .upstream import BODYLESS, Response, UpstreamBody

__all__ = ["ResponseCall"]

_Step = tuple[RequestCall | None, int, int]


class ResponseCall(Call):
    """A call of the response phase.

    Args:
        message: the upstream's status and headers.
        chain: the plugins to run.
        exchange: the way back to the gateway.
        host: what all calls share.
    """

    __slots__ = ("_halves", "_insides", "_message", "_real", "_step", "_steps")
    phase = "response"

    def __init__(self, message: HTTPRespCallReq, chain: Chain, exchange: Exchange, host: Host) -> None:
        super().__init__(chain, exchange, host)
        self._message = message
        self._real: Response | None = None
        self._halves: list[RequestCall] = []
        self._insides: list[Call] = []
        self._steps: list[_Step] = []
        self._step = 0

    async def _begin(self) -> None:
        chain = self._chain
        if not chain.response:
            raise PluginError("it is for the request phase: list it in ext-plugin-pre-req or ext-plugin-post-req")
        headers = upstream_headers(_complete(self._message))
        names = chain.request_headers
        found = await self._variables([*RESPONSE_VARIABLES, *("http_" + name.replace("-", "_") for name in names)])
        self._scope = response_scope(found, names, self._host.app)
        self._protocol = found["server_protocol"]
        status = self._message.status
        length = dict(headers).get(b"content-length", b"")
        bodyless = self._scope["method"] == "HEAD" or status in BODYLESS
        exchange = self._exchange
        body = UpstreamBody(lambda: exchange.ask([RespBody()]), int(length) if length.isdigit() else None, bodyless)
        self._real = Response(status, headers, body)
        taken = self._host.lot.take(self.route_id, self.request_id, [layer.name for layer in chain.layers])
        self._halves = cast("list[RequestCall]", taken)
        self._insides.extend(self._halves)
        self._join(self._halves[::-1])
        try:
            self._steps = self._plan()
            await self._play(0)
        finally:
            self._abandon()
            self._insides.clear()

    def _lateness(self) -> str:
        reason = super()._lateness()
        if self._real is not None and isinstance(self._real.body, UpstreamBody) and self._real.body.awaited:
            reason += (
                "; it waits for the upstream's body, which is handed over whole: a stream without end never is; mount "
                "the plugin with response_body=False if it does not change the body"
            )
        return reason

    def _has_begun(self) -> bool:
        return any(Call._has_begun(call) for call in (self, *self._insides))

    def _layers(self) -> list[Layer]:
        return [*self._chain.layers, *(layer for half in self._halves for layer in half.layers)]

    def _blame(self, exc: BaseException) -> None:
        """The chain was entered, which notes that."""

    def _abandon(self) -> None:
        """Ends the halves that are not through."""
        for half in self._halves:
            if not half.answered or half.parked:
                half.abandon()

    def expire(self, reason: str | None = None) -> None:
        super().expire(reason)
        # at once: this connection is the next call's now
        self._abandon()

    def disconnect(self) -> None:
        super().disconnect()
        for call in self._insides:
            call.disconnect()

    def _plan(self) -> list[_Step]:
        layers = self._chain.layers
        steps: list[_Step] = []
        for index, layer in enumerate(layers):
            # parked last is inmost
            halves = [half for half in reversed(self._halves) if layer.name in half.names]
            if halves:
                known = [step[0] for step in steps]
                steps += [(half, index, index + 1) for half in halves if half not in known]
                continue
            if layer.options.phase == "both" and layer.options.on_missing == "refuse":
                raise PluginError(f"plugin {layer.name}: its request half is gone, and on_missing is 'refuse'")
            if steps and steps[-1][0] is None and steps[-1][2] == index:
                steps[-1] = (None, steps[-1][1], index + 1)
            else:
                steps.append((None, index, index + 1))
        return steps

    async def _play(self, step: int) -> None:
        """Runs the chain's steps from `step` inwards, and finishes with its response."""
        assert self._real is not None
        if step == len(self._steps):
            self._finish(self._real)
            return
        half, start, stop = self._steps[step]
        self._step = step
        if half is not None:
            self._finish(await self._resume(half, step))
        else:
            layers = self._chain.layers
            self.end = layers[stop] if stop < len(layers) else None
            await layers[start].enter(self, self._scope, self.receive, self.send)

    async def _resume(self, half: RequestCall, step: int) -> Response:
        inner = await self._response_of(step + 1)
        deadline = monotonic() + half.timeout
        if deadline < self.deadline:
            self.deadline, self.late = deadline, ", ".join(half.names)
        try:
            return await half.resume(inner, self._exchange)
        except Exception as exc:
            if half.blamed is not None:
                self.culprit = exc, half.blamed
            raise

    async def _response_of(self, step: int) -> Response:
        """What the steps from `step` inwards answer."""
        assert self._real is not None
        if step == len(self._steps):
            return self._real
        half = self._steps[step][0]
        if half is not None:
            return await self._resume(half, step)
        finished: asyncio.Future[Response] = asyncio.get_running_loop().create_future()
        form = _InnerForm(self, step, finished)
        self._insides.append(form)
        task = form.task = asyncio.get_running_loop().create_task(form.run())
        try:
            return await finished
        finally:
            if finished.cancelled():
                task.cancel()
            # an exception holds its frames, and they these
            form.finished = None
            del finished

    async def upstream(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The innermost application of a run of plugins: what the next step inwards answers."""
        if self._is_turn():
            await asyncio.sleep(0)
        before = self._scope
        changed = [part for part in ("method", "path", "query_string") if scope.get(part, before[part]) != before[part]]
        if list(scope.get("headers", before["headers"])) != before["headers"]:
            changed.append("headers")
        if changed:
            self._warn(
                "request",
                f"in the response phase the request has gone upstream already: a change of its {' and '.join(changed)} "
                "reaches nobody but the plugins further inside",
            )
        try:
            await self._respond(await self._response_of(self._step + 1), send)
        except PluginError as exc:
            self._may_be_caught(exc)
            raise

    def _complete(self) -> None:
        self._finish(self._response())

    def _finish(self, response: Response) -> None:
        """Answers the gateway with `response`."""
        real = self._real
        assert real is not None and isinstance(real.body, UpstreamBody)
        method = self._scope["method"]
        headers, body = answer_response(method, real, response, self._chain.cures, self._warn)
        self._answer(HTTPRespCallResp(self._message.id, response.status, headers, body), f"response {response.status}")


class _InnerForm(ResponseCall):
    """A run of plugins in the response form that is not outermost: its response goes to the step around it."""

    __slots__ = ("_around", "finished")

    def __init__(self, around: ResponseCall, step: int, finished: "asyncio.Future[Response]") -> None:
        self._around = around
        super().__init__(around._message, around._chain, around._exchange, around._host)
        self.request_id = around.request_id
        self.finished: asyncio.Future[Response] | None = finished
        self._scope = around._scope
        self._protocol = around._protocol
        self._real = around._real
        self._insides = around._insides
        self._steps = around._steps
        self._step = step

    @property
    def deadline(self) -> float:
        """That of the call: it is the one that is watched, and the one to refuse."""
        return self._around.deadline

    @deadline.setter
    def deadline(self, when: float) -> None:
        if when < self._around.deadline:
            self._around.deadline = when

    @property
    def late(self) -> str:
        """The plugin that the deadline is due to."""
        return self._around.late

    @late.setter
    def late(self, name: str) -> None:
        self._around.late = name

    @property
    def state(self) -> State | None:
        """That of the call: a request has one."""
        return self._around.state

    @state.setter
    def state(self, state: State | None) -> None:
        if state is not None:  # at its end it lets go of its own, and has none
            self._around.state = state

    @property
    def apart(self) -> Apart[Layer] | None:
        return self._around.apart

    @apart.setter
    def apart(self, apart: Apart[Layer] | None) -> None:
        if apart is not None:
            self._around.apart = apart

    def disconnect(self) -> None:
        Call.disconnect(self)

    async def _begin(self) -> None:
        await self._play(self._step)

    def _finish(self, response: Response) -> None:
        if self.finished is not None and not self.finished.done():
            self.finished.set_result(response)
        self.answered = True
        self._end()
        if self._caught is not None:
            self._log_caught(f"response {response.status}")

    def _refuse(self, exc: BaseException, reason: str) -> None:
        if self.answered:
            super()._refuse(exc, reason)
        elif self.finished is not None and not self.finished.done():
            self._around.culprit = self.culprit
            self.finished.set_exception(exc if isinstance(exc, Exception) else PluginError(reason))
            self.finished.exception()


def _complete(message: HTTPRespCallReq) -> Headers:
    headers: Headers = []
    for name, value in message.headers or ():
        if name is None or value is None:
            raise RemoteProtocolError("a header without a name or value")
        headers.append((name.lower(), value))
    return headers
