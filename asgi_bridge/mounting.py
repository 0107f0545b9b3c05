"""Make a plugin of what is mounted, and refuse what cannot be one.

Each function adds one plugin to the mounted ones. It is called with options and defaults as they were given, in Python
or in a file, and checks them.
"""

import dataclasses
import inspect
import logging
from collections.abc import Callable, Mapping
from typing import Any

from starlette.types import ASGIApp

from .errors import ConfigurationError
from .plugins import Plugin
from .plugins.advice import Place, line_with_defaults, refusal
from .plugins.applications import asgi3
from .plugins.configuration import AnyConfiguration, Configuration, KeywordConfiguration, TypedConfiguration
from .plugins.kinds import Kind, Verdict, judge
from .plugins.needs import default_headers, known_headers
from .plugins.options import OptionsDict, parse_options
from .plugins.plugin import SourceKey
from .plugins.signatures import is_routine, signature_of, spelled

__all__ = ["OPTIONS", "add_application", "add_factory", "add_middleware", "add_wsgi", "check_name", "check_new"]

logger = logging.getLogger("asgi_bridge.plugins")

OPTIONS = frozenset(OptionsDict.__annotations__) | {"defaults"}
"""Names of the keyword arguments that the mounting methods know."""

_MIDDLEWARE_OF = {"middleware": Kind.MIDDLEWARE, "wsgi_middleware": Kind.WSGI_MIDDLEWARE}


def check_name(name: object, line: str = "") -> None:
    """Check the name of a plugin.

    Args:
        name: What was given as the name.
        line: The line to write where something callable was given instead, with ``{}`` for the name.

    Raises:
        ConfigurationError: It is not a string of 1 to 128 characters.
    """
    if isinstance(name, str) and 1 <= len(name) <= 128:
        return
    reason = f"a plugin's name must be a string of 1 to 128 characters (APISIX's schema), not {name!r}"
    if line and callable(name):
        reason += ": write " + line.format(f'"{spelled(name)}"')
    raise ConfigurationError(reason)


def check_new(plugins: Mapping[str, Plugin], name: str) -> None:
    """Raise ConfigurationError if a plugin has this name already.

    Args:
        plugins: The mounted plugins, by name.
        name: The name of the next one.
    """
    if name in plugins:
        raise ConfigurationError(f"plugin {name}: the name is mounted already; each plugin has a name of its own")


def add_application(plugins: dict[str, Plugin], place: Place, app: ASGIApp, options: Mapping[str, Any]) -> None:
    """Mount an ASGI application.

    Args:
        plugins: The mounted plugins, by name.
        place: The plugin's name, and its ``module:attr`` where there is one.
        app: The application.
        options: Options and their values.

    Raises:
        ConfigurationError: It is no ASGI application, the name is taken, or an option cannot work.
    """
    verdict = judge(app)
    if not verdict.may_be_application:
        raise ConfigurationError(f"plugin {place.name}: {refusal(app, verdict, place, 'an ASGI application')}")
    single = asgi3(app)
    _add(plugins, place, "app", app, lambda conf, inner: single, AnyConfiguration, options, single)


def add_middleware(
    plugins: dict[str, Plugin],
    place: Place,
    middleware: Callable[..., ASGIApp],
    defaults: Mapping[str, Any] | None,
    options: Mapping[str, Any],
    *,
    from_file: bool = False,
) -> None:
    """Mount an ASGI middleware.

    Args:
        plugins: The mounted plugins, by name.
        place: The plugin's name, and its ``module:attr`` where there is one.
        middleware: Class or function whose first parameter is the application to wrap.
        defaults: Keyword arguments of the middleware; None: none.
        options: Options and their values.
        from_file: True: a file has the defaults, so they are strings, numbers and tables, and no objects.

    Raises:
        ConfigurationError: It is no middleware, the name is taken, or an option or a default cannot work.
    """
    verdict = judge(middleware)
    if not verdict.may_be_middleware:
        raise ConfigurationError(f"plugin {place.name}: {refusal(middleware, verdict, place, 'a middleware')}")
    _add_wrapping(plugins, place, "middleware", middleware, middleware, defaults, options, from_file)


def add_wsgi(
    plugins: dict[str, Plugin],
    place: Place,
    source: SourceKey,
    found: Any,
    defaults: Mapping[str, Any] | None,
    options: Mapping[str, Any],
    threading: Mapping[str, Any],
) -> None:
    """Mount a WSGI application or middleware that a file or a ``module:attr`` names.

    Args:
        plugins: The mounted plugins, by name.
        place: The plugin's name and its ``module:attr``.
        source: ``"wsgi"`` for an application, ``"wsgi_middleware"`` for a middleware.
        found: The application or middleware.
        defaults: Keyword arguments of a middleware; None: none.
        options: Options and their values.
        threading: ``threads`` and ``pool`` of :class:`~asgi_bridge.wsgi.WSGIApp`.

    Raises:
        ConfigurationError: It is not what `source` says, the name is taken, or a value cannot work.
    """
    from .wsgi import WSGIApp, WSGIMiddleware  # not every runner needs it

    is_application = source == "wsgi"
    verdict = judge(found)
    if not (verdict.may_be_wsgi if is_application else verdict.may_be_wsgi_middleware):
        wanted = "a WSGI application" if is_application else "a WSGI middleware"
        raise ConfigurationError(f"plugin {place.name}: {refusal(found, verdict, place, wanted)}")
    try:
        if not is_application:
            wrapped = WSGIMiddleware(found, **threading)
            _add_wrapping(plugins, place, source, found, wrapped, defaults, options, True)
            return
        app = WSGIApp(found, **threading)
    except ConfigurationError as exc:
        text = str(exc)
        prefix = f"plugin {place.name}: "
        raise ConfigurationError(text if text.startswith(prefix) else prefix + text) from None
    _add(plugins, place, source, found, lambda conf, inner: app, AnyConfiguration, options, app)


def add_factory(
    plugins: dict[str, Plugin],
    place: Place,
    factory: Callable[..., Any],
    defaults: Mapping[str, Any] | None,
    options: Mapping[str, Any],
) -> None:
    """Mount a factory, which makes an application or a middleware of a route's configuration.

    Args:
        plugins: The mounted plugins, by name.
        place: The plugin's name, and its ``module:attr`` where there is one.
        factory: The function or class.
        defaults: The operator's part of each configuration; None: none.
        options: Options and their values.

    Raises:
        ConfigurationError: It is no factory, its annotations do not resolve, the name is taken, or an option or a
            default cannot work.
    """
    name = place.name
    verdict = judge(factory)
    if not (verdict.may_be_factory or (verdict.kind is Kind.OTHER and not verdict.is_class)):
        raise ConfigurationError(f"plugin {name}: {refusal(factory, verdict, place, 'a factory')}")
    if signature_of(factory) is None and not is_routine(factory):
        raise ConfigurationError(
            f"plugin {name}: {spelled(factory)} has no signature, so nothing says what a route may "
            f"configure: write def make(conf: dict): return {spelled(factory)}(conf)"
        )
    try:
        parameters = list(inspect.signature(factory, eval_str=True).parameters.values())
    except Exception as exc:  # an annotation may be any expression, so it may raise anything
        raise ConfigurationError(f"plugin {name}: an annotation of its factory does not resolve: {exc}") from exc
    wraps = verdict.shape.wraps
    rest = parameters[1:] if wraps else parameters
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    more = [each.name for each in rest[1:] if each.default is each.empty and each.kind not in variadic]
    more += [each.name for each in rest[:1] if each.kind in (each.KEYWORD_ONLY, each.VAR_KEYWORD)]
    if more:
        raise ConfigurationError(
            f"plugin {name}: its factory gets one positional argument, the configuration, but needs more: "
            f"{', '.join(more)}: write def {spelled(factory)}(conf), or (app, conf) for a middleware"
        )
    annotation = (rest[0].annotation if rest[0].annotation is not inspect.Parameter.empty else Any) if rest else None

    def make(conf: Any, app: ASGIApp) -> Any:
        arguments = ([app] if wraps else []) + ([conf] if rest else [])
        return factory(*arguments)

    def configuration() -> Configuration:
        if annotation is None:
            return KeywordConfiguration(_unconfigured, defaults)
        return TypedConfiguration(annotation, defaults)

    _add(plugins, place, "factory", factory, make, configuration, options)


def _unconfigured(app: ASGIApp) -> None:
    """The signature of a factory without a configuration."""


def _add_wrapping(
    plugins: dict[str, Plugin],
    place: Place,
    source: SourceKey,
    found: Any,
    middleware: Callable[..., ASGIApp],
    defaults: Mapping[str, Any] | None,
    options: Mapping[str, Any],
    from_file: bool,
) -> None:
    """Add `middleware`, which is `found` or, for WSGI, an ASGI middleware around it."""
    warned = signature_of(found) is not None

    def make(conf: dict[str, Any], app: ASGIApp) -> Any:
        nonlocal warned
        if not warned:
            warned = True
            logger.warning(
                "plugin %s: %s has no signature to read, so a route may configure any JSON object",
                place.name, spelled(found),
            )  # fmt: skip
        return middleware(app, **conf)

    def configuration() -> Configuration:
        checked = KeywordConfiguration(middleware, defaults, from_file=from_file)
        # parameters of the middleware that stand among the options
        misplaced = [key for key in options if key not in OPTIONS and checked.takes(key)]
        if misplaced:
            verdict = Verdict(_MIDDLEWARE_OF[source], True, judge(found).shape)
            one = len(misplaced) == 1
            raise ConfigurationError(
                f"{', '.join(misplaced)} {'is no option' if one else 'are no options'} of a mount, but "
                f"{'a parameter' if one else 'parameters'} of {spelled(found)}: write "
                f"{line_with_defaults(found, verdict, place, misplaced)}"
            )
        return checked

    _add(plugins, place, source, found, make, configuration, options)


def _add(
    plugins: dict[str, Plugin],
    place: Place,
    source: SourceKey,
    found: Any,
    make: Callable[[Any, ASGIApp], Any],
    configuration: Callable[[], Configuration],
    options: Mapping[str, Any],
    application: ASGIApp | None = None,
) -> None:
    """Check the name, the options and the configuration, and add the plugin."""
    name = place.name
    check_name(name)
    check_new(plugins, name)
    try:
        accepted = configuration()
        parsed = parse_options({**options}, name)
        if "request_headers" not in options:
            needs = known_headers(found)
            headers = default_headers(source, found) if needs is None else needs
            parsed = dataclasses.replace(parsed, request_headers=tuple(headers))
        checked = accepted.mounted_with(parsed)
        plugins[name] = Plugin(place, source, found, make, checked, parsed, application)
    except ConfigurationError as exc:
        raise ConfigurationError(f"plugin {name}: {exc}") from None
