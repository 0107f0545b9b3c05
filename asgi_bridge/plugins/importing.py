"""``module:attr`` strings, as uvicorn's command line has them."""

import importlib
import re
from typing import Any

from ..errors import ConfigurationError

__all__ = ["import_string", "is_import_string"]

_FORM = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")


def is_import_string(value: object) -> bool:
    """Whether `value` reads ``module:attr``."""
    return isinstance(value, str) and _FORM.fullmatch(value) is not None


def import_string(target: str) -> Any:
    """The object that ``module:attr`` names.

    Raises:
        ConfigurationError: it has another form, or does not exist. An error inside the module is raised as it is.
    """
    if not is_import_string(target):
        raise ConfigurationError(f'{target!r} is not of the form "module:attr", such as "myapp.main:bridge"')
    module_name, _, path = target.partition(":")
    try:
        found: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as exc:
        if exc.name is None or not (module_name + ".").startswith(exc.name + "."):
            raise
        raise ConfigurationError(
            f"cannot import {target!r}: no module named {exc.name!r}; is it installed, and does --app-dir point to it?"
        ) from None
    for name in path.split("."):
        try:
            found = getattr(found, name)
        except AttributeError:
            raise ConfigurationError(f"cannot import {target!r}: {module_name!r} has no attribute {path!r}") from None
    return found
