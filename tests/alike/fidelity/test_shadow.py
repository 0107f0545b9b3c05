"""Shadows in every list change nothing: the client gets what it gets without them.

By default every eighth request is sent; ``SHADOW_STEP=1`` sends all of them.
"""

import asyncio
import dataclasses
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.datastructures import MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from asgi_bridge import Bridge, upstream

from ..compare import Request
from .cases import CASES
from .stage import standing
from .subjects import SUBJECTS, make_bridge
from .test_fidelity import Sides, compare
from .upstream import make_upstream

STEP = int(os.environ.get("SHADOW_STEP", "8"))


async def refuses(scope: Scope, receive: Receive, send: Send) -> None:
    await PlainTextResponse("refused", 403)(scope, receive, send)


async def raises(scope: Scope, receive: Receive, send: Send) -> None:
    raise ArithmeticError("raised on purpose")


async def hangs(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "http":
        await asyncio.Event().wait()
    await upstream(scope, receive, send)


async def reads(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "http":
        await receive()
    await refuses(scope, receive, send)


async def edits(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "lifespan":
        await upstream(scope, receive, send)
        return

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["status"] = 299
            del MutableHeaders(scope=message)["content-length"]
            MutableHeaders(scope=message)["x-shadow"] = "1"
        elif message.get("body"):
            message["body"] = b"of a shadow"
        await send(message)

    MutableHeaders(scope=scope)["x-shadow"] = "1"
    scope["path"] = "/elsewhere"
    scope["query_string"] = b"shadow=1"
    await upstream(scope, receive, sending)


SHADOWS: dict[str, ASGIApp] = {
    "refuses": refuses, "raises": raises, "hangs": hangs, "reads": reads, "edits": edits,
}  # fmt: skip


@pytest.fixture(scope="module")
def bridge() -> Bridge:
    """The middleware of the suite, and the shadows."""
    bridge = make_bridge()
    for name, app in SHADOWS.items():
        bridge.mount(f"shadow-{name}", app, shadow=True, timeout=0.5)
    return bridge


@pytest.fixture(scope="module")
def sides(bridge: Bridge, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sides]:
    """Both sides, with shadows before and behind the plugins of every list of the gateway, and a list of shadows."""
    names: list[tuple[str, Any]] = [(f"shadow-{name}", {}) for name in SHADOWS]
    subjects = [
        dataclasses.replace(
            subject, plugins=[*names[:2], *subject.plugins, *names[2:]], others={"ext-plugin-post-req": names}
        )
        for subject in SUBJECTS
    ]
    folder = Path(tempfile.mkdtemp(prefix="ab-", dir="/tmp"))  # a short path, for the socket
    with standing(make_upstream(tmp_path_factory.mktemp("files")), bridge, subjects, folder) as found:
        yield found
    shutil.rmtree(folder)


@pytest.mark.parametrize(("subject", "request_"), CASES[::STEP], ids=lambda value: str(value))
def test_the_client_gets_what_it_gets_without_shadows(sides: Sides, subject: str, request_: Request) -> None:
    compare(sides, subject, request_)


def test_all_shadows_ran_and_would_have_done_something(sides: Sides, bridge: Bridge) -> None:
    for subject, request_ in CASES[:: 8 * 10]:
        compare(sides, subject, request_)
    counts = {name: bridge.plugins[f"shadow-{name}"].shadow.counts for name in SHADOWS}  # type: ignore[union-attr]
    assert counts["refuses"]["stop 403"] and counts["refuses"]["response 403"]
    assert counts["raises"].keys() == {"error"}
    assert counts["reads"]["stop 403"]
    assert counts["edits"]["rewrite"]
