"""APISIX's and HTTP's own constants that several rooms need: names of lists, time limits, the grammar of tokens."""

import re
from collections.abc import Mapping
from typing import Final, Literal, TypeAlias

__all__ = [
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

TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
"""A token, such as the name of a header (RFC 9110, 5.6.2), in text."""
TOKEN_BYTES: Final = re.compile(TOKEN.pattern.encode("ascii"))
"""The same in bytes."""
