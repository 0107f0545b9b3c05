"""The optional dependencies of this package: which extra of ours brings a module that is missing."""

from traceback import walk_tb

__all__ = ["extra_of", "install"]

_EXTRAS = {
    "dev": ("dotenv", "h11", "httpx2", "watchfiles", "yaml"),
    "apps": ("argon2", "cryptography", "httpx2", "itsdangerous", "jwt", "opentelemetry", "re2", "redis"),
}
_CALLERS = {"asgi_bridge": ("dev", "apps"), "asgi_bridge_apps": ("apps",), "starlette": ("dev", "apps")}
"""The packages that import those modules for us, and the extras to look in. Starlette imports some for its TestClient
and its sessions."""


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
        callers = [str(frame.f_globals.get("__name__")) for frame, _ in walk_tb(error.__traceback__)]
        # The innermost frames are those of Python's own import.
        caller = next((each for each in reversed(callers) if not each.startswith("importlib.")), "")
        for extra in _CALLERS.get(caller.partition(".")[0], ()):
            if (name or "").partition(".")[0] in _EXTRAS[extra]:
                return f"needs {name}: {install(extra)}"
        error = error.__cause__ or error.__context__
    return ""
