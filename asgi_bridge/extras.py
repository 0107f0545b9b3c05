"""The optional dependencies of this package: which of our extras brings a missing module."""

from traceback import walk_tb
from types import TracebackType

__all__ = ["NamesExtra", "extra_of", "install"]

_EXTRAS = {
    "dev": ("dotenv", "h11", "httpx2", "watchfiles"),
    "metrics": ("prometheus_client",),
    "otel": ("opentelemetry",),
    "apps": ("argon2", "authlib", "cryptography", "httpx2", "itsdangerous", "jwt", "opentelemetry", "re2", "redis"),
}
"""Our extras, and the modules that each brings."""
_CALLERS = {"asgi_bridge": ("dev", "apps"), "asgi_bridge_apps": ("apps",), "starlette": ("dev", "apps")}
"""Packages that import those modules for us, and the extras that they need. Starlette needs some for its TestClient and
its sessions."""


def install(extra: str) -> str:
    """Return the command that installs an extra.

    Args:
        extra: Name of the extra.
    """
    return f'pip install "asgi_bridge[{extra}]"'


def extra_of(exc: BaseException) -> str:
    """Return what an import lacks and how to install it.

    Args:
        exc: The exception that the import raised.

    Returns:
        ``"needs NAME: pip install …"``; empty if none of our extras brings the module, or if a module of the user's own
        imports it.
    """
    error: BaseException | None = exc
    while error is not None:  # Starlette tries two modules, and raises another error afterwards
        name = error.name if isinstance(error, ModuleNotFoundError) else None
        callers = [str(frame.f_globals.get("__name__")) for frame, _ in walk_tb(error.__traceback__)]
        # The innermost frames are those of Python's own import.
        caller = next((each for each in reversed(callers) if not each.startswith("importlib.")), "")
        for extra in _CALLERS.get(caller.partition(".")[0], ()):
            if (name or "").partition(".")[0] in _EXTRAS[extra]:
                return f"needs {name}: {install(extra)}"
        error = error.__cause__ or error.__context__
    return ""


class NamesExtra:
    """A ``with`` block around imports. If it lacks a module that one of our extras brings, the error says which extra.

    Args:
        what: What needs the module, for the message.
        error: Class of the error.

    Example::

        with NamesExtra("asgi_bridge.gateway"):
            from .app import GatewayApp
    """

    def __init__(self, what: str, error: type[Exception] = ModuleNotFoundError) -> None:
        self._what = what
        self._error = error

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        # Starlette raises a RuntimeError because of a ModuleNotFoundError
        missing = extra_of(exc) if isinstance(exc, ModuleNotFoundError | RuntimeError) else ""
        if not missing:
            return
        text = f"{self._what} {missing}"
        if issubclass(self._error, ModuleNotFoundError):
            raise self._error(text, name=getattr(exc, "name", None)) from exc
        raise self._error(text) from None
