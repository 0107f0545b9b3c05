"""The optional dependencies of this package: which extra of ours brings a module that is missing."""

from pathlib import Path
from traceback import extract_tb

__all__ = ["extra_of", "install"]

_EXTRAS = {
    "dev": ("dotenv", "h11", "httpx2", "watchfiles", "yaml"),
    "apps": ("argon2", "itsdangerous", "jwt", "opentelemetry", "re2", "redis"),
}
_MODULES = {module: extra for extra, modules in _EXTRAS.items() for module in modules}
_CALLERS = ("asgi_bridge", "asgi_bridge_apps", "starlette")
"""The packages that import those modules for us; Starlette does for its TestClient and its sessions."""


def install(extra: str) -> str:
    """The command that brings an extra."""
    return f'pip install "asgi_bridge[{extra}]"'


def extra_of(exc: BaseException) -> str:
    """What is missing and how to get it, where an extra of ours brings it: ``needs NAME: pip install …``; else nothing.

    Args:
        exc: what an import raised. Imports of the user's own modules get no advice: they are not ours to install.
    """
    error: BaseException | None = exc
    while error is not None:  # Starlette tries two modules, and raises another error of these
        name = error.name if isinstance(error, ModuleNotFoundError) else None
        extra = _MODULES.get((name or "").partition(".")[0])
        frames = [frame.filename for frame in extract_tb(error.__traceback__) if not frame.filename.startswith("<")]
        if extra is not None and frames and set(_CALLERS) & {*Path(frames[-1]).parts[:-1]}:
            return f"needs {name}: {install(extra)}"
        error = error.__cause__ or error.__context__
    return ""
