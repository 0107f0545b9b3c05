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
    """Whether `value` reads ``module:attr``."""
    return isinstance(value, str) and _FORM.fullmatch(value) is not None


def import_string(target: str) -> Any:
    """The object that ``module:attr`` names.

    Raises:
        ConfigurationError: it has another form, or does not exist, or the module raises; its error is the cause.
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
    """The object that ``module:attr`` names, or what it returns, where it is a function without parameters.

    Raises:
        ConfigurationError: as :func:`import_string` does, or the function raises; its error is the cause.
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
    """The module `name`, of `target`: what the user wrote.

    Raises:
        ConfigurationError: there is no such module, or it raises; its error is the cause.
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
    """`target` with a module's name in place of a file's (``gate.py``, ``src/gate.py:bridge``), if it has one.

    Args:
        target: ``module:attr``, a module, or either with the path of a file in place of the module.
        app_dir: the folder to import from. None: that of the file, or above it as long as there is an ``__init__.py``.

    Returns:
        The target, and the folder to import from: ``"."`` where no file decides it.

    Raises:
        ConfigurationError: there is no such file, or its path is not that of a module.
    """
    path, colon, attribute = target.partition(":")
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
