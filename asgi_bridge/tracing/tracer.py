"""What makes the spans of a process."""

import asyncio
import contextlib
import logging
import threading
from collections.abc import Sequence

from opentelemetry import trace
from opentelemetry.trace import Tracer

from ..adapter import Connection, Host, RequestCall, ResponseCall
from ..plugins import Chain
from ..wire import HTTPReqCallReq, HTTPRespCallReq, TextEntry
from .plugins import traced
from .traced_calls import TracedRequestCall, TracedResponseCall

__all__ = ["FLUSH_SECONDS", "Tracing"]

logger = logging.getLogger("asgi_bridge.tracing")

FLUSH_SECONDS = 0.2
"""Seconds that the exporters get at the end of the process. APISIX kills the runner one second after SIGTERM."""


class Tracing:
    """The tracing of one runner.

    Args:
        tracer: Makes the spans.
    """

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer

    def request_call(self, message: HTTPReqCallReq, chain: Chain, connection: Connection, host: Host) -> RequestCall:
        """Make a call of the request phase. The arguments are those of :class:`~asgi_bridge.adapter.RequestCall`."""
        return TracedRequestCall(self._tracer, message, chain, connection, host)

    def response_call(self, message: HTTPRespCallReq, chain: Chain, connection: Connection, host: Host) -> ResponseCall:
        """Make a call of the response phase. The arguments are those of :class:`~asgi_bridge.adapter.ResponseCall`."""
        return TracedResponseCall(self._tracer, message, chain, connection, host)

    def prepared(self, chain: Chain, key: bytes | None, conf: Sequence[TextEntry]) -> None:
        """Let the plugins of a new chain run in spans.

        Args:
            chain: The chain, before its first call.
            key, conf: What it was built of.
        """
        for layer in chain.layers:
            layer.app = traced(self._tracer, layer)

    async def flush(self) -> None:
        """Have the spans exported that wait for it, within FLUSH_SECONDS.

        uvicorn ends the process by raising the signal again, so nothing that is registered with ``atexit`` runs. The
        provider stays as it is: it belongs to whoever has set it, and not every process ends with its runner.
        """
        flush = getattr(trace.get_tracer_provider(), "force_flush", None)
        if flush is None:
            return
        loop, done = asyncio.get_running_loop(), asyncio.Event()

        def work() -> None:
            try:
                flush(int(FLUSH_SECONDS * 1000))
            except Exception:
                logger.exception("OpenTelemetry: spans may be lost, since they could not be exported at the end")
            with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile
                loop.call_soon_threadsafe(done.set)

        # not of the loop's pool of threads, for whose end the process would wait
        threading.Thread(target=work, name="flush of spans", daemon=True).start()
        try:
            await asyncio.wait_for(done.wait(), FLUSH_SECONDS)
        except TimeoutError:
            logger.warning("OpenTelemetry: spans may be lost: the exporter took more than %g s", FLUSH_SECONDS)
