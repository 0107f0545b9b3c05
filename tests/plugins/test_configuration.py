"""Route configuration: what is accepted, how the rest is refused, and the JSON Schema."""

import collections.abc
import contextlib
import dataclasses
import enum
import functools
import json
import re
import threading
import typing
import warnings
from collections.abc import Callable, Collection, Iterable, Sequence
from importlib import import_module
from typing import Annotated, Any, Literal

import pydantic
import pydantic_core
import pytest
import typing_extensions
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.errors import ServerErrorMiddleware
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.middleware.httpsredirect import HTTPSRedirectMiddleware
from starlette.middleware.sessions import SessionMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware

from asgi_bridge import ConfigurationError
from asgi_bridge.plugins import checker
from asgi_bridge.plugins.configuration import (
    AnyConfiguration,
    Configuration,
    KeywordConfiguration,
    TypedConfiguration,
)
from asgi_bridge.plugins.json_text import parse_json

if typing.TYPE_CHECKING:
    from decimal import Decimal as OnlyForTypeCheckers

SECRET = "s3cr3t"


def refusal(accepted: Configuration, text: str) -> str:
    with pytest.raises(ConfigurationError) as caught:
        accepted.check(text)
    return str(caught.value)


# JSON


@pytest.mark.parametrize("text", ["", " ", "\n\t"])
def test_blank_text_is_an_empty_object(text: str) -> None:
    assert parse_json(text) == {}
    assert TypedConfiguration(dict).check(text) == {}
    assert KeywordConfiguration(CORSMiddleware).check(text) == {}


@pytest.mark.parametrize("value", [None, True, 1, 1.5, "a", [1, "b"], {"a": {"b": [None]}}])
def test_any_json_is_what_it_says(value: object) -> None:
    accepted = AnyConfiguration()

    assert accepted.check(json.dumps(value)) == value
    assert accepted.schema() == {}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "Expecting property name enclosed in double quotes: line 1 column 2 (char 1)"),
        ("{'a': 1}", "Expecting property name enclosed in double quotes: line 1 column 2 (char 1)"),
        ("{} {}", "Extra data: line 1 column 4 (char 3)"),
        ('{"a": NaN}', "NaN is not JSON"),
        ("[Infinity]", "Infinity is not JSON"),
        ("-Infinity", "-Infinity is not JSON"),
        ('{"rate": 1e999}', "a number is too large"),
        ('{"rate": 1' + "0" * 308 + "}", "a number is too large"),
        ("[-1" + "0" * 5000 + "]", "a number is too large"),
        ('{"a": 1, "a": 1}', "an object has the name 'a' twice"),
        ('[{"b": {"allow": [], "deny": [], "allow": ["*"]}}]', "an object has the name 'allow' twice"),
        ('{"a": 1, "\\u0061": 2, "b": 3}', "an object has the name 'a' twice"),
        ("{" + ", ".join([f'"{"x" * 5000}": 1'] * 2) + "}", f"an object has the name '{'x' * 50} … {'x' * 50}' twice"),
        ("\ufeff{}", "Unexpected UTF-8 BOM (decode using utf-8-sig): line 1 column 1 (char 0)"),
    ],
)
@pytest.mark.parametrize(
    "accepted",
    [AnyConfiguration(), TypedConfiguration(Any), KeywordConfiguration(CORSMiddleware)],
    ids=["any", "typed", "keywords"],
)
def test_what_is_not_json_is_refused(accepted: Configuration, text: str, reason: str) -> None:
    got = refusal(accepted, text)

    # Python 3.13 has another text for the first of them
    assert got.replace("Illegal trailing comma", "Expecting property name") == (
        f"the configuration is not JSON: {reason}"
    )


@pytest.mark.parametrize("accepted", [AnyConfiguration(), TypedConfiguration(Any)], ids=["any", "typed"])
def test_deep_nesting_is_refused(accepted: Configuration) -> None:
    assert refusal(accepted, "[" * 100_000) == "the configuration is nested too deeply"


@pytest.mark.parametrize("accepted", [AnyConfiguration(), TypedConfiguration(Any)], ids=["any", "typed"])
@pytest.mark.parametrize(
    ("opening", "closing"), [("[", "]"), ('{"a":', "}"), ('[{"a":[1, ', "]}]"), ("[ ", " ]"), ('["]]]", ', "]")]
)
def test_nesting_is_bounded_whatever_is_nested(accepted: Configuration, opening: str, closing: str) -> None:
    levels = re.sub('"[^"]*"', "", opening).count("[") + opening.count("{")
    deep, deepest = 198 // levels, 200 // levels + 1

    assert accepted.check(opening * deep + "1" + closing * deep)
    assert refusal(accepted, opening * deepest + "1" + closing * deepest) == "the configuration is nested too deeply"


def test_brackets_in_strings_are_no_nesting() -> None:
    value = ["[" * 400, '\\"' + "{" * 400, "\\" + "[" * 400]

    assert AnyConfiguration().check(json.dumps(value)) == value
    for text in ('["' + "[" * 400, '["\\' + "[" * 400, '["' + "[" * 400 + "\\"):
        assert refusal(AnyConfiguration(), text).startswith("the configuration is not JSON: ")


@settings(deadline=None)  # a busy machine is no failure
@given(st.text())
def test_a_text_is_checked_or_refused_and_nothing_else(text: str) -> None:
    for accepted in (AnyConfiguration(), TypedConfiguration(dict), KeywordConfiguration(CORSMiddleware)):
        with contextlib.suppress(ConfigurationError):
            accepted.check(text)


# one value: annotations


class Inner(pydantic.BaseModel):
    a: int = 1
    more: "list[Inner]" = []


class Allows(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="allow")
    a: int = 1


class Plain(pydantic.BaseModel):
    a: int = 1


class Model(pydantic.BaseModel):
    body: str
    inner: Inner = Inner()
    # field names that are words of pydantic's core schema
    config: Plain = Plain()
    metadata: list[Inner] = []
    type: str = ""


class AllowsOutside(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="allow")
    inner: Inner = Inner()


class IgnoresOutside(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="ignore")
    a: int = 1


class AllowsInside(pydantic.BaseModel):
    inner: Allows = Allows()


@dataclasses.dataclass
class Data:
    body: str
    inner: Inner = dataclasses.field(default_factory=Inner)


class Typed(typing.TypedDict):
    body: str
    size: typing.NotRequired[Annotated[int, pydantic.Field(gt=0)]]


class TypedPartly(Typed, total=False):
    names: Iterable[str]
    inner: Inner


class TypedAllows(typing.TypedDict):
    __pydantic_config__ = pydantic.ConfigDict(extra="allow")  # type: ignore[misc]
    body: str


class TypedExtensions(typing_extensions.TypedDict):
    body: str


@pytest.mark.parametrize(
    ("annotation", "value", "checked"),
    [
        (Model, {"body": "x"}, Model(body="x")),
        (Model, {"body": "x", "inner": {"a": 2}, "type": "t"}, Model(body="x", inner=Inner(a=2), type="t")),
        (Data, {"body": "x", "inner": {"a": 2}}, Data("x", Inner(a=2))),
        (Typed, {"body": "x"}, {"body": "x"}),
        (Typed, {"body": "x", "size": 2}, {"body": "x", "size": 2}),
        (TypedPartly, {"body": "x", "names": ["a"]}, {"body": "x", "names": ["a"]}),
        (TypedExtensions, {"body": "x"}, {"body": "x"}),
        (list[Typed], [{"body": "x"}], [{"body": "x"}]),
        (dict[str, Typed], {"a": {"body": "x"}}, {"a": {"body": "x"}}),
        (Typed | None, None, None),
        (Annotated[Typed, "words"], {"body": "x"}, {"body": "x"}),
        (dict, {"a": 1}, {"a": 1}),
        (dict[str, Any], {"a": 1}, {"a": 1}),
        (Any, [1], [1]),
        (collections.abc.Mapping, {"a": 1}, {"a": 1}),
        (Annotated[int, []], 1, 1),
        (Annotated[int, pydantic.Field(gt=0)], 1, 1),
        (Allows, {"a": 1, "b": 2}, Allows(a=1, b=2)),  # type: ignore[call-arg]
        (AllowsOutside, {"b": 2}, AllowsOutside(b=2)),  # type: ignore[call-arg]
        (IgnoresOutside, {"b": 2}, IgnoresOutside()),
        (AllowsInside, {"inner": {"b": 2}}, AllowsInside(inner=Allows(b=2))),  # type: ignore[call-arg]
        (TypedAllows, {"body": "x", "b": 2}, {"body": "x", "b": 2}),
    ],
)
def test_a_value_of_the_annotation_is_accepted(annotation: Any, value: object, checked: object) -> None:
    assert TypedConfiguration(annotation).check(json.dumps(value)) == checked


@pytest.mark.parametrize(
    ("annotation", "value", "reason"),
    [
        (Model, {}, "field 'body': Field required"),
        (Model, {"body": 1}, "field 'body': Input should be a valid string"),
        (Model, {"body": "x", "bdy": 1}, "field 'bdy': Extra inputs are not permitted; did you mean 'body'?"),
        (Model, {"body": "x", "inner": {"b": 1}}, "field 'inner.b': Extra inputs are not permitted"),
        (Model, {"body": "x", "config": {"b": 1}}, "field 'config.b': Extra inputs are not permitted"),
        (Model, {"body": "x", "metadata": [{"b": 1}]}, "field 'metadata.0.b': Extra inputs are not permitted"),
        (
            Model,
            {"body": "x", "inner": {"more": [{}, {"b": 1}]}},
            "field 'inner.more.1.b': Extra inputs are not permitted",
        ),
        (Model, {"x": 1}, "field 'body': Field required; field 'x': Extra inputs are not permitted"),
        (Model, [], "Input should be an object"),
        (Data, {"body": "x", "b": 1}, "field 'b': Unexpected keyword argument"),
        (Data, {"body": "x", "inner": {"b": 1}}, "field 'inner.b': Extra inputs are not permitted"),
        (Typed, {"body": "x", "b": 1}, "field 'b': Extra inputs are not permitted"),
        (Typed, {"size": 1}, "field 'body': Field required"),
        (Typed, {"body": "x", "size": 0}, "field 'size': Input should be greater than 0"),
        (TypedPartly, {"body": "x", "names": "ab"}, "field 'names': Input should be a valid array"),
        (TypedPartly, {"body": "x", "inner": {"b": 1}}, "field 'inner.b': Extra inputs are not permitted"),
        (TypedExtensions, {"body": "x", "b": 1}, "field 'b': Extra inputs are not permitted"),
        (list[Typed], [{"body": "x", "b": 1}], "field '0.b': Extra inputs are not permitted"),
        (Inner | None, {"b": 1}, "field 'b': Extra inputs are not permitted"),
        (AllowsOutside, {"inner": {"b": 1}}, "field 'inner.b': Extra inputs are not permitted"),
        (dict, [], "Input should be an object"),
    ],
)
def test_what_the_annotation_does_not_accept_is_refused(annotation: Any, value: object, reason: str) -> None:
    assert refusal(TypedConfiguration(annotation), json.dumps(value)) == reason


class Cat(pydantic.BaseModel):
    kind: Literal["cat"]


class Dog(pydantic.BaseModel):
    kind: Literal["dog"]


class Secretive(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")
    number: int = 0
    choice: Literal["a", "b"] = "a"
    pattern: re.Pattern[str] = re.compile("")
    short: Annotated[str, pydantic.Field(max_length=2)] = ""
    word: Annotated[str, pydantic.Field(pattern="^x")] = ""
    animal: Annotated[Cat | Dog, pydantic.Field(discriminator="kind")] = Cat(kind="cat")
    either: Cat | Dog = Cat(kind="cat")


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ({"number": SECRET}, "field 'number': Input should be a valid integer, unable to parse string as an integer"),
        ({"number": [SECRET]}, "field 'number': Input should be a valid integer"),
        ({"choice": SECRET}, "field 'choice': Input should be 'a' or 'b'"),
        ({"pattern": SECRET + "("}, "field 'pattern': Input should be a valid regular expression"),
        ({"short": SECRET}, "field 'short': String should have at most 2 characters"),
        ({"word": SECRET}, "field 'word': String should match pattern '^x'"),
        ({"animal": {"kind": SECRET}}, "field 'animal': 'kind' should be one of 'cat', 'dog'"),
        (
            {"either": {"kind": SECRET}},
            "field 'either.Cat.kind': Input should be 'cat'; field 'either.Dog.kind': Input should be 'dog'",
        ),
    ],
)
def test_a_reason_names_the_field_and_never_the_value(value: object, reason: str) -> None:
    assert refusal(TypedConfiguration(Secretive), json.dumps(value)) == reason


class Login(pydantic.BaseModel):
    long_name_of_a_field: int = 0


class WithNamedSecrets(pydantic.BaseModel):
    api_keys: dict[str, int] = {}
    tokens: dict[str, list[Login]] = {}
    limits: dict[str, int] = {}


@pytest.mark.parametrize(
    ("value", "field"),
    [
        ({"api_keys": {SECRET * 3: "ada"}}, "api_keys.(hidden)"),
        ({"tokens": {SECRET * 3: [{}, 7]}}, "tokens.(hidden).1"),
        ({"tokens": {SECRET * 3: [{"long_name_of_a_field": "x"}]}}, "tokens.(hidden).0.long_name_of_a_field"),
        ({"tokens": {"ada": [{"a_field_that_is_unknown": 1}]}}, "tokens.ada.0.(hidden)"),
        ({"api_keys": {"ada": "x"}}, "api_keys.ada"),
        ({"limits": {"a_long_name_of_a_route": "x"}}, "limits.a_long_name_of_a_route"),
    ],
)
def test_a_reason_hides_a_secret_that_stands_where_a_name_belongs(value: object, field: str) -> None:
    reason = refusal(TypedConfiguration(WithNamedSecrets), json.dumps(value))
    assert reason.startswith(f"field {field!r}: ") and SECRET not in reason


def test_strictness_is_the_annotations_own() -> None:
    class Strict(pydantic.BaseModel):
        model_config = pydantic.ConfigDict(strict=True)
        limit: int

    class Lax(pydantic.BaseModel):
        limit: int

    assert TypedConfiguration(Lax).check('{"limit": "1"}') == Lax(limit=1)
    assert refusal(TypedConfiguration(Strict), '{"limit": "1"}') == "field 'limit': Input should be a valid integer"


class NoType:
    pass


@pytest.mark.parametrize(
    ("annotation", "reason"),
    [
        (NoType, "Unable to generate pydantic-core schema for <class 'tests.plugins.test_configuration.NoType'>."),
        (list["Nowhere"], "a name in it does not resolve"),  # type: ignore[name-defined]  # noqa: F821
    ],
)
def test_an_annotation_that_cannot_be_checked_is_an_error_of_the_plugin(annotation: Any, reason: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        TypedConfiguration(annotation)

    assert str(caught.value).startswith(f"the annotation {annotation!r} cannot be checked: {reason}")


@pytest.mark.parametrize(
    ("annotation", "schema"),
    [
        (Any, {}),
        (dict, {"type": "object", "additionalProperties": True}),
        (Callable, {"not": {}}),
        (
            pydantic.RootModel[list[int]],
            {"title": "RootModel[list[int]]", "type": "array", "items": {"type": "integer"}},
        ),
        (
            Typed,
            {
                "title": "Typed",
                "type": "object",
                "properties": {
                    "body": {"title": "Body", "type": "string"},
                    "size": {"title": "Size", "type": "integer", "exclusiveMinimum": 0},
                },
                "required": ["body"],
                "additionalProperties": False,
            },
        ),
        (
            AllowsInside,
            {
                "$defs": {
                    "Allows": {
                        "title": "Allows",
                        "type": "object",
                        "properties": {"a": {"title": "A", "type": "integer", "default": 1}},
                        "additionalProperties": True,
                    }
                },
                "title": "AllowsInside",
                "type": "object",
                "properties": {"inner": {"$ref": "#/$defs/Allows", "default": {"a": 1}}},
                "additionalProperties": False,
            },
        ),
        (
            IgnoresOutside,
            {
                "title": "IgnoresOutside",
                "type": "object",
                "properties": {"a": {"title": "A", "type": "integer", "default": 1}},
            },
        ),
        (
            Inner,
            {
                "$defs": {
                    "Inner": {
                        "title": "Inner",
                        "type": "object",
                        "properties": {
                            "a": {"title": "A", "type": "integer", "default": 1},
                            "more": {
                                "title": "More",
                                "type": "array",
                                "items": {"$ref": "#/$defs/Inner"},
                                "default": [],
                            },
                        },
                        "additionalProperties": False,
                    }
                },
                "$ref": "#/$defs/Inner",
            },
        ),
    ],
)
def test_json_schema_of_an_annotation(annotation: Any, schema: dict[str, Any]) -> None:
    assert TypedConfiguration(annotation).schema() == schema


def test_a_pydantic_that_cannot_rebuild_validators_lets_only_the_outermost_model_speak_for_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # as in pydantic 2.12, whose SchemaValidator lacks the argument
    monkeypatch.setattr(checker, "SchemaValidator", lambda schema: pydantic_core.SchemaValidator(schema))

    assert refusal(TypedConfiguration(AllowsInside), '{"inner": {"b": 1}}') == (
        "field 'inner.b': Extra inputs are not permitted"
    )
    assert refusal(TypedConfiguration(Model), '{"body": "", "inner": {"b": 1}}') == (
        "field 'inner.b': Extra inputs are not permitted"
    )
    assert TypedConfiguration(Allows).check('{"b": 1}') == Allows(b=1)  # type: ignore[call-arg]


class Many(pydantic.BaseModel):
    numbers: list[int] = []
    pair: tuple[int, ...] = ()
    unique: set[int] = set()
    by_name: dict[str, int] = {}
    nested: list[list[int]] = []


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ({"numbers": [1, "x", "y"]}, "field 'numbers.1'"),
        ({"pair": ["x", "y"]}, "field 'pair.0'"),
        ({"unique": ["x", "y"]}, "field 'unique.0'"),
        ({"by_name": {"a": 1, "b": "x", "c": "y"}}, "field 'by_name.b'"),
        ({"nested": [[1], ["x", "y"], ["z"]]}, "field 'nested.1.0'"),
    ],
)
def test_a_list_or_mapping_is_given_up_at_its_first_error(value: object, reason: str) -> None:
    words = "Input should be a valid integer, unable to parse string as an integer"

    assert refusal(TypedConfiguration(Many), json.dumps(value)) == f"{reason}: {words}"


@pytest.mark.parametrize("count", [10, 11, 12, 5000])
def test_the_first_ten_errors_are_told(count: int) -> None:
    text = json.dumps({f"key{number}": SECRET for number in range(count)})
    reasons = [f"field 'key{number}': Extra inputs are not permitted" for number in range(10)]
    if count > 10:
        reasons.append(f"and {count - 10} more")

    assert refusal(TypedConfiguration(Many), text) == refusal(KeywordConfiguration(many), text) == "; ".join(reasons)


def many(app: Any, number: int = 1) -> Any:
    return app


def test_many_errors_of_a_tag_do_not_tell_its_value() -> None:
    text = json.dumps({**{f"key{number}": 1 for number in range(9)}, "animal": {"kind": SECRET}, "number": SECRET})
    reasons = refusal(TypedConfiguration(Secretive), text)

    assert reasons.endswith("; and 1 more") and "field 'key7': " in reasons and SECRET not in reasons


@pytest.mark.parametrize(
    "value",
    [
        {"x" * 100_000: 1},
        {f"{number}{'x' * 1000}": 1 for number in range(20)},
        {"by_name": {"\U0001f600" * 20_000: "x"}},
    ],
)
def test_a_reason_fits_into_a_line_of_the_log(value: object) -> None:
    assert len(refusal(TypedConfiguration(Many), json.dumps(value)).encode()) < 6200


def test_the_reason_of_a_validator_is_cut_too() -> None:
    def refuse(value: Any) -> Any:
        raise ValueError("a" * 1_000_000 + "end")

    reasons = refusal(TypedConfiguration(Annotated[int, pydantic.AfterValidator(refuse)]), "1")

    assert reasons.startswith("Value error, aaa") and reasons.endswith("end") and len(reasons) < 1600


# keyword arguments


class Color(enum.Enum):
    RED = "red"


class TupleEnum(tuple, enum.Enum):  # type: ignore[type-arg]
    ONE = (1,)


def middleware(  # type: ignore[no-untyped-def]
    app: Any,
    number: int = 1,
    real: float = 1.0,
    flag: bool = False,
    names: Collection[str] = (),
    words: Iterable[str] | None = None,
    bare: Sequence = (),  # type: ignore[type-arg]
    typing_bare: typing.Iterable = (),  # type: ignore[type-arg]
    abstract: collections.abc.Collection = (),  # type: ignore[type-arg]
    numbers: tuple[int, ...] = (),
    texts: set[str] = frozenset(),  # type: ignore[assignment]
    frozen: frozenset[str] = frozenset(),
    color: Color = Color.RED,
    pair: TupleEnum = TupleEnum.ONE,
    pattern: re.Pattern[str] | None = None,
    mode: Literal["a", "b"] = "a",
    data: bytes = b"",
    model: Inner = Inner(),  # noqa: B008
    typed: Typed | None = None,
    typed_list: list[Typed] = [],  # noqa: B006
    short: Annotated[Sequence[str], pydantic.Field(max_length=1)] = (),
    hook: Callable[[], None] | None = None,
    anything=None,
) -> Any:
    return app


@pytest.mark.parametrize(
    ("configured", "checked"),
    [
        ({"number": 2, "flag": True}, {"number": 2, "flag": True}),
        ({"real": 2}, {"real": 2.0}),
        ({"names": ["a"], "words": ["b"]}, {"names": ["a"], "words": ["b"]}),
        ({"words": None}, {"words": None}),
        (
            {"bare": [1, "a"], "typing_bare": [2], "abstract": [3]},
            {"bare": [1, "a"], "typing_bare": [2], "abstract": [3]},
        ),
        ({"numbers": [1, 2]}, {"numbers": (1, 2)}),
        ({"texts": ["a", "a"], "frozen": ["b"]}, {"texts": {"a"}, "frozen": frozenset({"b"})}),
        ({"color": "red"}, {"color": Color.RED}),
        ({"pattern": "a+"}, {"pattern": re.compile("a+")}),
        ({"mode": "b"}, {"mode": "b"}),
        ({"data": "x"}, {"data": b"x"}),
        ({"model": {"a": 3}}, {"model": Inner(a=3)}),
        (
            {"typed": {"body": "x"}, "typed_list": [{"body": "y"}]},
            {"typed": {"body": "x"}, "typed_list": [{"body": "y"}]},
        ),
        ({"anything": {"a": [1]}}, {"anything": {"a": [1]}}),
    ],
)
def test_keyword_arguments_become_what_the_signature_wants(configured: object, checked: object) -> None:
    assert KeywordConfiguration(middleware).check(json.dumps(configured)) == checked


TOO_LONG = "Value should have at most 1 item after validation, not 2"
PYTHON_ONLY = 'it takes a Python object: the operator has to give it as a default ("module:attr" in a file)'


@pytest.mark.parametrize(
    ("configured", "reason"),
    [
        ({"number": "2"}, "field 'number': Input should be a valid integer"),
        ({"number": True}, "field 'number': Input should be a valid integer"),
        ({"number": 2.0}, "field 'number': Input should be a valid integer"),
        ({"number": None}, "field 'number': Input should be a valid integer"),
        ({"flag": 1}, "field 'flag': Input should be a valid boolean"),
        ({"flag": "true"}, "field 'flag': Input should be a valid boolean"),
        ({"names": "*"}, "field 'names': Input should be a valid array"),
        ({"words": "*"}, "field 'words': Input should be a valid array"),
        ({"typing_bare": "*"}, "field 'typing_bare': Input should be a valid array"),
        ({"abstract": "*"}, "field 'abstract': Input should be a valid array"),
        ({"names": [1]}, "field 'names.0': Input should be a valid string"),
        ({"color": SECRET}, "field 'color': Input should be 'red'"),
        ({"pattern": "("}, "field 'pattern': Input should be a valid regular expression"),
        ({"mode": SECRET}, "field 'mode': Input should be 'a' or 'b'"),
        ({"model": {"b": 1}}, "field 'model.b': Extra inputs are not permitted"),
        ({"model": {"a": "1"}}, "field 'model.a': Input should be a valid integer"),
        ({"typed": {"body": "x", "b": 1}}, "field 'typed.b': Extra inputs are not permitted"),
        ({"typed_list": [{"body": "x", "b": 1}]}, "field 'typed_list.0.b': Extra inputs are not permitted"),
        ({"short": ["a", "b"]}, "field 'short': Value should have at most 1 item after validation, not 2"),
        ({"hook": "os:getcwd"}, "field 'hook': Input should be callable"),
        ({"app": 1}, "field 'app': Extra inputs are not permitted"),
        ({"parameter_0": 1}, "field 'parameter_0': Extra inputs are not permitted"),
        ({"nmes": ["a"]}, "field 'nmes': Extra inputs are not permitted; did you mean 'names'?"),
        ([], "Input should be an object"),
        (None, "Input should be an object"),
        ("x", "Input should be an object"),
    ],
)
def test_keyword_arguments_are_checked_strictly(configured: object, reason: str) -> None:
    assert refusal(KeywordConfiguration(middleware), json.dumps(configured)) == reason


STARLETTE = {
    "authentication": ("AuthenticationMiddleware", [], ["backend", "on_error"]),
    "base": ("BaseHTTPMiddleware", [], ["dispatch"]),
    "body_limit": ("RequestBodyLimitMiddleware", ["max_body_size"], []),
    "cors": (
        "CORSMiddleware",
        [
            "allow_origins",
            "allow_methods",
            "allow_headers",
            "allow_credentials",
            "allow_origin_regex",
            "allow_private_network",
            "expose_headers",
            "max_age",
        ],
        [],
    ),
    "errors": ("ServerErrorMiddleware", ["debug"], ["handler"]),
    "exceptions": ("ExceptionMiddleware", ["debug"], ["handlers"]),
    "gzip": (
        "GZipMiddleware",
        ["minimum_size", "compresslevel", "thread_minimum_size", "exclude_content_types"],
        [],
    ),
    "httpsredirect": ("HTTPSRedirectMiddleware", [], []),
    "sessions": (
        "SessionMiddleware",
        ["secret_key", "session_cookie", "max_age", "path", "same_site", "https_only", "domain", "partitioned"],
        [],
    ),
    "trustedhost": ("TrustedHostMiddleware", ["allowed_hosts", "www_redirect"], []),
    "wsgi": ("WSGIMiddleware", [], []),
}


@pytest.mark.parametrize("module", STARLETTE)
def test_every_middleware_of_starlette_can_be_configured(module: str) -> None:
    name, of_json, of_python = STARLETTE[module]
    try:
        with warnings.catch_warnings(action="ignore"):  # one of them is deprecated
            found = getattr(import_module(f"starlette.middleware.{module}"), name)
    except ModuleNotFoundError:  # not in every Starlette
        pytest.skip(f"this Starlette has no {module}")
    accepted = KeywordConfiguration(found)

    # not every Starlette has every parameter
    assert set(accepted.schema()["properties"]) <= set(of_json)
    for parameter in of_python:
        assert f"field '{parameter}': " in refusal(accepted, json.dumps({parameter: "os:getcwd"}))


@pytest.mark.parametrize(
    ("target", "configured", "checked"),
    [
        (
            CORSMiddleware,
            {"allow_origins": ["*"], "allow_origin_regex": None, "max_age": 5},
            {"allow_origins": ["*"], "allow_origin_regex": None, "max_age": 5},
        ),
        (
            GZipMiddleware,
            {"minimum_size": 1, "exclude_content_types": ["a/b"]},
            {"minimum_size": 1, "exclude_content_types": ("a/b",)},
        ),
        (HTTPSRedirectMiddleware, {}, {}),
        (SessionMiddleware, {"secret_key": "x", "same_site": "lax"}, {"secret_key": "x", "same_site": "lax"}),
        (TrustedHostMiddleware, {"allowed_hosts": ["a.test"]}, {"allowed_hosts": ["a.test"]}),
        (ServerErrorMiddleware, {"debug": True}, {"debug": True}),
        (ExceptionMiddleware, {"debug": True}, {"debug": True}),
    ],
)
def test_starlettes_middleware_gets_what_its_annotations_say(target: Any, configured: object, checked: object) -> None:
    assert KeywordConfiguration(target).check(json.dumps(configured)) == checked


def test_parameters_that_need_objects_are_the_operators() -> None:
    backend = object()
    accepted = KeywordConfiguration(AuthenticationMiddleware, {"backend": backend})

    assert refusal(KeywordConfiguration(AuthenticationMiddleware), "{}") == "field 'backend': Field required"
    assert refusal(accepted, '{"backend": "os:getcwd"}') == f"field 'backend': {PYTHON_ONLY}"
    assert accepted.check("{}") == {"backend": backend}
    assert accepted.schema() == {
        "title": "AuthenticationMiddleware",
        "type": "object",
        "properties": {},
        "additionalProperties": False,
    }


def test_a_route_goes_over_the_defaults_and_the_defaults_over_the_signature() -> None:
    accepted = KeywordConfiguration(middleware, {"number": 2, "names": ["a"]})

    assert accepted.check("{}") == {"number": 2, "names": ["a"]}
    assert accepted.check('{"names": []}') == {"number": 2, "names": []}


def test_a_default_makes_a_required_parameter_optional() -> None:
    accepted = KeywordConfiguration(SessionMiddleware, {"secret_key": "x"})

    assert accepted.check("{}") == {"secret_key": "x"}
    assert "required" not in accepted.schema()


def test_defaults_are_neither_copied_nor_checked() -> None:
    lock = threading.Lock()

    def locked(app: Any, locks: list[Any] = [lock]) -> Any:  # noqa: B006
        return app

    assert KeywordConfiguration(locked).check("{}") == {}
    assert KeywordConfiguration(locked, {"locks": lock}).check("{}") == {"locks": lock}


@pytest.mark.parametrize("name", ["copy", "schema", "_x", "__dunder", "model_config", "json", "model_fields", "self_"])
def test_a_parameter_may_have_any_name(name: str) -> None:
    scope: dict[str, Any] = {}
    exec(f"def target(app, {name}: int = 1): ...", scope)
    accepted = KeywordConfiguration(scope["target"], {name: 2})

    assert accepted.check("{}") == {name: 2}
    assert accepted.check(json.dumps({name: 3})) == {name: 3}
    assert refusal(accepted, json.dumps({name: "x"})) == f"field '{name}': Input should be a valid integer"
    assert accepted.schema() == {
        "title": "target",
        "type": "object",
        "properties": {name: {"title": name, "type": "integer"}},
        "additionalProperties": False,
    }


def test_any_keyword_is_accepted_where_the_target_takes_any() -> None:
    def target(app: Any, number: int = 1, *args: Any, inner: Inner | None = None, **more: Any) -> Any:
        return app

    accepted = KeywordConfiguration(target, {"number": 7, "other": 8})

    assert accepted.check('{"x": 1, "parameter_0": 2}') == {"number": 7, "other": 8, "x": 1, "parameter_0": 2}
    assert refusal(accepted, '{"number": "x"}') == "field 'number': Input should be a valid integer"
    assert refusal(accepted, '{"inner": {"b": 1}}') == "field 'inner.b': Extra inputs are not permitted"
    assert accepted.schema()["additionalProperties"] is True


def positional(app: Any, optional: int = 1, /, number: int = 2) -> Any:
    return app


def test_a_positional_parameter_with_a_default_is_left_alone() -> None:
    accepted = KeywordConfiguration(positional)

    assert accepted.check('{"number": 1}') == {"number": 1}
    assert refusal(accepted, '{"optional": 1}') == "field 'optional': Extra inputs are not permitted"


class ByPosition:
    def __init__(self, app: Any, needed: int, /) -> None: ...


def no_parameters() -> None: ...


def no_application(**more: Any) -> None: ...


def by_keyword(*, app: Any) -> None: ...


@pytest.mark.parametrize(
    ("target", "defaults", "reason"),
    [
        (ByPosition, {}, "ByPosition wants 'needed' by position: wrap it in a function"),
        (no_parameters, {}, "no_parameters is no middleware: its first parameter is not an application"),
        (no_application, {}, "no_application is no middleware: its first parameter is not an application"),
        (by_keyword, {}, "by_keyword is no middleware: its first parameter is not an application"),
        (middleware, {"b": 1, "a": 1}, "middleware has no parameter 'a', 'b'"),
        (middleware, {"app": 1}, "middleware has no parameter 'app'"),
    ],
)
def test_what_cannot_be_a_middleware_is_refused(target: Any, defaults: dict[str, Any], reason: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        KeywordConfiguration(target, defaults)

    assert str(caught.value) == reason


def test_a_target_without_a_signature_takes_any_object() -> None:
    configuration = KeywordConfiguration(type, {"a": 1, "b": object})

    assert configuration.check('{"a": [2], "c": {"d": 3}}') == {"a": [2], "b": object, "c": {"d": 3}}
    assert configuration.schema() == {
        "title": "type",
        "type": "object",
        "properties": {},
        "additionalProperties": True,
    }
    with pytest.raises(ConfigurationError):
        configuration.check("[]")


class CallableObject:
    def __call__(self, app: Any, number: int = 1) -> Any: ...

    def method(self, app: Any, number: int = 1) -> Any: ...


class MadeByNew:
    def __new__(cls, app: Any, number: int = 1) -> Any:
        return app


class Inherits(CORSMiddleware):
    pass


@pytest.mark.parametrize(
    "target",
    [
        CallableObject(),
        CallableObject().method,
        MadeByNew,
        functools.partial(middleware, flag=True),
        functools.partial(functools.partial(CallableObject().method), number=3),
    ],
    ids=["object", "method", "__new__", "partial", "partial of partial"],
)
def test_the_annotations_of_any_callable_are_found(target: Any) -> None:
    accepted = KeywordConfiguration(target)

    assert accepted.check('{"number": 2}') == {"number": 2}
    assert refusal(accepted, '{"number": "2"}') == "field 'number': Input should be a valid integer"


def test_the_annotations_of_an_inherited_constructor_are_found() -> None:
    assert (
        refusal(KeywordConfiguration(Inherits), '{"max_age": "2"}')
        == "field 'max_age': Input should be a valid integer"
    )


def half_annotated(
    app: Any,
    unresolved: "OnlyForTypeCheckers | None" = None,
    number: "int" = 1,
    raising: "1 / 0" = None,  # type: ignore[valid-type]
    flag: bool = False,
) -> Any:
    return app


def nested_unresolved(app: Any, names: list["Nowhere"] = [], number: int = 1) -> Any:  # type: ignore[name-defined]  # noqa: B006, F821
    return app


def test_annotations_that_do_not_resolve_leave_their_parameters_unchecked_and_no_others() -> None:
    accepted = KeywordConfiguration(half_annotated)

    assert accepted.check('{"unresolved": [1], "raising": 2, "number": 3}') == {
        "unresolved": [1],
        "raising": 2,
        "number": 3,
    }
    assert refusal(accepted, '{"number": "3"}') == "field 'number': Input should be a valid integer"
    assert refusal(accepted, '{"flag": 1}') == "field 'flag': Input should be a valid boolean"


def test_an_annotation_that_resolves_but_for_its_inside_cannot_be_checked() -> None:
    accepted = KeywordConfiguration(nested_unresolved)

    assert accepted.check('{"number": 3}') == {"number": 3}
    assert refusal(accepted, '{"names": []}') == f"field 'names': {PYTHON_ONLY}"


def test_a_function_of_no_module_has_its_annotations_unchecked() -> None:
    def target(app: Any, number: "Nowhere" = 1) -> Any: ...  # type: ignore[name-defined]  # noqa: F821

    target.__module__ = "nowhere"

    assert KeywordConfiguration(target).check('{"number": "x"}') == {"number": "x"}


class Breaks:
    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        raise ZeroDivisionError


def foreign(app: Any, broken: Breaks | None = None, object_: NoType | None = None) -> Any:
    return app


def test_foreign_types_are_the_operators() -> None:
    accepted = KeywordConfiguration(foreign)

    assert accepted.check('{"object_": null}') == {"object_": None}
    assert refusal(accepted, '{"broken": 1}') == f"field 'broken': {PYTHON_ONLY}"
    assert refusal(accepted, '{"object_": 1}') == f"field 'object_': {PYTHON_ONLY}"
    assert accepted.schema()["properties"] == {}


# defaults of a configuration file


@pytest.mark.parametrize(
    ("defaults", "checked"),
    [
        ({"number": 2}, {"number": 2}),
        ({"numbers": [1]}, {"numbers": (1,)}),
        ({"color": "red", "pattern": "a+"}, {"color": Color.RED, "pattern": re.compile("a+")}),
        ({"model": {"a": 2}}, {"model": Inner(a=2)}),
        ({"hook": "os:getcwd"}, {"hook": __import__("os").getcwd}),
        ({"anything": "os.path:sep"}, {"anything": "/"}),
        ({"anything": "no import"}, {"anything": "no import"}),
        ({"data": "os:getcwd"}, {"data": b"os:getcwd"}),
        ({"names": ["os:getcwd"]}, {"names": ["os:getcwd"]}),
    ],
)
def test_defaults_of_a_file_are_values_or_what_they_name(defaults: dict[str, Any], checked: object) -> None:
    assert KeywordConfiguration(middleware, defaults, from_file=True).check("{}") == checked


@pytest.mark.parametrize(
    ("target", "defaults", "reason"),
    [
        (middleware, {"number": "2"}, "default 'number': Input should be a valid integer"),
        (middleware, {"short": ["a", "b"]}, f"default 'short': {TOO_LONG}"),
        (middleware, {"model": {"b": 1}}, "default 'model': field 'b': Extra inputs are not permitted"),
        (middleware, {"number": {1}}, "default 'number': Object of type set is not JSON serializable"),
        (middleware, {"hook": "getcwd"}, "default 'hook': Input should be callable"),
        (AuthenticationMiddleware, {"backend": 5}, f"default 'backend': {PYTHON_ONLY}"),
        (foreign, {"broken": 5}, f"default 'broken': {PYTHON_ONLY}"),
        (
            middleware,
            {"hook": "nowhere_at_all:x"},
            "cannot import 'nowhere_at_all:x': no module named 'nowhere_at_all'; "
            "is it installed, and does --app-dir point to it?",
        ),
    ],
)
def test_defaults_of_a_file_are_checked(target: Any, defaults: dict[str, Any], reason: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        KeywordConfiguration(target, defaults, from_file=True)

    assert str(caught.value) == reason


def test_a_file_gives_objects_by_name_also_to_any_keyword() -> None:
    def target(app: Any, **more: Any) -> Any:
        return app

    accepted = KeywordConfiguration(target, {"a": "os.path:sep", "b": "plain"}, from_file=True)

    assert accepted.check("{}") == {"a": "/", "b": "plain"}


def test_a_file_may_give_a_backend() -> None:
    accepted = KeywordConfiguration(AuthenticationMiddleware, {"backend": f"{__name__}:SECRET"}, from_file=True)

    assert accepted.check("{}") == {"backend": SECRET}


def test_nothing_in_a_route_is_ever_imported(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "not_for_routes.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    named = "not_for_routes:x"
    for accepted in (
        AnyConfiguration(),
        TypedConfiguration(dict),
        KeywordConfiguration(middleware, {"hook": "os:getcwd"}, from_file=True),
        KeywordConfiguration(BaseHTTPMiddleware, {"dispatch": "os:getcwd"}, from_file=True),
    ):
        for text in (
            json.dumps(named),
            json.dumps({"hook": named}),
            json.dumps({"anything": named, "dispatch": named}),
        ):
            with contextlib.suppress(ConfigurationError):
                accepted.check(text)
    assert KeywordConfiguration(middleware).check(json.dumps({"anything": named})) == {"anything": named}


# JSON Schema


def test_json_schema_of_keyword_arguments() -> None:
    def target(
        app: Any,
        needed: str,
        number: int = 1,
        color: Color = Color.RED,
        names: Collection[str] = frozenset({"a"}),
        secret: str | NoType = NoType(),  # noqa: B008
        hook: Callable[[], None] = print,
    ) -> Any:
        return app

    assert KeywordConfiguration(target, {"number": 5}).schema() == {
        "$defs": {"Color": {"title": "Color", "type": "string", "enum": ["red"]}},
        "title": target.__qualname__,
        "type": "object",
        "properties": {
            "needed": {"title": "needed", "type": "string"},
            "number": {"title": "number", "type": "integer"},  # the operator's default may be a secret
            "color": {"$ref": "#/$defs/Color", "default": "red", "title": "color"},
            "names": {"title": "names", "type": "array", "items": {"type": "string"}, "default": ["a"]},
            "secret": {"title": "secret", "type": "string"},
        },
        "required": ["needed"],
        "additionalProperties": False,
    }
