"""Where plugins come from: a ``module:attr``, pyproject.toml, entry points, and ``--mount``."""

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from .bridge import Bridge
from .errors import ConfigurationError
from .plugins import Plugin
from .plugins.advice import plugin_name
from .plugins.importing import import_module, import_or_call, import_string, located
from .spelling import did_you_mean

__all__ = ["Source", "full_target", "load_bridge", "make_source", "names_bridge"]

ENTRY_POINTS = "asgi_bridge.plugins"
"""Group of the entry points that name plugins."""


class Source(NamedTuple):
    """Where a process finds its plugins. It is plain data, so that it can be sent to a process that reloads.

    Attributes:
        target: ``module:attr``, as :func:`load_bridge` takes it; None: pyproject.toml or entry points.
        mounts: Further plugins, name → ``module:attr``.
        app_dir: Path of the folder to import from; None: only ``sys.path`` as it is.
        allow: Files and servers that routes may name to all plugins.
    """

    target: str | None = None
    mounts: Mapping[str, str] = {}  # nobody changes it
    app_dir: str | None = None
    allow: tuple[str, ...] = ()

    def load(self) -> Mapping[str, Plugin]:
        """Import the plugins.

        Returns:
            The plugins by name.

        Raises:
            ConfigurationError: There is nothing to run, or something that cannot work.
            Exception: An imported module raises it.
        """
        if self.app_dir is not None and self.app_dir not in sys.path:
            sys.path.insert(0, self.app_dir)
        start = Path(self.app_dir) if self.app_dir else None
        return load_bridge(self.target, self.mounts, start=start, allow=self.allow).plugins


def make_source(
    target: str | None, mounts: Iterable[Sequence[str]], app_dir: str, allow: Iterable[str], *, given: bool
) -> Source:
    """Make the source of what the command line names.

    A file as `target` is a module of its own folder, or of `app_dir` where the user gives ``--app-dir``.

    Args:
        target: ``module:attr``, a module or a file; None: pyproject.toml or entry points.
        mounts: Values of ``--mount``: names and targets.
        app_dir: Value of ``--app-dir``.
        allow: Values of ``--allow``.
        given: Whether the user gives ``--app-dir``.

    Raises:
        ConfigurationError: ``--mount`` names a plugin twice, or a file does not exist or is not a module.
    """
    mounts = list(mounts)
    names = [name for name, _ in mounts]
    for name in names:
        if names.count(name) > 1:
            raise ConfigurationError(f"--mount {name}: given twice; each plugin has a name of its own")
    if target is not None:
        target, app_dir = located(target, app_dir if given else None)
    mounted = {name: located(each, app_dir)[0] for name, each in mounts}
    return Source(target, mounted, os.path.abspath(app_dir), tuple(allow))


def names_bridge(target: str) -> bool:
    """Whether ``module:attr`` is a Bridge itself, and not something that is mounted in a new one."""
    return isinstance(import_string(target), Bridge)


def full_target(target: str) -> str:
    """Return the ``module:attr`` of a target that may be a module alone."""
    return target if ":" in target else _in_module(target)


def _of_target(target: str) -> Bridge:
    """Return the bridge that ``module:attr`` names, or a new one with the application or middleware that it names."""
    found = import_or_call(target)
    if isinstance(found, Bridge):
        return found
    name = plugin_name(target.rpartition(":")[2].rpartition(".")[2])
    alone = Bridge()
    if callable(found):
        alone.add(name, found, target)
    sources = {plugin.source for plugin in alone.plugins.values()}
    if not sources or sources == {"factory"}:  # or a function that was meant to return a Bridge
        raise ConfigurationError(
            f"{target} is no Bridge, no function that returns one, and no ASGI application, but {type(found).__name__}"
            + (f"; --mount {name}={target} mounts a factory" if sources else "")
        )
    return alone


def _in_module(name: str) -> str:
    """Return the ``module:attr`` of a module's Bridge, or else of its application."""
    module = import_module(name, name)
    bridges = [each for each, found in vars(module).items() if isinstance(found, Bridge)]
    if hasattr(module, "bridge"):  # not in vars(): a module may make it at its first use
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
"""Names under which a module may have its application, as other servers look for it."""


def load_bridge(
    target: str | None,
    mounts: Mapping[str, str] | None = None,
    *,
    start: Path | None = None,
    allow: Sequence[str] = (),
) -> Bridge:
    """Load the bridge to run.

    Args:
        target: ``module:attr`` of a Bridge, of a function that returns one, or of an application or middleware, which
            is mounted under its name. A module alone stands for its Bridge, or else its application. None: the table
            ``[tool.asgi_bridge]`` of the nearest pyproject.toml, or else the entry points of the group
            ``asgi_bridge.plugins``.
        mounts: Further plugins, name → ``module:attr``; None: none.
        start: The folder where the search for a pyproject.toml begins; it goes on in the parents. None: the working
            directory.
        allow: Files and servers that routes may name to all these plugins.

    Raises:
        ConfigurationError: There is nothing to run, or something that cannot work.
        Exception: An imported module raises it.

    Example::

        load_bridge("gate:bridge", {"gzip": "starlette.middleware.gzip:GZipMiddleware"}).run()
    """
    bridge = Bridge()
    looked_at = []
    if target is not None:
        named = full_target(target)
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
            from importlib.metadata import entry_points

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
            f"no plugins in {', '.join(looked_at)}; add one with mount, add_middleware or plugin of a Bridge"
        )
    if not bridge.plugins:
        raise ConfigurationError(
            'no plugins: give the "module:attr" of a Bridge or --mount NAME=module:attr, write a [tool.asgi_bridge] '
            f"table into pyproject.toml, or install a package with entry points of the group {ENTRY_POINTS!r}"
        )
    if allow:
        allowing = Bridge()
        allowing.include(bridge, allow=allow)
        return allowing
    return bridge


def _pyproject(start: Path) -> tuple[Path, Mapping[str, Any]] | None:
    """Find the nearest pyproject.toml, in `start` or above, and its ``[tool.asgi_bridge]``; None: it has none."""
    for folder in (start, *start.parents):
        path = folder / "pyproject.toml"
        if path.is_file():
            import tomllib

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
                raise ConfigurationError(f"{path}: [tool.asgi_bridge] must be a table")
            return None if found is None else (path, found)
    return None
