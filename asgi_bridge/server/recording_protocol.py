"""The protocol class of a runner that records its calls. Without a recording none of this runs."""

import asyncio
import logging
import time
from collections.abc import Sequence

from ..adapter import Answer, ResponseCall
from ..plugins import Chain
from ..recording import RecordedCall
from ..wire import HTTPReqCallReq, HTTPRespCallReq, Info
from .protocol import RunnerProtocol

__all__ = ["RecordingProtocol"]

logger = logging.getLogger("asgi_bridge.server")

_Asks = list[tuple[Sequence[Info], asyncio.Future[list[bytes | None]]]]


class RecordingProtocol(RunnerProtocol):
    """A connection whose answered calls are recorded."""

    runs_usual_calls = False
    _current: tuple[HTTPReqCallReq | HTTPRespCallReq, Chain, float, float, _Asks] | None = None

    def _run(self, message: HTTPReqCallReq | HTTPRespCallReq, chain: Chain, started: float | None = None) -> None:
        self._current = (message, chain, time.time(), time.perf_counter(), [])
        super()._run(message, chain, started)

    def ask(self, infos: Sequence[Info]) -> asyncio.Future[list[bytes | None]]:
        """Ask as usual, and keep the future of the answers."""
        future = super().ask(infos)
        if self._current is not None:
            self._current[4].append((infos, future))
        return future

    def answer(self, message: Answer, outcome: str) -> None:
        """Answer as usual, and record the call."""
        call = self._call
        super().answer(message, outcome)
        current, self._current = self._current, None
        recording = self._runner.recording
        if current is None or recording is None or not recording.recorder.active:
            return
        try:
            request, chain, at, started, asks = current
            preparation = recording.of(chain)
            if preparation is not None:
                milliseconds = (time.perf_counter() - started) * 1000
                parked = outcome.endswith("parked") if chain.both and isinstance(request, HTTPReqCallReq) else None
                halves = call.halves if isinstance(call, ResponseCall) else 0
                recording.recorder.take(
                    RecordedCall(request, preparation, at, _extra(asks), message, milliseconds, parked, halves)
                )
        except Exception:
            recording.recorder.active = False
            logger.exception("Recording has ended; calls go on")


def _extra(asks: _Asks) -> list[tuple[Info, bytes | None]]:
    """Return what the gateway was asked for, and its answers, where it has answered."""
    extra: list[tuple[Info, bytes | None]] = []
    for infos, future in asks:
        if future.done() and not future.cancelled() and future.exception() is None:
            extra += zip(infos, future.result(), strict=True)
    return extra
