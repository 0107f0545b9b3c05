"""What ``asgi-bridge compat`` prints."""

import json
from collections.abc import Iterator
from typing import Any

from ..apisix_constants import POST_RESP, PRE_REQ
from .findings import Findings, advise, listed
from .probes import PROBES
from .subject import Subject

__all__ = ["report"]


def report(subject: Subject, conf: Any, findings: Findings) -> Iterator[str]:
    """Write the findings for a person, and the lines to paste into pyproject.toml and the route file.

    Args:
        subject: The plugin.
        conf: Its configuration, as parsed from JSON.
        findings: What `examine` found.

    Returns:
        The lines, without their ends.
    """
    plugin, source, response = subject.plugin, subject.source, findings.response
    yield f"{subject.target}, {_KINDS[source]}, on {len(PROBES)} probe requests:"
    for status in sorted(set(findings.answers.values())):
        probes = [probe for probe, answered in findings.answers.items() if answered == status]
        yield f"  answers {status} by itself: {'all' if len(probes) == len(PROBES) else ', '.join(probes)}"
    if findings.limit is not None:
        number, status = findings.limit
        yield f"  answers {status} by itself to number {number} of equal requests"
    if findings.replays:
        yield "  answers by itself with the response to an earlier request"
    if findings.request:
        yield f"  changes the request: {', '.join(sorted(findings.request))}"
    if findings.unmappable:
        yield f"  which the protocol cannot express: {', '.join(sorted(findings.unmappable))}"
    if response.headers:
        yield f"  response headers: {', '.join(sorted(response.headers))}"
    if response.varying and not response.changed:
        yield f"  of these, another value each time: {listed(response.varying)}"
    if response.reacts and not response.changed:
        yield f"  acts otherwise with these responses of the upstream: {listed(response.reacts)}"
    if response.status:
        yield "  changes the status of the response"
    if response.body:
        yield "  changes the body of the response"
    if findings.wraps_send and not (response.headers or response.status or response.body):
        yield "  hands on a send of its own: it may watch the response"
    watches_body = findings.wraps_receive and "body" not in findings.request
    if watches_body:
        yield "  watches the request body: request_body=False spares fetching it"
    if findings.lifespan:
        yield "  has a lifespan: it is run once for each " + (
            "process" if source in ("app", "wsgi") else "configuration"
        )
    for probe, error in findings.errors.items():
        yield f"  raised on {probe}: {error}"
    if findings.unguarded:
        yield f"  guards nothing: {findings.unguarded}"
    yield ""
    if len(findings.errors) == len(PROBES):
        yield "It raised on every request, so nothing can be said of it."
        return
    phase, reason = advise(findings)
    yield f'Mount it with phase="{phase}": {reason}.'
    if phase == "response" and _request_headers(subject, findings) is None:
        asked = ", ".join(plugin.options.request_headers)
        yield (
            "It looks at all request headers, so the probes cannot tell which it needs. In the response phase it gets "
            f"only {asked}: name others with request_headers."
        )
    yield ""
    yield f"  # [tool.asgi_bridge.plugins.{plugin.name}] in pyproject.toml"
    yield f'  {source} = "{subject.target}"'
    yield f'  phase = "{phase}"'
    if subject.defaults:
        objects = ", ".join(f'{name} = "{target}"' for name, target in subject.defaults.items())
        yield f"  defaults = {{ {objects} }}"
    if watches_body:
        yield "  request_body = false"
    headers = _request_headers(subject, findings) if phase == "response" else None
    if headers is not None:
        yield f"  request_headers = {json.dumps(headers)}"
    yield ""
    yield "  # the route"
    entry = json.dumps([{"name": plugin.name, "value": json.dumps(conf)}])
    lists = {"request": [PRE_REQ], "response": [POST_RESP], "both": [PRE_REQ, POST_RESP]}[phase]
    yield "  plugins:"
    for name in lists:
        yield f"    {name}:"
        yield f"      conf: {entry}"


def _request_headers(subject: Subject, findings: Findings) -> list[str] | None:
    """Return the request headers that the plugin needs in the response phase; None: the probes do not tell."""
    if findings.reads.all or subject.source.startswith("wsgi"):
        return None
    return sorted(findings.reads.names)


_KINDS = {
    "app": "an application",
    "factory": "a factory",
    "middleware": "a middleware",
    "wsgi": "a WSGI application",
    "wsgi_middleware": "a WSGI middleware",
}
