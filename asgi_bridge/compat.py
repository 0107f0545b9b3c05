"""``asgi-bridge compat``: tries one plugin on probe requests, and says what it does and where to mount it.

Probes show what a plugin does, never what it would do with another request. So it is advised one phase alone only if
they show that this is enough: the request phase for what acts on requests and looks at no response, the response phase
for what encodes bodies and lets all requests pass. Everything else is advised ``both``, where a plugin sees what it
sees under a server; and the report says what the probes cannot tell.
"""

import asyncio
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from starlette.types import ASGIApp

from .bridge import Bridge
from .errors import ConfigurationError
from .plugins import Plugin, upstream
from .plugins.advice import plugin_name
from .plugins.configuration import KeywordConfiguration
from .plugins.importing import import_string
from .plugins.kinds import Kind, judge
from .probes import PROBES, Findings, examine_plugin, spied
from .wsgi import WSGIMiddleware

__all__ = ["PROBES", "Findings", "Subject", "advise", "examine", "load", "missing_objects", "report"]


@dataclass(frozen=True)
class Subject:
    """What is tried.

    Attributes:
        target: its ``module:attr``.
        plugin: it, under a name made of that.
        source: the key that names it in ``[tool.asgi_bridge.plugins.NAME]``.
        defaults: keyword arguments that are objects, as ``module:attr``.
    """

    target: str
    plugin: Plugin
    source: str
    defaults: Mapping[str, str] = field(default_factory=dict)


def load(target: str, defaults: Mapping[str, str] | None = None) -> Subject:
    """What ``module:attr`` names, by what it is.

    Args:
        target: ``module:attr`` of a middleware, a factory or an application, ASGI or WSGI.
        defaults: for a middleware, names of parameters and ``module:attr`` of the objects to give.

    Raises:
        ConfigurationError: it is none of these, or takes no such parameter.
    """
    found = import_string(target)
    if isinstance(found, Bridge):
        raise ConfigurationError(f"{target} is a Bridge; name one middleware, factory or application")
    name = plugin_name(target.rpartition(":")[2].rpartition(".")[2])
    bridge = Bridge()
    bridge.add(name, found, target, defaults)
    plugin = bridge.plugins[name]
    return Subject(target, plugin, plugin.source, dict(defaults or {}))


def examine(subject: Subject, conf: str) -> tuple[Subject, Findings]:
    """Runs all probes.

    Args:
        subject: what to try.
        conf: its configuration, JSON.

    Returns:
        What was tried, which is another where only the result of a function showed that it is WSGI; and the findings.

    Raises:
        ConfigurationError: it cannot be built.
    """
    plugin = subject.plugin
    made: list[Any] = []
    looked = False

    def note() -> None:
        nonlocal looked
        looked = True

    make = plugin.make
    if plugin.source == "wsgi_middleware":

        def make(conf: Any, app: ASGIApp) -> Any:
            return WSGIMiddleware(spied(plugin.found, note))(app, **conf)

    def noting(checked: Any, app: ASGIApp) -> Any:
        made.append((make(checked, app), app))
        return made[-1][0]

    kept, plugin.make = plugin.make, noting
    try:
        findings = asyncio.run(examine_plugin(plugin, conf))
    except ConfigurationError:
        if plugin.source == "middleware" and made and judge(made[-1][0]).kind is Kind.WSGI:
            return examine(_as_wsgi(subject), conf)
        raise
    finally:
        plugin.make = kept
    if plugin.source.startswith("wsgi"):  # the adapter hands on a send of its own, whatever it adapts
        findings.wraps_send = looked if plugin.source == "wsgi_middleware" else findings.passed
        findings.wraps_receive = False
    findings.nothing = any(result in (app, upstream) for result, app in made)
    if plugin.source == "middleware" and len(findings.errors) == len(PROBES) and judge(made[-1][0]).may_be_wsgi:
        # its signature, such as (*args), fits ASGI and WSGI; the calls show which of them it is
        try:
            found = examine(_as_wsgi(subject), conf)
        except ConfigurationError:
            return subject, findings
        if len(found[1].errors) < len(PROBES):
            return found
    return subject, findings


def _as_wsgi(subject: Subject) -> Subject:
    bridge = Bridge()
    bridge.configure(
        {
            "plugins": {
                subject.plugin.name: {"wsgi_middleware": subject.target, "defaults": dict(subject.defaults)},
            }
        }
    )
    return Subject(subject.target, bridge.plugins[subject.plugin.name], "wsgi_middleware", subject.defaults)


def missing_objects(subject: Subject, reason: str) -> list[str]:
    """The parameters that `reason` complains of and that JSON may not be able to give."""
    configuration = subject.plugin.configuration
    if not isinstance(configuration, KeywordConfiguration):
        return []
    return [name for name in configuration.objects if f"field {name!r}: " in reason]


def advise(findings: Findings) -> tuple[str, str]:
    """The phase to mount it in, and why; what the probes cannot tell is in the reason."""
    acts = bool(findings.request or findings.answers or findings.errors or findings.limit)
    changes = _changes(findings)
    if findings.nothing:
        return "request", "with this configuration it is nothing but what it wraps"
    if findings.replays:
        return "both", "it keeps responses and answers with them, so it has to see the upstream's"
    if changes and acts:
        return "both", "it acts on the request and changes the real response"
    if findings.body and findings.recodes and not findings.status and findings.varying <= findings.lost:
        return "response", "it changes the real response"
    if changes:
        return (
            "both",
            "it changes the real response, and the probes cannot tell whether it also refuses or changes some requests "
            "(response will do if it never does)",
        )
    if findings.reacts:
        return "both", f"what it does depends on the response: it is different with {_listed(findings.reacts)}"
    if findings.varying:
        return (
            "both",
            f"it sets {_listed(findings.varying)} to another value each time, and the probes cannot tell whether that "
            "comes from the response (else request will do)",
        )
    if findings.wraps_send and not findings.headers:
        return (
            "both",
            "it may watch the response, seen in the both form only, and the probes cannot tell what for (else request "
            "will do)",
        )
    if findings.headers:
        return "request", "it adds headers beside the upstream's (both, if their values depend on the response)"
    if acts and not findings.passed:
        return (
            "request",
            "it acts before the upstream; it let no probe pass, so they cannot tell whether it looks at responses "
            "(both, if it does)",
        )
    if acts:
        return "request", "it acts before the upstream, and looked at no response"
    if findings.wraps_receive:
        return "request", "it watches requests, and looked at no response"
    return "both", "it did nothing with any probe, so they cannot tell what it acts on"


def _changes(findings: Findings) -> bool:
    """Whether it does what only the real response makes possible."""
    return findings.body or findings.status or bool(findings.lost)


def _listed(names: set[str]) -> str:
    return ", ".join(sorted(names))


def report(subject: Subject, conf: Any, findings: Findings) -> Iterator[str]:
    """The findings for a person, and the lines to paste.

    Args:
        subject: what was tried.
        conf: its configuration, parsed.
        findings: what came of it.
    """
    plugin, source = subject.plugin, subject.source
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
    if findings.headers:
        yield f"  response headers: {', '.join(sorted(findings.headers))}"
    if findings.varying and not _changes(findings):
        yield f"  of these, another value each time: {_listed(findings.varying)}"
    if findings.reacts and not _changes(findings):
        yield f"  acts otherwise with these responses of the upstream: {_listed(findings.reacts)}"
    if findings.status:
        yield "  changes the status of the response"
    if findings.body:
        yield "  changes the body of the response"
    if findings.wraps_send and not (findings.headers or findings.status or findings.body):
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
    yield ""
    if len(findings.errors) == len(PROBES):
        yield "It raised on every request, so nothing can be said of it."
        return
    phase, reason = advise(findings)
    yield f'Mount it with phase="{phase}": {reason}.'
    yield ""
    yield f"  # [tool.asgi_bridge.plugins.{plugin.name}] in pyproject.toml"
    yield f'  {source} = "{subject.target}"'
    yield f'  phase = "{phase}"'
    if subject.defaults:
        objects = ", ".join(f'{name} = "{target}"' for name, target in subject.defaults.items())
        yield f"  defaults = {{ {objects} }}"
    if watches_body:
        yield "  request_body = false"
    yield ""
    yield "  # the route"
    entry = json.dumps([{"name": plugin.name, "value": json.dumps(conf)}])
    places = {"request": ["pre-req"], "response": ["post-resp"], "both": ["pre-req", "post-resp"]}[phase]
    yield "  plugins:"
    for place in places:
        yield f"    ext-plugin-{place}:"
        yield f"      conf: {entry}"


_KINDS = {
    "app": "an application",
    "factory": "a factory",
    "middleware": "a middleware",
    "wsgi": "a WSGI application",
    "wsgi_middleware": "a WSGI middleware",
}
