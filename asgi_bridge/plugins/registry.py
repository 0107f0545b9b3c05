"""The registry: which plugin stands behind a name, and how one is built for a configuration."""

import inspect
import tomllib
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Literal, TypeVar, Unpack

from asgiref.compatibility import guarantee_single_callable
from starlette.types import ASGIApp

from ..errors import ConfigurationError
from ..spelling import did_you_mean
from .configuration import AnyConfiguration, Configuration, KeywordConfiguration, TypedConfiguration
from .importing import import_module, import_string, plugin_name
from .options import Options, OptionsDict, parse_options

__all__ = ["Bridge", "Plugin", "load_bridge"]

Kind = Literal["application", "middleware", "factory"]
Factory = TypeVar("Factory", bound=Callable[..., Any])
ENTRY_POINTS = "asgi_bridge.plugins"


class Plugin:
    """A mounted plugin.

    Args:
        name: what a route's ``conf`` list calls it.
        kind: where its application comes from: it is one, a middleware makes it, or a factory.
        make: checked configuration and the next application inwards → the plugin's application.
        configuration: what a route may configure.
        options: how it is run.
        application: of kind "application", the application itself.
    """

    def __init__(
        self,
        name: str,
        kind: Kind,
        make: Callable[[Any, ASGIApp], ASGIApp | Awaitable[ASGIApp]],
        configuration: Configuration,
        options: Options,
        application: ASGIApp | None = None,
    ) -> None:
        self.name = name
        self.kind = kind
        self.make = make
        self.configuration = configuration
        self.options = options
        self.application = application

    @property
    def phases(self) -> list[str]:
        """The phases that this plugin may be listed under."""
        phase = self.options.phase
        return [phase] if phase in ("request", "response") else ["request", "response"]

    def describe(self) -> dict[str, Any]:
        """Name, kind, the ``phase`` that it is mounted with, the phases that it may be listed under, JSON Schema."""
        return {
            "name": self.name,
            "kind": self.kind,
            "phase": self.options.phase,
            "phases": self.phases,
            "schema": self.configuration.schema(),
        }


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
    does not take.
    """

    def __init__(self) -> None:
        self.plugins: dict[str, Plugin] = {}

    def mount(self, name: str, app: ASGIApp, **options: Unpack[OptionsDict]) -> None:
        """Mounts an ASGI application, which answers by itself or awaits :func:`asgi_bridge.upstream`.

        A route may configure any JSON; the application finds it in ``scope["extensions"]["apisix"]["conf"]``.
        """
        self._mount(name, app, options)

    def _mount(self, name: str, app: ASGIApp, options: Mapping[str, Any]) -> None:
        if not callable(app):
            raise ConfigurationError(f"plugin {name}: {app!r} is not an ASGI application")
        if _parameter_names(app)[:1] == ["app"]:
            raise ConfigurationError(f"plugin {name}: {app!r} wants an app to wrap: add_middleware mounts it")
        single = single_callable(app)
        self._add(name, "application", lambda conf, following: single, AnyConfiguration, options, single)

    def add_middleware(
        self,
        name: str,
        middleware: Callable[..., ASGIApp],
        *,
        defaults: Mapping[str, Any] | None = None,
        **options: Unpack[OptionsDict],
    ) -> None:
        """Mounts a middleware: a class or function whose first parameter is the application to wrap.

        Args:
            defaults: keyword arguments, objects included; a route's JSON object gives further ones, over these.
        """
        self._add_middleware(name, middleware, lambda: KeywordConfiguration(middleware, defaults), options)

    def _add_middleware(
        self,
        name: str,
        middleware: Callable[..., ASGIApp],
        configuration: Callable[[], Configuration],
        options: Mapping[str, Any],
    ) -> None:
        if not callable(middleware):
            raise ConfigurationError(f"plugin {name}: {middleware!r} is not a middleware")
        self._add(name, "middleware", lambda conf, app: middleware(app, **conf), configuration, options)

    def plugin(self, name: str, **options: Unpack[OptionsDict]) -> Callable[[Factory], Factory]:
        """Mounts a factory: route configuration → ASGI application; may be ``async def``.

        The configuration parameter's annotation (a pydantic model, dataclass, TypedDict, dict, …) checks what a
        route configures. With a first parameter named ``app`` it is a factory of a middleware. It is called once
        for each configuration.
        """
        _check_name(name)

        def decorate(factory: Factory) -> Factory:
            self._add_factory(name, factory, options)
            return factory

        return decorate

    def _add_factory(self, name: str, factory: Callable[..., Any], options: Mapping[str, Any]) -> None:
        if not callable(factory):
            raise ConfigurationError(f"plugin {name}: {factory!r} is not a factory")
        try:
            parameters = list(inspect.signature(factory, eval_str=True).parameters.values())
        except Exception as exc:  # any expression may stand in an annotation, so anything may come out
            raise ConfigurationError(f"plugin {name}: an annotation of its factory does not resolve: {exc}") from exc
        wraps = bool(parameters) and parameters[0].name == "app"
        rest = parameters[1:] if wraps else parameters
        variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
        more = [each.name for each in rest[1:] if each.default is each.empty and each.kind not in variadic]
        more += [each.name for each in rest[:1] if each.kind in (each.KEYWORD_ONLY, each.VAR_KEYWORD)]
        if more:
            raise ConfigurationError(
                f"plugin {name}: its factory is called with a configuration, by position, and wants more: "
                + ", ".join(more)
            )
        annotation = (
            (rest[0].annotation if rest[0].annotation is not inspect.Parameter.empty else Any) if rest else None
        )

        def make(conf: Any, app: ASGIApp) -> Any:
            arguments = ([app] if wraps else []) + ([conf] if rest else [])
            return factory(*arguments)

        self._add(
            name,
            "factory",
            make,
            lambda: KeywordConfiguration(_unconfigured) if annotation is None else TypedConfiguration(annotation),
            options,
        )

    def _add(
        self,
        name: str,
        kind: Kind,
        make: Callable[[Any, ASGIApp], Any],
        configuration: Callable[[], Configuration],
        options: Mapping[str, Any],
        application: ASGIApp | None = None,
    ) -> None:
        _check_name(name)
        if name in self.plugins:
            raise ConfigurationError(f"plugin {name}: the name is mounted already")
        try:
            parsed = parse_options(dict(options), name)
            self.plugins[name] = Plugin(name, kind, make, configuration(), parsed, application)
        except ConfigurationError as exc:
            raise ConfigurationError(f"plugin {name}: {exc}") from None

    def add(self, name: str, found: Any) -> None:
        """Mounts what a ``module:attr`` or an entry point named, by what it is.

        A :class:`Bridge` gives all its plugins, under their own names. A class whose constructor takes ``app`` first,
        or a function of ``app`` (and keyword arguments), is a middleware; a function of ``app`` and ``conf``, or of
        anything but (scope, receive, send) is a factory; everything else is an application.
        """
        if isinstance(found, Bridge):
            self.include(found)
            return
        names = _parameter_names(found)
        function = inspect.isfunction(found)
        if names[:1] == ["app"] and not (function and names[1:] == ["conf"]):
            self.add_middleware(name, found)
        elif function and names[:1] != ["scope"]:
            self._add_factory(name, found, {})
        else:
            self.mount(name, found)

    def include(self, other: "Bridge") -> None:
        """Mounts all plugins of `other` too."""
        for name, plugin in other.plugins.items():
            if name in self.plugins:
                raise ConfigurationError(f"plugin {name}: the name is mounted already")
            self.plugins[name] = plugin

    def configure(self, tables: Mapping[str, Any]) -> None:
        """Mounts what the ``[tool.asgi_bridge]`` table of a pyproject.toml says.

        Args:
            tables: ``bridge`` ("module:attr" of a Bridge to include) and ``plugins``, for each name a table with
                one of ``app``, ``middleware``, ``factory``, ``wsgi``, ``wsgi_middleware`` ("module:attr"), for a
                middleware ``defaults``, for WSGI ``threads`` and ``pool``, and options.
        """
        unknown = sorted(set(tables) - {"bridge", "plugins"})
        if unknown:
            guess = did_you_mean(unknown[-1], ("bridge", "plugins"))
            raise ConfigurationError(
                f"[tool.asgi_bridge] has no key {', '.join(unknown)}; it has bridge and plugins{guess}"
            )
        if "bridge" in tables:
            self.include(_as_bridge(tables["bridge"]))
        plugins = tables.get("plugins", {})
        if not isinstance(plugins, Mapping):
            raise ConfigurationError("[tool.asgi_bridge.plugins] is a table of tables, one for each plugin")
        for name, table in plugins.items():
            where = f"[tool.asgi_bridge.plugins.{name}]"
            if not isinstance(table, Mapping):
                raise ConfigurationError(f"{where} is a table")
            options = dict(table)
            sources = [(key, options.pop(key)) for key in _SOURCES if key in options]
            if len(sources) != 1:
                guesses = [] if sources else [did_you_mean(key, _SOURCES) for key in options]
                raise ConfigurationError(
                    f'{where} has one of app, middleware, factory, wsgi and wsgi_middleware, as "module:attr"'
                    + next(filter(None, guesses), "")
                )
            ((key, target),) = sources
            try:
                found = import_string(target)
            except ConfigurationError as exc:
                raise ConfigurationError(f"{where} {key}: {exc}") from exc.__cause__
            if key.startswith("wsgi"):
                found = _wsgi(key, found, options, where)
            defaults = options.pop("defaults", None)
            if defaults is not None and key not in ("middleware", "wsgi_middleware"):
                raise ConfigurationError(f"{where} has defaults, which only a middleware takes")
            if not isinstance(defaults, Mapping | None):
                raise ConfigurationError(f"{where}: defaults is a table")
            if key in ("app", "wsgi"):
                self._mount(name, found, options)
            elif key == "factory":
                self._add_factory(name, found, options)
            else:
                checked = partial(KeywordConfiguration, found, defaults, from_file=True)
                self._add_middleware(name, found, checked, options)

    def run(self, **options: Any) -> None:
        """Serves the gateway until a signal ends it, as ``asgi-bridge run`` does.

        Args:
            uds: path of the unix socket; ``APISIX_LISTEN_ADDRESS`` without it.
            uds_permissions: mode of the socket file, 0o666 without it.
            limit_concurrency: calls at once; further ones are refused.
            timeout_graceful_shutdown: seconds that calls in flight have to end by themselves after a signal.
            access_log: True: one line for each call.
            forwarded_headers: ``"trust"`` the x-forwarded-* headers for scheme and server, or ``"ask"`` the gateway.
            log_level, log_config: as uvicorn has them.
            env_file: read into the environment first.

        Raises:
            ConfigurationError: the socket cannot be taken, or the options cannot work. ``reload=True`` is one that
                cannot: it imports the plugins anew, so it needs their ``module:attr``, as the command line has it.
        """
        from ..server.serve import serve  # this room knows nothing of the server otherwise

        serve(self, **options)


def _check_name(name: object) -> None:
    if not isinstance(name, str) or not 1 <= len(name) <= 128:
        raise ConfigurationError(f"a plugin's name has 1 to 128 characters (APISIX's schema), not {name!r}")


def single_callable(app: Any) -> ASGIApp:
    """`app`, or an ASGI 2 application as one of ASGI 3. A class whose instances are awaited (Starlette's endpoints) is
    ASGI 3 as it is."""
    if inspect.isclass(app) and hasattr(app, "__await__"):
        return app  # type: ignore[return-value]
    return guarantee_single_callable(app)  # type: ignore[no-any-return, no-untyped-call]


_SOURCES = ("app", "middleware", "factory", "wsgi", "wsgi_middleware")


def _wsgi(key: str, found: Any, options: dict[str, Any], where: str) -> Any:
    """What a WSGI application or middleware of a file is as ASGI."""
    from ..wsgi import WSGIApp, WSGIMiddleware  # it stands on this package, and not every runner needs it

    threading = {name: options.pop(name) for name in ("threads", "pool") if name in options}
    try:
        return WSGIApp(found, **threading) if key == "wsgi" else WSGIMiddleware(found, **threading)
    except ConfigurationError as exc:
        raise ConfigurationError(f"{where}: {exc}") from None


def _parameter_names(found: Any) -> list[str]:
    try:
        return list(inspect.signature(found).parameters)
    except (TypeError, ValueError):
        return []


def _unconfigured(app: ASGIApp) -> None:
    """The signature of a factory without a configuration."""


def _as_bridge(target: str) -> Bridge:
    found = _made(target, import_string(target))
    if not isinstance(found, Bridge):
        raise ConfigurationError(f"{target} is no Bridge and no function that returns one, but {type(found).__name__}")
    return found


def _made(target: str, found: Any) -> Any:
    """`found`, or what it returns, where it is a function without parameters."""
    if not inspect.isfunction(found) or inspect.iscoroutinefunction(found) or _parameter_names(found):
        return found
    try:
        return found()
    except ConfigurationError:
        raise
    except (Exception, SystemExit) as exc:
        raise ConfigurationError(f"{target}() raised {type(exc).__name__}: {exc}") from exc


def _of_target(target: str) -> Bridge:
    """The bridge that ``module:attr`` names, or one with the application or middleware that it names."""
    found = _made(target, import_string(target))
    if isinstance(found, Bridge):
        return found
    alone = Bridge()
    if callable(found):
        alone.add(plugin_name(target), found)
    kinds = {plugin.kind for plugin in alone.plugins.values()}
    if not kinds or kinds == {"factory"}:  # it may as well be a function of which somebody hoped for a Bridge
        raise ConfigurationError(
            f"{target} is no Bridge, no function that returns one, and no ASGI application, but {type(found).__name__}"
            + (f"; --mount {plugin_name(target)}={target} mounts a factory" if kinds else "")
        )
    return alone


def _in_module(name: str) -> str:
    """The ``module:attr`` of what a module is there for: its Bridge, else its application."""
    module = import_module(name, name)
    bridges = [each for each, found in vars(module).items() if isinstance(found, Bridge)]
    if "bridge" in vars(module):
        bridges = ["bridge"]
    applications = [each for each in _APPLICATIONS if callable(getattr(module, each, None))]
    if len(bridges) > 1:
        raise ConfigurationError(
            f"{name} has several Bridges; name one of them: {', '.join(f'{name}:{each}' for each in bridges)}"
        )
    if not bridges and not applications:
        raise ConfigurationError(
            f'{name} has no Bridge, and nothing called {" or ".join(_APPLICATIONS)}; name what to run as "{name}:attr"'
        )
    return f"{name}:{(bridges or applications)[0]}"


_APPLICATIONS = ("app", "application", "api")
"""Where a module has its application, as other servers look for it."""


def load_bridge(target: str | None, mounts: Mapping[str, str] | None = None, *, start: Path | None = None) -> Bridge:
    """The bridge to run.

    Args:
        target: ``module:attr`` of a Bridge, of a function that returns one, or of an application or middleware, which
            is mounted under its name; a module alone stands for its Bridge, else its application. Without it
            ``[tool.asgi_bridge]`` of the nearest pyproject.toml, else the entry points of group
            ``asgi_bridge.plugins``.
        mounts: further plugins, name → ``module:attr``.
        start: the folder from which upwards a pyproject.toml is looked for; the working directory without it.

    Raises:
        ConfigurationError: nothing to run, or something that cannot work.
    """
    bridge = Bridge()
    looked_at = []
    if target is not None:
        named = target if ":" in target else _in_module(target)
        bridge.include(_of_target(named))
        looked_at.append(f"the Bridge {named}")
    else:
        found_tables = _pyproject((start or Path.cwd()).resolve())
        if found_tables is not None:
            path, tables = found_tables
            bridge.configure(tables)
            looked_at.append(f"[tool.asgi_bridge] in {path}")
            if "bridge" in tables:
                looked_at.append(f"its Bridge {tables['bridge']}")
        else:
            for point in sorted(entry_points(group=ENTRY_POINTS), key=lambda point: point.name):
                try:
                    found = point.load()
                except Exception as exc:
                    raise ConfigurationError(
                        f"entry point {point.name} = {point.value!r}: {type(exc).__name__}: {exc}"
                    ) from exc
                bridge.add(point.name, found)
    for name, mounted in (mounts or {}).items():
        bridge.add(name, import_string(mounted))
        looked_at.append(f"{mounted} of --mount {name}")
    if not bridge.plugins and looked_at:
        raise ConfigurationError(
            f"no plugins in {', '.join(looked_at)}; mount, add_middleware and plugin of a Bridge add one"
        )
    if not bridge.plugins:
        raise ConfigurationError(
            'no plugins: name a "module:attr" of a Bridge, or have a [tool.asgi_bridge] table in pyproject.toml, '
            f"a package with entry points of the group {ENTRY_POINTS!r}, or --mount NAME=module:attr"
        )
    return bridge


def _pyproject(start: Path) -> tuple[Path, Mapping[str, Any]] | None:
    """The nearest pyproject.toml at or above `start`, and its ``[tool.asgi_bridge]`` table; None: it has none."""
    for folder in (start, *start.parents):
        path = folder / "pyproject.toml"
        if path.is_file():
            try:
                tables = tomllib.loads(path.read_text("utf-8"))
            except (tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
                raise ConfigurationError(f"{path} cannot be read: {exc}") from None
            tool = tables.get("tool")
            known = tool if isinstance(tool, Mapping) else {}
            found = known.get("asgi_bridge")
            if found is None:
                for name, shown in [*((each, f"tool.{each}") for each in known), *((each, each) for each in tables)]:
                    if did_you_mean(name, ("asgi_bridge",), 0.8):
                        raise ConfigurationError(f"{path} has a table [{shown}]; did you mean [tool.asgi_bridge]?")
            if found is not None and not isinstance(found, Mapping):
                raise ConfigurationError(f"{path}: [tool.asgi_bridge] is a table")
            return None if found is None else (path, found)
    return None
