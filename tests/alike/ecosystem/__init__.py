"""Packages that people use, each through gateway and runner, and beside it as plain ASGI or WSGI."""
