"""The optional dependencies of this package: which of our extras brings a missing module."""

from pathlib import Path
from traceback import extract_tb

__all__ = ["extra_of", "install"]

_EXTRAS = {
    "dev": ("dotenv", "h11", "httpx2", "watchfiles", "yaml"),
    "apps": ("argon2", "itsdangerous", "jwt", "opentelemetry", "re2", "redis"),
}
"""Our extras, and the modules that each brings."""
_MODULES = {module: extra for extra, modules in _EXTRAS.items() for module in modules}
_CALLERS = ("asgi_bridge", "asgi_bridge_apps", "starlette")
"""Packages that import those modules for us. Starlette does so for its TestClient and its sessions."""


def install(extra: str) -> str:
    """Return the command that installs an extra.

    Args:
        extra: name of the extra.
    """
    return f'pip install "asgi_bridge[{extra}]"'


def extra_of(exc: BaseException) -> str:
    """Return what an import lacks and how to install it.

    Args:
        exc: the exception that the import raised.

    Returns:
        ``"needs NAME: pip install …"``; empty if none of our extras brings the module, or if a module of the user's own
        imports it.
    """
    error: BaseException | None = exc
    while error is not None:  # Starlette tries two modules, and raises another error afterwards
        name = error.name if isinstance(error, ModuleNotFoundError) else None
        extra = _MODULES.get((name or "").partition(".")[0])
        frames = [frame.filename for frame in extract_tb(error.__traceback__) if not frame.filename.startswith("<")]
        if extra is not None and frames and set(_CALLERS) & {*Path(frames[-1]).parts[:-1]}:
            return f"needs {name}: {install(extra)}"
        error = error.__cause__ or error.__context__
    return ""
