"""Where plugins and routes come from, as a test names them."""

import contextlib
import os
from pathlib import Path

from ..inspector.copying import Project
from ..loading import Source, full_target, names_bridge
from .routes import RouteFile

__all__ = ["project_of"]


def project_of(source: Source, file: RouteFile) -> Project:
    """Return what a test of the plugins and routes needs to know.

    Args:
        source: The plugins.
        file: The routes.
    """
    folder = Path(source.app_dir or os.getcwd()).absolute()
    target, is_bridge = source.target, False
    if target is not None:
        with contextlib.suppress(Exception):  # a module that cannot be imported any more: the test says so
            target = full_target(target)
            is_bridge = names_bridge(target)
    routes = file.made or str(file.path.relative_to(folder) if folder in file.path.parents else file.path)
    return Project(target, source.mounts, source.allow, str(folder), is_bridge, routes)
