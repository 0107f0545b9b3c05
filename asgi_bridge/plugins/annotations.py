"""Turn signatures and annotations of plugins into what pydantic can check."""

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
    """Describe the keyword parameters of a middleware as fields of a pydantic model.

    The fields have names of our own, because pydantic allows no field `copy` or `_x`. They do not have the parameters'
    defaults, because pydantic would copy these at each check, whatever they are.

    Args:
        target: A class or function whose first parameter is the wrapped application.
        defaults: The operator's keyword arguments.

    Returns:
        The fields; field name → parameter name; the parameters' own defaults; whether any keyword is accepted, which is
        so too if there is no signature to read.

    Raises:
        ConfigurationError: `target` takes no application, or needs further arguments by position.
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
            optional = parameter.name in defaults or parameter.name in own
            fields[field] = (
                _checkable(hints.get(parameter.name, Any)),
                pydantic.Field(None if optional else ..., alias=parameter.name, title=parameter.name),
            )
    return fields, names, own, extra


_ABSTRACT = {
    collections.abc.Collection: collections.abc.Sequence,
    collections.abc.Container: collections.abc.Sequence,
    collections.abc.Iterable: collections.abc.Sequence,
    collections.abc.Reversible: collections.abc.Sequence,
}
"""Abstract collection → what JSON has for it."""


def for_pydantic(annotation: Any) -> Any:
    """Return an annotation that pydantic can check, and that means the same for JSON.

    Abstract collections become sequences. Thus a string is none of them, although it is one in Python:
    ``allow_origins="*"`` is a typing error. A TypedDict of `typing` becomes its twin of `typing_extensions`.
    """
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
"""Generic types whose arguments are converted too."""


def _checkable(annotation: Any) -> Any:
    """Return an annotation that pydantic can check. If it cannot, the operator has to set the parameter in Python."""
    try:
        annotation = for_pydantic(annotation)
        checkable = (
            adapter_of(annotation).pydantic_complete and model_of(field=(annotation, None)).__pydantic_complete__
        )
    except Exception:  # pydantic.errors, and whatever a foreign type's hook raises
        checkable = False
    return annotation if checkable else typing.Annotated[Any, _PythonOnly]


def model_of(title: str = "", extra: typing.Literal["allow", "forbid"] = "forbid", **fields: Any) -> Any:
    """Make a pydantic model.

    Args:
        title: Its title in the JSON Schema.
        extra: Whether it allows unknown keys.
        fields: Its fields, as `pydantic.create_model` takes them.
    """
    config = pydantic.ConfigDict(title=title, extra=extra, arbitrary_types_allowed=True)
    return pydantic.create_model("Configuration", __config__=config, **fields)


def adapter_of(annotation: Any) -> pydantic.TypeAdapter[Any]:
    """Return a pydantic adapter for `annotation`, which may be any class."""
    try:
        return pydantic.TypeAdapter(annotation, config={"arbitrary_types_allowed": True})
    except pydantic.errors.PydanticUserError:  # a type that brings its own configuration
        return pydantic.TypeAdapter(annotation)


class _PythonOnly:
    """Marks a parameter whose value is a Python object. No JSON is an instance of this class."""

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> CoreSchema:
        return core_schema.is_instance_schema(cls)


def name_of(target: Callable[..., Any]) -> str:
    """Return the name of a class, function or other callable, for messages."""
    return str(getattr(target, "__qualname__", type(target).__qualname__))
