"""Refusals of objects that are not what they were mounted as, with the line to write instead."""

import inspect
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, TypeAlias

from .importing import is_import_string
from .kinds import Kind, Verdict, judge
from .signatures import is_routine, spelled

__all__ = ["SOURCES", "Place", "SourceKey", "line_of", "line_with_defaults", "plugin_name", "refusal", "result_refusal"]


class Place(NamedTuple):
    """Where something is mounted.

    Attributes:
        name: The plugin's name.
        target: Its ``module:attr`` in a file, on the command line or in an entry point; None: Python code mounts it.
    """

    name: str
    target: str | None = None


def refusal(found: Any, verdict: Verdict, place: Place, wanted: str) -> str:
    """Return why an object is refused, and the line to write instead.

    Args:
        found: The object.
        verdict: What it is.
        place: Where it is mounted.
        wanted: What it was mounted as, with its article: a key of `_FORMS`.
    """
    kind = verdict.kind
    if kind is Kind.DATA:
        return f"{found!r} is not {wanted}: write {_FORMS[wanted]}"
    if kind is Kind.STRING:
        return f"{found!r} is not {wanted}{_import_line(found, wanted, place)}"
    what = place.target or _described(found)
    if kind in (Kind.OTHER, Kind.UNCLEAR):
        return f"{what} is no {wanted.partition(' ')[2]}: {_called_with(verdict)}: write {_FORMS[wanted]}"
    if kind is Kind.UNAWAITABLE:
        return f"{what} has nothing to await, since it lacks an async: write {line_of(found, verdict, place)}"
    if kind is Kind.GENERATOR:
        line = line_of(found, verdict, place)
        return f"{what} gives a generator when it is called, which nobody can await: write {line}, without yield"
    if kind.value.startswith("a WSGI") and wanted == "a middleware":
        wanted = "an ASGI middleware"
    return f"{what} is {kind.value}, not {wanted}: write {line_of(found, verdict, place)}"


def _described(found: Any) -> str:
    if inspect.isclass(found):
        return f"the class {found.__name__}"
    if is_routine(found):
        return f"the function {found.__name__}"
    if inspect.ismodule(found):
        return f"the module {found.__name__}"
    return repr(found) if isinstance(found, str) else f"this {type(found).__name__}"


def _called_with(verdict: Verdict) -> str:
    if verdict.kind is Kind.UNCLEAR:
        return "it takes any arguments, so nothing tells what it is"
    any_number = ["*args"] if verdict.shape.most == math.inf else []
    keywords = ["*", *verdict.shape.keywords] if verdict.shape.keywords and not any_number else verdict.shape.keywords
    takes = ", ".join([*verdict.shape.names, *any_number, *keywords])
    if verdict.is_class:
        return f"it is a class with a constructor of ({takes}), whose instances are neither"
    return f"it takes ({takes})"


_FORMS = {
    "an ASGI application": "async def app(scope, receive, send)",
    "a middleware": "def middleware(app), with what a route configures as keyword arguments",
    "a factory": "def factory(conf), or def factory(app, conf) for a middleware",
    "a WSGI application": "def app(environ, start_response)",
    "a WSGI middleware": "def middleware(app), with what a route configures as keyword arguments",
    "a plugin": 'app, middleware or factory = "module:attr" in [tool.asgi_bridge.plugins.NAME]',
}


def line_of(found: Any, verdict: Verdict, place: Place) -> str:
    """Return the line that mounts an object as what it is.

    Args:
        found: The object.
        verdict: What it is.
        place: Where it is mounted. If that is a file or the command line, the line is one for a file.
    """
    if place.target is not None:
        if verdict.kind in (Kind.APPLICATION_CLASS, Kind.WSGI_CLASS):
            module, key = place.target.partition(":")[0], "wsgi" if verdict.kind is Kind.WSGI_CLASS else "app"
            made = f"app = {spelled(found)}({'...' if verdict.shape.required else ''}) in {module}"
            return f'{made}, and {key} = "{module}:app" in [tool.asgi_bridge.plugins.{place.name}]'
        in_file = _file_line(found, verdict, place.target)
        if in_file is not None:
            return f"{in_file} in [tool.asgi_bridge.plugins.{place.name}]"
    return _python_line(found, verdict, place)


def _file_line(found: Any, verdict: Verdict, target: str) -> str | None:
    key = SOURCES.get(verdict.kind)
    if key is not None:
        return f'{key} = "{target}"'
    if verdict.kind is Kind.DISPATCH:
        return f'middleware = "starlette.middleware.base:BaseHTTPMiddleware" and defaults = {{ dispatch = "{target}" }}'
    if verdict.kind is Kind.ENTRY:
        defaults = ", ".join(f"{name} = ..." for name in found.kwargs)
        return f'middleware = "{found.cls.__module__}:{found.cls.__qualname__}"' + (
            f" and defaults = {{ {defaults} }}" if defaults else ""
        )
    return None


SourceKey: TypeAlias = Literal["app", "middleware", "factory", "wsgi", "wsgi_middleware"]
"""A key of ``[tool.asgi_bridge.plugins.NAME]`` that names what is mounted."""

SOURCES: Mapping[Kind, SourceKey] = {
    Kind.APPLICATION: "app",
    Kind.DOUBLE: "app",
    Kind.MIDDLEWARE: "middleware",
    Kind.FACTORY: "factory",
    Kind.BARE_FACTORY: "factory",
    Kind.WSGI: "wsgi",
    Kind.WSGI_MIDDLEWARE: "wsgi_middleware",
}
"""Kinds that can be mounted, with the key that names them in ``[tool.asgi_bridge.plugins.NAME]``."""


def _python_line(found: Any, verdict: Verdict, place: Place) -> str:
    kind, text, name = verdict.kind, spelled(found), _quoted(place.name)
    made = f"{text}(...)" if verdict.shape.required or verdict.shape.keywords else f"{text}()"
    match kind:
        case Kind.APPLICATION | Kind.DOUBLE:
            return f"bridge.mount({name}, {text})"
        case Kind.MIDDLEWARE:
            return f"bridge.add_middleware({name}, {text})"
        case Kind.FACTORY:
            return f"bridge.plugin({name})({text})"
        case Kind.BARE_FACTORY if not inspect.iscoroutinefunction(found):
            return f"bridge.mount({name}, {made}), or bridge.plugin({name})({text}) for one application a configuration"
        case Kind.BARE_FACTORY:
            return f"bridge.plugin({name})({text})"
        case Kind.APPLICATION_CLASS:
            return f"bridge.mount({name}, {made})"
        case Kind.UNAWAITABLE | Kind.GENERATOR:
            return f"async def {text + '(' if is_routine(found) else '__call__(self, '}scope, receive, send)"
        case Kind.WSGI:
            return f"from asgi_bridge.wsgi import WSGIApp; bridge.mount({name}, WSGIApp({text}))"
        case Kind.WSGI_CLASS:
            return f"from asgi_bridge.wsgi import WSGIApp; bridge.mount({name}, WSGIApp({made}))"
        case Kind.WSGI_MIDDLEWARE:
            return f"from asgi_bridge.wsgi import WSGIMiddleware; bridge.add_middleware({name}, WSGIMiddleware({text}))"
        case Kind.DISPATCH:
            return (
                "from starlette.middleware.base import BaseHTTPMiddleware; "
                f'bridge.add_middleware({name}, BaseHTTPMiddleware, defaults={{"dispatch": {text}}})'
            )
        case Kind.VIEW:
            return (
                "from starlette.applications import Starlette; from starlette.routing import Route; "
                f'bridge.mount({name}, Starlette(routes=[Route("/{{path:path}}", {text})]))'
            )
        case Kind.DJANGO:
            return f"it into MIDDLEWARE of Django's settings, and bridge.mount({name}, get_asgi_application())"
        case Kind.ENTRY:
            defaults = ", ".join(f"{_quoted(each)}: ..." for each in found.kwargs)
            return f"bridge.add_middleware({name}, {spelled(found.cls)}" + (
                f", defaults={{{defaults}}})" if defaults else ")"
            )
        case Kind.COROUTINE:
            return f"bridge.plugin({name})({spelled(found)}), without calling it: the bridge awaits what it returns"
        case Kind.MODULE:
            known = [each for each in ("app", "application", "bridge") if hasattr(found, each)]
            return f"bridge.mount({name}, {found.__name__}.{(known or ['app'])[0]})"
        case _:
            return f"bridge.mount({name}, {text})"


def line_with_defaults(found: Any, verdict: Verdict, place: Place, parameters: Sequence[str]) -> str:
    """Return the line that mounts the middleware `found` with defaults for `parameters`."""
    if place.target is not None:
        return "defaults = { " + ", ".join(f"{name} = ..." for name in parameters) + " }"
    line = _python_line(found, verdict, place)
    if not parameters:
        return line
    return line.removesuffix(")") + ", defaults={" + ", ".join(f"{_quoted(name)}: ..." for name in parameters) + "})"


def plugin_name(attribute: str) -> str:
    """Return a plugin name for an attribute of a module: ``cors`` for ``CORSMiddleware``."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|_", "-", attribute.removesuffix("Middleware") or attribute).lower()


def _import_line(text: str, wanted: str, place: Place) -> str:
    """Return the line that mounts what a string names; empty if it has not the form ``module:attr``."""
    if not is_import_string(text):
        return ""
    key, method = _NAMED[wanted]
    if place.target is not None:
        return f': write {key} = "{text}" in [tool.asgi_bridge.plugins.{place.name}]'
    module, _, path = text.partition(":")
    return f": write from {module} import {path.partition('.')[0]}; {method.format(_quoted(place.name), path)}"


_NAMED = {
    "an ASGI application": ("app", "bridge.mount({}, {})"),
    "a middleware": ("middleware", "bridge.add_middleware({}, {})"),
    "a factory": ("factory", "bridge.plugin({})({})"),
    "a WSGI application": ("wsgi", "bridge.mount({}, WSGIApp({}))"),
    "a WSGI middleware": ("wsgi_middleware", "bridge.add_middleware({}, WSGIMiddleware({}))"),
    "a plugin": ("app", "bridge.mount({}, {})"),
}


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def result_refusal(result: Any, maker: Any, verdict: Verdict, source: str, place: Place) -> str:
    """Return why the result of a factory or middleware is refused, and the line to write instead.

    Args:
        result: The result.
        maker: The factory or middleware that returned it.
        verdict: What `result` is.
        source: "factory" or "middleware".
        place: Where `maker` is mounted.
    """
    made = spelled(maker)
    if verdict.kind in (Kind.DATA, Kind.STRING, Kind.MODULE, Kind.COROUTINE, Kind.ENTRY):
        what = f"its factory returned {type(result).__name__}, not an application"
        if result is None:
            return f"{what}: write return in {made}, before the application"
        return f"{what}: write async def __call__(self, scope, receive, send)" if inspect.isclass(maker) else what
    what = f"its {source} {made} returned {verdict.kind.value}, not an ASGI application"
    if verdict.kind is Kind.WSGI and source == "middleware":
        return f"{what}: write {line_of(maker, Verdict(Kind.WSGI_MIDDLEWARE, True, judge(maker).shape), place)}"
    text = spelled(result)
    match verdict.kind:
        case Kind.WSGI:
            return f"{what}: write from asgi_bridge.wsgi import WSGIApp; return WSGIApp({text})"
        case Kind.MIDDLEWARE | Kind.FACTORY if source == "factory":
            return f"{what}: write def {made}(app, conf), and return {text}(app)"
        case Kind.MIDDLEWARE | Kind.FACTORY:
            return f"{what}: write bridge.add_middleware({_quoted(place.name)}, {made}(...))"
        case Kind.APPLICATION_CLASS | Kind.BARE_FACTORY | Kind.WSGI_CLASS:
            return f"{what}: write return {text}()"
        case Kind.UNAWAITABLE | Kind.GENERATOR:
            without = ", without yield" if verdict.kind is Kind.GENERATOR else ""
            return f"{what}: write async def {text}(scope, receive, send){without}"
        case _:
            return f"{what}: write async def app(scope, receive, send), and return it"
