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
    """Advice to add to an error message, where a module is missing that an extra of ours brings; else nothing.

    Args:
        exc: what an import raised. Imports of the user's own modules get no advice: they are not ours to install.
    """
    missing: BaseException | None = exc
    while missing is not None and not isinstance(missing, ModuleNotFoundError):
        missing = missing.__cause__ or missing.__context__
    if missing is None or missing.name is None:
        return ""
    extra = _MODULES.get(missing.name.partition(".")[0])
    frames = [frame.filename for frame in extract_tb(missing.__traceback__) if not frame.filename.startswith("<")]
    if extra is None or not frames or not set(_CALLERS) & {*Path(frames[-1]).parts[:-1]}:
        return ""
    return f"; {install(extra)}"
