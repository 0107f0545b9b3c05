"""The public face: a Bridge holds the plugins of a runner, by name."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from typing import TYPE_CHECKING, Any, TypeVar, Unpack

from starlette.types import ASGIApp

from .errors import ConfigurationError
from .mounting import OPTIONS, add_application, add_factory, add_middleware, add_wsgi, check_name, check_new
from .plugins.advice import SOURCES, Place, line_of, line_with_defaults, plugin_name, refusal
from .plugins.importing import import_or_call, import_string
from .plugins.kinds import Kind, judge
from .plugins.options import OptionsDict
from .plugins.plugin import SOURCE_KEYS, SourceKey
from .plugins.signatures import is_routine, spelled
from .spelling import did_you_mean

if TYPE_CHECKING:
    from .plugins import Plugin

__all__ = ["Bridge"]

Factory = TypeVar("Factory", bound=Callable[..., Any])
Method = TypeVar("Method", bound=Callable[..., Any])


def _explaining_missing_arguments(method: Method) -> Method:
    """Wrap a mounting method. Called without one of its arguments, it raises an error with the line to write."""
    signature = inspect.signature(method)
    required = [name for name, each in signature.parameters.items() if each.default is each.empty][1:-1]

    @wraps(method)
    def checked(*args: Any, **options: Any) -> Any:
        try:
            signature.bind(*args, **options)
        except TypeError as exc:
            mounted = next((each for each in args[1:] if callable(each)), None)
            if method.__name__ == "plugin":
                line = f'@bridge.plugin("{"name" if mounted is None else spelled(mounted)}")'
            elif mounted is None:
                line = f'bridge.{method.__name__}("name", {", ".join(required[1:])})'
            else:
                defaults = [key for key in options if key not in OPTIONS]
                line = line_with_defaults(mounted, judge(mounted), Place(plugin_name(spelled(mounted))), defaults)
            raise ConfigurationError(f"Bridge.{method.__name__}: {exc}: write {line}") from None
        return method(*args, **options)

    return checked  # type: ignore[return-value]


class Bridge:
    """The plugins of a runner, by name.

    :meth:`mount`, :meth:`add_middleware` and :meth:`plugin` take the options of
    :class:`~asgi_bridge.plugins.options.Options` as further keyword arguments. They raise ConfigurationError at once
    for what can never work; where something is mounted as what it is not, the message has the line to write instead.

    Attributes:
        plugins: The mounted plugins, by name.

    Example::

        bridge = Bridge()
        bridge.mount("hello", app)
        bridge.add_middleware("cors", CORSMiddleware, defaults={"allow_methods": ["*"]})

        @bridge.plugin("say")
        def say(conf: SayConf) -> ASGIApp: ...
    """

    def __init__(self) -> None:
        self.plugins: dict[str, Plugin] = {}

    @_explaining_missing_arguments
    def mount(self, name: str, app: ASGIApp, **options: Unpack[OptionsDict]) -> None:
        """Mount an ASGI application, which answers by itself or awaits :func:`asgi_bridge.upstream`.

        A route may configure any JSON. The application finds it in ``scope["extensions"]["apisix"]["conf"]``.

        Args:
            name: The plugin's name, 1 to 128 characters. Routes name it so.
            app: The application.
            options: See :class:`~asgi_bridge.plugins.options.Options`.

        Raises:
            ConfigurationError: It is no ASGI application, the name is taken, or an option cannot work.

        Example::

            async def hello(scope, receive, send):
                if scope["path"] == "/hello":
                    await PlainTextResponse("hello")(scope, receive, send)
                else:
                    await upstream(scope, receive, send)

            bridge.mount("hello", hello, timeout=5.0)
        """
        add_application(self.plugins, _place(name, app, "an ASGI application"), app, options)

    @_explaining_missing_arguments
    def add_middleware(
        self,
        name: str,
        middleware: Callable[..., ASGIApp],
        *,
        defaults: Mapping[str, Any] | None = None,
        **options: Unpack[OptionsDict],
    ) -> None:
        """Mount a middleware: a class or function whose first parameter is the application to wrap.

        A route's JSON object gives keyword arguments. The signature of the middleware says which there are and what
        they may be. Where it has no signature (it is compiled, or a built-in), a route may configure any JSON object.

        Args:
            name: The plugin's name, 1 to 128 characters. Routes name it so.
            middleware: The class or function.
            defaults: Keyword arguments, any objects. Those of a route take precedence.
            options: See :class:`~asgi_bridge.plugins.options.Options`.

        Raises:
            ConfigurationError: It is no middleware or does not take the defaults, the name is taken, or an option
                cannot work.

        Example::

            bridge.add_middleware("cors", CORSMiddleware, defaults={"allow_methods": ["*"]})
        """
        add_middleware(self.plugins, _place(name, middleware, "a middleware"), middleware, defaults, options)

    @_explaining_missing_arguments
    def plugin(
        self, name: str, *, defaults: Mapping[str, Any] | None = None, **options: Unpack[OptionsDict]
    ) -> Callable[[Factory], Factory]:
        """Mount a factory: a function of a route's configuration that returns an ASGI application.

        The annotation of the configuration (a pydantic model, dataclass, TypedDict, dict, …) checks what a route
        configures. A factory whose first parameter is named ``app``, or annotated as an application, makes a
        middleware. It may be ``async def``. It is called once for each route and configuration; with ``share=True``,
        once for each configuration.

        Args:
            name: The plugin's name, 1 to 128 characters. Routes name it so.
            defaults: The operator's part of each configuration, values that JSON has. Those of a route take
                precedence.
            options: See :class:`~asgi_bridge.plugins.options.Options`.

        Returns:
            A decorator, which mounts the factory and returns it as it is.

        Raises:
            ConfigurationError: The name is no name. The decorator raises it where the factory is none, its annotations
                do not resolve, the name is taken, or an option or a default cannot work.

        Example::

            @bridge.plugin("say")
            def say(conf: SayConf) -> ASGIApp: ...

            @bridge.plugin("auth", timeout=5.0)
            def auth(app: ASGIApp, conf: AuthConf) -> ASGIApp: ...
        """
        check_name(name, "@bridge.plugin({})")

        def decorate(factory: Factory) -> Factory:
            place = Place(name)
            _refuse_bridge(place, factory, "a factory")
            add_factory(self.plugins, place, factory, defaults, options)
            return factory

        return decorate

    def add(self, name: str, found: Any, target: str | None = None, defaults: Mapping[str, Any] | None = None) -> None:
        """Mount what a ``module:attr`` or an entry point names, as what it is.

        A :class:`Bridge` gives all its plugins, under their own names. :mod:`asgi_bridge.plugins.kinds` tells what
        other objects are.

        Args:
            name: The plugin's name.
            found: What to mount.
            target: Its ``module:attr``, for messages; None: it has none.
            defaults: Keyword arguments of a middleware, or the operator's part of a factory's configuration.

        Raises:
            ConfigurationError: It cannot be mounted, nothing says what it is, or it does not take the defaults.
        """
        if isinstance(found, Bridge):
            self.include(found)
            return
        place = Place(name, target)
        verdict = judge(found)
        source = SOURCES.get(verdict.kind)
        if verdict.kind is Kind.UNCLEAR and not is_routine(found):
            source = "app"  # an object without a signature: a compiled application
        if source is None:
            raise ConfigurationError(f"plugin {name}: {refusal(found, verdict, place, 'a plugin')}")
        if defaults and source not in ("factory", "middleware", "wsgi_middleware"):
            raise ConfigurationError(
                f"plugin {name}: only a middleware or a factory has defaults, and this is {verdict.kind.value}"
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
        """Mount what a file, the command line or an entry point names."""
        _refuse_bridge(place, found, _WANTED[source])
        match source:
            case "app":
                add_application(self.plugins, place, found, options)
            case "factory":
                add_factory(self.plugins, place, found, defaults, options)
            case "middleware":
                add_middleware(self.plugins, place, found, defaults, options, from_file=True)
            case _:
                add_wsgi(self.plugins, place, source, found, defaults, options, threading or {})

    def include(self, other: "Bridge", *, allow: Sequence[str] = ()) -> None:
        """Mount all plugins of another bridge too.

        Args:
            other: The other bridge.
            allow: Files and servers that routes may name to these plugins, besides what each is mounted with.

        Raises:
            ConfigurationError: A name is taken, or an entry of `allow` is neither a path nor a URL.
        """
        for name, plugin in other.plugins.items():
            check_new(self.plugins, name)
            self.plugins[name] = plugin.allowing(allow) if allow else plugin

    def configure(self, tables: Mapping[str, Any]) -> None:
        """Mount what the table ``[tool.asgi_bridge]`` of a pyproject.toml says.

        Args:
            tables: Its content. ``bridge`` is the ``module:attr`` of a Bridge to include, and ``allow`` a list of what
                routes may name to its plugins. ``plugins`` has a table for each plugin, by name. That table has one of
                ``app``, ``middleware``, ``factory``, ``wsgi`` and ``wsgi_middleware`` (a ``module:attr``), options,
                ``defaults`` for a middleware or factory, and ``threads`` and ``pool`` for WSGI.

        Raises:
            ConfigurationError: A key or value cannot work, or something cannot be imported.

        Example::

            bridge.configure({"plugins": {"gzip": {"middleware": "starlette.middleware.gzip:GZipMiddleware"}}})
        """
        unknown = sorted(set(tables) - {"allow", "bridge", "plugins"})
        if unknown:
            guess = did_you_mean(unknown[-1], ("allow", "bridge", "plugins"))
            raise ConfigurationError(
                f"[tool.asgi_bridge] has no key {', '.join(unknown)}; it has bridge, plugins and allow{guess}"
            )
        if not isinstance(tables.get("bridge", ""), str) or not isinstance(tables.get("allow", []), list):
            raise ConfigurationError(
                '[tool.asgi_bridge]: bridge must be a string, "module:attr", and allow a list of strings'
            )
        if "bridge" in tables:
            self.include(_as_bridge(tables["bridge"]), allow=tables.get("allow", ()))
        elif "allow" in tables:
            raise ConfigurationError(
                "[tool.asgi_bridge] has allow, which is for the plugins of bridge; write the allow of other plugins "
                "into their tables"
            )
        plugins = tables.get("plugins", {})
        if not isinstance(plugins, Mapping):
            raise ConfigurationError("[tool.asgi_bridge.plugins] must be a table of tables, one for each plugin")
        for name, table in plugins.items():
            self._configure_plugin(name, table)

    def _configure_plugin(self, name: str, table: Any) -> None:
        where = f"[tool.asgi_bridge.plugins.{name}]"
        if not isinstance(table, Mapping):
            raise ConfigurationError(f"{where} must be a table")
        options = dict(table)
        sources = [(key, options.pop(key)) for key in SOURCE_KEYS if key in options]
        if len(sources) != 1:
            guesses = [] if sources else [did_you_mean(key, SOURCE_KEYS) for key in options]
            raise ConfigurationError(
                f'{where} must have one of app, middleware, factory, wsgi and wsgi_middleware, as "module:attr"'
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
            raise ConfigurationError(f"{where} has defaults, which only a middleware or a factory takes")
        if not isinstance(defaults, Mapping | None):
            raise ConfigurationError(f"{where}: defaults must be a table")
        self._add_source(Place(name, target), key, found, options, defaults, threading)

    def run(self, **options: Any) -> None:
        """Serve the gateway until a signal ends the process, as ``asgi-bridge run`` does.

        Args:
            options: Keyword arguments of :func:`asgi_bridge.server.serve.serve`:
                ``uds`` (path of the unix socket; without it ``APISIX_LISTEN_ADDRESS``),
                ``uds_permissions`` (mode of the socket file, 0o666 without it),
                ``limit_concurrency`` (maximum number of calls that run at once; without it there is no limit),
                ``limit_configuration_size`` (maximum bytes of a route's configuration of one plugin, 131,072 without
                it),
                ``timeout_graceful_shutdown`` (seconds that running calls get to finish after a signal, 0.3 without it),
                ``access_log`` (True: log a line for each call),
                ``forwarded_headers`` (``"trust"`` the x-forwarded-* headers for scheme and server, or ``"ask"`` the
                gateway),
                ``log_level`` and ``log_config`` (as uvicorn takes them),
                ``env_file`` (path of a file that is read into the environment first),
                ``record``, ``record_size`` and ``record_secrets`` (file that the calls are recorded in, its maximum
                size in bytes, and whether it holds secrets).
                ``log_format`` (``"json"``: each log line is a JSON object),
                ``env_file`` (path of a file that is read into the environment first),
                ``admin`` and ``admin_public`` (where the admin application listens, such as ``"127.0.0.1:9092"``, and
                whether other machines may reach it),
                ``otel`` (True: OpenTelemetry gets spans; without it, if a TracerProvider is set).

        Raises:
            ConfigurationError: The socket cannot be taken, or the options cannot work. ``reload=True`` cannot work
                here: it imports the plugins again, for which the command line has their ``module:attr``.

        Example::

            if __name__ == "__main__":
                bridge.run(uds="/run/asgi_bridge.sock", access_log=True)
        """
        from .server.serve import serve  # not every process that has a Bridge serves it

        serve(self.plugins, **options)


_WANTED: Mapping[SourceKey, str] = {
    "app": "an ASGI application",
    "middleware": "a middleware",
    "factory": "a factory",
    "wsgi": "a WSGI application",
    "wsgi_middleware": "a WSGI middleware",
}
"""What each key of ``[tool.asgi_bridge.plugins.NAME]`` names, for messages."""


def _place(name: object, found: Any, wanted: str) -> Place:
    """Return the place of a mount in Python code. Raises ConfigurationError for a wrong name, or a Bridge as `found`.

    Args:
        name: What was given as the name.
        found: What is to be mounted.
        wanted: What `found` should be, with its article.
    """
    if callable(name) and isinstance(found, str):
        line = line_of(name, judge(name), Place(found))
        raise ConfigurationError(f"plugin {found}: the name comes first: write {line}")
    check_name(name)
    assert isinstance(name, str)
    place = Place(name)
    _refuse_bridge(place, found, wanted)
    return place


def _refuse_bridge(place: Place, found: Any, wanted: str) -> None:
    if isinstance(found, Bridge):
        line = "bridge.include(...)" if place.target is None else f'bridge = "{place.target}" in [tool.asgi_bridge]'
        raise ConfigurationError(f"plugin {place.name}: this is a Bridge, not {wanted}: write {line}")


def _as_bridge(target: str) -> Bridge:
    found = import_or_call(target)
    if not isinstance(found, Bridge):
        raise ConfigurationError(f"{target} is no Bridge and no function that returns one, but {type(found).__name__}")
    return found
