"""The public face: a Bridge holds the plugins of a runner, by name."""

import inspect
import logging
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from typing import Any, TypeVar, Unpack

from starlette.types import ASGIApp

from .errors import ConfigurationError
from .plugins import Plugin
from .plugins.advice import SOURCES, Place, line_of, line_with_defaults, plugin_name, refusal
from .plugins.applications import asgi3
from .plugins.configuration import AnyConfiguration, Configuration, KeywordConfiguration, TypedConfiguration
from .plugins.importing import import_or_call, import_string
from .plugins.kinds import Kind, Verdict, judge
from .plugins.options import OptionsDict, parse_options
from .plugins.plugin import SOURCE_KEYS, SourceKey
from .plugins.signatures import is_routine, signature_of, spelled
from .spelling import did_you_mean

__all__ = ["Bridge"]

logger = logging.getLogger("asgi_bridge.plugins")

Factory = TypeVar("Factory", bound=Callable[..., Any])
Method = TypeVar("Method", bound=Callable[..., Any])


def _explaining_missing_arguments(method: Method) -> Method:
    """Lets a mounting method say what to write where it is called without one of its arguments."""
    signature = inspect.signature(method)
    wanted = [name for name, each in signature.parameters.items() if each.default is each.empty][1:-1]

    @wraps(method)
    def checked(*args: Any, **options: Any) -> Any:
        try:
            signature.bind(*args, **options)
        except TypeError as exc:
            given = next((each for each in args[1:] if callable(each)), None)
            if method.__name__ == "plugin":
                line = f'@bridge.plugin("{"name" if given is None else spelled(given)}")'
            else:
                line = f'bridge.{method.__name__}("name", {", ".join(wanted[1:])})'
                if given is not None:
                    defaults = [key for key in options if key not in _OPTIONS]
                    line = line_with_defaults(given, judge(given), Place(plugin_name(spelled(given))), defaults)
            raise ConfigurationError(f"Bridge.{method.__name__}: {exc}: write {line}") from None
        return method(*args, **options)

    return checked  # type: ignore[return-value]


class Bridge:
    """The plugins of a runner, by name.

    Example::

        bridge = Bridge()
        bridge.mount("hello", app)
        bridge.add_middleware("cors", CORSMiddleware, defaults={"allow_methods": ["*"]})

        @bridge.plugin("say")
        def say(conf: SayConf) -> ASGIApp: ...

    All three take the options of :class:`~asgi_bridge.plugins.options.Options` as keyword arguments, and raise
    ConfigurationError for what can never work: a name mounted twice, an unknown option, defaults that the middleware
    does not take, an object that is something else; then the message has the line to write instead.
    """

    def __init__(self) -> None:
        self.plugins: dict[str, Plugin] = {}

    @_explaining_missing_arguments
    def mount(self, name: str, app: ASGIApp, **options: Unpack[OptionsDict]) -> None:
        """Mounts an ASGI application, which answers by itself or awaits :func:`asgi_bridge.upstream`.

        A route may configure any JSON; the application finds it in ``scope["extensions"]["apisix"]["conf"]``.
        """
        self._mount(_place(name, app), app, options)

    @_explaining_missing_arguments
    def add_middleware(
        self,
        name: str,
        middleware: Callable[..., ASGIApp],
        *,
        defaults: Mapping[str, Any] | None = None,
        **options: Unpack[OptionsDict],
    ) -> None:
        """Mounts a middleware: a class or function whose first parameter is the application to wrap.

        Where it has no signature to read (it is compiled, or a built-in), a route may configure any JSON object.

        Args:
            defaults: keyword arguments, objects included; a route's JSON object gives further ones, over these.
        """
        self._add_middleware(_place(name, middleware), middleware, defaults, options)

    @_explaining_missing_arguments
    def plugin(
        self, name: str, *, defaults: Mapping[str, Any] | None = None, **options: Unpack[OptionsDict]
    ) -> Callable[[Factory], Factory]:
        """Mounts a factory: route configuration → ASGI application; may be ``async def``.

        The configuration parameter's annotation (a pydantic model, dataclass, TypedDict, dict, …) checks what a
        route configures. With a first parameter named ``app``, or annotated as an application, it is a factory of a
        middleware. It is called once for each route and configuration, with ``share=True`` for each configuration.

        Args:
            defaults: the operator's own part of each configuration, JSON; a route's object goes over it.
        """
        _check_name(name, "@bridge.plugin({})")

        def decorate(factory: Factory) -> Factory:
            self._add_factory(Place(name), factory, defaults, options)
            return factory

        return decorate

    def add(self, name: str, found: Any, target: str | None = None, defaults: Mapping[str, Any] | None = None) -> None:
        """Mounts what a ``module:attr`` or an entry point named, by what it is (see :mod:`asgi_bridge.plugins.kinds`).

        A :class:`Bridge` gives all its plugins, under their own names.

        Args:
            name: the plugin's name.
            found: what to mount.
            target: its ``module:attr``, for messages.
            defaults: of a middleware, as a file has them.

        Raises:
            ConfigurationError: it is nothing that can be mounted, or nothing tells what it is, or it takes no such
                defaults.
        """
        if isinstance(found, Bridge):
            self.include(found)
            return
        place = Place(name, target)
        verdict = judge(found)
        source = SOURCES.get(verdict.kind)
        if verdict.kind is Kind.UNCLEAR and not is_routine(found):
            source = "app"  # an object without a signature to read: a compiled application
        if source is None:
            raise ConfigurationError(f"plugin {name}: {refusal(found, verdict, place, 'a plugin')}")
        if defaults and source not in ("factory", "middleware", "wsgi_middleware"):
            raise ConfigurationError(
                f"plugin {name}: only a middleware has defaults, or a factory, and this is {verdict.kind.value}"
            )
        self._add_source(place, source, found, {}, defaults)

    def _add_source(
        self,
        place: Place,
        source: SourceKey,
        found: Any,
        options: Mapping[str, Any],
        defaults: Mapping[str, Any] | None = None,
        threading: Mapping[str, Any] | None = None,
    ) -> None:
        """Mounts what a file, the command line or an entry point named."""
        match source:
            case "app":
                self._mount(place, found, options)
            case "factory":
                self._add_factory(place, found, defaults, options)
            case "middleware":
                self._add_middleware(place, found, defaults, options, from_file=True)
            case _:
                self._add_wsgi(place, source, found, defaults, options, threading or {})

    def _mount(self, place: Place, app: ASGIApp, options: Mapping[str, Any]) -> None:
        verdict = _judged(place, app, "an ASGI application")
        if not verdict.may_be_application:
            raise ConfigurationError(f"plugin {place.name}: {refusal(app, verdict, place, 'an ASGI application')}")
        single = asgi3(app)
        self._add(place, "app", app, lambda conf, following: single, AnyConfiguration, options, single)

    def _add_middleware(
        self,
        place: Place,
        middleware: Callable[..., ASGIApp],
        defaults: Mapping[str, Any] | None,
        options: Mapping[str, Any],
        *,
        from_file: bool = False,
    ) -> None:
        verdict = _judged(place, middleware, "a middleware")
        if not verdict.may_be_middleware:
            raise ConfigurationError(f"plugin {place.name}: {refusal(middleware, verdict, place, 'a middleware')}")
        self._add_wrapping(place, "middleware", middleware, middleware, defaults, options, from_file)

    def _add_wsgi(
        self,
        place: Place,
        source: SourceKey,
        found: Any,
        defaults: Mapping[str, Any] | None,
        options: Mapping[str, Any],
        threading: Mapping[str, Any],
    ) -> None:
        from .wsgi import WSGIApp, WSGIMiddleware  # not every runner needs it

        wanted = "a WSGI application" if source == "wsgi" else "a WSGI middleware"
        verdict = _judged(place, found, wanted)
        if not (verdict.may_be_wsgi if source == "wsgi" else verdict.may_be_wsgi_middleware):
            raise ConfigurationError(f"plugin {place.name}: {refusal(found, verdict, place, wanted)}")
        try:
            if source == "wsgi_middleware":
                wrapped = WSGIMiddleware(found, **threading)
                self._add_wrapping(place, source, found, wrapped, defaults, options, True)
                return
            app = WSGIApp(found, **threading)
        except ConfigurationError as exc:
            text = str(exc)
            prefix = f"plugin {place.name}: "
            raise ConfigurationError(text if text.startswith(prefix) else prefix + text) from None
        self._add(place, source, found, lambda conf, following: app, AnyConfiguration, options, app)

    def _add_wrapping(
        self,
        place: Place,
        source: SourceKey,
        found: Any,
        middleware: Callable[..., ASGIApp],
        defaults: Mapping[str, Any] | None,
        options: Mapping[str, Any],
        from_file: bool,
    ) -> None:
        said = signature_of(found) is not None

        def make(conf: dict[str, Any], app: ASGIApp) -> Any:
            nonlocal said
            if not said:
                said = True
                logger.warning(
                    "plugin %s: %s has no signature to read, so a route may configure any JSON object",
                    place.name, spelled(found),
                )  # fmt: skip
            return middleware(app, **conf)

        def configuration() -> Configuration:
            checked = KeywordConfiguration(middleware, defaults, from_file=from_file)
            strangers = [key for key in options if key not in _OPTIONS and checked.takes(key)]
            if strangers:
                verdict = Verdict(_MIDDLEWARE_OF[source], True, judge(found).shape)
                given = ", ".join(strangers)
                raise ConfigurationError(
                    f"{given} {'is no option' if len(strangers) == 1 else 'are no options'} of a mount, but "
                    f"what {spelled(found)} takes: write {line_with_defaults(found, verdict, place, strangers)}"
                )
            return checked

        self._add(place, source, found, make, configuration, options)

    def _add_factory(
        self,
        place: Place,
        factory: Callable[..., Any],
        defaults: Mapping[str, Any] | None,
        options: Mapping[str, Any],
    ) -> None:
        name = place.name
        verdict = _judged(place, factory, "a factory")
        if not (verdict.may_be_factory or (verdict.kind is Kind.OTHER and not verdict.is_class)):
            raise ConfigurationError(f"plugin {name}: {refusal(factory, verdict, place, 'a factory')}")
        if signature_of(factory) is None and not is_routine(factory):
            raise ConfigurationError(
                f"plugin {name}: {spelled(factory)} has no signature to read, which would say what a route may "
                f"configure: write def make(conf: dict): return {spelled(factory)}(conf)"
            )
        try:
            parameters = list(inspect.signature(factory, eval_str=True).parameters.values())
        except Exception as exc:  # any expression may stand in an annotation, so anything may come out
            raise ConfigurationError(f"plugin {name}: an annotation of its factory does not resolve: {exc}") from exc
        wraps = verdict.shape.wraps
        rest = parameters[1:] if wraps else parameters
        variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
        more = [each.name for each in rest[1:] if each.default is each.empty and each.kind not in variadic]
        more += [each.name for each in rest[:1] if each.kind in (each.KEYWORD_ONLY, each.VAR_KEYWORD)]
        if more:
            raise ConfigurationError(
                f"plugin {name}: its factory is called with a configuration, by position, and wants more: "
                f"{', '.join(more)}: write def {spelled(factory)}(conf), or (app, conf) for a middleware"
            )
        annotation = (
            (rest[0].annotation if rest[0].annotation is not inspect.Parameter.empty else Any) if rest else None
        )

        def make(conf: Any, app: ASGIApp) -> Any:
            arguments = ([app] if wraps else []) + ([conf] if rest else [])
            return factory(*arguments)

        self._add(
            place,
            "factory",
            factory,
            make,
            lambda: (
                KeywordConfiguration(_unconfigured, defaults)
                if annotation is None
                else TypedConfiguration(annotation, defaults)
            ),
            options,
        )

    def _add(
        self,
        place: Place,
        source: SourceKey,
        found: Any,
        make: Callable[[Any, ASGIApp], Any],
        configuration: Callable[[], Configuration],
        options: Mapping[str, Any],
        application: ASGIApp | None = None,
    ) -> None:
        name = place.name
        _check_name(name)
        if name in self.plugins:
            raise ConfigurationError(f"plugin {name}: the name is mounted already")
        try:
            accepted = configuration()
            parsed = parse_options(dict(options), name)
            checked = accepted.mounted_with(parsed)
            self.plugins[name] = Plugin(place, source, found, make, checked, parsed, application)
        except ConfigurationError as exc:
            raise ConfigurationError(f"plugin {name}: {exc}") from None

    def include(self, other: "Bridge", *, allow: Sequence[str] = ()) -> None:
        """Mounts all plugins of `other` too.

        Args:
            allow: files and servers that routes may name to these plugins, besides what each is mounted with.
        """
        for name, plugin in other.plugins.items():
            if name in self.plugins:
                raise ConfigurationError(f"plugin {name}: the name is mounted already")
            self.plugins[name] = plugin.allowing(allow) if allow else plugin

    def configure(self, tables: Mapping[str, Any]) -> None:
        """Mounts what the ``[tool.asgi_bridge]`` table of a pyproject.toml says.

        Args:
            tables: ``bridge`` ("module:attr" of a Bridge to include), ``allow`` (what routes may name to its plugins)
                and ``plugins``, for each name a table with one of ``app``, ``middleware``, ``factory``, ``wsgi``,
                ``wsgi_middleware`` ("module:attr"), for a middleware or factory ``defaults``, for WSGI ``threads`` and
                ``pool``, and options.
        """
        unknown = sorted(set(tables) - {"allow", "bridge", "plugins"})
        if unknown:
            guess = did_you_mean(unknown[-1], ("allow", "bridge", "plugins"))
            raise ConfigurationError(
                f"[tool.asgi_bridge] has no key {', '.join(unknown)}; it has bridge and plugins, and allow{guess}"
            )
        if not isinstance(tables.get("bridge", ""), str) or not isinstance(tables.get("allow", []), list):
            raise ConfigurationError(
                '[tool.asgi_bridge]: bridge is a string, "module:attr", and allow a list of strings'
            )
        if "bridge" in tables:
            self.include(_as_bridge(tables["bridge"]), allow=tables.get("allow", ()))
        elif "allow" in tables:
            raise ConfigurationError(
                "[tool.asgi_bridge] has allow, which is for the plugins of bridge; a table of plugins has its own"
            )
        plugins = tables.get("plugins", {})
        if not isinstance(plugins, Mapping):
            raise ConfigurationError("[tool.asgi_bridge.plugins] is a table of tables, one for each plugin")
        for name, table in plugins.items():
            where = f"[tool.asgi_bridge.plugins.{name}]"
            if not isinstance(table, Mapping):
                raise ConfigurationError(f"{where} is a table")
            options = dict(table)
            sources = [(key, options.pop(key)) for key in SOURCE_KEYS if key in options]
            if len(sources) != 1:
                guesses = [] if sources else [did_you_mean(key, SOURCE_KEYS) for key in options]
                raise ConfigurationError(
                    f'{where} has one of app, middleware, factory, wsgi and wsgi_middleware, as "module:attr"'
                    + next(filter(None, guesses), "")
                )
            ((key, target),) = sources
            try:
                found = import_string(target)
            except ConfigurationError as exc:
                raise ConfigurationError(f"{where} {key}: {exc}") from exc.__cause__
            threading = {}
            if key.startswith("wsgi"):
                threading = {word: options.pop(word) for word in ("threads", "pool") if word in options}
            defaults = options.pop("defaults", None)
            if defaults is not None and key not in ("middleware", "factory", "wsgi_middleware"):
                raise ConfigurationError(f"{where} has defaults, which only a middleware takes, or a factory")
            if not isinstance(defaults, Mapping | None):
                raise ConfigurationError(f"{where}: defaults is a table")
            self._add_source(Place(name, target), key, found, options, defaults, threading)

    def run(self, **options: Any) -> None:
        """Serves the gateway until a signal ends it, as ``asgi-bridge run`` does.

        Args:
            uds: path of the unix socket; ``APISIX_LISTEN_ADDRESS`` without it.
            uds_permissions: mode of the socket file, 0o666 without it.
            limit_concurrency: calls at once; further ones are refused.
            limit_configuration_size: bytes that a route's configuration of one plugin may have, 131,072 without it.
            timeout_graceful_shutdown: seconds that calls in flight have to end by themselves after a signal.
            access_log: True: one line for each call.
            forwarded_headers: ``"trust"`` the x-forwarded-* headers for scheme and server, or ``"ask"`` the gateway.
            log_level, log_config: as uvicorn has them.
            env_file: read into the environment first.

        Raises:
            ConfigurationError: the socket cannot be taken, or the options cannot work. ``reload=True`` is one that
                cannot: it imports the plugins anew, so it needs their ``module:attr``, as the command line has it.
        """
        from .server.serve import serve  # not every process that has a Bridge serves it

        serve(self.plugins, **options)


def _check_name(name: object, line: str = "") -> None:
    if isinstance(name, str) and 1 <= len(name) <= 128:
        return
    said = f"a plugin's name has 1 to 128 characters (APISIX's schema), not {name!r}"
    if line and callable(name):
        said += ": write " + line.format(f'"{spelled(name)}"')
    raise ConfigurationError(said)


def _place(name: object, found: Any) -> Place:
    """Of a mount in Python code."""
    if callable(name) and isinstance(found, str):
        line = line_of(name, judge(name), Place(found))
        raise ConfigurationError(f"plugin {found}: the name comes first: write {line}")
    _check_name(name)
    assert isinstance(name, str)
    return Place(name)


def _judged(place: Place, found: Any, wanted: str) -> Verdict:
    if isinstance(found, Bridge):
        line = "bridge.include(...)" if place.target is None else f'bridge = "{place.target}" in [tool.asgi_bridge]'
        raise ConfigurationError(f"plugin {place.name}: this is a Bridge, not {wanted}: write {line}")
    return judge(found)


_OPTIONS = frozenset(OptionsDict.__annotations__) | {"defaults"}
_MIDDLEWARE_OF = {"middleware": Kind.MIDDLEWARE, "wsgi_middleware": Kind.WSGI_MIDDLEWARE}


def _unconfigured(app: ASGIApp) -> None:
    """The signature of a factory without a configuration."""


def _as_bridge(target: str) -> Bridge:
    found = import_or_call(target)
    if not isinstance(found, Bridge):
        raise ConfigurationError(f"{target} is no Bridge and no function that returns one, but {type(found).__name__}")
    return found
