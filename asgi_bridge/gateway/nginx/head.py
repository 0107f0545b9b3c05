"""Status and headers of a response, until they are sent."""

from ..exchange import Exchange
from .headers import Header

__all__ = ["Head", "bodiless"]

# charset_types of nginx
_CHARSET_TYPES = frozenset(
    b"text/html text/xml text/plain text/vnd.wap.wml application/javascript application/rss+xml".split()
)


def bodiless(exchange: Exchange, status: int) -> bool:
    """Whether nginx sends no body, even if there is one."""
    return exchange.request.method == "HEAD" or status in (204, 304)


class Head:
    """Status and framing of a response. Its other headers are in `Exchange.response`.

    Args:
        status: plugins may change it.
        length: of the body, in bytes; None: unknown.

    Attributes:
        chunked: ``Transfer-Encoding: chunked`` stands there.
        close: the connection ends with this response.
        body: a plugin's body, which replaces the response's; None: no plugin gives one.
    """

    def __init__(self, status: int, length: int | None = None) -> None:
        self.status = status
        self.length = length
        self.chunked = False
        self.close = False
        self.body: bytes | None = None

    def headers(self, exchange: Exchange) -> list[Header]:
        """Give all headers, as the client gets them."""
        front: list[Header] = []
        kind = exchange.response.content_type
        if kind:
            # nginx's charset filter, set to utf-8 by APISIX; it leaves the redirects 301 and 302 alone
            with_charset = self.status not in (301, 302) and kind.lower() in _CHARSET_TYPES
            front.append((b"Content-Type", kind + b"; charset=utf-8" if with_charset else kind))
        if self.length is not None:
            front.append((b"Content-Length", b"%d" % self.length))
        if self.chunked:
            front.append((b"Transfer-Encoding", b"chunked"))
        version = exchange.request.http_version
        if version.startswith("1"):
            # under 1.0 a body without a length ends with the connection (ngx_http_chunked_filter_module.c)
            endless = version == "1.0" and self.length is None and not bodiless(exchange, self.status)
            closing = self.close or exchange.request.closing or endless
            front.append((b"Connection", b"close" if closing else b"keep-alive"))
        # A server under ASGI may refuse blanks around a value (h11), and no client sees them.
        return [(name, value.strip(b" \t")) for name, value in (*front, *exchange.response)]
