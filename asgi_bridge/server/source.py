"""Where a process finds its plugins and its environment. This module does not know how the process serves them."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import ConfigurationError
from ..extras import install
from ..plugins import Bridge, load_bridge

__all__ = ["Source", "load_environment"]


@dataclass(frozen=True, slots=True)
class Source:
    """Where a process finds its bridge. It is plain data, so that it can be sent to a process that reloads.

    Attributes:
        target: ``module:attr``, as :func:`~asgi_bridge.plugins.load_bridge` takes it; None: the nearest
            ``pyproject.toml``, or the entry points.
        mounts: further plugins, name → ``module:attr``.
        app_dir: folder to import from; it goes in front of ``sys.path``.
        allow: files, folders and servers that the routes of all plugins may name.
    """

    target: str | None = None
    mounts: Mapping[str, str] = field(default_factory=dict)
    app_dir: str | None = None
    allow: tuple[str, ...] = ()

    def load(self) -> Bridge:
        """Import the bridge.

        Raises:
            ConfigurationError: there is none, or it cannot be imported.
            Exception: whatever a module of the plugins raises.
        """
        if self.app_dir is not None and self.app_dir not in sys.path:
            sys.path.insert(0, self.app_dir)
        start = Path(self.app_dir) if self.app_dir else None
        return load_bridge(self.target, self.mounts, start=start, allow=self.allow)


def load_environment(path: str) -> None:
    """Read a file of ``NAME=value`` lines into the environment. Variables that are set already stay as they are.

    Args:
        path: of the file, in UTF-8.

    Raises:
        ConfigurationError: it cannot be read, or python-dotenv is not installed.
    """
    try:
        from dotenv import load_dotenv  # type: ignore[import-not-found,unused-ignore]
    except ImportError:
        raise ConfigurationError(f"an environment file needs python-dotenv: {install('dev')}") from None
    try:
        with open(path, encoding="utf-8") as lines:
            load_dotenv(stream=lines)
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigurationError(f"the environment file {path} cannot be read: {exc}") from None
