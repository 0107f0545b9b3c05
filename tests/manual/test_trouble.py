"""The page *Trouble* has every message that our loggers write, and every reason for which a request is refused."""

import re

from .blocks import DOCS
from .messages import lines_made_elsewhere, log_messages, reasons

PAGE = (DOCS / "trouble.md").read_text("utf-8")
SPANS = {" ".join(span.split()) for span in re.findall(r"`([^`]+)`", PAGE)}
OF_APISIX = PAGE[PAGE.index("## Messages of APISIX") : PAGE.index("## Messages of the runner")]
ENTRIES = re.split(r"^- ", PAGE[PAGE.index("## Messages of APISIX") : PAGE.index("## Why a request")], flags=re.M)[1:]

MADE_ELSEWHERE = {
    "… blocks the event loop: no call of any route has gone on for … s.",
    "route … and a global rule both have ext-plugin-post-resp: …",
}
"""The beginnings of lines that are put together before they are logged."""


def normal(text: str) -> str:
    return " ".join(text.split())


def test_every_log_message_has_its_place() -> None:
    assert {text: place for text, place in log_messages().items() if normal(text) not in SPANS} == {}


def test_every_reason_of_a_refusal_has_its_place() -> None:
    assert {text: place for text, place in reasons().items() if normal(text) not in SPANS} == {}


def test_no_message_is_there_that_nobody_writes() -> None:
    ours = PAGE[PAGE.index("## Messages of the runner") :].replace(OF_APISIX, "")
    known = {normal(text) for text in (*log_messages(), *reasons())}
    told = {normal(span) for span in re.findall(r"^- `([^`]+)`", ours, re.M)}
    assert told - known == MADE_ELSEWHERE


def test_lines_that_other_places_make_are_known() -> None:
    """Where these come from: the watch of the event loop, errors of loading, APISIX's own, access lines, findings."""
    assert lines_made_elsewhere() == {
        "asgi_bridge/adapter/call.py",
        "asgi_bridge/gateway/app.py",
        "asgi_bridge/gateway/runner/calls.py",
        "asgi_bridge/plugins/chain.py",
        "asgi_bridge/server/hangs.py",
        "asgi_bridge/server/process.py",
        "asgi_bridge/succession/early.py",
        "asgi_bridge/succession/succession.py",
        "asgi_bridge/testing/gateway.py",
    }
    assert MADE_ELSEWHERE <= SPANS


def test_each_message_says_what_to_do() -> None:
    assert [entry for entry in ENTRIES if "→" not in entry] == []


def test_messages_are_found_however_they_are_written() -> None:
    """The walk over the source finds what a reader of the log would ask for."""
    found = log_messages()
    for text in (
        "route … refused: …",  # a plain call
        "plugin …: request refused: …",  # by a function of ours that logs
        "and … more like it in … s: …",  # a constant of its module, to a logger that is looked up
        "plugin …: a change of raw_path alone is dropped: change path",  # warned of once
    ):
        assert text in found
    assert len(found) > 80 and len(reasons()) > 80
