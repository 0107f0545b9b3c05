"""How an object can be called: its signature, its annotations, and its name in a line of code."""

import functools
import inspect
import sys
import types
import typing
from collections.abc import Callable
from typing import Any

__all__ = ["attribute_of", "hints_of", "is_routine", "names_of", "signature_of", "spelled", "without_partials"]


def signature_of(found: Any) -> inspect.Signature | None:
    """Return the signature that a call of `found` has to fit; None: there is none to read.

    For a decorated function it is the signature of the wrapper. If the wrapper passes everything on, it is that of the
    wrapped function.
    """
    call = inspect.getattr_static(type(found), "__call__", None)
    if isinstance(call, staticmethod):  # inspect would take its first parameter for the instance
        found = call.__func__
    for follow in (False, True):
        try:
            signature = inspect.signature(found, follow_wrapped=follow)
        except Exception:  # noqa: S112  # it has none, or reading it runs code of its author
            continue
        # coroutine functions compiled by mypyc seem to have no parameters
        hidden = not signature.parameters and inspect.iscoroutinefunction(found) and not inspect.isfunction(found)
        if not (hidden or _passes_on(signature)):
            return signature
    return None


def _passes_on(signature: inspect.Signature) -> bool:
    return [each.kind for each in signature.parameters.values()] == [
        inspect.Parameter.VAR_POSITIONAL,
        inspect.Parameter.VAR_KEYWORD,
    ]


def names_of(found: Any) -> list[str]:
    """Return the names of all parameters of `found`; empty if it has no signature to read."""
    signature = signature_of(found)
    return [] if signature is None else list(signature.parameters)


def hints_of(found: Callable[..., Any]) -> dict[str, Any]:
    """Return the annotations of the parameters, without those that do not resolve (imports for type checkers only)."""
    function: Any = without_partials(found)
    if inspect.isclass(function):
        function = function.__new__ if function.__init__ is object.__init__ else function.__init__
    elif not isinstance(function, types.FunctionType | types.MethodType):
        function = function if is_routine(function) else type(function).__call__
    try:
        return typing.get_type_hints(function, include_extras=True)
    except Exception:  # any expression may stand in an annotation, so anything may come out
        hints = {}
        module = sys.modules.get(getattr(function, "__module__", None) or "")
        scope = {} if module is None else vars(module)
        for name, annotation in getattr(function, "__annotations__", {}).items():
            try:
                hints[name] = eval(annotation, scope) if isinstance(annotation, str) else annotation  # noqa: S307
            except Exception:  # noqa: S112  # as above: this one stays unchecked
                continue
        return hints


def spelled(found: Any) -> str:
    """Return how `found` may be written in a line of code."""
    if isinstance(found, functools.partial):
        return f"partial({spelled(found.func)}, ...)"
    name = getattr(found, "__name__", None)
    return name if isinstance(name, str) and name.isidentifier() else "app"


def is_routine(found: Any) -> bool:
    """Return whether it is a function or method, compiled or not. An object with a ``__call__`` in Python is none."""
    return inspect.isroutine(found) and not inspect.isfunction(attribute_of(type(found), "__call__"))


def attribute_of(owner: type, name: str) -> Any:
    """Return the attribute that instances of `owner` have, without a look at the metaclass."""
    found = next((vars(base)[name] for base in owner.__mro__ if name in vars(base)), None)
    return found.__func__ if isinstance(found, staticmethod | classmethod) else found


def without_partials(found: Any) -> Any:
    """Return the callable inside of any number of `functools.partial`."""
    while isinstance(found, functools.partial):
        found = found.func
    return found
