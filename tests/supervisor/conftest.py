"""Runner processes, as the tests of the server start them."""

from ..server.conftest import folder, path, start

__all__ = ["folder", "path", "start"]
