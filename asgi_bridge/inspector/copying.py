"""A request as a curl command, and as a test."""

import pprint
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..dev_runner.body import Body
from ..dev_runner.story import text
from .record import Exchanged, Record

__all__ = ["Project", "as_curl", "as_test"]

_OF_CONNECTION = frozenset({b"content-length", b"connection", b"transfer-encoding", b"expect", b"keep-alive"})
"""Headers that a client writes by itself."""
_CHANGING = frozenset(
    b"date server connection keep-alive transfer-encoding content-length x-request-id x-correlation-id age etag "
    b"set-cookie expires last-modified traceparent".split()
)
"""Headers of a response that differ from one time to the next, or that a client does not show."""


@dataclass(frozen=True, slots=True)
class Project:
    """Where plugins and routes come from, for a test of them.

    Attributes:
        target: As ``asgi-bridge dev`` got it; None: pyproject.toml or entry points.
        mounts: Further plugins: name → ``module:attr``.
        allow: Values of ``--allow``.
        folder: Path of the folder that the modules are in.
        is_bridge: `target` names a Bridge.
        routes: Path of the route file, relative to `folder` where it is in it; or the routes where there is none.
    """

    target: str | None = None
    mounts: Mapping[str, str] = field(default_factory=dict)
    allow: Sequence[str] = ()
    folder: str = "."
    is_bridge: bool = False
    routes: str | list[Any] = "apisix.yaml"


def as_curl(record: Record, url: str) -> str:
    """Return a curl command that makes the request once more.

    Args:
        record: The request.
        url: Of the gateway: scheme, host and port.

    Raises:
        ValueError: The body is longer than what is kept.
    """
    client = record.client
    _check_whole(client.body)
    target = text(client.target)
    words = ["curl", "-i", "--path-as-is", "-g"]
    if client.method == "HEAD":
        words[1] = "-I"
    elif client.method != ("POST" if client.body.size else "GET"):
        words += ["-X", client.method]
    given = set()
    for name, value in client.headers:
        given.add(name.lower())
        if name.lower() not in _OF_CONNECTION:
            shown = value.decode("latin-1")
            words += ["-H", f"{text(name)}: {text(value)}" if shown else f"{text(name)};"]
    words += [part for name in (b"accept", b"user-agent") if name not in given for part in ("-H", f"{name.decode()}:")]
    command = shlex.join([*words, url + target])
    if not client.body.size:
        return command
    if b"content-type" not in given:
        command += " -H content-type:"
    return command + " --data-binary " + _shell(client.body.kept)


def _shell(data: bytes) -> str:
    """Return bytes as one word for a shell; ``$'…'`` where there are bytes that are no text."""
    try:
        content = data.decode()
    except UnicodeDecodeError:
        content = ""
    if content and all(char >= " " or char in "\n\t" for char in content) and not content.startswith("@"):
        return shlex.quote(content)
    if 0 in data or data.startswith(b"@"):  # no argument can have a NUL, and curl takes what follows an @ for a file
        escaped = "".join(f"\\x{byte:02x}" for byte in data)
        return f"@<(printf '{escaped}')"
    return "$'" + "".join(f"\\x{byte:02x}" for byte in data) + "'"


def as_test(record: Record, project: Project) -> str:
    """Return a pytest test that makes the request, and asserts its answer.

    Its upstream answers what the upstream has answered.

    Args:
        record: The request.
        project: Where the plugins and the routes come from.

    Raises:
        ValueError: The request has no answer, or a body is longer than what is kept.
    """
    client = record.client
    if not client.status:
        raise ValueError("there is no answer that a test could assert")
    _check_whole(client.body)
    upstream = record.upstreams[-1] if record.upstreams else None
    if upstream is not None and upstream.response_body.cut:
        raise ValueError(_too_long(upstream.response_body, "response of the upstream"))
    name = re.sub(r"\W+", "_", f"{client.method} {text(client.target).partition('?')[0]}").strip("_").lower()
    catching = ", raise_server_exceptions=False" if client.status >= 500 else ""
    lines = [
        f'"""{client.method} {_in_docstring(text(client.target))}, as asgi-bridge dev has seen it."""',
        "",
        *_imports(project, upstream is not None),
        "",
        *_bridge(project),
        f"ROUTES = {_routes(project)}",
        "",
    ]
    if upstream is not None:
        lines += _upstream(upstream)
    lines += ["", *_test(record, name, _attribute(project), catching, upstream is not None)]
    return "\n".join(lines) + "\n"


def _imports(project: Project, upstream: bool) -> list[str]:
    first = [] if isinstance(project.routes, list) and _plain(project) else ["from pathlib import Path", ""]
    third = ["from starlette.responses import Response"] if upstream else []
    third.append("from starlette.testclient import TestClient")
    own = ["from asgi_bridge.testing import Gateway"]
    if _plain(project):
        module, _, attr = (project.target or "").partition(":")
        own += ["", f"from {module} import {attr}"]
    else:
        own.insert(0, "from asgi_bridge.loading import load_bridge")
    return [*first, *third, "", *own]


def _plain(project: Project) -> bool:
    """Whether a test can import the Bridge as any module does."""
    return project.is_bridge and not project.mounts and not project.allow and ":" in (project.target or "")


def _attribute(project: Project) -> str:
    """Return the name of the Bridge in the test."""
    return (project.target or "").rpartition(":")[2] if _plain(project) else "bridge"


def _bridge(project: Project) -> list[str]:
    lines = ["# it stands in the folder of the plugins"] if not isinstance(project.routes, list) else []
    if _plain(project):
        return lines
    arguments = [repr(project.target)]
    if project.mounts:
        arguments.append(repr(dict(project.mounts)))
    arguments.append("start=Path(__file__).parent")
    if project.allow:
        arguments.append(f"allow={list(project.allow)!r}")
    return [f"bridge = load_bridge({', '.join(arguments)})", *lines]


def _routes(project: Project) -> str:
    if isinstance(project.routes, list):
        return pprint.pformat(project.routes, width=100, sort_dicts=False)
    if project.routes.startswith("/"):
        return f"Path({project.routes!r})"
    return f"Path(__file__).parent / {project.routes!r}"


def _upstream(upstream: Exchanged) -> list[str]:
    headers = [
        (text(name), text(value))
        for name, value in upstream.response_headers
        if name.lower() not in (b"transfer-encoding", b"connection", b"keep-alive", b"content-length")
    ]
    return [
        "",
        "async def upstream(scope, receive, send):",
        f"    response = Response({upstream.response_body.kept!r}, {upstream.status})",
        "    response.raw_headers += [",
        *(f"        ({name.encode()!r}, {value.encode()!r})," for name, value in headers),
        "    ]",
        "    await response(scope, receive, send)",
        "",
    ]


def _test(record: Record, name: str, bridge: str, catching: str, upstream: bool) -> list[str]:
    client = record.client
    own = ", upstream=upstream" if upstream else ""
    gateway = f"Gateway({bridge}, ROUTES{own}, strict=False)"
    headers = [(text(name), text(value)) for name, value in client.headers if name.lower() not in _OF_CONNECTION]
    arguments = [f"        {client.method!r},", f"        {text(client.target)!r},"]
    if headers:
        arguments += ["        headers=[", *(f"            ({one!r}, {two!r})," for one, two in headers), "        ],"]
    if client.body.size:
        arguments.append(f"        content={client.body.kept!r},")
    body = client.response_body
    expected = [f"    assert response.status_code == {client.status}"]
    seen = set()
    for each, _ in client.response_headers:
        lower = each.lower()
        if lower not in _CHANGING and lower not in seen:
            seen.add(lower)
            all_of_it = ", ".join(text(other) for key, other in client.response_headers if key.lower() == lower)
            expected.append(f"    assert response.headers[{text(lower)!r}] == {all_of_it!r}")
    if body.cut:
        expected.append(f"    assert len(response.content) == {body.size}")
    elif client.method != "HEAD" and b"content-encoding" not in {name.lower() for name, _ in client.response_headers}:
        expected.append(f"    assert response.content == {body.kept!r}")
    return [
        f"def test_{name}() -> None:",
        f"    with TestClient({gateway}{catching}, follow_redirects=False) as client:",
        "        response = client.request(",
        *(f"    {line}" for line in arguments),
        "        )",
        *expected,
    ]


def _in_docstring(content: str) -> str:
    return content.replace("\\", "\\\\").replace('"', '\\"')[:80]


def _too_long(body: Body, what: str) -> str:
    return f"the {what} has {body.size:,} bytes, and only the first {len(body.kept):,} are kept"


def _check_whole(body: Body) -> None:
    if body.cut:
        raise ValueError(_too_long(body, "body of the request"))
