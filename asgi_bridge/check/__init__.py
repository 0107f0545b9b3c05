"""Checks routes against the plugins of a runner, before the first request comes."""

from ..gateway.routes.places import Finding
from .files import check_files
from .routes import check_routes

__all__ = ["Finding", "check_files", "check_routes"]
