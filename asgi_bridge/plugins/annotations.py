"""Signatures and annotations of plugins, as pydantic can check them."""

import collections.abc
import inspect
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any

import pydantic
import typing_extensions
from pydantic_core import CoreSchema, core_schema

from ..errors import ConfigurationError
from .signatures import hints_of, signature_of

__all__ = ["adapter_of", "fields_of", "for_pydantic", "model_of", "name_of"]


def fields_of(
    target: Callable[..., Any], defaults: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, str], dict[str, Any], bool]:
    """Fields of a pydantic model for `target`'s keyword parameters; names made up, since `copy` or `_x` are no field
    names, with the parameters' names that they stand for; the parameters' own defaults; whether any keyword is taken.
    Without a signature to read any keyword is.

    The fields do not have the parameters' defaults: pydantic would copy them at each check, whatever they are.
    """
    signature = signature_of(target)
    if signature is None:  # compiled, or a built-in
        return {}, {}, {}, True
    parameters = list(signature.parameters.values())
    if not parameters or parameters[0].kind in (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.VAR_KEYWORD):
        raise ConfigurationError(f"{name_of(target)} is no middleware: its first parameter is not an application")
    hints = hints_of(target)
    fields: dict[str, Any] = {}
    names: dict[str, str] = {}
    own: dict[str, Any] = {}
    extra = False
    for parameter in parameters[1:]:
        if parameter.kind is parameter.VAR_KEYWORD:
            extra = True
        elif parameter.kind is parameter.POSITIONAL_ONLY:
            if parameter.default is parameter.empty:
                raise ConfigurationError(
                    f"{name_of(target)} wants {parameter.name!r} by position: wrap it in a function"
                )
        elif parameter.kind is not parameter.VAR_POSITIONAL:
            field = f"parameter_{len(fields)}"
            names[field] = parameter.name
            if parameter.default is not parameter.empty:
                own[parameter.name] = parameter.default
            given = parameter.name in defaults or parameter.name in own
            fields[field] = (
                _checkable(hints.get(parameter.name, Any)),
                pydantic.Field(None if given else ..., alias=parameter.name, title=parameter.name),
            )
    return fields, names, own, extra


_ABSTRACT = {
    collections.abc.Collection: collections.abc.Sequence,
    collections.abc.Container: collections.abc.Sequence,
    collections.abc.Iterable: collections.abc.Sequence,
    collections.abc.Reversible: collections.abc.Sequence,
}


def for_pydantic(annotation: Any) -> Any:
    """`annotation` as pydantic can check it: abstract collections as sequences (a string is none of them, although
    Python says so: ``allow_origins="*"`` is a typing error), typing.TypedDict as its twin of typing_extensions."""
    if isinstance(annotation, type) and annotation in _ABSTRACT:
        return _ABSTRACT[annotation]
    if typing.is_typeddict(annotation) and not isinstance(annotation, typing_extensions._TypedDictMeta):  # type: ignore[attr-defined]
        hints = typing.get_type_hints(annotation, include_extras=True)
        required = annotation.__required_keys__
        twin: Any = typing_extensions.TypedDict(  # type: ignore[misc]
            annotation.__name__,
            {
                key: for_pydantic(hint) if key in required else typing_extensions.NotRequired[for_pydantic(hint)]
                for key, hint in hints.items()
            },
        )
        setattr(twin, "__pydantic_config__", getattr(annotation, "__pydantic_config__", {}))  # noqa: B010
        return twin
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return typing.Annotated[for_pydantic(args[0]), *annotation.__metadata__]
    if origin in (types.UnionType, typing.Union):
        return typing.Union[tuple(map(for_pydantic, args))]  # noqa: UP007
    if origin in _ABSTRACT:
        return collections.abc.Sequence[for_pydantic(args[0]) if args else Any]  # type: ignore[misc]
    if origin in _BUILT_IN:
        return origin[tuple(map(for_pydantic, args))]
    return annotation


_BUILT_IN = {dict, frozenset, list, set, tuple}


def _checkable(annotation: Any) -> Any:
    """`annotation` as pydantic can check it, or, where it cannot, a type that no JSON has: Python has to give it."""
    try:
        annotation = for_pydantic(annotation)
        checkable = (
            adapter_of(annotation).pydantic_complete and model_of(field=(annotation, None)).__pydantic_complete__
        )
    except Exception:  # pydantic.errors, and whatever a foreign type's hook raises
        checkable = False
    return annotation if checkable else typing.Annotated[Any, _PythonOnly]


def model_of(title: str = "", extra: typing.Literal["allow", "forbid"] = "forbid", **fields: Any) -> Any:
    config = pydantic.ConfigDict(title=title, extra=extra, arbitrary_types_allowed=True)
    return pydantic.create_model("Configuration", __config__=config, **fields)


def adapter_of(annotation: Any) -> pydantic.TypeAdapter[Any]:
    try:
        return pydantic.TypeAdapter(annotation, config={"arbitrary_types_allowed": True})
    except pydantic.errors.PydanticUserError:  # a type that brings its own configuration
        return pydantic.TypeAdapter(annotation)


class _PythonOnly:
    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> CoreSchema:
        return core_schema.is_instance_schema(cls)


def name_of(target: Callable[..., Any]) -> str:
    return str(getattr(target, "__qualname__", type(target).__qualname__))
