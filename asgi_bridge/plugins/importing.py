"""``module:attr`` strings, as uvicorn's command line has them."""

import importlib
import inspect
import os
import re
from pathlib import Path
from typing import Any

from ..errors import BridgeError, ConfigurationError
from ..extras import extra_of
from ..spelling import did_you_mean
from ..tracebacks import calling_line
from .signatures import names_of

__all__ = ["import_module", "import_or_call", "import_string", "is_import_string", "located"]

_FORM = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")


def is_import_string(value: object) -> bool:
    """Return whether `value` has the form ``module:attr``."""
    return isinstance(value, str) and _FORM.fullmatch(value) is not None


def import_string(target: str) -> Any:
    """Return the object that ``module:attr`` names.

    Raises:
        ConfigurationError: `target` has another form, there is no such object, or the module raises. The module's
            error is the cause.
    """
    if not is_import_string(target):
        raise ConfigurationError(f'{target!r} is not of the form "module:attr", such as "myapp.main:bridge"')
    module_name, _, path = target.partition(":")
    found = import_module(module_name, target)
    for name in path.split("."):
        try:
            found = getattr(found, name)
        except AttributeError:
            guess = did_you_mean(name, [each for each in dir(found) if not each.startswith("_")])
            raise ConfigurationError(
                f"cannot import {target!r}: {module_name!r} has no attribute {path!r}{guess}"
            ) from None
    return found


def import_or_call(target: str) -> Any:
    """Return the object that ``module:attr`` names. If it is a function without parameters, return its result.

    Raises:
        ConfigurationError: As :func:`import_string` does, or the function raises. Its error is the cause.
    """
    found = import_string(target)
    if not inspect.isfunction(found) or inspect.iscoroutinefunction(found) or names_of(found):
        return found
    try:
        return found()
    except ConfigurationError:
        raise
    except (Exception, SystemExit) as exc:
        raise ConfigurationError(f"{target}() raised {type(exc).__name__}: {exc}") from exc


def import_module(name: str, target: str) -> Any:
    """Import a module.

    Args:
        name: Name of the module.
        target: What the user wrote, for messages.

    Raises:
        ConfigurationError: There is no such module, or it raises. Its error is the cause.
    """
    try:
        return importlib.import_module(name)
    except BridgeError as exc:
        frame = calling_line(exc)
        where = "" if frame is None else f" ({frame.filename}, line {frame.lineno})"
        raise ConfigurationError(f"{exc}{where}") from exc.__cause__
    except (Exception, SystemExit) as exc:
        if isinstance(exc, ModuleNotFoundError) and exc.name is not None and (name + ".").startswith(exc.name + "."):
            raise ConfigurationError(
                f"cannot import {target!r}: no module named {exc.name!r}; is it installed, and does --app-dir point "
                "to it?"
            ) from None
        missing = extra_of(exc)
        if missing:
            raise ConfigurationError(f"{name} {missing}") from None
        raise ConfigurationError(f"cannot import {target!r}: {type(exc).__name__}: {exc}") from exc


def located(target: str, app_dir: str | None) -> tuple[str, str]:
    """Replace the path of a file in `target` (``gate.py``, ``src/gate.py:bridge``) by the name of its module.

    Args:
        target: ``module:attr``, a module, or either with the path of a file in place of the module.
        app_dir: The folder to import from; None: the file's folder, or the nearest folder above it that is no package.

    Returns:
        The target, and the folder to import from, which is ``"."`` if `target` names no file.

    Raises:
        ConfigurationError: There is no such file, or it cannot be imported from that folder.
    """
    path, colon, attribute = target.partition(":")
    if not path.strip(". "):
        raise ConfigurationError(f'{target!r} names no module; it has to be like "gate", "gate.py" or "gate:bridge"')
    if not path.endswith(".py") and "/" not in path:
        return target, app_dir or "."
    file = Path(os.path.abspath(path))
    if not file.is_file() or file.suffix != ".py":
        raise ConfigurationError(f"{path}: there is no such Python file")
    folder = file.parent if app_dir is None else Path(os.path.abspath(app_dir))
    while app_dir is None and (folder / "__init__.py").is_file():
        folder = folder.parent
    if not file.is_relative_to(folder):
        raise ConfigurationError(f"{path} is outside of --app-dir {app_dir}")
    parts = file.relative_to(folder).with_suffix("").parts
    name = ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)
    if not is_import_string(f"{name}:x"):
        raise ConfigurationError(f"{path}: {name!r} is no name of a module; rename the file")
    return name + colon + attribute, str(folder)
