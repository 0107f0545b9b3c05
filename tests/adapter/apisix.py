"""What APISIX makes of a Rewrite (``ext-plugin/init.lua``), as far as the upstream sees it.

A model of a few lines, apart from the gateway in the package, so that an error there cannot hide one here.
"""

from asgi_bridge.wire import HTTPReqCallReq, Rewrite

__all__ = ["FIRST_LINE_ONLY", "Values", "grouped", "rewritten"]

FIRST_LINE_ONLY = frozenset((
    b"user-agent", b"referer", b"content-type", b"range", b"accept-encoding", b"via", b"depth", b"destination",
    b"overwrite", b"date",
))  # fmt: skip
"""nginx keeps their first line in a field of its own: setting one replaces that line, deleting it takes all lines."""

Values = dict[bytes, list[bytes | None]]
"""Names with their values in order. Between names there is no order: they stand in a Lua table."""


def grouped(pairs: object) -> Values:
    """`pairs` by name."""
    groups: Values = {}
    for name, value in pairs or ():  # type: ignore[attr-defined]
        groups.setdefault(name, []).append(value)
    return groups


def rewritten(
    message: HTTPReqCallReq, body: bytes | None, action: Rewrite | None
) -> tuple[bytes | None, Values, Values, bytes | None]:
    """Path, arguments, headers and body that go upstream."""
    path, args, headers = message.path, grouped(message.args), grouped(message.headers)
    action = action or Rewrite()
    if action.path is not None:
        path = action.path
    touched: set[bytes | None] = set()
    for name, value in action.args or ():
        assert name is not None
        if value is None:
            args.pop(name, None)
        elif name in touched and name in args:
            args[name].append(value)
        else:
            args[name] = [value]
            touched.add(name)
    for name, value in action.headers or ():
        assert name is not None
        if value:
            headers[name] = [value, *headers.get(name, [])[1:]] if name in FIRST_LINE_ONLY else [value]
        else:
            headers.pop(name, None)
    if action.body:
        body = action.body
    return path, args, headers, body
