"""The check of JSON against a pydantic schema, and the JSON Schema of what it accepts.

Whoever edits a route decides how long a check takes. Meanwhile pydantic holds the interpreter's lock, even on a thread.
So the work on a text is bounded: the check of a list or mapping stops at its first error, and a message has the first
errors only. Messages name the field and the reason, never the value, which may be a secret.
"""

import enum
import json
import typing
from typing import Any

import pydantic
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import CoreSchema, ErrorDetails, PydanticOmit, SchemaValidator, core_schema

from ..hiding import HIDDEN, LONG_KEY, looks_secret
from ..spelling import did_you_mean
from .patterns import NO_SCHEMA, guard_patterns
from .reasons import shortened
from .refused import RefusedConfiguration, WrongField
from .rules import Rules

__all__ = ["Checker", "reason_of_error"]

MAX_ERRORS = 10
"""Maximum number of errors in a message."""


class Checker:
    """Checks JSON against pydantic's core schema. Unknown keys are errors wherever the schema does not allow them.

    pydantic's own ``extra`` argument of a validation would overrule what nested models say themselves.

    Args:
        schema: The core schema.

    Attributes:
        runs_code: True: a check runs code in Python.
    """

    def __init__(self, schema: CoreSchema) -> None:
        closed = _closed(schema)
        self.runs_code = _runs_code(closed)
        self._schema: CoreSchema = guard_patterns(closed)
        self._extra: typing.Literal["forbid"] | None = None
        try:
            # a prebuilt validator of a model would check against the schema as it was
            self._validator = SchemaValidator(self._schema, _use_prebuilt=False)
        except TypeError:  # an older pydantic lacks this argument: then only the outermost model can allow unknown keys
            self._validator = SchemaValidator(self._schema)
            outermost: Any = self._schema.get("schema") if schema["type"] == "definitions" else self._schema
            if outermost.get("config", {}).get("extra_fields_behavior") not in ("allow", "ignore"):
                self._extra = "forbid"

    def check(self, text: str, *, strict: bool | None = None, rules: Rules | None = None) -> Any:
        """Return the checked value of a JSON text.

        Args:
            text: JSON; blank text is an empty object.
            strict: pydantic's `strict`.
            rules: What a route may say; None: the text is the operator's.

        Raises:
            RefusedConfiguration: The text is not what the schema accepts.
        """
        try:
            return self._validator.validate_json(
                text if text.strip() else "{}",
                strict=strict,
                extra=self._extra,
                context=None if rules is None else rules.context,
            )
        except pydantic.ValidationError as exc:
            errors = _first_errors(exc)
            guesses = self._guesses(errors)
            first = next((guess for error, guess in zip(errors, guesses, strict=True) if _is_unknown(error)), "")
            names = self._names(errors)
            fields = [
                WrongField(tuple(error["loc"]), reason_of_error(error) + guess, name)
                for error, guess, name in zip(errors, guesses, names, strict=True)
            ]
            if exc.error_count() > MAX_ERRORS:
                fields.append(WrongField((), f"{exc.error_count() - MAX_ERRORS} more fields are wrong", ""))
            raise RefusedConfiguration(_reasons(errors, names, exc.error_count()) + first, fields) from None

    def _names(self, errors: list[ErrorDetails]) -> list[str]:
        """Return the path of each error for people.

        A route may have a secret where a name belongs, as in ``{"keys": {SECRET: "ada"}}``. So behind a field that is
        called like a secret, a long key is hidden, unless it is the name of a field.
        """
        known: set[str] | None = None
        names = []
        for error in errors:
            shown: list[str] = []
            secret = False
            for step in error["loc"]:
                if secret and isinstance(step, str) and len(step) >= LONG_KEY:
                    known = _properties(self.schema()) if known is None else known
                    step = step if step in known else HIDDEN
                shown.append(str(step))
                secret = secret or (isinstance(step, str) and looks_secret(step))
            names.append(".".join(shown))
        return names

    def _guesses(self, errors: list[ErrorDetails]) -> list[str]:
        """Suggest for each unknown key what it may be a typing error of; empty: nothing, or the key is known."""
        known = _properties(self.schema()) if any(map(_is_unknown, errors)) else set()
        return [did_you_mean(str(error["loc"][-1]), known) if _is_unknown(error) else "" for error in errors]

    def errors(self, text: str) -> list[ErrorDetails]:
        """Return everything that is wrong with `text`."""
        try:
            self._validator.validate_json(text, extra=self._extra)
        except pydantic.ValidationError as exc:
            return exc.errors(include_input=False, include_url=False)
        return []

    def schema(self) -> dict[str, Any]:
        """Return the JSON Schema of what is accepted."""
        try:
            return _Schema(by_alias=True).generate(self._schema)
        except PydanticOmit:  # it accepts nothing that JSON can express
            return {"not": {}}


def _is_unknown(error: ErrorDetails) -> bool:
    """Return whether an error is about a key that the schema does not have."""
    return error["type"] in ("extra_forbidden", "unexpected_keyword_argument")


def _properties(schema: Any) -> set[str]:
    """Return the names of all properties in a JSON Schema, nested ones too."""
    if isinstance(schema, list):
        return set().union(*map(_properties, schema))
    if not isinstance(schema, dict):
        return set()
    own = schema.get("properties", {})
    return {*own}.union(
        *map(_properties, own.values()), *(_properties(schema[key]) for key in schema if key != "properties")
    )


def _closed(schema: Any) -> Any:
    """Return a core schema that forbids unknown keys, unless `schema` says what to do with them.

    In it the check of each list and mapping stops at its first error.
    """
    if isinstance(schema, list | tuple):
        return type(schema)(map(_closed, schema))
    if not isinstance(schema, dict):
        return schema
    # without a type it is a mapping of field names to schemas
    kept = NO_SCHEMA if isinstance(schema.get("type"), str) else ()
    closed = {key: value if key in kept else _closed(value) for key, value in schema.items()}
    if closed.get("type") in ("dict", "frozenset", "list", "set", "tuple"):
        closed["fail_fast"] = True
    if closed.get("type") in ("model", "dataclass", "typed-dict"):
        closed["config"] = {"extra_fields_behavior": "forbid", **closed.get("config", {})}
        if closed.get("extra_behavior") == "ignore":  # a TypedDict has this value, whatever its author wrote
            closed["extra_behavior"] = closed["config"]["extra_fields_behavior"]
    return closed


def _runs_code(schema: Any) -> bool:
    """Return whether a check of JSON against `schema` calls functions written in Python."""
    if isinstance(schema, list | tuple):
        return any(map(_runs_code, schema))
    if not isinstance(schema, dict):
        return False
    kind = schema.get("type")
    if not isinstance(kind, str):  # a mapping of field names to schemas
        return any(map(_runs_code, schema.values()))
    if kind == "json-or-python":
        return _runs_code(schema["json_schema"])
    if kind.startswith("function-") or kind == "call":
        return True
    if kind == "enum":
        return schema["cls"]._missing_.__func__ is not enum.Enum._missing_.__func__  # type: ignore[attr-defined]
    if any(schema.get(key) for key in _CODE) or callable(schema.get("discriminator")):
        return True
    return any(_runs_code(value) for key, value in schema.items() if key not in NO_SCHEMA)


_CODE = {"custom_init", "default_factory", "post_init"}
"""Keys of a core schema that call functions."""


class _Schema(GenerateJsonSchema):
    """JSON Schema without the parameters that need Python objects."""

    ignored_warning_kinds = {"non-serializable-default", "skipped-choice"}  # noqa: RUF012  # as pydantic has it

    def model_schema(self, schema: core_schema.ModelSchema) -> JsonSchemaValue:
        found = super().model_schema(schema)  # reads the class, not what we changed in its core schema
        if schema["config"]["extra_fields_behavior"] == "forbid" and not schema.get("root_model"):
            found.setdefault("additionalProperties", False)
        return found

    def handle_invalid_for_json_schema(self, schema: CoreSchema, error_info: str) -> JsonSchemaValue:
        raise PydanticOmit


def _reasons(errors: list[ErrorDetails], names: list[str], count: int) -> str:
    """Say on one line what is wrong, field by field: the first `errors` of all `count` errors."""
    reasons = [
        f"field {shortened(name, 200)!r}: {reason_of_error(error)}" if name else reason_of_error(error)
        for error, name in zip(errors, names, strict=True)
    ]
    if count > MAX_ERRORS:
        reasons.append(f"and {count - MAX_ERRORS} more")
    return shortened("; ".join(reasons))


def _first_errors(exc: pydantic.ValidationError) -> list[ErrorDetails]:
    """Return the first errors. pydantic can only list all of them, ten times as fast in JSON as in Python."""
    if exc.error_count() <= MAX_ERRORS:
        return exc.errors(include_input=False, include_url=False)
    text = exc.json(include_input=False, include_url=False, include_context=False)
    decoder = json.JSONDecoder()
    errors: list[ErrorDetails] = []
    position = 1  # after the bracket
    for _ in range(MAX_ERRORS):
        error, position = decoder.raw_decode(text, position)
        errors.append(error)
        position += 1  # the comma
    return errors


def reason_of_error(error: ErrorDetails) -> str:
    """Return the reason of an error, without the value."""
    if error["type"] == "needs_python_object":
        return 'it takes a Python object: the operator has to give it as a default ("module:attr" in a file)'
    if error["type"] == "union_tag_invalid":  # pydantic's own message contains the value
        known = error.get("ctx")
        return "unknown tag" if known is None else "{discriminator} should be one of {expected_tags}".format(**known)
    return error["msg"]
