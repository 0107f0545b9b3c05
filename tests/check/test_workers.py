"""What ``check --workers`` says of memory that workers do not share."""

from asgi_bridge_apps.limit_req import limit_req
from starlette.types import Receive, Scope, Send

from asgi_bridge import Bridge
from asgi_bridge.check import Finding
from asgi_bridge.check.workers import SHOWN, counted_apart


async def counting(scope: Scope, receive: Receive, send: Send) -> None:
    """An application that may count."""


def test_plugins_of_ones_own_are_named() -> None:
    bridge = Bridge()
    bridge.plugin("limit-req")(limit_req)
    assert counted_apart(bridge.plugins, 4) == []
    bridge.mount("mine", counting)
    assert counted_apart(bridge.plugins, 1) == []
    assert counted_apart(bridge.plugins, 4) == [
        Finding(
            "note",
            None,
            None,
            "",
            "each of the 4 workers has its own memory, so what a plugin keeps or counts there is for one worker alone "
            "(a limit of 10 admits up to 40): look at mine",
        )
    ]


def test_many_are_counted() -> None:
    bridge = Bridge()
    for number in range(SHOWN + 3):
        bridge.mount(f"p{number:02}", counting)
    (found,) = counted_apart(bridge.plugins, 2)
    assert found.message.endswith("p08, p09 and 3 more")
