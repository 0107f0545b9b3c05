"""The compiled core: modules in C that do what a module in pure Python does, only quicker.

A ``.pyx`` file is the compiled twin of the ``.py`` file beside it. The pure one is the reference: the tests run on
both, and compare them. A module that has a twin asks `twin` for it, and uses its own code where the answer is None.

The environment decides too. ``ASGI_BRIDGE_PURE=1`` forces pure Python. ``ASGI_BRIDGE_COMPILED=1`` makes it an error if
the compiled core cannot be used. ``setup.py`` heeds the same variables, and reads `MODULES` and `sources_digest` here,
so this module imports no other of the package.
"""

import os
import warnings
from functools import cache
from importlib import import_module
from importlib.machinery import PathFinder
from importlib.util import source_hash
from pathlib import Path
from types import ModuleType

__all__ = ["MODULES", "core_in_use", "sources_digest", "twin", "wanted"]

MODULES = (
    "wire._decode",
    "wire._encode",
    "wire._session",
    "wire._unread",
    "adapter._request_scope",
    "adapter._headers",
    "adapter._request_call",
    "adapter._asking",
    "plugins._chains",
    "plugins._later",
    "plugins._layers",
    "server._answers",
    "server._call_tasks",
    "server._connection",
    "server._link",
)
"""All compiled modules, by their names within the package."""

_ROOMS = sorted({name.partition(".")[0] for name in MODULES})
"""Folders that have sources of compiled modules."""
_FOLDER = Path(__file__).parent
_REBUILD = "install the package again (pip install -e .) to compile it"

# Module → why it is not used; empty: it is. A warning about stale modules is given once.
_reasons: dict[str, str] = {}


def wanted() -> bool | None:
    """Return what the environment asks for: True: the compiled core; False: pure Python; None: what is there.

    Raises:
        ImportError: It asks for both.
    """
    pure, compiled = (os.environ.get(f"ASGI_BRIDGE_{each}") == "1" for each in ("PURE", "COMPILED"))
    if pure and compiled:
        raise ImportError("ASGI_BRIDGE_PURE and ASGI_BRIDGE_COMPILED are both set: unset one of them")
    return compiled if pure or compiled else None


def sources_digest(folder: Path = _FOLDER) -> str:
    """Return a digest of the sources of all compiled modules; empty: they are not there.

    The build writes it into each module. A module with another digest is *stale*: its sources have changed since.

    Args:
        folder: Of the package.
    """
    kinds = [f"{room}/*.{kind}" for room in _ROOMS for kind in ("pyx", "pxd")]
    sources = sorted(path for each in kinds for path in folder.glob(each))
    if not sources:
        return ""
    text = b"".join(f"{path.relative_to(folder)}\n".encode() + path.read_bytes() for path in sources)
    return f"asgi_bridge sources {source_hash(text).hex()}"


@cache
def _digest_at_start(folder: Path) -> str:
    """Return :func:`sources_digest` as it was when the first module was looked for: to read them all takes a while."""
    return sources_digest(folder)


def _why_not(name: str) -> str:
    """Return why a compiled module cannot be used, as far as that is known without loading it; empty: it can."""
    if wanted() is False:
        return "ASGI_BRIDGE_PURE is set"
    room, _, _ = name.partition(".")
    spec = PathFinder.find_spec(f"asgi_bridge.{name}", [str(_FOLDER / room)])
    if spec is None or spec.origin is None:
        return f"asgi_bridge.{name} is not built"
    digest = _digest_at_start(_FOLDER)
    if digest and digest.encode() not in Path(spec.origin).read_bytes():
        return f"asgi_bridge.{name} is stale: its sources have changed since it was compiled"
    return ""


def twin(name: str) -> ModuleType | None:
    """Return a compiled module; None: its pure twin is to be used.

    Args:
        name: One of `MODULES`.

    Raises:
        ImportError: ``ASGI_BRIDGE_COMPILED`` is set, and the module cannot be used. The text says why.
    """
    reason = _why_not(name)
    if not reason:
        try:
            module = import_module(f"asgi_bridge.{name}")
        except ImportError as exc:
            reason = f"asgi_bridge.{name} cannot be loaded: {exc}"
        else:
            _reasons[name] = ""
            return module
    if wanted():
        raise ImportError(f"ASGI_BRIDGE_COMPILED is set, but {reason}; {_REBUILD}")
    if "stale" in reason and not any("stale" in each for each in _reasons.values()):
        warnings.warn(f"{reason}; pure Python is used. To use it, {_REBUILD}", RuntimeWarning, stacklevel=2)
    _reasons[name] = reason
    return None


def core_in_use() -> str:
    """Return which core this process uses: ``"compiled"``, or ``"pure Python: "`` and why."""
    reasons = {name: _reasons[name] if name in _reasons else _why_not(name) for name in MODULES}
    why = "; ".join(dict.fromkeys(filter(None, reasons.values())))
    if not why:
        return "compiled"
    return f"pure Python: {why}" if all(reasons.values()) else f"compiled in part: {why}"
