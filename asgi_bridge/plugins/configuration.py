"""Route configuration: JSON text in, checked Python values out, and the JSON Schema of what is accepted.

APISIX hands a plugin's configuration over as a string. A typing error in it must never turn a plugin off, so the
text is checked as strictly as the plugin's own annotations allow, and unknown keys are errors. Messages name the
field and the reason, never the value: it may be a secret.

Whoever edits a route decides how long a check takes, and pydantic does not let go of the interpreter meanwhile, not
even on a thread. So the text is bounded before it gets here, nothing in it is without bound, a list or mapping is given
up at its first error, and the first errors only are told.
"""

import collections.abc
import copy
import enum
import inspect
import itertools
import json
import math
import re
import types
import typing
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import pydantic
import typing_extensions
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import CoreSchema, ErrorDetails, PydanticOmit, SchemaValidator, core_schema, to_jsonable_python

from ..errors import ConfigurationError
from ..spelling import did_you_mean
from .allow import PATTERN_REFUSED, Rules, guard_patterns, may_compile
from .importing import import_string, is_import_string
from .kinds import hints_of, signature_of
from .options import Options
from .reasons import shortened

__all__ = ["AnyConfiguration", "Configuration", "KeywordConfiguration", "TypedConfiguration", "parse_json"]


MAX_DEPTH = 200
"""Levels of nesting, which is pydantic's own limit."""
MAX_DIGITS = 308
"""Of an integer: no float is longer, and reading one costs more than its length."""
MAX_ERRORS = 10
"""Errors that are told."""


class Configuration(Protocol):
    """What a plugin accepts as its configuration."""

    @property
    def runs_code(self) -> bool:
        """Whether a check runs code in Python, of which nobody knows how long it takes."""

    def check(self, text: str) -> Any:
        """The checked value of the JSON `text`.

        Raises:
            ConfigurationError: the text is not JSON, or not what the plugin accepts.
        """

    def schema(self) -> dict[str, Any]:
        """The JSON Schema (draft 2020-12) of an accepted configuration."""

    def mounted_with(self, options: Options) -> "Configuration":
        """The same, for a plugin that is mounted with `options`: they say what its routes may name."""


def parse_json(text: str) -> Any:
    """`text` as JSON; blank text is an empty object, since APISIX requires a string where there is nothing to say.

    Raises:
        ConfigurationError: it is not JSON.
    """
    if not text.strip():
        return {}
    if _depth(text) > MAX_DEPTH:
        raise ConfigurationError("the configuration is nested too deeply")
    try:
        return json.loads(
            text,
            object_pairs_hook=_unique,
            parse_constant=_refuse_constant,
            parse_float=_finite,
            parse_int=_integer,
        )
    except ValueError as exc:
        raise ConfigurationError(f"the configuration is not JSON: {exc}") from None
    except RecursionError:
        raise ConfigurationError("the configuration is nested too deeply") from None


_strings = re.compile(r'"(?:[^"\\]++|\\.?)*+"?', re.DOTALL)  # the last one may have no end
_brackets = re.compile(r"[^\[\]{}]+")
_STEPS = {"[": 1, "{": 1, "]": -1, "}": -1}


def _depth(text: str) -> int:
    """Levels of nesting of JSON."""
    if text.count("[") + text.count("{") <= MAX_DEPTH:
        return 0  # it cannot be too deep, and most are not
    brackets = _brackets.sub("", _strings.sub("", text))
    return max(itertools.accumulate(map(_STEPS.__getitem__, brackets)), default=0)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object. Of two equal names one would be without effect, and nobody could see which."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = Counter(name for name, _ in pairs)
        raise ValueError(f"an object has the name {shortened(names.most_common(1)[0][0], 100)!r} twice")
    return found


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _finite(digits: str) -> float:
    value = float(digits)
    if math.isinf(value):
        raise ValueError("a number is too large")
    return value


def _integer(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise ValueError("a number is too large")
    return int(digits)


class AnyConfiguration:
    """Any JSON: a mounted application reads it from ``scope["extensions"]["apisix"]["conf"]``."""

    runs_code = False

    def check(self, text: str) -> Any:
        return parse_json(text)

    def schema(self) -> dict[str, Any]:
        return {}

    def mounted_with(self, options: Options) -> "AnyConfiguration":
        return self


class TypedConfiguration:
    """One value, checked against an annotation: a pydantic model, dataclass, TypedDict, or any type pydantic knows.

    The annotation's own strictness applies, but unknown keys are refused, unless a model says otherwise itself.

    Args:
        annotation: what a configuration has to be.
        defaults: the operator's own values, JSON; a route's object goes over them.

    Raises:
        ConfigurationError: pydantic cannot check the annotation, or the defaults are none of its values.
    """

    def __init__(self, annotation: Any, defaults: Mapping[str, Any] | None = None) -> None:
        try:
            adapter: pydantic.TypeAdapter[Any] = pydantic.TypeAdapter(_for_pydantic(annotation))
        except Exception as exc:  # pydantic.errors, and whatever a foreign type's hook raises
            reason = str(exc).partition("\n")[0]
            raise ConfigurationError(f"the annotation {annotation!r} cannot be checked: {reason}") from exc
        if not adapter.pydantic_complete:
            raise ConfigurationError(f"the annotation {annotation!r} cannot be checked: a name in it does not resolve")
        self._checker = _Checker(adapter.core_schema)
        self.runs_code = self._checker.runs_code
        self._defaults = dict(defaults or {})
        self._rules: Rules | None = None
        if self._defaults:
            self._check_defaults()

    def _check_defaults(self) -> None:
        """Raises ConfigurationError for what no route could make good."""
        try:
            text = json.dumps(self._defaults)
        except (TypeError, ValueError) as exc:
            raise ConfigurationError(f"defaults of a factory are JSON: {exc}") from None
        reasons = [
            f"default {'.'.join(map(str, error['loc']))!r}: {_reason(error)}"
            for error in self._checker.errors(text)
            if error["loc"][:1] and error["loc"][0] in self._defaults
        ]
        if reasons:
            raise ConfigurationError("; ".join(reasons))

    def check(self, text: str) -> Any:
        parsed = parse_json(text)
        if self._defaults:
            if not isinstance(parsed, dict):
                raise ConfigurationError("the configuration is no JSON object")
            text = json.dumps(self._defaults | parsed)
        rules = None if self._rules is None else self._rules.with_defaults(self._defaults, parsed)
        return self._checker.check(text, rules=rules)

    def schema(self) -> dict[str, Any]:
        schema = self._checker.schema()
        if self._defaults and "required" in schema:
            schema["required"] = [name for name in schema["required"] if name not in self._defaults]
        return schema

    def mounted_with(self, options: Options) -> "TypedConfiguration":
        mounted = copy.copy(self)
        mounted._rules = Rules(options.allow, options.allow_patterns)
        return mounted


class KeywordConfiguration:
    """Keyword arguments, checked against the signature of a middleware.

    Args:
        target: a class or function whose first parameter is the wrapped application.
        defaults: the operator's own keyword arguments, objects included; a route's object goes over them.
        from_file: the defaults come from a configuration file, so they are checked as a route's are, and a string
            that is no value of its parameter but reads ``module:attr`` is imported.

    Raises:
        ConfigurationError: the signature or the defaults cannot work.
    """

    def __init__(
        self, target: Callable[..., Any], defaults: Mapping[str, Any] | None = None, *, from_file: bool = False
    ) -> None:
        defaults = dict(defaults or {})
        fields, self._names, self._own_defaults, extra = _fields(target, defaults)
        unknown = sorted(set(defaults) - set(self._names.values()))
        if unknown and not extra:
            raise ConfigurationError(f"{_name(target)} has no parameter {', '.join(map(repr, unknown))}")
        model = _model(_name(target), "allow" if extra else "forbid", **fields)
        self._checker = _Checker(model.__pydantic_core_schema__)
        self._extra = extra
        self.runs_code = self._checker.runs_code
        self._annotations = {name: fields[field][0] for field, name in self._names.items()}
        self._defaults = {key: self._from_file(key, value) if from_file else value for key, value in defaults.items()}
        self._rules: Rules | None = None

    def _from_file(self, key: str, value: Any) -> Any:
        """One default of a configuration file: JSON-like data of the parameter's type, or what it names."""
        annotation = self._annotations.get(key, Any)
        if annotation is Any:
            return import_string(value) if is_import_string(value) else value
        try:
            return _Checker(_adapter(annotation).core_schema).check(json.dumps(value), strict=True)
        except (ConfigurationError, TypeError) as exc:
            if is_import_string(value):
                return import_string(value)
            raise ConfigurationError(f"default {key!r}: {exc}") from None

    @property
    def objects(self) -> list[str]:
        """The parameters that have to be given, and that JSON may not be able to give."""
        in_json = self._checker.schema()["properties"]
        return [
            name
            for name, annotation in self._annotations.items()
            if not (name in self._defaults or name in self._own_defaults) and (annotation is Any or name not in in_json)
        ]

    def takes(self, name: str) -> bool:
        """Whether the middleware has a parameter `name`, or takes any keyword."""
        return self._extra or name in self._annotations

    def check(self, text: str) -> dict[str, Any]:
        parsed = parse_json(text)
        model = self._checker.check(text, strict=True, rules=self._rules)
        for name, value in (model.model_extra or {}).items():
            if self._rules is not None and not may_compile(name, value, self._rules):
                raise ConfigurationError(f"field {name!r}: {PATTERN_REFUSED}")
        given = {name: getattr(model, field) for field, name in self._names.items() if name in parsed}
        return self._defaults | given | (model.model_extra or {})

    def schema(self) -> dict[str, Any]:
        schema = self._checker.schema()
        # the operator's defaults may be secrets, and this is printed
        for name in self._defaults.keys() & schema["properties"].keys():
            schema["properties"][name].pop("default", None)
        for name, value in self._own_defaults.items():
            if name in schema["properties"] and name not in self._defaults:
                try:
                    schema["properties"][name]["default"] = to_jsonable_python(value)
                except ValueError:  # an object
                    schema["properties"][name].pop("default", None)
        return schema

    def mounted_with(self, options: Options) -> "KeywordConfiguration":
        mounted = copy.copy(self)
        mounted._rules = Rules(options.allow, options.allow_patterns)
        return mounted


class _Checker:
    """Checks JSON against pydantic's core schema, in which unknown keys are errors wherever it does not speak of them.

    pydantic's ``extra`` of a validation would go over what nested models say themselves.
    """

    def __init__(self, schema: CoreSchema) -> None:
        closed = _closed(schema)
        self.runs_code = _runs_code(closed)
        self._schema: CoreSchema = guard_patterns(closed)
        self._extra: typing.Literal["forbid"] | None = None
        try:
            # the models' prebuilt validators would be those of the schema as it was
            self._validator = SchemaValidator(self._schema, _use_prebuilt=False)
        except TypeError:  # not every pydantic has this word: then only the outermost can speak for itself
            self._validator = SchemaValidator(self._schema)
            outermost: Any = self._schema.get("schema") if schema["type"] == "definitions" else self._schema
            if outermost.get("config", {}).get("extra_fields_behavior") not in ("allow", "ignore"):
                self._extra = "forbid"

    def check(self, text: str, *, strict: bool | None = None, rules: Rules | None = None) -> Any:
        """The checked value of `text`, which is a route's where there are `rules`."""
        try:
            return self._validator.validate_json(
                text if text.strip() else "{}",
                strict=strict,
                extra=self._extra,
                context=None if rules is None else rules.context,
            )
        except pydantic.ValidationError as exc:
            errors = _first_errors(exc)
            raise ConfigurationError(_reasons(errors, exc.error_count()) + self._guess(errors)) from None

    def _guess(self, errors: list[ErrorDetails]) -> str:
        """What the first unknown key may be a typing error of."""
        unknown = [error["loc"][-1] for error in errors if error["type"] in _UNKNOWN_KEY]
        return did_you_mean(str(unknown[0]), _properties(self.schema())) if unknown else ""

    def errors(self, text: str) -> list[ErrorDetails]:
        """All that is wrong with `text`."""
        try:
            self._validator.validate_json(text, extra=self._extra)
        except pydantic.ValidationError as exc:
            return exc.errors(include_input=False, include_url=False)
        return []

    def schema(self) -> dict[str, Any]:
        try:
            return _Schema(by_alias=True).generate(self._schema)
        except PydanticOmit:  # nothing that JSON has
            return {"not": {}}


_UNKNOWN_KEY = ("extra_forbidden", "unexpected_keyword_argument")


def _properties(schema: Any) -> set[str]:
    """The names of all properties in a JSON Schema, nested ones too."""
    if isinstance(schema, list):
        return set().union(*map(_properties, schema))
    if not isinstance(schema, dict):
        return set()
    own = schema.get("properties", {})
    return {*own}.union(
        *map(_properties, own.values()), *(_properties(schema[key]) for key in schema if key != "properties")
    )


def _closed(schema: Any) -> Any:
    """`schema` with unknown keys forbidden where it does not say what to do with them, and every list and mapping given
    up at its first error."""
    if isinstance(schema, list | tuple):
        return type(schema)(map(_closed, schema))
    if not isinstance(schema, dict):
        return schema
    # without a type it is a mapping of schemas, its keys the names of fields
    kept = _NO_SCHEMA if isinstance(schema.get("type"), str) else ()
    closed = {key: value if key in kept else _closed(value) for key, value in schema.items()}
    if closed.get("type") in ("dict", "frozenset", "list", "set", "tuple"):
        closed["fail_fast"] = True
    if closed.get("type") in ("model", "dataclass", "typed-dict"):
        closed["config"] = {"extra_fields_behavior": "forbid", **closed.get("config", {})}
        if closed.get("extra_behavior") == "ignore":  # of a TypedDict, whatever it says
            closed["extra_behavior"] = closed["config"]["extra_fields_behavior"]
    return closed


_NO_SCHEMA = {"config", "default", "expected", "members", "metadata", "serialization"}


def _runs_code(schema: Any) -> bool:
    """Whether checking JSON against `schema` calls functions written in Python."""
    if isinstance(schema, list | tuple):
        return any(map(_runs_code, schema))
    if not isinstance(schema, dict):
        return False
    kind = schema.get("type")
    if not isinstance(kind, str):  # a mapping of schemas, its keys the names of fields
        return any(map(_runs_code, schema.values()))
    if kind == "json-or-python":
        return _runs_code(schema["json_schema"])
    if kind.startswith("function-") or kind == "call":
        return True
    if kind == "enum":
        return schema["cls"]._missing_.__func__ is not enum.Enum._missing_.__func__  # type: ignore[attr-defined]
    if any(schema.get(key) for key in _CODE) or callable(schema.get("discriminator")):
        return True
    return any(_runs_code(value) for key, value in schema.items() if key not in _NO_SCHEMA)


_CODE = {"custom_init", "default_factory", "post_init"}


def _fields(
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
        raise ConfigurationError(f"{_name(target)} is no middleware: its first parameter is not an application")
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
                raise ConfigurationError(f"{_name(target)} wants {parameter.name!r} by position: wrap it in a function")
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


def _for_pydantic(annotation: Any) -> Any:
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
                key: _for_pydantic(hint) if key in required else typing_extensions.NotRequired[_for_pydantic(hint)]
                for key, hint in hints.items()
            },
        )
        setattr(twin, "__pydantic_config__", getattr(annotation, "__pydantic_config__", {}))  # noqa: B010
        return twin
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return typing.Annotated[_for_pydantic(args[0]), *annotation.__metadata__]
    if origin in (types.UnionType, typing.Union):
        return typing.Union[tuple(map(_for_pydantic, args))]  # noqa: UP007
    if origin in _ABSTRACT:
        return collections.abc.Sequence[_for_pydantic(args[0]) if args else Any]  # type: ignore[misc]
    if origin in _BUILT_IN:
        return origin[tuple(map(_for_pydantic, args))]
    return annotation


_BUILT_IN = {dict, frozenset, list, set, tuple}


def _checkable(annotation: Any) -> Any:
    """`annotation` as pydantic can check it, or, where it cannot, a type that no JSON has: Python has to give it."""
    try:
        annotation = _for_pydantic(annotation)
        checkable = _adapter(annotation).pydantic_complete and _model(field=(annotation, None)).__pydantic_complete__
    except Exception:  # pydantic.errors, and whatever a foreign type's hook raises
        checkable = False
    return annotation if checkable else typing.Annotated[Any, _PythonOnly]


def _model(title: str = "", extra: typing.Literal["allow", "forbid"] = "forbid", **fields: Any) -> Any:
    config = pydantic.ConfigDict(title=title, extra=extra, arbitrary_types_allowed=True)
    return pydantic.create_model("Configuration", __config__=config, **fields)


def _adapter(annotation: Any) -> pydantic.TypeAdapter[Any]:
    try:
        return pydantic.TypeAdapter(annotation, config={"arbitrary_types_allowed": True})
    except pydantic.errors.PydanticUserError:  # a type that brings its own configuration
        return pydantic.TypeAdapter(annotation)


class _PythonOnly:
    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> CoreSchema:
        return core_schema.is_instance_schema(cls)


class _Schema(GenerateJsonSchema):
    """JSON Schema of what JSON can give: parameters that need Python objects are left out."""

    ignored_warning_kinds = {"non-serializable-default", "skipped-choice"}  # noqa: RUF012  # pydantic annotates it

    def model_schema(self, schema: core_schema.ModelSchema) -> JsonSchemaValue:
        found = super().model_schema(schema)  # looks at the class, not at what we put into its core schema
        if schema["config"]["extra_fields_behavior"] == "forbid" and not schema.get("root_model"):
            found.setdefault("additionalProperties", False)
        return found

    def handle_invalid_for_json_schema(self, schema: CoreSchema, error_info: str) -> JsonSchemaValue:
        raise PydanticOmit


def _reasons(errors: list[ErrorDetails], count: int) -> str:
    """What is wrong, field by field, on one line: the first `errors` of `count`."""
    reasons = [
        f"field {shortened('.'.join(map(str, error['loc'])), 200)!r}: {_reason(error)}"
        if error["loc"]
        else _reason(error)
        for error in errors
    ]
    if count > MAX_ERRORS:
        reasons.append(f"and {count - MAX_ERRORS} more")
    return shortened("; ".join(reasons))


def _first_errors(exc: pydantic.ValidationError) -> list[ErrorDetails]:
    """The first errors. Of many, pydantic can only make all, and as JSON in a tenth of the time."""
    if exc.error_count() <= MAX_ERRORS:
        return exc.errors(include_input=False, include_url=False)
    text = exc.json(include_input=False, include_url=False, include_context=False)
    decoder = json.JSONDecoder()
    errors: list[ErrorDetails] = []
    position = 1  # behind the bracket
    for _ in range(MAX_ERRORS):
        error, position = decoder.raw_decode(text, position)
        errors.append(error)
        position += 1  # the comma
    return errors


def _reason(error: ErrorDetails) -> str:
    if error["type"] == "needs_python_object":
        return 'it takes a Python object: the operator has to give it as a default ("module:attr" in a file)'
    if error["type"] == "union_tag_invalid":  # pydantic's own message has the value in it
        known = error.get("ctx")
        return "unknown tag" if known is None else "{discriminator} should be one of {expected_tags}".format(**known)
    return error["msg"]


def _name(target: Callable[..., Any]) -> str:
    return str(getattr(target, "__qualname__", type(target).__qualname__))
