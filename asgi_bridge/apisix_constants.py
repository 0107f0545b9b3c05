"""APISIX's and HTTP's own constants that several rooms need: names of lists, time limits, the grammar of tokens."""

import re
from collections.abc import Mapping
from typing import Final, Literal, TypeAlias

__all__ = [
    "BODYLESS_STATUSES",
    "CLOSING_STATUSES",
    "DROPPED_RESP_HEADERS",
    "HOP_BY_HOP",
    "LISTS",
    "PHASE_OF",
    "POST_REQ",
    "POST_RESP",
    "PRE_REQ",
    "REQUEST_LISTS",
    "RPC_SECONDS",
    "TOKEN",
    "TOKEN_BYTES",
    "Phase",
]

PRE_REQ: Final = "ext-plugin-pre-req"
"""List of a route whose plugins run before APISIX's own."""
POST_REQ: Final = "ext-plugin-post-req"
"""List of a route whose plugins run after APISIX's own, before the request goes to the upstream."""
POST_RESP: Final = "ext-plugin-post-resp"
"""List of a route whose plugins get the upstream's response."""

LISTS: Final = (PRE_REQ, POST_REQ, POST_RESP)
"""The names under which a route lists plugins of a runner. To APISIX each of the three is a plugin of its own."""
REQUEST_LISTS: Final = f"{PRE_REQ} or {POST_REQ}"
"""The lists of the request phase, as messages name them."""

Phase: TypeAlias = Literal["request", "response"]
"""What a call is about."""
PHASE_OF: Final[Mapping[str, Phase]] = {PRE_REQ: "request", POST_REQ: "request", POST_RESP: "response"}
"""List → the phase in which its plugins are called."""

RPC_SECONDS: Final = 60.0
"""Seconds that APISIX waits for an answer of the runner (``ext-plugin/init.lua``). Then it answers 503."""

CLOSING_STATUSES: Final = frozenset((408, 444, 499))
"""Statuses of a Stop for which nginx closes the client's connection without a byte."""
BODYLESS_STATUSES: Final = frozenset((204, 304))
"""Statuses whose responses have no body (RFC 9110, 6.4.1)."""

HOP_BY_HOP: Final = frozenset((
    b"connection", b"keep-alive", b"proxy-connection", b"te", b"trailer", b"upgrade", b"expect",
))  # fmt: skip
"""Headers of the connection between client and gateway. APISIX ignores what a runner says of them."""
DROPPED_RESP_HEADERS: Final = frozenset((
    b"connection", b"content-length", b"transfer-encoding", b"location", b"server", b"www-authenticate",
    b"content-encoding", b"content-type", b"content-location", b"content-language",
))  # fmt: skip
"""Headers in ``resp_headers`` of a Rewrite that APISIX drops without a word."""

TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
"""A token, such as the name of a header (RFC 9110, 5.6.2), in text."""
TOKEN_BYTES: Final = re.compile(TOKEN.pattern.encode("ascii"))
"""The same in bytes."""
