"""How many of our Python functions a call runs. Each one costs, and a benchmark on a busy machine hides a few more."""

import asyncio
import re
import sys
from pathlib import Path
from types import FrameType, SimpleNamespace
from typing import Any

from uvicorn.server import ServerState

import asgi_bridge
from asgi_bridge.server.protocol import RunnerProtocol
from asgi_bridge.server.runner import Runner
from asgi_bridge.wire import Role, Session

from ..doubles.connection import request
from . import sample

OURS = str(Path(asgi_bridge.__file__).parent)
NOT_WANTED = re.compile("about|note|since|entered$|Tally|Shadow|shadow|Secrets|observe|Traced|traced|CallSpan")
"""Functions that are for operators who want to see every call."""
MOST = 49
"""One call of a plugin that changes nothing runs 49 in pure Python, three of them for all calls of one turn of the
event loop. With the compiled core it runs a few."""


class Kept(asyncio.Transport):
    """A transport that keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []

    def is_closing(self) -> bool:
        return False

    def write(self, data: Any) -> None:
        self.written.append(bytes(data))


async def functions_of_a_call() -> list[str]:
    """The functions of ours that a call runs which passes through one plugin, from its frame to its answer."""
    runner = Runner(sample.bridge.plugins)
    await runner.start()
    token = await runner.store.prepare(b"route#1#ext-plugin-pre-req#1", [(b"passing", b"null")])
    protocol = RunnerProtocol(SimpleNamespace(loaded_app=runner), ServerState())  # type: ignore[arg-type]
    kept = Kept()
    protocol.connection_made(kept)
    frame = Session(Role.GATEWAY).send(request(token))
    found: list[str] = []

    def note(frame: FrameType, event: str, argument: object) -> None:
        if event == "call" and frame.f_code.co_filename.startswith(OURS):
            found.append(frame.f_code.co_qualname)

    for _ in range(2):  # what is done for the first call only does not count
        found.clear()
        kept.written.clear()
        before = sys.getprofile()
        sys.setprofile(note)
        try:
            protocol.data_received(frame)
            while not kept.written:  # noqa: ASYNC110 as the loop would
                await asyncio.sleep(0)
        finally:
            sys.setprofile(before)
    await runner.stop()
    return found


def test_a_call_runs_few_functions() -> None:
    found = asyncio.run(functions_of_a_call())
    assert len(found) <= MOST, found


def test_what_is_switched_off_costs_nothing() -> None:
    """No log line is prepared, nothing is counted or traced, and no shadow is asked for."""
    assert {name for name in asyncio.run(functions_of_a_call()) if NOT_WANTED.search(name)} == set()
