"""Route configuration: JSON text in, checked Python values out, and the JSON Schema of what is accepted.

APISIX sends a plugin's configuration as a string. A typing error in it must never turn a plugin off. So the text is
checked as strictly as the plugin's own annotations allow, and unknown keys are errors. Messages name the field and the
reason, never the value, which may be a secret.
"""

import copy
import json
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import pydantic
from pydantic_core import to_jsonable_python

from ..errors import ConfigurationError
from ..spelling import did_you_mean
from .annotations import adapter_of, fields_of, for_pydantic, model_of, name_of
from .checker import Checker, reason_of_error
from .importing import import_string, is_import_string
from .json_text import parse_json
from .options import Options
from .patterns import PATTERN_REFUSED, may_compile
from .refused import RefusedConfiguration, WrongField
from .rules import Rules

__all__ = ["AnyConfiguration", "Configuration", "KeywordConfiguration", "TypedConfiguration"]


class Configuration(Protocol):
    """What a plugin accepts as its configuration."""

    @property
    def runs_code(self) -> bool:
        """Whether a check runs code in Python, which may take any time."""

    def check(self, text: str) -> Any:
        """Return the checked value of the JSON `text`.

        Raises:
            RefusedConfiguration: The text is not JSON, or not what the plugin accepts.
        """

    def schema(self) -> dict[str, Any]:
        """Return the JSON Schema (draft 2020-12) of accepted configurations."""

    def mounted_with(self, options: Options) -> "Configuration":
        """Return the same for a plugin that is mounted with `options`, which say what its routes may name."""


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
        annotation: The type of a configuration.
        defaults: The operator's own values, JSON. A route's object is merged over them.

    Raises:
        ConfigurationError: pydantic cannot check the annotation, or it does not accept the defaults.
    """

    def __init__(self, annotation: Any, defaults: Mapping[str, Any] | None = None) -> None:
        try:
            adapter: pydantic.TypeAdapter[Any] = pydantic.TypeAdapter(for_pydantic(annotation))
        except Exception as exc:  # pydantic.errors, and whatever a foreign type's hook raises
            reason = str(exc).partition("\n")[0]
            raise ConfigurationError(f"the annotation {annotation!r} cannot be checked: {reason}") from exc
        if not adapter.pydantic_complete:
            raise ConfigurationError(f"the annotation {annotation!r} cannot be checked: a name in it does not resolve")
        self._checker = Checker(adapter.core_schema)
        self.runs_code = self._checker.runs_code
        self._defaults = dict(defaults or {})
        self._rules: Rules | None = None
        if self._defaults:
            self._check_defaults()

    def _check_defaults(self) -> None:
        """Check the defaults.

        Raises:
            ConfigurationError: They have an error that no route could correct.
        """
        try:
            text = json.dumps(self._defaults)
        except (TypeError, ValueError) as exc:
            raise ConfigurationError(f"defaults of a factory are JSON: {exc}") from None
        reasons = [
            f"default {'.'.join(map(str, error['loc']))!r}: {reason_of_error(error)}"
            for error in self._checker.errors(text)
            if error["loc"][:1] and error["loc"][0] in self._defaults
        ]
        if reasons:
            raise ConfigurationError("; ".join(reasons))

    def check(self, text: str) -> Any:
        parsed = parse_json(text)
        if self._defaults:
            if not isinstance(parsed, dict):
                raise RefusedConfiguration("the configuration is no JSON object")
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
        target: A class or function whose first parameter is the wrapped application.
        defaults: The operator's own keyword arguments, objects included. A route's object is merged over them.
        from_file: True: the defaults come from a configuration file, so they are checked as a route's. A string of the
            form ``module:attr`` is imported, if the parameter does not accept the string itself.

    Raises:
        ConfigurationError: The signature or the defaults cannot work.
    """

    def __init__(
        self, target: Callable[..., Any], defaults: Mapping[str, Any] | None = None, *, from_file: bool = False
    ) -> None:
        defaults = dict(defaults or {})
        fields, self._names, self._own_defaults, extra = fields_of(target, defaults)
        unknown = sorted(set(defaults) - set(self._names.values()))
        if unknown and not extra:
            guess = did_you_mean(unknown[0], self._names.values())
            raise ConfigurationError(f"{name_of(target)} has no parameter {', '.join(map(repr, unknown))}{guess}")
        model = model_of(name_of(target), "allow" if extra else "forbid", **fields)
        self._checker = Checker(model.__pydantic_core_schema__)
        self._extra = extra
        self.runs_code = self._checker.runs_code
        self._annotations = {name: fields[field][0] for field, name in self._names.items()}
        self._defaults = {key: self._from_file(key, value) if from_file else value for key, value in defaults.items()}
        self._rules: Rules | None = None

    def _from_file(self, key: str, value: Any) -> Any:
        """Return a default of a configuration file: a value of the parameter's type, or the object that it names."""
        annotation = self._annotations.get(key, Any)
        if annotation is Any:
            return import_string(value) if is_import_string(value) else value
        try:
            return Checker(adapter_of(annotation).core_schema).check(json.dumps(value), strict=True)
        except (ConfigurationError, TypeError) as exc:
            if is_import_string(value):
                return import_string(value)
            raise ConfigurationError(f"default {key!r}: {exc}") from None

    @property
    def objects(self) -> list[str]:
        """Names of the required parameters whose value JSON may not be able to express."""
        in_json = self._checker.schema()["properties"]
        return [
            name
            for name, annotation in self._annotations.items()
            if not (name in self._defaults or name in self._own_defaults) and (annotation is Any or name not in in_json)
        ]

    def takes(self, name: str) -> bool:
        """Return whether the middleware has a parameter `name`, or takes any keyword."""
        return self._extra or name in self._annotations

    def check(self, text: str) -> dict[str, Any]:
        parsed = parse_json(text)
        model = self._checker.check(text, strict=True, rules=self._rules)
        for name, value in (model.model_extra or {}).items():
            if self._rules is not None and not may_compile(name, value, self._rules):
                raise RefusedConfiguration(
                    f"field {name!r}: {PATTERN_REFUSED}", [WrongField((name,), PATTERN_REFUSED, name)]
                )
        configured = {name: getattr(model, field) for field, name in self._names.items() if name in parsed}
        return self._defaults | configured | (model.model_extra or {})

    def schema(self) -> dict[str, Any]:
        schema = self._checker.schema()
        # this is printed, and the operator's defaults may be secrets
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
