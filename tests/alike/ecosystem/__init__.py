"""Packages that people use: each is tried through gateway and runner, and as plain ASGI or WSGI."""
