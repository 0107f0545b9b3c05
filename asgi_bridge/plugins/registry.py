"""The registry: which plugin stands behind a name, and how one is built for a configuration."""

import copy
import dataclasses
import inspect
import logging
import tomllib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import wraps
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Literal, TypeAlias, TypeVar, Unpack

from starlette.types import ASGIApp

from ..errors import ConfigurationError
from ..spelling import did_you_mean
from .advice import Place, line_of, line_with_defaults, plugin_name, refusal, result_refusal
from .configuration import AnyConfiguration, Configuration, KeywordConfiguration, TypedConfiguration
from .importing import import_module, import_string
from .kinds import Kind, Verdict, asgi3, is_routine, judge, names_of, signature_of, spelled
from .options import Options, OptionsDict, parse_options

__all__ = ["Bridge", "Plugin", "load_bridge"]

logger = logging.getLogger("asgi_bridge.plugins")

Source: TypeAlias = Literal["app", "middleware", "factory", "wsgi", "wsgi_middleware"]
Factory = TypeVar("Factory", bound=Callable[..., Any])
Method = TypeVar("Method", bound=Callable[..., Any])
ENTRY_POINTS = "asgi_bridge.plugins"


class Plugin:
    """A mounted plugin.

    Args:
        place: its name, which is what a route's ``conf`` list calls it, and its ``module:attr``.
        source: what was mounted, as the key of ``[tool.asgi_bridge.plugins.NAME]`` calls it.
        found: what was mounted.
        make: checked configuration and the next application inwards → what becomes the plugin's application.
        configuration: what a route may configure.
        options: how it is run.

    Attributes:
        application: what was mounted, as an ASGI 3 application; None where `make` makes one for each configuration.
    """

    def __init__(
        self,
        place: Place,
        source: Source,
        found: Any,
        make: Callable[[Any, ASGIApp], ASGIApp | Awaitable[ASGIApp]],
        configuration: Configuration,
        options: Options,
        application: ASGIApp | None = None,
    ) -> None:
        self.place = place
        self.name = place.name
        self.source = source
        self.found = found
        self.make = make
        self.configuration = configuration
        self.options = options
        self.application = application

    @property
    def kind(self) -> Literal["application", "middleware", "factory"]:
        """Where its application comes from: it is one, a middleware makes it, or a factory."""
        return _KINDS[self.source]

    def made(self, result: Any) -> ASGIApp:
        """What `make` gave, as an ASGI 3 application.

        Raises:
            ConfigurationError: it is none.
        """
        if self.application is not None:
            return self.application
        verdict = judge(result)
        if not verdict.may_be_application:
            source = "middleware" if self.kind == "middleware" else "factory"
            raise ConfigurationError(result_refusal(result, self.found, verdict, source, self.place))
        return asgi3(result)

    @property
    def phases(self) -> list[str]:
        """The phases that this plugin may be listed under."""
        phase = self.options.phase
        return [phase] if phase in ("request", "response") else ["request", "response"]

    def allowing(self, entries: Sequence[str]) -> "Plugin":
        """The same plugin, whose routes may name these files and servers too.

        Raises:
            ConfigurationError: an entry is neither a path nor a URL.
        """
        plugin = copy.copy(self)
        allow = self.options.allow + parse_options({"allow": entries}).allow
        plugin.options = dataclasses.replace(self.options, allow=allow)
        plugin.configuration = self.configuration.mounted_with(plugin.options)
        return plugin

    def describe(self) -> dict[str, Any]:
        """Name, kind, the ``phase`` that it is mounted with, the phases that it may be listed under, JSON Schema."""
        return {
            "name": self.name,
            "kind": self.kind,
            "phase": self.options.phase,
            "phases": self.phases,
            "schema": self.configuration.schema(),
        }


def _complete(method: Method) -> Method:
    """Says what to write where a mounting method is called without one of its arguments."""
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

    @_complete
    def mount(self, name: str, app: ASGIApp, **options: Unpack[OptionsDict]) -> None:
        """Mounts an ASGI application, which answers by itself or awaits :func:`asgi_bridge.upstream`.

        A route may configure any JSON; the application finds it in ``scope["extensions"]["apisix"]["conf"]``.
        """
        self._mount(_place(name, app), app, options)

    @_complete
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

    @_complete
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
        """Mounts what a ``module:attr`` or an entry point named, by what it is (see :mod:`~.kinds`).

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
        source = _SOURCE_OF.get(verdict.kind)
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
        source: Source,
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
        source: Source,
        found: Any,
        defaults: Mapping[str, Any] | None,
        options: Mapping[str, Any],
        threading: Mapping[str, Any],
    ) -> None:
        from ..wsgi import WSGIApp, WSGIMiddleware  # it stands on this package, and not every runner needs it

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
        source: Source,
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
        source: Source,
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
        from ..server.serve import serve  # this room knows nothing of the server otherwise

        serve(self, **options)


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


_SOURCES: tuple[Source, ...] = ("app", "middleware", "factory", "wsgi", "wsgi_middleware")
_OPTIONS = frozenset(OptionsDict.__annotations__) | {"defaults"}
_KINDS: Mapping[Source, Literal["application", "middleware", "factory"]] = {
    "app": "application",
    "wsgi": "application",
    "middleware": "middleware",
    "wsgi_middleware": "middleware",
    "factory": "factory",
}
_MIDDLEWARE_OF = {"middleware": Kind.MIDDLEWARE, "wsgi_middleware": Kind.WSGI_MIDDLEWARE}
_SOURCE_OF: Mapping[Kind, Source] = {
    Kind.APPLICATION: "app",
    Kind.DOUBLE: "app",
    Kind.MIDDLEWARE: "middleware",
    Kind.FACTORY: "factory",
    Kind.BARE_FACTORY: "factory",
    Kind.WSGI: "wsgi",
    Kind.WSGI_MIDDLEWARE: "wsgi_middleware",
}


def _unconfigured(app: ASGIApp) -> None:
    """The signature of a factory without a configuration."""


def _as_bridge(target: str) -> Bridge:
    found = _made(target, import_string(target))
    if not isinstance(found, Bridge):
        raise ConfigurationError(f"{target} is no Bridge and no function that returns one, but {type(found).__name__}")
    return found


def _made(target: str, found: Any) -> Any:
    """`found`, or what it returns, where it is a function without parameters."""
    if not inspect.isfunction(found) or inspect.iscoroutinefunction(found) or names_of(found):
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
    name = plugin_name(target.rpartition(":")[2].rpartition(".")[2])
    alone = Bridge()
    if callable(found):
        alone.add(name, found, target)
    sources = {plugin.source for plugin in alone.plugins.values()}
    if not sources or sources == {"factory"}:  # it may as well be a function of which somebody hoped for a Bridge
        raise ConfigurationError(
            f"{target} is no Bridge, no function that returns one, and no ASGI application, but {type(found).__name__}"
            + (f"; --mount {name}={target} mounts a factory" if sources else "")
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


def load_bridge(
    target: str | None,
    mounts: Mapping[str, str] | None = None,
    *,
    start: Path | None = None,
    allow: Sequence[str] = (),
) -> Bridge:
    """The bridge to run.

    Args:
        target: ``module:attr`` of a Bridge, of a function that returns one, or of an application or middleware, which
            is mounted under its name; a module alone stands for its Bridge, else its application. Without it
            ``[tool.asgi_bridge]`` of the nearest pyproject.toml, else the entry points of group
            ``asgi_bridge.plugins``.
        mounts: further plugins, name → ``module:attr``.
        start: the folder from which upwards a pyproject.toml is looked for; the working directory without it.
        allow: files and servers that routes may name, to all these plugins.

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
                bridge.add(point.name, found, point.value)
    for name, mounted in (mounts or {}).items():
        bridge.add(name, import_string(mounted), mounted)
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
    if allow:
        allowing = Bridge()
        allowing.include(bridge, allow=allow)
        return allowing
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
