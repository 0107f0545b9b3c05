"""``asgi-bridge new``: a folder with a plugin, its configuration, routes and tests."""

from .project import KINDS, Project, make_project

__all__ = ["KINDS", "Project", "make_project"]
