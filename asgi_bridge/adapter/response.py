"""A response-phase call, of ``ext-plugin-post-resp``: the upstream's response goes through the chain to the client.

Plugins that ran in the request half and are parked (``phase="both"``) are resumed where they stand; the others run the
response form, in which the upstream's response stands behind the last of them. For these the request is rebuilt from
variables, asked for in one round trip. The first listed is outermost, so the last one changes the response first::

    client ◀── answer ◀── half of pre-req ◀── response form ◀── half of post-req ◀── the upstream's response
    listed:               "a"                  "b", "c"          "d"

Each of these is a *section*: some layers that run in the response form, or one parked half.
"""

import asyncio
from time import monotonic
from typing import cast

from starlette.types import Receive, Scope, Send

from ..apisix_constants import BODYLESS_STATUSES
from ..errors import PluginError, RemoteProtocolError
from ..plugins import Apisix, Chain, Layer
from ..wire import HTTPRespCallReq, HTTPRespCallResp, RespBody
from .answer import answer_response, upstream_headers
from .call import Call, Host
from .connection import Connection
from .request import RequestCall
from .request_body import UnframedRequestBody
from .scope import Headers, first_variables, response_scope, response_variables
from .stage import ANSWERED, EXPIRED, REFUSED, Event
from .upstream_response import Response, UpstreamBody

__all__ = ["ResponseCall"]

_Section = tuple[RequestCall | None, int, int]
"""A parked half; or None, and the layers of the chain that run in the response form: from, and up to, an index."""


class ResponseCall(Call):
    """A call of the response phase.

    Args:
        message: The upstream's status and headers.
        chain: The plugins to run.
        connection: To the gateway.
        host: What all calls share.

    Attributes:
        boundary: The first layer behind the section that runs; None: the section runs to the last layer.
    """

    __slots__ = ("_halves", "_insides", "_message", "_real", "_section", "_sections", "boundary")
    phase = "response"

    def __init__(self, message: HTTPRespCallReq, chain: Chain, connection: Connection, host: Host) -> None:
        super().__init__(chain, connection, host)
        self.scope = {}
        self.boundary: Layer | None = None
        self._message = message
        self._real: Response | None = None
        self._halves: list[RequestCall] = []
        self._insides: list[Call] = []
        self._sections: list[_Section] = []
        self._section = 0

    async def _begin(self) -> None:
        chain = self.chain
        if not chain.response:
            raise PluginError("it is for the request phase: list it in ext-plugin-pre-req or ext-plugin-post-req")
        headers = upstream_headers(_checked_headers(self._message))
        found = await self._variables(first_variables(self._message, chain, self._host.ask_origin))
        taken = self._host.parked.take(self.route_id, self.request_id, [layer.name for layer in chain.acting])
        self._halves = cast("list[RequestCall]", taken)
        self._insides.extend(self._halves)
        try:
            await self._know_request(found)
            self._join(self._halves[::-1])
            self._sections = self._plan()
            status = self._message.status
            length = dict(headers).get(b"content-length", b"")
            bodyless = self.scope["method"] == "HEAD" or status in BODYLESS_STATUSES
            connection = self._connection
            body = UpstreamBody(
                lambda: connection.ask([RespBody()]), int(length) if length.isdigit() else None, bodyless
            )
            self._real = Response(status, headers, body)
            await self._play(0)
        finally:
            self._abandon()
            self._insides.clear()

    async def _know_request(self, found: dict[str, bytes | None]) -> None:
        """Make the scope.

        Args:
            found: The variables that were asked for. Where they are not enough, the rest is asked for.
        """
        parked = {name for half in self._halves for name in half.names}
        if parked and all(layer.name in parked and not layer.options.shadow for layer in self.chain.layers):
            self.scope = self._halves[0].scope  # no layer runs in the response form
            return
        if self.chain.resumes:  # and there is nothing to resume
            names = [name for name in response_variables(self.chain) if name not in found]
            found = {**found, **await self._variables(names)}
        self.scope, protocol = response_scope(found, self.chain.request_headers, self._host.app)
        self.request_body = UnframedRequestBody(self.scope["headers"], protocol or None)

    @property
    def number(self) -> int:
        """The number of the call in its frames."""
        return self._message.id

    @property
    def halves(self) -> int:
        """Number of parked calls that it resumes."""
        return len(self._halves)

    @property
    def real_body(self) -> UpstreamBody | None:
        """The upstream's body; None: it is not known yet what there is."""
        return self._real.body if self._real is not None and isinstance(self._real.body, UpstreamBody) else None

    def _overdue_reason(self) -> str:
        reason = super()._overdue_reason()
        if self.real_body is not None and self.real_body.awaited:
            reason += (
                "; it waits for the upstream's body, which is handed over whole: a stream without end never is; mount "
                "the plugin with response_body=False if it does not change the body"
            )
        return reason

    def _has_begun(self) -> bool:
        return any(Call._has_begun(call) for call in (self, *self._insides))

    def _layers(self) -> list[Layer]:
        return [*self.chain.acting, *(layer for half in self._halves for layer in half.layers)]

    def _abandon(self) -> None:
        """End the halves that are not through."""
        for half in self._halves:
            if half.waits or half.stage not in (ANSWERED, REFUSED, EXPIRED):
                half.abandon()

    def expire(self, reason: str | None = None) -> None:
        super().expire(reason)
        # at once: this connection is the next call's now
        self._abandon()

    def disconnect(self) -> None:
        super().disconnect()
        for call in self._insides:
            call.disconnect()

    def _plan(self) -> list[_Section]:
        layers = self.chain.layers
        sections: list[_Section] = []
        for index, layer in enumerate(layers):
            # parked last is inmost
            shadow = layer.options.shadow
            halves = [half for half in reversed(self._halves) if layer.name in half.names and not shadow]
            if halves:
                known = [section[0] for section in sections]
                sections += [(half, index, index + 1) for half in halves if half not in known]
                continue
            if layer.options.phase == "both" and layer.options.on_missing == "refuse":
                raise PluginError(f"plugin {layer.name}: its request half is gone, and on_missing is 'refuse'")
            if sections and sections[-1][0] is None and sections[-1][2] == index:
                sections[-1] = (None, sections[-1][1], index + 1)
            else:
                sections.append((None, index, index + 1))
        return sections

    async def _play(self, section: int) -> None:
        """Run the chain's sections from `section` inwards, and answer with their response."""
        assert self._real is not None
        if section == len(self._sections):
            self._finish_with(self._real)
            return
        half, start, stop = self._sections[section]
        self._section = section
        if half is not None:
            self._finish_with(await self._resume(half, section))
        else:
            layers = self.chain.layers
            self.boundary = layers[stop] if stop < len(layers) else None
            await layers[start].enter(self, self.scope, self.receive, self.send)

    async def _resume(self, half: RequestCall, section: int) -> Response:
        inner = await self._response_of(section + 1)
        self.limit(monotonic() + half.timeout, ", ".join(half.names))
        try:
            return await half.resume(inner, self._connection)
        except Exception as exc:
            if half.parking is not None and half.parking.failed_plugin is not None:
                self.fails(exc, half.parking.failed_plugin)
            raise

    async def _response_of(self, section: int) -> Response:
        """Return the response of the sections from `section` inwards."""
        assert self._real is not None
        if section == len(self._sections):
            return self._real
        half = self._sections[section][0]
        if half is not None:
            return await self._resume(half, section)
        finished: asyncio.Future[Response] = asyncio.get_running_loop().create_future()
        form = _InnerForm(self, section, finished)
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

    async def innermost(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Give the layers of this section the response of the next section inwards."""
        if self._is_turn():
            await asyncio.sleep(0)
        before = self.scope
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
            await self._respond(await self._response_of(self._section + 1), send)
        except PluginError as exc:
            self._note(exc)
            raise

    def _finish(self) -> None:
        assert self.sent is not None
        self._finish_with(self.sent.response())

    def _finish_with(self, response: Response) -> None:
        """Answer the gateway with `response`."""
        real = self._real
        assert real is not None and isinstance(real.body, UpstreamBody)
        method = self.scope["method"]
        headers, body = answer_response(method, real, response, self.chain.cures, self._warn)
        self._answer(HTTPRespCallResp(self._message.id, response.status, headers, body), f"response {response.status}")


class _InnerForm(ResponseCall):
    """A section in the response form that is not outermost: its response goes to the section around it.

    Its deadline is that of the call around it, which is the one that is watched, and the one to refuse.

    Args:
        around: The call, or inner form, of the section around it.
        section: Its index.
        finished: The future for its response.
    """

    __slots__ = ("_around", "finished")

    def __init__(self, around: ResponseCall, section: int, finished: "asyncio.Future[Response]") -> None:
        super().__init__(around._message, around.chain, around._connection, around._host)
        self._around = around
        self.finished: asyncio.Future[Response] | None = finished
        self.request_id = around.request_id
        self.deadline = around.deadline
        self.scope = around.scope
        assert around.request_body is not None
        # of its own: each section may read the request body
        self.request_body = UnframedRequestBody(self.scope["headers"], around.request_body.protocol)
        if around.state is None:
            around.state, around.apart = around.chain.states.begin(), around.chain.states.apart
        self.state, self.apart = around.state, around.apart
        self._real = around._real
        self._insides = around._insides
        self._sections = around._sections
        self._section = section

    def enter(self, layer: Layer, extension: Apisix, scope: Scope, receive: Receive, send: Send) -> Scope:
        """Note that the call enters `layer`, whose timeout counts for the whole call."""
        inner = super().enter(layer, extension, scope, receive, send)
        self._around.limit(self.deadline, self.overdue)
        return inner

    def can_ask(self) -> bool:
        """Whether the gateway can be asked for something: the connection is that of the call around it."""
        return super().can_ask() and self._around.can_ask()

    def limit(self, deadline: float, name: str) -> None:
        """Refuse the whole call after `deadline`."""
        super().limit(deadline, name)
        self._around.limit(deadline, name)

    def disconnect(self) -> None:
        """Note that the gateway has closed the connection. The call around it tells the other inner forms."""
        Call.disconnect(self)

    async def _begin(self) -> None:
        await self._play(self._section)

    def _finish_with(self, response: Response) -> None:
        if self.finished is not None and not self.finished.done():
            self.finished.set_result(response)
        self.stage = Event.ANSWER.get(self.stage, self.stage)
        self._end(f"response {response.status}")

    def _refuse(self, exc: BaseException, reason: str) -> None:
        if self.stage in (ANSWERED, REFUSED, EXPIRED):
            super()._refuse(exc, reason)
        elif self.finished is not None and not self.finished.done():
            if self.failed is not None:
                self._around.fails(*self.failed)
            self.finished.set_exception(exc if isinstance(exc, Exception) else PluginError(reason))
            self.finished.exception()


def _checked_headers(message: HTTPRespCallReq) -> Headers:
    """Return the headers of an upstream's response, names in lower case.

    Raises:
        RemoteProtocolError: A header has no name or value.
    """
    headers: Headers = []
    for name, value in message.headers or ():
        if name is None or value is None:
            raise RemoteProtocolError("a header without a name or value")
        headers.append((name.lower(), value))
    return headers
