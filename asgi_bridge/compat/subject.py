"""The plugin to try: where it comes from, and a run of all probes on it."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import wraps
from typing import Any

from starlette.types import ASGIApp

from ..bridge import Bridge
from ..errors import ConfigurationError
from ..plugins import Plugin, upstream
from ..plugins.advice import plugin_name
from ..plugins.configuration import KeywordConfiguration
from ..plugins.guards import unguarded
from ..plugins.importing import import_string
from ..plugins.kinds import Kind, judge
from ..wsgi import WSGIMiddleware
from .findings import Findings
from .probes import PROBES
from .trial import examine_plugin

__all__ = ["Subject", "examine", "load", "missing_objects"]


@dataclass(frozen=True)
class Subject:
    """The plugin to try.

    Attributes:
        target: Its ``module:attr``.
        plugin: The plugin, under a name made of `target`.
        source: The key that names it in ``[tool.asgi_bridge.plugins.NAME]``.
        defaults: Its keyword arguments that are objects, name → ``module:attr``.
    """

    target: str
    plugin: Plugin
    source: str
    defaults: Mapping[str, str] = field(default_factory=dict)


def load(target: str, defaults: Mapping[str, str] | None = None) -> Subject:
    """Import what ``module:attr`` names, and make a plugin of it.

    Args:
        target: ``module:attr`` of a middleware, a factory or an application, ASGI or WSGI.
        defaults: Keyword arguments of a middleware that are objects, name → ``module:attr``.

    Raises:
        ConfigurationError: It cannot be imported, is none of these, or has no such parameter.
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
    """Run all probes.

    Args:
        subject: The plugin.
        conf: Its configuration, JSON.

    Returns:
        The subject and the findings. The subject is another one where only the result of the function that makes the
        middleware showed that it is WSGI.

    Raises:
        ConfigurationError: The plugin cannot be built.
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
            return WSGIMiddleware(_spied(plugin.found, note))(app, **conf)

    def noting(checked: Any, app: ASGIApp) -> Any:
        made.append((make(checked, app), app))
        return made[-1][0]

    try:
        findings = asyncio.run(examine_plugin(plugin.with_make(noting), conf))
    except ConfigurationError:
        if plugin.source == "middleware" and made and judge(made[-1][0]).kind is Kind.WSGI:
            return examine(_as_wsgi(subject), conf)
        raise
    if plugin.source.startswith("wsgi"):  # the WSGI adapter always wraps send, so this tells nothing
        findings.wraps_send = looked if plugin.source == "wsgi_middleware" else findings.passed
        findings.wraps_receive = False
    findings.unguarded = unguarded(made[-1][0] if made else plugin.found)
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
    """Find the keyword arguments that an error is about, and whose value may have to be an object.

    Args:
        subject: The plugin.
        reason: The error's text.

    Returns:
        Their names; for such an argument JSON has no value, and ``--default`` gives it.
    """
    configuration = subject.plugin.configuration
    if not isinstance(configuration, KeywordConfiguration):
        return []
    return [name for name in configuration.objects if f"field {name!r}: " in reason]


def _spied(middleware: Callable[..., Any], note: Callable[[], None]) -> Callable[..., Any]:
    """Wrap a WSGI middleware, so that `note` is called whenever it looks at a response.

    It looks at a response if it passes on another ``start_response`` than the one that it was called with, or returns
    another iterable than the one that the upstream returned.
    """

    @wraps(middleware)
    def watched(*arguments: Any, **options: Any) -> Any:
        upstream, *rest = arguments
        own: Any = None
        got: Any = None

        def inner(environ: Any, start_response: Any) -> Any:
            nonlocal got
            if start_response is not own:
                note()
            got = upstream(environ, start_response)
            return got

        made = middleware(inner, *rest, **options)
        if not judge(made).may_be_wsgi:
            return made

        def outer(environ: Any, start_response: Any) -> Any:
            nonlocal own, got
            own, got = start_response, None
            result = made(environ, start_response)
            if got is not None and result is not got:
                note()
            return result

        return outer

    return watched
