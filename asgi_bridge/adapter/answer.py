"""A chain's response as an answer to the gateway: a Stop, or the response headers of a Rewrite.

Functions without state. The rules are APISIX's (docs/mapping.md), measured on 3.18.
"""

from ..apisix_constants import BODYLESS_STATUSES, CLOSING_STATUSES, DROPPED_RESP_HEADERS
from ..errors import PluginError
from ..wire import Stop, TextEntry
from .changes import Warn
from .headers import shown
from .scope import Headers
from .upstream_response import Response, UpstreamBody

__all__ = [
    "BEFORE_THE_UPSTREAM",
    "OF_CONNECTION",
    "answer_response",
    "check_status",
    "lost_in_request_phase",
    "response_headers",
    "stop",
    "upstream_headers",
]

OF_CONNECTION = frozenset(
    (b"content-length", b"transfer-encoding", b"connection", b"keep-alive", b"upgrade", b"trailer")
)
"""Headers that APISIX passes on beside its own framing, so that the client would hang or read the wrong bytes."""

_OF_A_BODY = frozenset((b"etag", b"last-modified", b"age", b"expires", b"digest"))
"""Headers that describe a body. A chain sets them for its empty response, and APISIX would send them with the
upstream's."""

BEFORE_THE_UPSTREAM = DROPPED_RESP_HEADERS | _OF_A_BODY
"""Response headers that cannot be set before the upstream has answered, beside those that begin with ``content-``."""


def check_status(status: object) -> int:
    """Return `status`, which is checked.

    Raises:
        PluginError: A client cannot get this status through APISIX.
    """
    if type(status) is int and 200 <= status <= 999 and status not in CLOSING_STATUSES:
        return status
    if not isinstance(status, int) or isinstance(status, bool) or not 200 <= status <= 999:
        raise PluginError(f"status {status!r}: a response has a status from 200 to 999")
    if status in CLOSING_STATUSES:
        raise PluginError(f"status {status}: APISIX would close the client's connection without a byte")
    return status


def stop(method: str, status: int, headers: Headers, body: bytes, cures: bool, warn: Warn) -> Stop:
    """Return the response as a Stop.

    Cures (protocol facts, seen on a real APISIX): where a body cannot or must not be sent, one filler byte keeps nginx
    from putting its own error page there, and for HEAD the response's content-length may then be told; without a
    content-type APISIX would add text/plain, an empty one keeps it out.

    Raises:
        PluginError: A content-length contradicts the body.
    """
    if method == "HEAD" or status in BODYLESS_STATUSES:
        return Stop(status, _entries(method, headers, None, cures, warn), b" " if cures else None)
    entries = _entries(method, headers, len(body), cures, warn)
    if not body and status >= 300 and cures:
        body = b" "
    return Stop(status, entries, body or None)


def _entries(method: str, headers: Headers, length: int | None, cures: bool, warn: Warn) -> list[TextEntry]:
    """Return the headers of a whole response, without those that APISIX would break the response with.

    Args:
        method: Of the request.
        headers: Of the response.
        length: Of the body, in bytes; None: it is not known, or the response has none (HEAD, 204, 304).
        cures: True: send what keeps APISIX from changing the response.
        warn: Logs what is lost.

    Raises:
        PluginError: A content-length contradicts the body.
    """
    entries: list[TextEntry] = []
    typed = sized = False
    for entry in headers:
        name, value = entry
        if name in OF_CONNECTION:
            if name == b"content-length":
                if length is not None and value != b"%d" % length:  # RFC 9110, 8.6
                    raise PluginError(f"content-length says {shown(value)}, the body has {length} bytes")
                if method == "HEAD" and cures and value.isdigit() and not sized:
                    sized = True  # a second one would reach the client too
                    entries.append(entry)
        elif not value:
            text = shown(name)
            warn("empty " + text, f"an empty header deletes it in APISIX: the client gets no {text}")
        elif name == b"server":
            warn("server", "APISIX sends its own server header: this one is dropped")
        else:
            if name == b"content-type":
                typed = True
            entries.append(entry)
    if cures and not typed:
        entries.append((b"content-type", b""))
    return entries


def upstream_headers(headers: Headers) -> Headers:
    """Return the upstream's headers without those of the connection between upstream and gateway."""
    return [(name, value) for name, value in headers if name == b"content-length" or name not in OF_CONNECTION]


def answer_response(
    method: str, real: Response, response: Response, cures: bool, warn: Warn
) -> tuple[list[TextEntry], bytes | None]:
    """Return headers and body of the answer to a response call. A body of None keeps the upstream's.

    The list of headers is complete: APISIX drops content-type and others of the upstream where it is empty. Where the
    upstream's response has no body (HEAD, 204, 304), APISIX would fetch it a second time and ignore the answer, but for
    a filler byte (a cure).

    Raises:
        PluginError: A content-length contradicts the body.
    """
    # the upstream's own server header is dropped by APISIX for everybody, and its empty headers too
    given = set(real.headers)
    headers = [entry for entry in response.headers if (entry[0] != b"server" and entry[1]) or entry not in given]
    assert isinstance(real.body, UpstreamBody)
    body = response.body
    bodyless = method == "HEAD" or response.status in BODYLESS_STATUSES
    length = len(body) if isinstance(body, bytes) and not bodyless else None
    entries = _entries(method, headers, length, cures, warn)
    if body and body == real.body.content:
        body = real.body  # the gateway has it
    if not cures:
        return entries, (body or None) if isinstance(body, bytes) else None
    if bodyless:
        return entries, b" "
    if isinstance(body, UpstreamBody):
        return entries, b" " if body.bodyless else None
    if not body and (real.body.bodyless or real.body.length != 0):
        if real.body.content == b"":
            warn(
                "empty stream",
                "the upstream streamed an empty body, which APISIX would fetch again: the client gets a blank",
            )
        elif response.status < 300:
            warn("emptied", "the response body was emptied, which the protocol cannot express: the client gets a blank")
        return entries, b" "
    return entries, body or None


def lost_in_request_phase(name: bytes) -> bool:
    """Return whether a response header cannot be set before the upstream has answered."""
    return name in BEFORE_THE_UPSTREAM or (
        name.startswith(b"content-") and not name.startswith(b"content-security-policy")
    )


def response_headers(headers: Headers, warn: Warn) -> list[TextEntry]:
    """Return the headers that a chain has put on the empty response, for ``Rewrite.resp_headers``."""
    entries: list[TextEntry] = []
    for name, value in headers:
        if lost_in_request_phase(name):
            if name != b"content-length":
                text = shown(name)
                warn(
                    f"response {text}",
                    f"the response header {text} cannot be set in the request phase and is dropped: "
                    "mount the plugin for the response phase if its headers matter",
                )
        elif value:
            entries.append((name, value))
        else:
            text = shown(name)
            warn("empty " + text, f"an empty header deletes it in APISIX: the client gets no {text}")
    return entries
