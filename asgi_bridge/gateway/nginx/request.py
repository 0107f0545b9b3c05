"""A client's request as nginx has read it, and what nginx refuses of it before APISIX sees it."""

import ipaddress
import re
import secrets
import time
from collections import Counter
from typing import Any

from .headers import Header, RequestHeaders
from .uri import escape_uri, host_name, normalise_path, split_authority, split_target

__all__ = ["TARGET", "ClientRequest", "refusal", "target_of"]

TARGET = "asgi_bridge.target"
"""The ASGI extension that holds the request target as the client wrote it; `asgi_bridge.gateway.server` gives it.

An ASGI scope cannot tell ``/x?`` from ``/x``. Without the extension the target is made of path and query.
"""

# nginx drops other names (ignore_invalid_headers); APISIX turns underscores_in_headers on
_NAME_CHARACTERS = frozenset(b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-_")
# nginx_config.http.real_ip_from of APISIX's defaults
_TRUSTED = frozenset({"127.0.0.1"})
_PORT_OF_HOST = re.compile(rb":([0-9]+)$")
_ADDRESS_AND_PORT = re.compile(r"(?:\[([0-9a-fA-F:.]+)\]|([0-9.]+)):([0-9]+)")

# client_header_buffer_size and large_client_header_buffers, in bytes
_FIRST_BUFFER = 1024
_BUFFER = 8 * 1024
_BUFFERS = 4
# nginx refuses a request that has one of these twice (ngx_http_process_unique_header_line).
_UNIQUE = frozenset(
    b"host authorization content-length content-range expect if-match if-modified-since if-none-match if-range "
    b"if-unmodified-since transfer-encoding".split()
)


def target_of(scope: Any) -> bytes:
    """Give the request target of a scope of type http, as the client wrote it if that is known (`TARGET`)."""
    whole: bytes | None = (scope.get("extensions") or {}).get(TARGET)
    if whole is None:
        query: bytes = scope.get("query_string", b"")
        whole = (scope.get("raw_path") or escape_uri(scope["path"].encode())) + (b"?" + query if query else b"")
    return whole


def _address(peer: Any) -> tuple[str, int]:
    # Starlette's TestClient gives ("testclient", 50000), a unix socket gives nothing
    port: int = peer[1] if peer is not None and len(peer) > 1 and peer[1] else 0
    try:
        return str(ipaddress.ip_address(peer[0])), port
    except (TypeError, ValueError, IndexError):
        return "127.0.0.1", port


class ClientRequest:
    """A request without its body, as the client sent it. No plugin changes it.

    Args:
        scope: An ASGI scope of type http; ``raw_path``, ``asgi``, ``client`` and ``server`` may be missing.

    Attributes:
        target: The request target as the client wrote it, without an authority.
        path: Decoded and normalised (``$uri``); None: nginx refuses it.
        args: The query as it came; empty: there is none.
        head_lines: The length of each line of the head, in bytes.
        headers: Those whose names nginx accepts.
        http_host: The first Host header.
        host: Its name, or that in the request line, in lower case (``$host``); empty: nginx refuses it.
        server, client: Address and port of both ends of the connection.
        remote: Address and port of the client, also where a trusted proxy stands before the gateway.
        clock: When the request came, as `time.monotonic` has it.
        id: ``$request_id``.
    """

    def __init__(self, scope: Any) -> None:
        self.clock = time.monotonic()
        self.id = secrets.token_hex(16)
        self.method: str = scope["method"]
        self.scheme: str = scope.get("scheme", "http")
        self.http_version: str = scope.get("http_version", "1.1")
        authority, self.target = split_authority(target_of(scope))
        path, self.args = split_target(self.target)
        self.path = normalise_path(path)
        headers: list[Header] = [(bytes(name), bytes(value)) for name, value in scope["headers"]]
        lines = [len(name) + len(value) + 4 for name, value in headers]
        self.head_lines = [len(self.method) + len(self.target) + 12, *lines, 2]
        # httptools leaves spaces behind a value, nginx does not (ngx_http_parse_header_line)
        self.headers = RequestHeaders(
            (name, value.rstrip(b" ")) for name, value in headers if name and _NAME_CHARACTERS.issuperset(name)
        )
        self.http_host = next(iter(self.headers.values(b"host")), None)
        named = self.http_host if authority is None else authority
        self.host = b"_" if named is None else host_name(named) or b""
        address, port = _address(scope.get("server"))
        self.server = address, port or (443 if self.scheme == "https" else 80)
        self.client = _address(scope.get("client"))
        self.remote = self._real_address()

    def _real_address(self) -> tuple[str, int]:
        """Read ``X-Real-IP`` of a trusted client (nginx's realip module): the last address in the first such header.

        Returns:
            The address and its port, which is 0 where there is none.
        """
        values = self.headers.values(b"x-real-ip")
        if self.client[0] in _TRUSTED and values:
            text = values[0].strip(b" ,").replace(b",", b" ").rpartition(b" ")[2].decode("latin-1")
            host, port = text, "0"
            with_port = _ADDRESS_AND_PORT.fullmatch(text)
            if with_port is not None and 0 < int(with_port[3]) < 65536:
                host, port = with_port[1] or with_port[2], with_port[3]
            try:
                return str(ipaddress.ip_address(host)), int(port)
            except ValueError:
                pass
        return self.client

    @property
    def line(self) -> str:
        """Method and target, for people."""
        return f"{self.method} {self.target.decode('latin-1')}"

    @property
    def escaped(self) -> bool:
        """Whether the path has an escape (``quoted_uri``). Only then nginx escapes it when it writes a target."""
        return b"%" in split_target(self.target)[0]

    @property
    def chunked(self) -> bool:
        """Whether the body comes in chunks."""
        return bool(self.headers.values(b"transfer-encoding"))

    @property
    def closing(self) -> bool:
        """Whether the client's connection ends with the response."""
        connection = b",".join(self.headers.values(b"connection")).lower()
        return b"close" in connection or (self.http_version == "1.0" and b"keep-alive" not in connection)

    @property
    def upgrades_to_websocket(self) -> bool:
        """Whether the client asks for a WebSocket."""
        connection = b",".join(self.headers.values(b"connection")).lower()
        return b"upgrade" in connection and b"websocket" in [v.lower() for v in self.headers.values(b"upgrade")]

    @property
    def forwarded_host(self) -> bytes:
        """The client's Host as it wrote it, with its port; ``$host`` where there is none (ngx_tpl.lua)."""
        return self.http_host or self.host

    @property
    def forwarded_port(self) -> bytes:
        """The port in the client's Host; the listener's where there is none (ngx_tpl.lua)."""
        named = _PORT_OF_HOST.search(self.http_host or b"")
        return b"%d" % self.server[1] if named is None else named[1]


def _too_large(lines: list[int]) -> int:
    """Give 414 or 494 where the lines of a head do not fit nginx's buffers (``ngx_http_alloc_large_header_buffer``)."""
    size, used, buffers = _FIRST_BUFFER, 0, 0
    for number, line in enumerate(lines):
        if used + line > size:
            # a line has to fit into one buffer
            size, used, buffers = _BUFFER, 0, buffers + 1
            if line > _BUFFER or buffers > _BUFFERS:
                return 494 if number else 414
        used += line
    return 0


def refusal(request: ClientRequest) -> int:
    """Give the status with which nginx refuses a request; 0: it accepts it."""
    too_large = _too_large(request.head_lines)
    if too_large:
        return too_large
    counts = Counter(name.lower() for name, _ in request.headers.nginx)
    if any(counts[name] > 1 for name in _UNIQUE) or (not counts[b"host"] and request.http_version == "1.1"):
        return 400
    if request.chunked:
        if request.http_version == "1.0" or counts[b"content-length"]:
            return 400
        if request.headers.values(b"transfer-encoding")[0].lower() != b"chunked":
            return 501
    if not request.host or request.path is None:
        return 400
    if request.method in ("TRACE", "CONNECT"):
        return 405
    return 0
