"""nginx's own error pages (``ngx_http_special_response.c``), with the line that APISIX's build adds to them."""

from http import HTTPStatus

__all__ = ["CLOSING", "VARIANTS_OF_400", "page"]

CLOSING = frozenset({400, 413, 414, 495, 496, 497, 500, 501})
"""After these pages nginx closes the connection; 494 is none of them, although the client sees a 400."""

VARIANTS_OF_400 = {
    494: "Request Header Or Cookie Too Large",
    495: "The SSL certificate error",
    496: "No required SSL certificate was sent",
    497: "The plain HTTP request was sent to HTTPS port",
}
"""nginx's own numbers: the client gets 400, with a page that says more."""

# Where nginx's wording differs from the standard one.
_TITLES = {
    302: "Found",
    401: "Authorization Required",
    405: "Not Allowed",
    408: "Request Time-out",
    413: "Request Entity Too Large",
    414: "Request-URI Too Large",
    416: "Requested Range Not Satisfiable",
    503: "Service Temporarily Unavailable",
    504: "Gateway Time-out",
    505: "HTTP Version Not Supported",
}
_WITH_PAGE = frozenset({301, 302, 303, 307, 308, *range(400, 417), 421, 429, *range(500, 506), 507}) - {407}


def page(status: int) -> bytes | None:
    """Give the page of a status; None where nginx has none and answers with an empty body."""
    variant = VARIANTS_OF_400.get(status)
    if variant is not None:
        status = 400
    if status == 498:
        # a number of nginx's own, which shows the page of 404
        status = 404
    if status not in _WITH_PAGE:
        return None
    title = f"{status} {_TITLES.get(status) or HTTPStatus(status).phrase}"
    more = f"<center>{variant}</center>\r\n" if variant else ""
    return (
        f"<html>\r\n<head><title>{f'{status} {variant}' if variant else title}</title></head>\r\n"
        f"<body>\r\n<center><h1>{title}</h1></center>\r\n{more}<hr><center>openresty</center>\r\n"
        '<p><em>Powered by <a href="https://apisix.apache.org/">APISIX</a>.</em></p></body>\r\n</html>\r\n'
    ).encode()
